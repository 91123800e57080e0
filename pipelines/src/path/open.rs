//! The stage that decrypts: every data message of a burst in one call of the AEAD.

use arrayvec::ArrayVec;
use jetway_aead::OpenJob;
use std::net::SocketAddr;
use std::sync::Arc;

use super::event::HandshakeEvent;
use super::outputs::Outputs;
use super::packet::{BURST, Origin, Packet, Packets, Verdict};
use super::pipeline::{Pipeline, Scene};
use crate::buffer::PacketBuf;
use crate::drop_reason::DropReason;
use crate::ids::{SlotIndex, TunnelId, WorkerId};
use crate::packet::Parsed;
use crate::packet::ecn::{self, Inconsistent};
use crate::tables::Tables;
use crate::time::Instant;
use crate::wireguard::constants::{DATA_HEADER_SIZE, REJECT_AFTER_MESSAGES, TAG_SIZE};
use crate::wireguard::message::{Data, MessageType};
use crate::wireguard::peer::Content;
use crate::wireguard::{Endpoint, Receiver, message};

/// A data message on its way to and through the AEAD.
struct Pending {
    packet: usize,
    slot: SlotIndex,
    tunnel: TunnelId,
    counter: u64,
    start: usize,
    length: usize,
}

/// Data messages of one burst.
type Messages = ArrayVec<Pending, BURST>;

/// Decrypts the packets that [`Verdict::Open`] names, and admits handshake messages.
pub fn open<'t, B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let mut pending = find_slots(packets, pipeline, scene, out);
    if pending.is_empty() {
        return;
    }
    prefetch_sessions(&pending, pipeline);
    pending.retain(|wanted| match check_session(wanted, pipeline, scene) {
        Ok(()) => true,
        Err(reason) => {
            if let Some(packet) = packets.get_mut(wanted.packet) {
                packet.verdict = Verdict::Drop(reason);
            }
            false
        }
    });
    let authentic = decrypt(packets, &pending, pipeline);
    accept(packets, &pending, &authentic, pipeline, scene, out);
}

/// Reads the headers: data messages to this worker come back with their slots, all others get their verdict.
fn find_slots<'t, B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) -> Messages {
    let mut pending = Messages::new();
    // The index of the last message: mostly the next one's too.
    let mut last: Option<(u32, SlotIndex)> = None;
    for (number, packet) in packets.iter_mut().enumerate() {
        let Verdict::Open { tunnel, port, message, length } = packet.verdict else { continue };
        let (start, length) = (usize::from(message), usize::from(length));
        let bytes = packet.buffer.data().get(start..start + length).unwrap_or_default();
        match message::classify(bytes) {
            Err(_) => packet.verdict = Verdict::Drop(DropReason::WireguardMalformed),
            Ok(MessageType::Data) => match find_slot(bytes, &mut last, pipeline) {
                Ok((slot, counter)) => pending.push(Pending { packet: number, slot, tunnel, counter, start, length }),
                Err(Elsewhere::Worker(to)) => packet.verdict = Verdict::HandOff { to, port },
                Err(Elsewhere::Nowhere(reason)) => packet.verdict = Verdict::Drop(reason),
            },
            Ok(kind) => {
                let from = endpoint_of(&packet.parsed);
                let reason = pipeline.admission.admit(kind, bytes, tunnel, from, scene, out);
                packet.verdict = Verdict::Drop(reason);
            }
        }
    }
    pending
}

enum Elsewhere {
    Worker(WorkerId),
    Nowhere(DropReason),
}

fn find_slot<B>(
    bytes: &[u8],
    last: &mut Option<(u32, SlotIndex)>,
    pipeline: &Pipeline<B>,
) -> Result<(SlotIndex, u64), Elsewhere> {
    let nowhere = |reason| Err(Elsewhere::Nowhere(reason));
    let Some(header) = Data::parse(bytes).ok() else { return nowhere(DropReason::WireguardMalformed) };
    if let Some((index, slot)) = *last
        && index == header.receiver
    {
        return Ok((slot, header.counter));
    }
    let Some((node, worker, slot)) = pipeline.index_layout.decode(header.receiver) else {
        return nowhere(DropReason::WireguardNoSession);
    };
    if node != pipeline.node {
        return nowhere(DropReason::WireguardNoSession);
    }
    if worker != pipeline.worker {
        return Err(Elsewhere::Worker(worker));
    }
    pipeline.slots.prefetch_place(slot);
    *last = Some((header.receiver, slot));
    Ok((slot, header.counter))
}

/// Has the memory of all sessions of the burst fetched at once: with many peers none of it is in the cache, and one
/// wait for all is shorter than one after the other.
fn prefetch_sessions<B>(pending: &[Pending], pipeline: &Pipeline<B>) {
    let changes = || {
        pending.iter().enumerate().filter(|(number, wanted)| {
            number.checked_sub(1).and_then(|before| pending.get(before)).is_none_or(|before| before.slot != wanted.slot)
        })
    };
    for (_, wanted) in changes() {
        if let Some(receiver) = pipeline.slots.get(wanted.slot) {
            receiver.prefetch(wanted.counter);
        }
    }
    for (_, wanted) in changes() {
        if let Some(receiver) = pipeline.slots.get(wanted.slot) {
            receiver.peer.prefetch();
            receiver.session.prefetch();
        }
    }
}

/// Whether there is a session for the message that may still be used.
fn check_session<B>(wanted: &Pending, pipeline: &Pipeline<B>, scene: &Scene<'_>) -> Result<(), DropReason> {
    let receiver = pipeline.slots.get(wanted.slot).filter(|receiver| receiver.peer.tunnel == wanted.tunnel);
    let receiver = receiver.ok_or(DropReason::WireguardNoSession)?;
    if receiver.peer.is_removed() {
        return Err(DropReason::PeerRemoved);
    }
    if receiver.session.is_expired(scene.now) || wanted.counter >= REJECT_AFTER_MESSAGES {
        return Err(DropReason::WireguardSessionExpired);
    }
    Ok(())
}

/// Runs the AEAD over all pending messages. Returns which were authentic, in their order.
fn decrypt<B: PacketBuf>(
    packets: &mut Packets<'_, B>,
    pending: &[Pending],
    pipeline: &Pipeline<B>,
) -> ArrayVec<bool, BURST> {
    let mut jobs: ArrayVec<OpenJob<'_>, BURST> = ArrayVec::new();
    let mut next = pending.iter().peekable();
    for (number, packet) in packets.iter_mut().enumerate() {
        let Some(wanted) = next.next_if(|wanted| wanted.packet == number) else { continue };
        let sealed = wanted.start + DATA_HEADER_SIZE..wanted.start + wanted.length;
        let buffer = packet.buffer.data_mut().get_mut(sealed).unwrap_or_default();
        // `check_session` saw the slot in use, and nothing in between changes slots.
        let Some(receiver) = pipeline.slots.get(wanted.slot) else { continue };
        jobs.push(OpenJob { key: &receiver.key, counter: wanted.counter, buffer, authentic: false });
    }
    pipeline.aead.open_burst(&mut jobs);
    jobs.iter().map(|job| job.authentic).collect()
}

/// Takes in what was authentic, and notes once for each run of a session's packets that the peer was heard.
fn accept<B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'_, B>,
    pending: &[Pending],
    authentic: &[bool],
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'_>,
    out: &mut O,
) {
    let mut heard: Option<Heard> = None;
    for (wanted, authentic) in pending.iter().zip(authentic) {
        let Some(packet) = packets.get_mut(wanted.packet) else { continue };
        let Some(receiver) = pipeline.slots.get_mut(wanted.slot) else { continue };
        if !authentic {
            packet.verdict = Verdict::Drop(DropReason::WireguardForged);
            continue;
        }
        if receiver.window.accept(wanted.counter).is_err() {
            packet.verdict = Verdict::Drop(DropReason::WireguardReplayed);
            continue;
        }
        pipeline.counters.opened.add(1);
        let content = if wanted.length == DATA_HEADER_SIZE + TAG_SIZE { Content::Empty } else { Content::Data };
        let from = endpoint_of(&packet.parsed);
        match heard.as_mut().filter(|heard| heard.slot == wanted.slot && heard.from == from) {
            Some(heard) => heard.add(wanted.length, content),
            None => {
                if let Some(done) = heard.replace(Heard::new(wanted.slot, from, wanted.length, content)) {
                    done.note(pipeline, scene.now, out);
                }
            }
        }
        let receiver = pipeline.slots.get_mut(wanted.slot);
        packet.verdict = match receiver.map(|receiver| unwrap(packet, wanted, receiver, scene.tables)) {
            Some(Ok(())) => Verdict::Route,
            Some(Err(reason)) => Verdict::Drop(reason),
            None => Verdict::Drop(DropReason::WireguardNoSession),
        };
    }
    if let Some(done) = heard {
        done.note(pipeline, scene.now, out);
    }
}

/// Leaves only the inner packet in the buffer, if the peer may send it.
fn unwrap<B: PacketBuf>(
    packet: &mut Packet<'_, B>,
    wanted: &Pending,
    receiver: &mut Receiver,
    tables: &Tables,
) -> Result<(), DropReason> {
    let outer_ecn = packet.parsed.ecn();
    let room = wanted.length - DATA_HEADER_SIZE - TAG_SIZE;
    packet.buffer.trim_front(wanted.start + DATA_HEADER_SIZE);
    packet.buffer.truncate(room);
    if room == 0 {
        return Err(DropReason::Consumed);
    }
    let data = packet.buffer.data();
    packet.parsed = match data.first().map(|first| first >> 4) {
        Some(4) => Parsed::from_ipv4(data).map_err(|_| DropReason::InnerMalformed)?,
        Some(6) => Parsed::from_ipv6(data).map_err(|_| DropReason::InnerMalformed)?,
        Some(_) | None => return Err(DropReason::InnerMalformed),
    };
    let inner = &packet.parsed;
    // The seal proves who sent the header, not that it is right: a router checks it (RFC 1812 section 5.2.2).
    inner.verify_header_checksum(data)?;
    if receiver.allowed_source != Some((tables.epoch, inner.source)) {
        let tunnel = tables.tunnel(wanted.tunnel).ok_or(DropReason::WireguardNoSession)?;
        match tunnel.allowed_ips.lookup(inner.source) {
            Some(owner) if Arc::ptr_eq(owner, &receiver.peer) => {}
            Some(_) | None => return Err(DropReason::InnerSourceNotAllowed),
        }
        receiver.allowed_source = Some((tables.epoch, inner.source));
    }
    let (length, inner_ecn) = (inner.total_length as usize, inner.ecn());
    packet.buffer.truncate(length);
    packet.origin = Origin::Tunnel(wanted.tunnel);
    let ecn = ecn::decapsulate(inner_ecn, outer_ecn).map_err(|Inconsistent| DropReason::EcnInconsistent)?;
    if ecn != inner_ecn {
        packet.parsed.set_ecn(packet.buffer.data_mut(), ecn);
    }
    Ok(())
}

/// The sender of a UDP datagram and the address of ours that it was sent to.
fn endpoint_of(outer: &Parsed) -> Endpoint {
    let remote = SocketAddr::new(outer.source, outer.ports.map_or(0, |ports| ports.source));
    Endpoint { remote, local: Some(outer.destination) }
}

/// A run of authentic messages of one session from one endpoint.
struct Heard {
    slot: SlotIndex,
    from: Endpoint,
    bytes: u64,
    content: Content,
}

impl Heard {
    fn new(slot: SlotIndex, from: Endpoint, bytes: usize, content: Content) -> Self {
        Self { slot, from, bytes: bytes as u64, content }
    }

    fn add(&mut self, bytes: usize, content: Content) {
        self.bytes += bytes as u64;
        if content == Content::Data {
            self.content = Content::Data;
        }
    }

    fn note<B, O: Outputs<B>>(&self, pipeline: &mut Pipeline<B>, now: Instant, out: &mut O) {
        let Some(receiver) = pipeline.slots.get_mut(self.slot) else { return };
        let second = Some(now.as_seconds());
        let is_noted = std::mem::replace(&mut receiver.noted, second) == second;
        let peer = &receiver.peer;
        let moved = peer.endpoint.load() != Some(self.from);
        if moved {
            // A writer that we meet brings the same news or newer; the peer's next packet tells.
            peer.endpoint.store(self.from);
        }
        // Once a second is as good as always: the memory is of minutes.
        if moved || !is_noted {
            pipeline.admission.remember(self.from, now);
        }
        peer.activity.received(now, self.content);
        peer.traffic.received(self.bytes);
        let mut lost = 0;
        if receiver.session.confirm() {
            let event = HandshakeEvent::Confirmed(peer.index, receiver.session.local_index);
            lost += u64::from(out.tell_handshaker(event).is_err());
        }
        if receiver.session.wants_rekey_on_receive(now)
            && peer.want_handshake()
            && out.tell_handshaker(HandshakeEvent::Wanted(peer.index)).is_err()
        {
            peer.handshake_answered();
            lost += 1;
        }
        pipeline.counters.events_lost.add(lost);
    }
}
