//! Sends a client's packet on to a server, in the way that its service forwards.

use std::net::IpAddr;

use jetway_config::Forward;

use super::Desk;
use super::translate;
use crate::buffer::{NoRoom, PacketBuf};
use crate::dispatch::Backend;
use crate::dispatch::encapsulation::{Encapsulation, Ends};
use crate::dispatch::flow_table::FlowId;
use crate::dispatch::nat::{self, End, Rewrite};
use crate::dispatch::service::Service;
use crate::drop_reason::DropReason;
use crate::packet::Parsed;
use crate::packet::icmp_error::Cause;
use crate::path::fragment::fragment;
use crate::path::outputs::Outputs;
use crate::path::packet::{Packet, Verdict};
use crate::path::route::{Refusal, Way, clamp_for, hop};
use crate::tables::Tables;

/// Where a packet goes.
pub struct To<'t> {
    /// The service that it is for.
    pub service: &'t Service,
    /// The server that it goes to.
    pub server: &'t Backend,
    /// Its flow, if it is tracked.
    pub flow: Option<FlowId>,
    /// Tells its flow from others.
    pub entropy: u64,
}

/// Sends a packet on. What is too long for the way is told to its sender, or cut if its sender allows that.
pub fn send<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    to: To<'t>,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<Verdict<'t>, Refusal> {
    packet.server = Some(to.server);
    let way = desk.way_to_server(to.server)?;
    let encapsulation = encapsulation_of(to.service.forward);
    if to.service.forward == Forward::L2 && !is_on_link(&way, to.server) {
        return Err(DropReason::ServerNotOnLink.into());
    }
    hop(packet)?;
    let length = packet.parsed.total_length;
    let overhead = encapsulation.map_or(0, |encapsulation| encapsulation.overhead(to.server.address));
    let mtu = if overhead > 0 { way.mtu.min(to.server.path_mtu()) } else { way.mtu };
    let room = mtu.saturating_sub(overhead);
    let fits = length <= u32::from(room);
    if !fits && (packet.parsed.dont_fragment || overhead > 0 && to.server.address.is_ipv6()) {
        return Err(Refusal::telling(DropReason::TooBig, Cause::TooBig { mtu: u32::from(room) }));
    }
    match encapsulation {
        None if to.service.forward == Forward::Nat => {
            clamp_for(packet, &way, desk.scene.tables);
            translate::towards(packet, &to, &way, desk)?;
        }
        None => {}
        Some(encapsulation) => encapsulate(packet, encapsulation, &way, &to, desk)?,
    }
    if let Some(traffic) = to.server.traffic(desk.pipeline.worker) {
        traffic.packets.add(1);
        traffic.bytes.add(u64::from(length));
    }
    if fits {
        return Ok(way.verdict);
    }
    packet.parsed = Parsed::from_ip(packet.buffer.data()).map_err(DropReason::from)?;
    Ok(fragment(packet, &way.verdict, room + overhead, desk.made, desk.pipeline, desk.scene, desk.out))
}

fn encapsulation_of(forward: Forward) -> Option<Encapsulation> {
    match forward {
        Forward::Nat | Forward::L2 => None,
        Forward::Ipip => Some(Encapsulation::Ipip),
        Forward::Gre => Some(Encapsulation::Gre),
        Forward::Gue => Some(Encapsulation::Gue),
    }
}

/// Whether a server can be reached by its link-layer address alone.
fn is_on_link(way: &Way<'_>, server: &Backend) -> bool {
    matches!(way.verdict, Verdict::Emit { next_hop, .. } if next_hop == server.address)
}

fn encapsulate<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    encapsulation: Encapsulation,
    way: &Way<'t>,
    to: &To<'t>,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<(), Refusal> {
    let source = source_on(way, to.server.address, desk.scene.tables);
    let ends = source.and_then(|source| Ends::new(source, to.server.address)).ok_or(DropReason::NoRoute)?;
    let ip_id = &mut desk.pipeline.ip_id;
    encapsulation
        .wrap(&mut packet.buffer, &packet.parsed, ends, to.entropy, ip_id)
        .map_err(|NoRoom(_)| DropReason::BufferNoRoom)?;
    Ok(())
}

/// The address that we speak from to a server.
pub fn source_on(way: &Way<'_>, server: IpAddr, tables: &Tables) -> Option<IpAddr> {
    let of_link = || match way.verdict {
        Verdict::Emit { port, .. } => tables.port(port)?.source.towards(server),
        _ => tables.tunnel(way.into?)?.source.towards(server),
    };
    way.source.or_else(of_link)
}

/// Rewrites one end of a packet.
pub fn rewrite<B: PacketBuf>(packet: &mut Packet<'_, B>, end: End, to: (IpAddr, u16)) -> Result<(), Refusal> {
    let rewrite = Rewrite { end, address: to.0, port: to.1 };
    nat::rewrite(packet.buffer.data_mut(), &mut packet.parsed, rewrite).map_err(|_| DropReason::ServiceMalformed.into())
}
