//! Gives a client an address of ours towards a server that could answer it without us: one on the same link.
//!
//! Otherwise the answer would come from the server's own address, which the client never asked. The port that stands for
//! the client names the worker that has the flow, so that any worker can hand the answer over.

use std::net::IpAddr;

use super::Desk;
use super::back;
use super::forward::note_packet;
use super::send::{To, rewrite, source_on};
use crate::buffer::PacketBuf;
use crate::dispatch::Backend;
use crate::dispatch::flow_table::{Decision, FlowId, FlowKey, Lifetime};
use crate::dispatch::nat::End;
use crate::dispatch::service::Service;
use crate::drop_reason::DropReason;
use crate::ids::WorkerId;
use crate::packet::{Fragment, Ports};
use crate::path::outputs::Outputs;
use crate::path::packet::{Origin, Packet, Verdict};
use crate::path::route::{Refusal, Way, way_to};
use crate::tables::Twin;

/// The ports that stand for clients: below those that Linux gives to its own sockets
/// (`net.ipv4.ip_local_port_range`).
const FIRST_PORT: u16 = 16_384;
/// How many there are.
const PORTS: u16 = 16_384;
/// Ports that are tried for a flow.
const ATTEMPTS: u16 = 16;

/// Rewrites a client's packet for its server, and its source where the answer would not come by us.
pub fn towards<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    to: &To<'t>,
    way: &Way<'t>,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<(), Refusal> {
    let source = match is_neighbour(packet, way, desk) {
        true => Some(stand_in(packet, to, way, desk)?),
        false => None,
    };
    rewrite(packet, End::Destination, (to.server.address, to.server.port))?;
    match source {
        Some(source) => rewrite(packet, End::Source, source),
        None => Ok(()),
    }
}

/// Whether client and server are on one link.
fn is_neighbour<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'t, B>,
    way: &Way<'t>,
    desk: &Desk<'_, 't, B, O>,
) -> bool {
    let (Origin::Port(from), Verdict::Emit { port, .. }) = (packet.origin, &way.verdict) else { return false };
    let client = packet.parsed.source;
    from == *port
        && way_to(client, desk.scene.tables)
            .is_ok_and(|back| matches!(back.verdict, Verdict::Emit { next_hop, .. } if next_hop == client))
}

/// The address and port that stand for the packet's client. Later fragments have no port, and take any.
fn stand_in<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'t, B>,
    to: &To<'t>,
    way: &Way<'t>,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<(IpAddr, u16), Refusal> {
    let address = source_on(way, to.server.address, desk.scene.tables).ok_or(DropReason::NoRoute)?;
    if packet.parsed.fragment == Fragment::Later {
        return Ok((address, 0));
    }
    // Without a flow nothing would know the client when the answer comes.
    let flow = to.flow.ok_or(DropReason::TranslationPortsExhausted)?;
    let key = |port| FlowKey::of_answer((to.server.address, to.server.port), (address, port), packet.parsed.protocol);
    let known = desk.pipeline.flows.get(flow).ok_or(DropReason::TranslationPortsExhausted)?.decision;
    let workers = desk.pipeline.index_layout.workers();
    let share = (PORTS / workers.max(1)).max(1);
    let first = to.entropy as u16 % share;
    let kept = Some(known.translated_port).filter(|port| *port != 0);
    let fresh = (0..ATTEMPTS).map(|attempt| FIRST_PORT + (first + attempt) % share * workers + desk.pipeline.worker.0);
    for port in kept.into_iter().chain(fresh) {
        let key = key(port);
        let flows = &mut desk.pipeline.flows;
        let hash = flows.hash(&key);
        match flows.find(hash, &key, desk.tick) {
            Some(id) if flows.get(id).is_some_and(|answer| answer.decision.partner == Some(flow)) => {
                note_packet(id, None, desk);
                return Ok((address, port));
            }
            Some(_) => {}
            None => {
                let lifetime = flows.lifetime(flow).unwrap_or(Lifetime::Udp);
                let decision = Decision { partner: Some(flow), ..Decision::new(to.server.index, 0) };
                if flows.insert(hash, key, decision, lifetime, desk.tick).is_ok() {
                    if let Some(decision) = flows.get_mut(flow) {
                        decision.translated_port = port;
                    }
                    return Ok((address, port));
                }
            }
        }
    }
    Err(DropReason::TranslationPortsExhausted.into())
}

/// Sends what a server answers to an address of ours on to the client that it stands for.
pub fn back<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    service: &'t Service,
    server: &'t Backend,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<Verdict<'t>, Refusal> {
    let Verdict::Dispatch { port, l3_offset } = packet.verdict else { return Err(DropReason::Undecided.into()) };
    let to_kernel = Ok(Verdict::Punt(Twin::Port(port)));
    let Some(Ports { destination: stand_in, .. }) = packet.parsed.ports else { return to_kernel };
    let Some(worker) = owner(stand_in, desk.pipeline.index_layout.workers()) else { return to_kernel };
    if worker != desk.pipeline.worker {
        return Ok(Verdict::HandOff { to: worker, port });
    }
    let ours = (packet.parsed.destination, stand_in);
    let Some((flow, client)) = client_of((server.address, server.port), ours, packet, desk) else { return to_kernel };
    let length = packet.parsed.total_length as usize;
    packet.buffer.trim_front(usize::from(l3_offset));
    packet.buffer.truncate(length);
    // It is a packet like any other that is forwarded from now on.
    packet.verdict = Verdict::Route;
    rewrite(packet, End::Destination, client)?;
    note_packet(flow, None, desk);
    let verdict = back::rewrite_and_send(packet, service, desk)?;
    back::count(server, length as u64, desk);
    Ok(verdict)
}

/// The flow and the client for which an address of ours stands towards a server.
fn client_of<'t, B: PacketBuf, O: Outputs<B>>(
    server: (IpAddr, u16),
    ours: (IpAddr, u16),
    packet: &Packet<'t, B>,
    desk: &mut Desk<'_, 't, B, O>,
) -> Option<(FlowId, (IpAddr, u16))> {
    let flows = &desk.pipeline.flows;
    let key = FlowKey::of_answer(server, ours, packet.parsed.protocol);
    let hash = flows.hash(&key);
    let id = flows.find(hash, &key, desk.tick)?;
    let flow = flows.get(id)?.decision.partner?;
    // The flow may have ended, and another may have its place.
    let known = flows.live(flow, desk.tick).filter(|known| known.decision.translated_port == ours.1)?;
    let client = (known.key.source_address(), known.key.source_port);
    note_packet(id, None, desk);
    Some((flow, client))
}

/// The worker that gave a port out; `None` for ports that stand for nobody.
pub fn owner(port: u16, workers: u16) -> Option<WorkerId> {
    let number = port.checked_sub(FIRST_PORT).filter(|number| *number < PORTS)?;
    Some(WorkerId(number % workers.max(1)))
}

/// Whether a packet of ours to this port may be an answer to a client that an address of ours stands for.
pub fn may_stand_in(port: u16) -> bool {
    (FIRST_PORT..FIRST_PORT + PORTS).contains(&port)
}
