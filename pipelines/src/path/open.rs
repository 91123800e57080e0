//! The stage that decrypts: every data message of a burst in one call of the AEAD.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use jetway_aead::OpenJob;

use super::admission::Admission;
use super::event::HandshakeEvent;
use super::outputs::Outputs;
use super::packet::{BURST, Origin, Packet, Packets, Verdict};
use super::pipeline::{Pipeline, Scene};
use crate::buffer::PacketBuf;
use crate::counters::WorkerCounters;
use crate::drop_reason::DropReason;
use crate::ids::{SlotIndex, TunnelId, WorkerId};
use crate::packet::ecn::{self, Ecn, Inconsistent};
use crate::packet::{Parsed, source_of};
use crate::tables::Tables;
use crate::time::Instant;
use crate::wireguard::constants::{DATA_HEADER_SIZE, REJECT_AFTER_MESSAGES, TAG_SIZE};
use crate::wireguard::message::Data;
use crate::wireguard::peer::Content;
use crate::wireguard::replay::SpareWindows;
use crate::wireguard::{Endpoint, Receiver, message};

/// A data message on its way to and through the AEAD: its packet's buffer holds the encrypted packet and its tag.
struct Pending {
    counter: u64,
    /// Bytes of the encrypted packet with its tag.
    sealed: u16,
    packet: u8,
    run: u8,
}

/// Messages in a row to one session by one tunnel's port: looked up, judged and noted once.
struct Run {
    slot: SlotIndex,
    tunnel: TunnelId,
    refusal: Option<DropReason>,
}

/// The data messages of one burst and their runs. Large, and so made once and never moved.
struct Messages {
    pending: ArrayVec<Pending, BURST>,
    runs: ArrayVec<Run, BURST>,
}

/// Decrypts the packets that [`Verdict::Open`] names, and admits handshake messages.
pub fn open<'t, B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let mut messages = Messages { pending: ArrayVec::new_const(), runs: ArrayVec::new_const() };
    find_messages(packets, &mut messages, pipeline, scene, out);
    if messages.pending.is_empty() {
        return;
    }
    prefetch_sessions(&messages, pipeline);
    for run in &mut messages.runs {
        run.refusal = check_session(run, pipeline, scene).err();
    }
    let authentic = decrypt(packets, &messages, pipeline);
    prefetch_acceptance(packets, &messages, pipeline, scene);
    accept(packets, &messages, authentic, pipeline, scene, out);
}

/// Reads the headers: data messages to this worker go to `messages`, all others get their verdict.
fn find_messages<'t, B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'t, B>,
    messages: &mut Messages,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let mut last = None;
    for (number, packet) in packets.iter_mut().enumerate() {
        let Verdict::Open { tunnel, port, message, length } = packet.verdict else { continue };
        let (start, length) = (usize::from(message), usize::from(length));
        let bytes = packet.buffer.data().get(start..start + length).unwrap_or_default();
        let Ok(header) = Data::parse(bytes) else {
            packet.verdict = Verdict::Drop(not_data(packet, bytes, tunnel, pipeline, scene, out));
            continue;
        };
        if last != Some((header.receiver, tunnel)) {
            match find_slot(header.receiver, pipeline) {
                Ok(slot) => messages.runs.push(Run { slot, tunnel, refusal: None }),
                Err(Elsewhere::Worker(to)) => {
                    packet.verdict = Verdict::HandOff { to, port };
                    continue;
                }
                Err(Elsewhere::Nowhere) => {
                    packet.verdict = Verdict::Drop(DropReason::WireguardNoSession);
                    continue;
                }
            }
            last = Some((header.receiver, tunnel));
        }
        if header.counter >= REJECT_AFTER_MESSAGES {
            packet.verdict = Verdict::Drop(DropReason::WireguardSessionExpired);
            continue;
        }
        let run = messages.runs.len().wrapping_sub(1) as u8;
        let sealed = length - DATA_HEADER_SIZE;
        messages.pending.push(Pending { counter: header.counter, sealed: sealed as u16, packet: number as u8, run });
        packet.buffer.narrow(start + DATA_HEADER_SIZE, sealed);
    }
}

/// What becomes of a message that is no data message: the handshaker's, or malformed.
#[cold]
fn not_data<B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'_, B>,
    bytes: &[u8],
    tunnel: TunnelId,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'_>,
    out: &mut O,
) -> DropReason {
    match message::classify(bytes) {
        Ok(kind) => pipeline.admission.admit(kind, bytes, tunnel, Source::of(&packet.parsed).endpoint(), scene, out),
        Err(_) => DropReason::WireguardMalformed,
    }
}

enum Elsewhere {
    Worker(WorkerId),
    Nowhere,
}

/// The slot that a receiver index stands for.
fn find_slot<B>(receiver: u32, pipeline: &Pipeline<B>) -> Result<SlotIndex, Elsewhere> {
    let (node, worker, slot) = pipeline.index_layout.decode(receiver).ok_or(Elsewhere::Nowhere)?;
    if node != pipeline.node {
        return Err(Elsewhere::Nowhere);
    }
    if worker != pipeline.worker {
        return Err(Elsewhere::Worker(worker));
    }
    pipeline.slots.prefetch_place(slot);
    Ok(slot)
}

/// Has the memory of all sessions of the burst fetched at once: with many peers none of it is in the cache, and one
/// wait for all is shorter than one after the other.
fn prefetch_sessions<B>(messages: &Messages, pipeline: &Pipeline<B>) {
    for run in &messages.runs {
        if let Some(receiver) = pipeline.slots.get(run.slot) {
            receiver.prefetch();
        }
    }
    // Whose session it is, is asked after the AEAD: these loads have its time.
    for run in &messages.runs {
        if let Some(receiver) = pipeline.slots.get(run.slot) {
            receiver.prefetch_beyond();
        }
    }
}

/// Whether there is a session for the run that may still be used.
fn check_session<B>(run: &Run, pipeline: &Pipeline<B>, scene: &Scene<'_>) -> Result<(), DropReason> {
    let receiver = pipeline.slots.get(run.slot).filter(|receiver| receiver.tunnel == run.tunnel);
    let receiver = receiver.ok_or(DropReason::WireguardNoSession)?;
    if receiver.is_expired(scene.now) {
        return Err(DropReason::WireguardSessionExpired);
    }
    Ok(())
}

/// Whether each pending message was authentic, by its number.
type Authentic = u64;

// A bit for each message of a burst.
const _: () = assert!(BURST <= Authentic::BITS as usize);

/// Runs the AEAD over all pending messages whose sessions may be used; the others get their verdict.
fn decrypt<B: PacketBuf>(packets: &mut Packets<'_, B>, messages: &Messages, pipeline: &Pipeline<B>) -> Authentic {
    let mut jobs = ArrayVec::<OpenJob<'_>, BURST>::new_const();
    let mut in_jobs: Authentic = 0;
    let mut number = 0;
    // Pending messages go by ascending numbers of their packets.
    let (mut packets, mut passed) = (packets.iter_mut(), 0);
    for messages_of_run in messages.pending.chunk_by(|a, b| a.run == b.run) {
        let first = messages_of_run.first();
        let Some(run) = first.and_then(|first| messages.runs.get(usize::from(first.run))) else { break };
        // `check_session` saw the slot in use, and nothing in between changes slots.
        let receiver = pipeline.slots.get(run.slot).filter(|_| run.refusal.is_none());
        for wanted in messages_of_run {
            let Some(packet) = packets.nth(usize::from(wanted.packet).wrapping_sub(passed)) else { break };
            passed = usize::from(wanted.packet) + 1;
            match receiver {
                Some(receiver) => {
                    let buffer = packet.buffer.data_mut();
                    jobs.push(OpenJob { key: &receiver.key, counter: wanted.counter, buffer, authentic: false });
                    in_jobs |= 1 << number;
                }
                None => packet.verdict = Verdict::Drop(run.refusal.unwrap_or(DropReason::WireguardNoSession)),
            }
            number += 1;
        }
    }
    pipeline.aead.open_burst(&mut jobs);
    let mut authentic = 0;
    for job in &jobs {
        let lowest = in_jobs & in_jobs.wrapping_neg();
        in_jobs ^= lowest;
        authentic |= if job.authentic { lowest } else { 0 };
    }
    authentic
}

/// Has memory fetched that sessions need which were not heard just before: the ways to whom their inner sources belong, and the
/// places where it is noted that somebody is known there. With many peers they are not in the cache.
fn prefetch_acceptance<B: PacketBuf>(
    packets: &Packets<'_, B>,
    messages: &Messages,
    pipeline: &Pipeline<B>,
    scene: &Scene<'_>,
) {
    if messages.runs.len() == 1 {
        return;
    }
    let tables = scene.tables;
    let second = scene.now.as_seconds() as u32;
    let mut approaches = ArrayVec::<_, BURST>::new_const();
    for messages_of_run in messages.pending.chunk_by(|a, b| a.run == b.run) {
        let Some(first) = messages_of_run.first() else { continue };
        let Some(run) = messages.runs.get(usize::from(first.run)) else { continue };
        let (Some(receiver), Some(packet)) = (pipeline.slots.get(run.slot), packets.get(usize::from(first.packet)))
        else {
            continue;
        };
        if receiver.noted != Some(second) {
            pipeline.admission.prefetch(Source::of(&packet.parsed).endpoint());
        }
        // What was forged has no packet in it; then the hint leads nowhere.
        if let Some(source) = source_of(packet.buffer.data())
            && receiver.allowed_source != Some((tables.epoch, source))
            && let Some(tunnel) = tables.tunnel(run.tunnel)
        {
            approaches.extend(tunnel.allowed_ips.approach(source));
        }
    }
    for approach in &approaches {
        approach.go_on();
    }
}

/// Takes in what was authentic, and notes once for each run of a session's packets that the peer was heard.
fn accept<B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'_, B>,
    messages: &Messages,
    authentic: Authentic,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'_>,
    out: &mut O,
) {
    let mut number = 0;
    for messages_of_run in messages.pending.chunk_by(|a, b| a.run == b.run) {
        let Some(run) = messages_of_run.first().and_then(|first| messages.runs.get(usize::from(first.run))) else {
            continue;
        };
        let first_number = number;
        number += messages_of_run.len();
        // A run that may not be used has its verdict.
        if run.refusal.is_some() {
            continue;
        }
        let Pipeline { slots, spare_windows, counters, admission, .. } = pipeline;
        let Some(receiver) = slots.get_mut(run.slot) else { continue };
        let is_removed = receiver.peer.is_removed();
        let mut heard: Option<Heard> = None;
        for (number, wanted) in (first_number..).zip(messages_of_run) {
            let Some(packet) = packets.get_mut(usize::from(wanted.packet)) else { continue };
            if is_removed {
                packet.verdict = Verdict::Drop(DropReason::PeerRemoved);
                continue;
            }
            if let Err(reason) = prove(wanted, authentic >> number & 1 == 1, receiver, spare_windows) {
                packet.verdict = Verdict::Drop(reason);
                continue;
            }
            let sealed = wanted.sealed.into();
            match &mut heard {
                Some(heard) if heard.from.is_of(&packet.parsed) => heard.add(sealed),
                heard => {
                    let new = Heard::new(Source::of(&packet.parsed), sealed);
                    if let Some(done) = heard.replace(new) {
                        done.note(receiver, counters, admission, scene.now, out);
                    }
                }
            }
            packet.verdict = match unwrap(packet, run.tunnel, receiver, scene.tables) {
                Ok(()) => Verdict::Route,
                Err(reason) => Verdict::Drop(reason),
            };
        }
        if let Some(done) = heard {
            done.note(receiver, counters, admission, scene.now, out);
        }
    }
}

/// Whether a message counts: it is authentic and was not seen before.
fn prove(
    wanted: &Pending,
    authentic: bool,
    receiver: &mut Receiver,
    spare: &mut SpareWindows,
) -> Result<(), DropReason> {
    if !authentic {
        return Err(DropReason::WireguardForged);
    }
    receiver.window.accept(wanted.counter, spare).map_err(|_| DropReason::WireguardReplayed)
}

/// Leaves only the inner packet in the buffer, if the peer may send it.
fn unwrap<B: PacketBuf>(
    packet: &mut Packet<'_, B>,
    tunnel: TunnelId,
    receiver: &mut Receiver,
    tables: &Tables,
) -> Result<(), DropReason> {
    let outer_ecn = packet.parsed.ecn();
    // Only with a tag is it authentic.
    let Some((data @ [_, ..], _tag)) = packet.buffer.data().split_last_chunk::<TAG_SIZE>() else {
        packet.buffer.truncate(0);
        return Err(DropReason::Consumed);
    };
    let read = match data.first().map(|first| first >> 4) {
        Some(4) => packet.parsed.read_ipv4(data),
        Some(6) => packet.parsed.read_ipv6(data),
        Some(_) | None => return Err(DropReason::InnerMalformed),
    };
    read.map_err(|_| DropReason::InnerMalformed)?;
    let inner = &packet.parsed;
    // The seal proves who sent the header, not that it is right: a router checks it (RFC 1812 section 5.2.2).
    inner.verify_header_checksum(data)?;
    if receiver.allowed_source != Some((tables.epoch, inner.source)) {
        let entry = tables.tunnel(tunnel).ok_or(DropReason::WireguardNoSession)?;
        match entry.allowed_ips.lookup(inner.source) {
            Some(owner) if Arc::ptr_eq(owner, &receiver.peer) => {}
            Some(_) | None => return Err(DropReason::InnerSourceNotAllowed),
        }
        receiver.allowed_source = Some((tables.epoch, inner.source));
    }
    let length = inner.total_length as usize;
    packet.buffer.truncate(length);
    packet.origin = Origin::Tunnel(tunnel);
    if outer_ecn == Ecn::NotEct {
        // The inner field stays, whatever it is.
        return Ok(());
    }
    let inner_ecn = packet.parsed.ecn();
    let ecn = ecn::decapsulate(inner_ecn, outer_ecn).map_err(|Inconsistent| DropReason::EcnInconsistent)?;
    if ecn != inner_ecn {
        packet.parsed.set_ecn(packet.buffer.data_mut(), ecn);
    }
    Ok(())
}

/// Where a datagram came from and went to, as its headers say.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Source {
    address: IpAddr,
    port: u16,
    local: IpAddr,
}

impl Source {
    fn of(outer: &Parsed) -> Self {
        let port = outer.ports.map_or(0, |ports| ports.source);
        Self { address: outer.source, port, local: outer.destination }
    }

    #[inline(always)]
    fn is_of(&self, outer: &Parsed) -> bool {
        self.address == outer.source
            && self.local == outer.destination
            && self.port == outer.ports.map_or(0, |ports| ports.source)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint { remote: SocketAddr::new(self.address, self.port), local: Some(self.local) }
    }
}

/// Authentic messages of one session in a row from one endpoint.
struct Heard {
    from: Source,
    messages: u64,
    bytes: u64,
    content: Content,
}

impl Heard {
    /// `sealed` is the length of the encrypted packet with its tag.
    fn new(from: Source, sealed: usize) -> Self {
        let mut heard = Self { from, messages: 0, bytes: 0, content: Content::Empty };
        heard.add(sealed);
        heard
    }

    fn add(&mut self, sealed: usize) {
        self.messages += 1;
        self.bytes += (DATA_HEADER_SIZE + sealed) as u64;
        if sealed > TAG_SIZE {
            self.content = Content::Data;
        }
    }

    fn note<B, O: Outputs<B>>(
        &self,
        receiver: &mut Receiver,
        counters: &WorkerCounters,
        admission: &mut Admission,
        now: Instant,
        out: &mut O,
    ) {
        counters.opened.add(self.messages);
        let second = Some(now.as_seconds() as u32);
        let is_noted = std::mem::replace(&mut receiver.noted, second) == second;
        let is_news = receiver.confirm();
        let peer = &receiver.peer;
        let from = self.from.endpoint();
        let moved = peer.endpoint.load() != Some(from);
        if moved {
            // A writer that we meet brings the same news or newer; the peer's next packet tells.
            peer.endpoint.store(from);
        }
        // Once a second is as good as always: the memory is of minutes.
        if moved || !is_noted {
            admission.remember(from, now);
        }
        peer.activity.received(now, self.content);
        peer.traffic.received(self.bytes);
        let mut lost = 0;
        if is_news {
            let event = HandshakeEvent::Confirmed(peer.index, receiver.local_index);
            lost += u64::from(out.tell_handshaker(event).is_err());
        }
        if receiver.wants_rekey(now)
            && peer.want_handshake()
            && out.tell_handshaker(HandshakeEvent::Wanted(peer.index)).is_err()
        {
            peer.handshake_answered();
            lost += 1;
        }
        if lost > 0 {
            counters.events_lost.add(lost);
        }
    }
}
