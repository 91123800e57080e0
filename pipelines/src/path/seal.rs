//! The stage that encrypts: every packet of a burst that goes to a peer, in one call of the AEAD.

use std::sync::Arc;

use arc_swap::Guard;
use arrayvec::ArrayVec;
use jetway_aead::SealJob;

use super::event::HandshakeEvent;
use super::outer::Outer;
use super::outputs::Outputs;
use super::packet::{BURST, Packets, Verdict};
use super::pipeline::{Pipeline, Scene};
use super::route::too_big;
use crate::buffer::{NoRoom, PacketBuf};
use crate::drop_reason::DropReason;
use crate::ids::TunnelId;
use crate::packet::ecn;
use crate::tables::{Tables, TunnelEntry};
use crate::wireguard::constants::{DATA_HEADER_SIZE, PADDING, TAG_SIZE};
use crate::wireguard::message::Data;
use crate::wireguard::peer::Content;
use crate::wireguard::{Endpoint, Peer, Session};

/// Packets in a row to one peer: looked up, counted and noted once.
struct Run<'t> {
    peer: &'t Arc<Peer>,
    packets: u64,
    ready: Option<Ready<'t>>,
    bytes: u64,
    content: Content,
}

/// What a run needs to be encrypted and sent.
struct Ready<'t> {
    session: Guard<Option<Arc<Session>>>,
    next_counter: u64,
    outer: Outer,
    tunnel: &'t TunnelEntry,
}

impl Ready<'_> {
    fn session(&self) -> Option<&Session> {
        self.session.as_deref()
    }
}

/// Why a run cannot be encrypted now.
enum NotReady {
    Wait,
    Drop(DropReason),
}

/// Encrypts the packets that [`Verdict::Seal`] names and puts the outer IP and UDP headers before them.
pub fn seal<'t, B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'t, B>,
    made: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let (mut runs, run_of) = find_runs(packets);
    if runs.is_empty() {
        return;
    }
    // All sessions are fetched at once: with many peers none of them is in the cache.
    let sessions: ArrayVec<_, BURST> = runs.iter().map(|run| run.peer.sending_session()).collect();
    if sessions.len() > 1 {
        sessions.iter().flat_map(|session| session.as_ref()).for_each(|session| session.prefetch());
    }
    for ((number, run), session) in runs.iter_mut().enumerate().zip(sessions) {
        let outcome = prepare_run(run, session, pipeline, scene, out);
        let refusal = match outcome {
            Ok(ready) => {
                run.ready = Some(ready);
                continue;
            }
            Err(NotReady::Wait) => Verdict::HoldForSession(run.peer),
            Err(NotReady::Drop(reason)) => Verdict::Drop(reason),
        };
        for (packet, _) in packets.iter_mut().zip(&run_of).filter(|(_, of)| usize::from(**of) == number) {
            packet.verdict = refusal.clone();
        }
    }
    prepare_packets(packets, &mut runs, &run_of, made, pipeline, scene, out);
    encrypt(packets, &runs, &run_of, pipeline);
    wrap(packets, &runs, &run_of, pipeline);
    for run in runs.iter().filter(|run| run.bytes > 0) {
        run.peer.activity.sent(scene.now, run.content);
        run.peer.traffic.sent(run.bytes);
    }
}

/// The number of each packet's run; [`NO_RUN`] for those that go elsewhere.
type RunOf = ArrayVec<u8, BURST>;

const NO_RUN: u8 = u8::MAX;

/// One run for each peer of the burst, and which packet belongs to which.
fn find_runs<'t, B>(packets: &Packets<'t, B>) -> (ArrayVec<Run<'t>, BURST>, RunOf) {
    const PLACES: usize = 128;
    let mut runs: ArrayVec<Run<'t>, BURST> = ArrayVec::new();
    let mut run_of = RunOf::new();
    // The last run of each class of peer numbers: a guess that is mostly right.
    let mut guesses = [NO_RUN; PLACES];
    for packet in packets {
        let Verdict::Seal(peer) = packet.verdict else {
            run_of.push(NO_RUN);
            continue;
        };
        let place = peer.index.index() % PLACES;
        let guess = guesses.get(place).copied().unwrap_or(NO_RUN);
        let is_peers = |run: &Run<'_>| Arc::ptr_eq(run.peer, peer);
        let known = match runs.get(usize::from(guess)).filter(|run| is_peers(run)) {
            Some(_) => Some(usize::from(guess)),
            None => runs.iter().position(is_peers),
        };
        let number = known.unwrap_or_else(|| {
            runs.push(Run { peer, packets: 0, ready: None, bytes: 0, content: Content::Empty });
            runs.len() - 1
        });
        if let Some(run) = runs.get_mut(number) {
            run.packets += 1;
        }
        if let Some(guess) = guesses.get_mut(place) {
            *guess = number as u8;
        }
        run_of.push(number as u8);
    }
    (runs, run_of)
}

/// Finds the session, reserves the nonces and works out the outer headers for a run.
fn prepare_run<'t, B: PacketBuf, O: Outputs<B>>(
    run: &Run<'t>,
    session: Guard<Option<Arc<Session>>>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) -> Result<Ready<'t>, NotReady> {
    let peer = run.peer;
    if peer.is_removed() {
        return Err(NotReady::Drop(DropReason::PeerRemoved));
    }
    let endpoint = peer.endpoint.load().ok_or(NotReady::Drop(DropReason::NoEndpoint))?;
    let tunnel = scene.tables.tunnel(peer.tunnel).ok_or(NotReady::Drop(DropReason::NoRoute))?;
    let usable = session.as_ref().filter(|session| !session.is_expired(scene.now));
    let Some(current) = usable else {
        want_handshake(peer, pipeline, out);
        return Err(NotReady::Wait);
    };
    if current.wants_rekey(scene.now) {
        want_handshake(peer, pipeline, out);
    }
    let outer = Outer::resolve(endpoint, tunnel.listen_port, scene.tables).map_err(NotReady::Drop)?;
    let Some(next_counter) = current.counter.reserve(run.packets) else {
        want_handshake(peer, pipeline, out);
        return Err(NotReady::Drop(DropReason::SendSessionExhausted));
    };
    Ok(Ready { session, next_counter, outer, tunnel })
}

fn want_handshake<B: PacketBuf, O: Outputs<B>>(peer: &Arc<Peer>, pipeline: &Pipeline<B>, out: &mut O) {
    if peer.want_handshake() && out.tell_handshaker(HandshakeEvent::Wanted(peer.index)).is_err() {
        // The ring is full: let the peer's next packet ask again.
        peer.handshake_answered();
        pipeline.counters.events_lost.add(1);
    }
}

/// Pads each packet and puts its data header before it.
fn prepare_packets<'t, B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'t, B>,
    runs: &mut [Run<'t>],
    run_of: &RunOf,
    made: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    for (packet, number) in packets.iter_mut().zip(run_of) {
        let Verdict::Seal(peer) = packet.verdict else { continue };
        let Some(run) = runs.get_mut(usize::from(*number)) else { continue };
        let Some(ready) = run.ready.as_mut() else { continue };
        let length = packet.buffer.data().len();
        let room = ready.outer.room_for_inner();
        if length > usize::from(room) {
            packet.verdict = too_big(packet, Verdict::Seal(peer), room, made, pipeline, scene, out);
            continue;
        }
        let counter = ready.next_counter;
        ready.next_counter += 1;
        let Some(session) = ready.session() else { continue };
        let header = Data::header(session.remote_index, counter);
        let limit = usize::from(ready.tunnel.mtu.min(room)).max(length);
        if frame_message(&mut packet.buffer, header, limit).is_err() {
            packet.verdict = Verdict::Drop(DropReason::BufferNoRoom);
            continue;
        }
        run.bytes += packet.buffer.data().len() as u64;
        if length > 0 {
            run.content = Content::Data;
        }
    }
}

/// `packet` becomes header, packet, zero padding and room for the tag. Padding does not go past `limit`
/// (paper, section 5.4.6).
fn frame_message<B: PacketBuf>(buffer: &mut B, header: [u8; DATA_HEADER_SIZE], limit: usize) -> Result<(), NoRoom> {
    let length = buffer.data().len();
    let padded = length.next_multiple_of(PADDING).min(limit);
    buffer.grow_back(padded - length + TAG_SIZE)?;
    if let Some(padding) = buffer.data_mut().get_mut(length..padded) {
        padding.fill(0);
    }
    buffer.grow_front(DATA_HEADER_SIZE)?;
    if let Some(place) = buffer.data_mut().first_chunk_mut() {
        *place = header;
    }
    Ok(())
}

fn encrypt<B: PacketBuf>(packets: &mut Packets<'_, B>, runs: &[Run<'_>], run_of: &RunOf, pipeline: &Pipeline<B>) {
    let mut jobs: ArrayVec<SealJob<'_>, BURST> = ArrayVec::new();
    for (packet, number) in packets.iter_mut().zip(run_of) {
        let Verdict::Seal(_) = packet.verdict else { continue };
        let run = runs.get(usize::from(*number));
        let Some(session) = run.and_then(|run| run.ready.as_ref()).and_then(Ready::session) else { continue };
        let Ok(Data { counter, .. }) = Data::parse(packet.buffer.data()) else { continue };
        let buffer = packet.buffer.data_mut().get_mut(DATA_HEADER_SIZE..).unwrap_or_default();
        jobs.push(SealJob { key: &session.key, counter, buffer });
    }
    pipeline.aead.seal_burst(&mut jobs);
    pipeline.counters.sealed.add(jobs.len() as u64);
}

/// Puts the outer UDP and IP headers before each message.
fn wrap<B: PacketBuf>(packets: &mut Packets<'_, B>, runs: &[Run<'_>], run_of: &RunOf, pipeline: &mut Pipeline<B>) {
    for (packet, number) in packets.iter_mut().zip(run_of) {
        let Verdict::Seal(_) = packet.verdict else { continue };
        let Some(ready) = runs.get(usize::from(*number)).and_then(|run| run.ready.as_ref()) else { continue };
        let tos = ecn::encapsulate(packet.parsed.traffic_class, ready.tunnel.dscp);
        packet.verdict = match ready.outer.wrap(&mut packet.buffer, tos, &mut pipeline.ip_id) {
            Ok(()) => Verdict::Emit { port: ready.outer.port, next_hop: ready.outer.next_hop },
            Err(NoRoom(_)) => Verdict::Drop(DropReason::BufferNoRoom),
        };
    }
}

/// Puts a handshake message into an empty buffer with the headers that take it to `to`.
pub fn wrap_message<'t, B: PacketBuf>(
    buffer: &mut B,
    tunnel: TunnelId,
    to: Endpoint,
    message: &[u8],
    ip_id: &mut u16,
    tables: &Tables,
) -> Result<Verdict<'t>, DropReason> {
    let listen_port = tables.tunnel(tunnel).ok_or(DropReason::NoRoute)?.listen_port;
    let outer = Outer::resolve(to, listen_port, tables)?;
    buffer.grow_back(message.len()).map_err(|NoRoom(_)| DropReason::BufferNoRoom)?;
    buffer.data_mut().copy_from_slice(message);
    outer.wrap(buffer, HANDSHAKE_TOS, ip_id).map_err(|NoRoom(_)| DropReason::BufferNoRoom)?;
    Ok(Verdict::Emit { port: outer.port, next_hop: outer.next_hop })
}

/// Handshake messages go as DSCP AF41, ECN not capable, as the kernel's do.
const HANDSHAKE_TOS: u8 = 0x88;
