//! What becomes of a message once the AEAD has seen it: whether it counts, and whether its inner packet may go on.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::heard::{Heard, Source};
use super::{Authentic, Messages, Run};
use crate::buffer::PacketBuf;
use crate::drop_reason::DropReason;
use crate::ids::TunnelId;
use crate::packet::ecn::{self, Ecn, Inconsistent};
use crate::packet::source_of;
use crate::path::outputs::Outputs;
use crate::path::packet::{BURST, Origin, Packet, Packets, Verdict};
use crate::path::pipeline::{Pipeline, Scene};
use crate::tables::Tables;
use crate::wireguard::Receiver;
use crate::wireguard::constants::TAG_SIZE;
use crate::wireguard::replay::SpareWindows;

/// Has memory fetched that sessions need which were not heard just before: the ways to whom their inner sources belong, and the
/// places where it is noted that somebody is known there. With many peers they are not in the cache.
///
/// Of each run: its first message, opened, and where that came from.
pub(super) fn prefetch_acceptance<'m, B>(
    firsts: impl Iterator<Item = (&'m Run, &'m [u8], Source)>,
    pipeline: &Pipeline<B>,
    scene: &Scene<'_>,
) {
    let tables = scene.tables;
    let second = scene.now.as_seconds() as u32;
    let mut approaches = ArrayVec::<_, BURST>::new_const();
    for (run, opened, from) in firsts {
        let Some(receiver) = pipeline.slots.get(run.slot) else { continue };
        if receiver.noted != Some(second) {
            pipeline.admission.prefetch(from.endpoint());
        }
        // What was forged has no packet in it; then the hint leads nowhere.
        if let Some(source) = source_of(opened)
            && receiver.allowed_source != Some((tables.epoch, source))
            && let Some(tunnel) = tables.tunnel(run.tunnel)
        {
            approaches.push(tunnel.allowed_ips.approach(source));
        }
    }
    for approach in &approaches {
        approach.go_on();
    }
}

/// Takes in what was authentic, and notes once for each run of a session's packets that the peer was heard.
pub(super) fn accept<B: PacketBuf, O: Outputs<B>>(
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
            if let Err(reason) = prove(wanted.counter, authentic >> number & 1 == 1, receiver, spare_windows) {
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
            let outer_ecn = packet.parsed.ecn();
            packet.verdict = match unwrap(packet, outer_ecn, run.tunnel, receiver, scene.tables) {
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
#[inline]
pub(super) fn prove(
    counter: u64,
    authentic: bool,
    receiver: &mut Receiver,
    spare: &mut SpareWindows,
) -> Result<(), DropReason> {
    if !authentic {
        return Err(DropReason::WireguardForged);
    }
    receiver.window.accept(counter, spare).map_err(|_| DropReason::WireguardReplayed)
}

/// Leaves only the inner packet in the buffer, if the peer may send it.
pub(super) fn unwrap<B: PacketBuf>(
    packet: &mut Packet<'_, B>,
    outer_ecn: Ecn,
    tunnel: TunnelId,
    receiver: &mut Receiver,
    tables: &Tables,
) -> Result<(), DropReason> {
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
    check_allowed(inner.source, tunnel, receiver, tables)?;
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

/// Whether the session's peer may send from an address.
#[inline]
pub(super) fn check_allowed(
    source: IpAddr,
    tunnel: TunnelId,
    receiver: &mut Receiver,
    tables: &Tables,
) -> Result<(), DropReason> {
    if receiver.allowed_source == Some((tables.epoch, source)) {
        return Ok(());
    }
    let entry = tables.tunnel(tunnel).ok_or(DropReason::WireguardNoSession)?;
    match entry.allowed_ips.lookup(source) {
        Some(owner) if Arc::ptr_eq(owner, &receiver.peer) => {
            receiver.allowed_source = Some((tables.epoch, source));
            Ok(())
        }
        Some(_) | None => Err(DropReason::InnerSourceNotAllowed),
    }
}
