//! The stage that encrypts: every packet of a burst that goes to a peer, in one call of the AEAD.

mod express;
mod runs;

pub(super) use express::express;

use arrayvec::ArrayVec;
use jetway_aead::SealJob;

use self::runs::{Keys, NO_KEY, NO_RUN, NotReady, Runs};
use super::outer::{LastWay, Outer};
use super::outputs::Outputs;
use super::packet::{BURST, Packets, Verdict};
use super::pipeline::{Pipeline, Scene};
use super::route::too_big;
use crate::buffer::{NoRoom, PacketBuf};
use crate::drop_reason::DropReason;
use crate::ids::TunnelId;
use crate::packet::ecn;
use crate::tables::Tables;
use crate::wireguard::Endpoint;
use crate::wireguard::constants::{DATA_HEADER_SIZE, PADDING, TAG_SIZE};
use crate::wireguard::message::Data;
use crate::wireguard::peer::Content;

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
    let (mut runs, mut run_of) = (Runs::new(), RunOf::new_const());
    find_runs(packets, &mut runs, &mut run_of);
    runs.prefetch_sessions();
    let (mut keys, mut last_way) = (Keys::new_const(), LastWay::default());
    for (number, run) in runs.all.iter_mut().enumerate() {
        keys.push(NO_KEY);
        let Some(key) = keys.last_mut() else { break };
        let refusal = match run.prepare(key, &mut last_way, pipeline, scene, out) {
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
        let (Some(run), Some(key)) = (runs.all.get_mut(number), keys.get(number)) else { continue };
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
    for run in &runs.all {
        run.note(scene.now);
    }
}

/// The number of each packet's run; [`NO_RUN`] for those that go elsewhere.
type RunOf = ArrayVec<u8, BURST>;

/// One run for each peer of the burst, and which packet belongs to which.
fn find_runs<'t, B>(packets: &Packets<'t, B>, runs: &mut Runs<'t>, run_of: &mut RunOf) {
    for packet in packets {
        let Verdict::Seal(peer) = packet.verdict else {
            run_of.push(NO_RUN);
            continue;
        };
        let number = runs.number_of(peer);
        if let Some(run) = runs.all.get_mut(usize::from(number)) {
            run.packets += 1;
        }
        run_of.push(number);
    }
}

/// `packet` becomes header, packet, zero padding and room for the tag. Padding does not go past `limit`, which is at
/// least the packet's length (paper, section 5.4.6).
#[inline]
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
        let Some(ready) = runs.all.get(usize::from(*number)).and_then(|run| run.ready.as_ref()) else { continue };
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
    let outer = Outer::resolve(&to, listen_port, tables)?;
    buffer.grow_back(message.len()).map_err(|NoRoom(_)| DropReason::BufferNoRoom)?;
    buffer.data_mut().copy_from_slice(message);
    outer.wrap(buffer, HANDSHAKE_TOS, ip_id).map_err(|NoRoom(_)| DropReason::BufferNoRoom)?;
    Ok(Verdict::Emit { port: outer.port, next_hop: outer.next_hop })
}

/// Handshake messages go as DSCP AF41, ECN not capable, as the kernel's do.
pub(super) const HANDSHAKE_TOS: u8 = 0x88;
