//! Sends a client's packet on to a server, in the way that its service forwards.

use std::net::IpAddr;

use jetway_config::{Encapsulation, Forward};

use super::Desk;
use super::translate;
use crate::buffer::{NoRoom, PacketBuf};
use crate::dispatch::Backend;
use crate::dispatch::encapsulation::{Ends, Inner, overhead, wrap};
use crate::dispatch::flow_table::FlowId;
use crate::dispatch::nat::{self, End, Rewrite};
use crate::dispatch::service::Service;
use crate::drop_reason::DropReason;
use crate::ids::WorkerId;
use crate::packet::icmp_error::Cause;
use crate::packet::{Fragment, Parsed};
use crate::path::fragment::fragment;
use crate::path::outputs::Outputs;
use crate::path::packet::{Origin, Packet, Verdict};
use crate::path::route::{Refusal, Way, clamp_for, fits, hop};
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
    match send_by_known_way(packet, &to, desk)? {
        Sent::Yes => Ok(packet.verdict),
        Sent::No => send_by_way(packet, &to, desk),
    }
}

/// Sends a packet on by the way that the tables have now.
pub fn send_by_way<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    to: &To<'t>,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<Verdict<'t>, Refusal> {
    let mut way = desk.way_to_server(to.server)?;
    if to.service.forward == Forward::L2 && !is_on_link(&way, to.server) {
        return Err(DropReason::ServerNotOnLink.into());
    }
    let length = packet.parsed.total_length;
    let encapsulation = to.service.forward.encapsulation();
    let outer = encapsulation.map(|encapsulation| (encapsulation, to.server.address));
    if outer.is_some() {
        way.mtu = way.mtu.min(to.server.path_mtu());
    }
    let verdict = pass_on(packet, &way, outer, desk, |packet, desk| match encapsulation {
        None if to.service.forward == Forward::Nat => {
            clamp_for(packet, way.into, desk.scene.tables);
            translate::towards(packet, to, &way, desk)
        }
        None => Ok(()),
        Some(encapsulation) => encapsulate(packet, encapsulation, &way, to, desk),
    })?;
    count(to.server, length, desk.pipeline.worker);
    Ok(verdict)
}

/// Whether a packet is a frame that is ready to be sent.
pub enum Sent {
    /// It is, and its verdict says so.
    Yes,
    /// It has to be sent by its way.
    No,
}

/// Makes a packet the frame in which it goes to its server, if the whole way is known and the packet fits: nearly always.
#[inline]
pub fn send_by_known_way<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    to: &To<'t>,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<Sent, Refusal> {
    packet.server = Some(to.server);
    let (tables, pipeline) = (desk.scene.tables, &mut *desk.pipeline);
    let Some(way) = pipeline.server_ways.to(to.server, to.service, tables) else { return Ok(Sent::No) };
    let length = packet.parsed.total_length;
    let translates = to.service.forward == Forward::Nat;
    // A server on the client's own link may have to be shown another client.
    if length > way.room(to.server) || translates && packet.origin == Origin::Port(way.port) {
        return Ok(Sent::No);
    }
    hop(packet)?;
    if translates {
        clamp_for(packet, None, tables);
        match &way.translation {
            Some(translation) if packet.parsed.fragment != Fragment::Later => {
                let (offset, protocol) = (usize::from(packet.parsed.l4_offset), packet.parsed.protocol);
                let applied = translation.apply(packet.buffer.data_mut(), offset, protocol);
                applied.map_err(|_| DropReason::ServiceMalformed)?;
            }
            Some(_) | None => rewrite(packet, End::Destination, (to.server.address, to.server.port))?,
        }
    }
    let put = way.headers.put(&mut packet.buffer, Inner::of(&packet.parsed), to.entropy, &mut pipeline.ip_id);
    put.map_err(|NoRoom(_)| DropReason::BufferNoRoom)?;
    packet.verdict = Verdict::Send(way.port);
    count(to.server, length, desk.pipeline.worker);
    Ok(Sent::Yes)
}

/// Sends a packet on by a way, once `change` has made of it what travels there: for an encapsulation, the packet of the
/// `outer` kind to an address.
///
/// Its length is judged before, so that an error quotes the packet as its sender knows it.
pub fn pass_on<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    way: &Way<'t>,
    outer: Option<(Encapsulation, IpAddr)>,
    desk: &mut Desk<'_, 't, B, O>,
    change: impl FnOnce(&mut Packet<'t, B>, &mut Desk<'_, 't, B, O>) -> Result<(), Refusal>,
) -> Result<Verdict<'t>, Refusal> {
    hop(packet)?;
    let overhead = outer.map_or(0, |(encapsulation, destination)| overhead(encapsulation, destination));
    let room = way.mtu.saturating_sub(overhead);
    let fits = fits(packet, room);
    let may_be_cut = !packet.parsed.dont_fragment && outer.is_none_or(|(_, destination)| destination.is_ipv4());
    if !fits && !may_be_cut {
        return Err(Refusal::telling(DropReason::TooBig, Cause::TooBig { mtu: u32::from(room) }));
    }
    change(packet, desk)?;
    if fits {
        return Ok(way.verdict);
    }
    packet.parsed = Parsed::from_ip(packet.buffer.data()).map_err(DropReason::from)?;
    Ok(fragment(packet, &way.verdict, way.mtu, desk.made, desk.pipeline, desk.scene, desk.out))
}

/// Counts what a worker sent to a server.
#[inline]
pub fn count(server: &Backend, length: u32, worker: WorkerId) {
    if let Some(traffic) = server.traffic(worker) {
        traffic.packets.add(1);
        traffic.bytes.add(u64::from(length));
    }
}

/// Whether a server can be reached by its link-layer address alone.
pub fn is_on_link(way: &Way<'_>, server: &Backend) -> bool {
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
    wrap(encapsulation, &mut packet.buffer, &packet.parsed, ends, to.entropy, ip_id)
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
