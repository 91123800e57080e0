//! The stage that encrypts: every packet of a burst that goes to a peer, in one call of the AEAD.

use std::sync::Arc;

use arrayvec::ArrayVec;
use jetway_aead::{Key, SealJob};

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
use crate::wireguard::{Endpoint, Peer};

/// The packets of a burst to one peer: looked up, counted and noted once.
struct Run<'t> {
    peer: &'t Arc<Peer>,
    packets: u64,
    ready: Option<Ready<'t>>,
    bytes: u64,
    content: Content,
}

/// What a run needs to be encrypted and sent.
struct Ready<'t> {
    remote_index: u32,
    next_counter: u64,
    /// The longest inner packet that fits without outer fragments.
    room: usize,
    /// The longest padded packet.
    limit: usize,
    outer: Outer,
    tunnel: &'t TunnelEntry,
}

/// The runs of a burst. Large, and so made once and never moved.
type Runs<'t> = ArrayVec<Run<'t>, BURST>;

/// The key of each run, apart from the runs so that the AEAD can borrow keys while runs change. They are copies:
/// sessions are lent by few guards at a time, and a burst may have many.
type Keys = ArrayVec<Option<Key>, BURST>;

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
    if !packets.iter().any(|packet| matches!(packet.verdict, Verdict::Seal(_))) {
        return;
    }
    let (mut runs, mut run_of) = (Runs::new_const(), RunOf::new_const());
    find_runs(packets, &mut runs, &mut run_of);
    prefetch_sessions(&runs);
    let mut keys = Keys::new_const();
    for (number, run) in runs.iter_mut().enumerate() {
        let (key, outcome) = match prepare_run(run, pipeline, scene, out) {
            Ok(key) => (Some(key), Ok(())),
            Err(refusal) => (None, Err(refusal)),
        };
        keys.push(key);
        let refusal = match outcome {
            Ok(()) => continue,
            Err(NotReady::Wait) => Verdict::HoldForSession(run.peer),
            Err(NotReady::Drop(reason)) => Verdict::Drop(reason),
        };
        for (packet, _) in packets.iter_mut().zip(&run_of).filter(|(_, of)| usize::from(**of) == number) {
            packet.verdict = refusal;
        }
    }
    let mut jobs = ArrayVec::<SealJob<'_>, BURST>::new_const();
    for (packet, number) in packets.iter_mut().zip(&run_of) {
        let Verdict::Seal(_) = packet.verdict else { continue };
        let number = usize::from(*number);
        let (Some(run), Some(Some(key))) = (runs.get_mut(number), keys.get(number)) else { continue };
        let Some(ready) = run.ready.as_mut() else { continue };
        let length = packet.buffer.data().len();
        if length > ready.room {
            packet.verdict = too_big(packet, packet.verdict, ready.room as u16, made, pipeline, scene, out);
            continue;
        }
        let counter = ready.next_counter;
        ready.next_counter += 1;
        let header = Data::header(ready.remote_index, counter);
        if frame_message(&mut packet.buffer, header, ready.limit.max(length)).is_err() {
            packet.verdict = Verdict::Drop(DropReason::BufferNoRoom);
            continue;
        }
        if length > 0 {
            run.content = Content::Data;
        }
        let message = packet.buffer.data_mut();
        run.bytes += message.len() as u64;
        jobs.push(SealJob { key, counter, buffer: message.get_mut(DATA_HEADER_SIZE..).unwrap_or_default() });
    }
    pipeline.aead.seal_burst(&mut jobs);
    pipeline.counters.sealed.add(jobs.len() as u64);
    drop(jobs);
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
fn find_runs<'t, B>(packets: &Packets<'t, B>, runs: &mut Runs<'t>, run_of: &mut RunOf) {
    const PLACES: usize = 128;
    // The last run of each class of peer numbers: a guess that is mostly right.
    let mut guesses = [NO_RUN; PLACES];
    let mut last: Option<(&'t Arc<Peer>, u8)> = None;
    for packet in packets {
        let Verdict::Seal(peer) = packet.verdict else {
            run_of.push(NO_RUN);
            continue;
        };
        let number = match last {
            Some((known, number)) if Arc::ptr_eq(known, peer) => number,
            Some(_) | None => find_run(peer, runs, &mut guesses),
        };
        last = Some((peer, number));
        if let Some(run) = runs.get_mut(usize::from(number)) {
            run.packets += 1;
        }
        run_of.push(number);
    }
}

/// The number of the peer's run, which is begun if there is none.
fn find_run<'t, const PLACES: usize>(peer: &'t Arc<Peer>, runs: &mut Runs<'t>, guesses: &mut [u8; PLACES]) -> u8 {
    // The address tells peers apart as well as their numbers do, without a look at their memory. Fibonacci hashing
    // (Knuth, volume 3, section 6.4): equal distances between addresses do not fall into few places.
    let place = (Arc::as_ptr(peer).addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let place = place as usize % PLACES;
    let guess = guesses.get(place).copied().unwrap_or(NO_RUN);
    let is_peers = |run: &Run<'_>| Arc::ptr_eq(run.peer, peer);
    let known = match runs.get(usize::from(guess)).filter(|run| is_peers(run)) {
        Some(_) => Some(usize::from(guess)),
        None if guess == NO_RUN => None,
        None => runs.iter().position(is_peers),
    };
    let number = known.unwrap_or_else(|| {
        runs.push(Run { peer, packets: 0, ready: None, bytes: 0, content: Content::Empty });
        runs.len() - 1
    });
    if let Some(guess) = guesses.get_mut(place) {
        *guess = number as u8;
    }
    number as u8
}

/// Has all sessions fetched at once: with many peers none of them is in the cache.
fn prefetch_sessions(runs: &Runs<'_>) {
    if runs.len() > 1 {
        for run in runs {
            run.peer.prefetch_session();
        }
    }
}

/// Looks at the session, reserves the nonces and works out the outer headers for a run. Gives the session's key.
fn prepare_run<'t, B: PacketBuf, O: Outputs<B>>(
    run: &mut Run<'t>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) -> Result<Key, NotReady> {
    let peer = run.peer;
    if peer.is_removed() {
        return Err(NotReady::Drop(DropReason::PeerRemoved));
    }
    let endpoint = peer.endpoint.load().ok_or(NotReady::Drop(DropReason::NoEndpoint))?;
    let tunnel = scene.tables.tunnel(peer.tunnel).ok_or(NotReady::Drop(DropReason::NoRoute))?;
    let session = peer.sending_session();
    let Some(session) = session.as_ref().filter(|session| !session.is_expired(scene.now)) else {
        want_handshake(peer, pipeline, out);
        return Err(NotReady::Wait);
    };
    if session.wants_rekey(scene.now) {
        want_handshake(peer, pipeline, out);
    }
    let outer = Outer::resolve(endpoint, tunnel.listen_port, scene.tables).map_err(NotReady::Drop)?;
    let Some(next_counter) = session.counter.reserve(run.packets) else {
        want_handshake(peer, pipeline, out);
        return Err(NotReady::Drop(DropReason::SendSessionExhausted));
    };
    let room = outer.room_for_inner();
    run.ready = Some(Ready {
        remote_index: session.remote_index,
        next_counter,
        room: room.into(),
        limit: tunnel.mtu.min(room).into(),
        outer,
        tunnel,
    });
    Ok(session.key.clone())
}

fn want_handshake<B: PacketBuf, O: Outputs<B>>(peer: &Arc<Peer>, pipeline: &Pipeline<B>, out: &mut O) {
    if peer.want_handshake() && out.tell_handshaker(HandshakeEvent::Wanted(peer.index)).is_err() {
        // The ring is full: let the peer's next packet ask again.
        peer.handshake_answered();
        pipeline.counters.events_lost.add(1);
    }
}

/// `packet` becomes header, packet, zero padding and room for the tag. Padding does not go past `limit`, which is at
/// least the packet's length (paper, section 5.4.6).
fn frame_message<B: PacketBuf>(buffer: &mut B, header: [u8; DATA_HEADER_SIZE], limit: usize) -> Result<(), NoRoom> {
    let length = buffer.data().len();
    let padded = length.next_multiple_of(PADDING).min(limit);
    buffer.grow_back(padded - length + TAG_SIZE)?;
    if padded > length
        && let Some(padding) = buffer.data_mut().get_mut(length..padded)
    {
        padding.fill(0);
    }
    buffer.grow_front(DATA_HEADER_SIZE)?;
    if let Some(place) = buffer.data_mut().first_chunk_mut() {
        *place = header;
    }
    Ok(())
}

/// Puts the outer UDP and IP headers before each message.
fn wrap<B: PacketBuf>(packets: &mut Packets<'_, B>, runs: &Runs<'_>, run_of: &RunOf, pipeline: &mut Pipeline<B>) {
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
pub(super) const HANDSHAKE_TOS: u8 = 0x88;
