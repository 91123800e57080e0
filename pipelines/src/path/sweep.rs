//! The last stage: the one place that acts on verdicts, frees buffers and moves them on.

use super::dispatch::datagram_of;
use super::event::ControlEvent;
use super::held::WaitFor;
use super::outputs::Outputs;
use super::packet::{Packet, Packets, Verdict};
use super::pipeline::{Pipeline, Scene, Waiting};
use crate::buffer::PacketBuf;
use crate::dispatch::Backend;
use crate::drop_reason::DropReason;
use crate::ids::{PortId, WorkerId};
use crate::packet::icmpv6::Icmpv6;
use crate::packet::{EtherType, Frame, Parsed, Protocol};
use crate::tables::Twin;
use std::sync::Arc;

/// Does with every packet what was decided, and leaves `packets` empty.
pub fn sweep<'t, B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    for packet in packets.drain(..) {
        match packet.verdict {
            Verdict::Send(port) => {
                let sent = match packet.server {
                    Some(server) => out.send_to_server(port, packet.buffer, server.index),
                    None => out.send(port, packet.buffer),
                };
                if let Err(frame) = sent {
                    lose(packet.server, DropReason::TransmitQueueFull, pipeline);
                    discard(frame, DropReason::TransmitQueueFull, pipeline, out);
                }
            }
            Verdict::Open { .. }
            | Verdict::Dispatch { .. }
            | Verdict::Route
            | Verdict::Seal(_)
            | Verdict::Emit { .. }
            | Verdict::Punt(_)
            | Verdict::HandOff { .. }
            | Verdict::HoldForSession(_)
            | Verdict::HoldForNeighbour(..)
            | Verdict::HoldForFirstFragment
            | Verdict::Drop(_) => act(packet, pipeline, scene, out),
        }
    }
}

/// Does with a packet what was decided, when that is not to send it. Apart, so that the packet is copied only here.
#[inline(never)]
fn act<'t, B: PacketBuf, O: Outputs<B>>(
    packet: Packet<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let Packet { buffer, parsed, origin, server, verdict } = packet;
    let index = server.map(|server| server.index);
    match verdict {
        Verdict::Punt(twin) => punt(buffer, &parsed, twin, pipeline, scene, out),
        Verdict::HandOff { to, port } => hand_off(buffer, to, port, pipeline, out),
        Verdict::HoldForSession(peer) => {
            let waits_for = WaitFor::Session(Arc::clone(peer));
            hold(Waiting { buffer, parsed, origin, server: index }, waits_for, pipeline, scene, out);
        }
        Verdict::HoldForNeighbour(port, address) => {
            if out.tell_control(ControlEvent::NeighbourWanted(port, address)).is_err() {
                pipeline.counters.events_lost.add(1);
            }
            let packet = Waiting { buffer, parsed, origin, server: index };
            hold(packet, WaitFor::Neighbour(port, address), pipeline, scene, out);
        }
        Verdict::HoldForFirstFragment => {
            let Some(datagram) = datagram_of(&buffer, &parsed, origin) else {
                return discard(buffer, DropReason::FragmentMalformed, pipeline, out);
            };
            pipeline.counters.fragments_early.add(1);
            let packet = Waiting { buffer, parsed, origin, server: index };
            hold(packet, WaitFor::FirstFragment(datagram), pipeline, scene, out);
        }
        Verdict::Drop(reason) => {
            lose(server, reason, pipeline);
            discard(buffer, reason, pipeline, out);
        }
        Verdict::Open { .. }
        | Verdict::Dispatch { .. }
        | Verdict::Route
        | Verdict::Seal(_)
        | Verdict::Emit { .. }
        | Verdict::Send(_) => {
            discard(buffer, DropReason::Undecided, pipeline, out);
        }
    }
}

pub(super) fn discard<B: PacketBuf, O: Outputs<B>>(buffer: B, reason: DropReason, pipeline: &Pipeline<B>, out: &mut O) {
    pipeline.counters.drop_packets(reason, 1);
    out.discard(buffer);
}

/// Counts a packet that does not get to its server.
pub(super) fn lose<B>(server: Option<&Backend>, reason: DropReason, pipeline: &Pipeline<B>) {
    if let Some(server) = server {
        server.lose(pipeline.worker, reason);
    }
}

fn punt<B: PacketBuf, O: Outputs<B>>(
    buffer: B,
    parsed: &Parsed,
    twin: Twin,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'_>,
    out: &mut O,
) {
    let meter =
        if is_discovery(&buffer, parsed, twin) { &mut pipeline.discovery_meter } else { &mut pipeline.punt_meter };
    if !meter.allow(scene.now) {
        return discard(buffer, DropReason::PuntRateLimited, pipeline, out);
    }
    match out.punt(twin, buffer) {
        Ok(()) => pipeline.counters.punted.add(1),
        Err(buffer) => discard(buffer, DropReason::PuntQueueFull, pipeline, out),
    }
}

/// ARP and neighbour discovery have a meter of their own, so that a flood of pings cannot make us unreachable; nor can
/// one of false advertisements from beyond the link, since forwarding takes a hop off (RFC 4861 section 7.1.1).
fn is_discovery<B: PacketBuf>(buffer: &B, parsed: &Parsed, twin: Twin) -> bool {
    match twin {
        Twin::Tunnel(_) => false,
        Twin::Port(_) => Frame::parse(buffer.data()).is_ok_and(|frame| {
            let message = parsed.l4(frame.payload(buffer.data()));
            frame.ethertype == EtherType::ARP
                || parsed.protocol == Protocol::ICMPV6
                    && parsed.ttl == DISCOVERY_HOPS
                    && Icmpv6::parse(message).is_some_and(|header| header.kind.is_neighbour_discovery())
        }),
    }
}

/// The hop limit of neighbour discovery.
const DISCOVERY_HOPS: u8 = 255;

fn hand_off<B: PacketBuf, O: Outputs<B>>(buffer: B, to: WorkerId, port: PortId, pipeline: &Pipeline<B>, out: &mut O) {
    match out.hand_off(to, port, buffer) {
        Ok(()) => pipeline.counters.handed_off.add(1),
        Err(buffer) => discard(buffer, DropReason::HandoffQueueFull, pipeline, out),
    }
}

fn hold<B: PacketBuf, O: Outputs<B>>(
    packet: Waiting<B>,
    waits_for: WaitFor,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'_>,
    out: &mut O,
) {
    if let Some(victim) = pipeline.held.hold(waits_for, packet, scene.now) {
        let server = victim.server.and_then(|index| scene.tables.services.server(index));
        lose(server, DropReason::HeldQueueFull, pipeline);
        discard(victim.buffer, DropReason::HeldQueueFull, pipeline, out);
    }
    pipeline.counters.held.set(pipeline.held.len() as u64);
}
