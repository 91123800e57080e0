//! The stage that finds out where an IP packet goes: to the node, out of a port, or into a tunnel.

use std::net::IpAddr;

use super::classify::may_forward;
use super::icmp;
use super::outputs::Outputs;
use super::packet::{Origin, Packet, Packets, Verdict};
use super::pipeline::{Pipeline, Scene};
use crate::buffer::PacketBuf;
use crate::drop_reason::DropReason;
use crate::ids::{PortId, TunnelId};
use crate::packet::icmp_error::Cause;
use crate::packet::mss::{MssLimit, clamp_mss};
use crate::tables::{Route, Tables, Twin};

/// Why a packet goes no further, and what its sender is told.
struct Refusal {
    /// The counted reason.
    reason: DropReason,
    /// What the sender is told, if anything.
    error: Option<Cause>,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self { reason, error: None }
    }
}

impl Refusal {
    fn telling(reason: DropReason, error: Cause) -> Self {
        Self { reason, error: Some(error) }
    }
}

/// Decides each packet that waits for a route. Errors and fragments that come of it are put into `made`.
pub fn route<'t, B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'t, B>,
    made: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let mut last = None;
    for packet in packets.iter_mut() {
        if !matches!(packet.verdict, Verdict::Route) {
            continue;
        }
        packet.verdict = match decide(packet, &mut last, scene.tables) {
            Ok(Way { verdict, mtu }) if fits(packet, mtu) => verdict,
            Ok(Way { verdict, mtu }) => too_big(packet, verdict, mtu, made, pipeline, scene, out),
            Err(refusal) => refuse(packet, refusal, made, pipeline, scene, out),
        };
    }
}

/// Where a packet goes and how long it may be.
struct Way<'t> {
    verdict: Verdict<'t>,
    mtu: u16,
}

/// Where the last packet that was forwarded came from and went to, with its route: mostly the next one's too.
type Last<'t> = Option<(Origin, IpAddr, &'t Route)>;

fn decide<'t, B: PacketBuf>(
    packet: &mut Packet<'t, B>,
    last: &mut Last<'t>,
    tables: &'t Tables,
) -> Result<Way<'t>, Refusal> {
    let destination = packet.parsed.destination;
    let known = last.filter(|(origin, address, _)| *origin == packet.origin && *address == destination);
    if let Origin::Tunnel(tunnel) = packet.origin {
        if known.is_none() {
            if tables.is_local(destination) {
                return Ok(Way { verdict: Verdict::Punt(Twin::Tunnel(tunnel)), mtu: u16::MAX });
            }
            if !may_forward(destination) {
                return Err(DropReason::MartianAddress.into());
            }
        }
        if !may_forward(packet.parsed.source) {
            return Err(DropReason::MartianAddress.into());
        }
    }
    let route = match known {
        Some((_, _, route)) => Some(route),
        None => tables.routes.lookup(destination),
    };
    *last = route.map(|route| (packet.origin, destination, route));
    let way = match route {
        None => return Err(Refusal::telling(DropReason::NoRoute, Cause::NoRoute)),
        Some(Route::Blackhole) => return Err(DropReason::RouteBlackhole.into()),
        Some(Route::Unreachable) => {
            return Err(Refusal::telling(DropReason::RouteBlackhole, Cause::AddressUnreachable));
        }
        Some(Route::Prohibit) => return Err(Refusal::telling(DropReason::RouteBlackhole, Cause::Prohibited)),
        Some(Route::Port { port, gateway, source: _, mtu }) => to_port(*port, *gateway, *mtu, destination, tables)?,
        Some(Route::Tunnel(tunnel)) => to_tunnel(packet, *tunnel, tables)?,
    };
    if packet.origin != Origin::Node {
        let left = packet.parsed.decrement_ttl(packet.buffer.data_mut());
        left.ok_or(Refusal::telling(DropReason::TtlExceeded, Cause::TimeExceeded))?;
    }
    if let Origin::Tunnel(tunnel) = packet.origin {
        clamp(packet, tunnel, tables);
    }
    Ok(way)
}

fn to_port<'t>(
    port: PortId,
    gateway: Option<IpAddr>,
    route_mtu: Option<u16>,
    destination: IpAddr,
    tables: &Tables,
) -> Result<Way<'t>, Refusal> {
    let entry = tables.port(port).ok_or(DropReason::NoRoute)?;
    let mtu = route_mtu.map_or(entry.mtu, |mtu| mtu.min(entry.mtu));
    Ok(Way { verdict: Verdict::Emit { port, next_hop: gateway.unwrap_or(destination) }, mtu })
}

/// The way of a packet into a tunnel.
fn to_tunnel<'t, B: PacketBuf>(
    packet: &mut Packet<'t, B>,
    id: TunnelId,
    tables: &'t Tables,
) -> Result<Way<'t>, Refusal> {
    let tunnel = tables.tunnel(id).ok_or(DropReason::NoRoute)?;
    let Some(peer) = tunnel.allowed_ips.lookup(packet.parsed.destination) else {
        return Err(Refusal::telling(DropReason::NoAllowedIp, Cause::AddressUnreachable));
    };
    // Other packets are routed before it is looked at.
    peer.prefetch();
    clamp(packet, id, tables);
    Ok(Way { verdict: Verdict::Seal(peer), mtu: tunnel.mtu })
}

/// Sends a packet of the node itself, which the kernel gave to the tunnel's twin, on to its peer.
pub fn from_twin<'t, B: PacketBuf>(packet: &mut Packet<'t, B>, tunnel: TunnelId, tables: &'t Tables) {
    packet.verdict = match to_tunnel(packet, tunnel, tables) {
        Ok(way) if fits(packet, way.mtu) => way.verdict,
        // The kernel keeps to the twin's MTU: this was under way while the MTU was lowered.
        Ok(_) => Verdict::Drop(DropReason::TooBig),
        Err(refusal) => Verdict::Drop(refusal.reason),
    };
}

/// TCP learns from its handshake what fits through the tunnel.
fn clamp<B: PacketBuf>(packet: &mut Packet<'_, B>, tunnel: TunnelId, tables: &Tables) {
    if let Some(tunnel) = tables.tunnel(tunnel) {
        clamp_mss(packet.buffer.data_mut(), &packet.parsed, MssLimit::for_mtu(tunnel.mtu));
    }
}

fn fits<B: PacketBuf>(packet: &Packet<'_, B>, mtu: u16) -> bool {
    packet.parsed.total_length <= u32::from(mtu)
}

/// A packet that is too long: fragments if its sender allows them, else the sender is told (RFC 1191, RFC 8201).
pub fn too_big<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'t, B>,
    verdict: Verdict<'t>,
    mtu: u16,
    made: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) -> Verdict<'t> {
    if !packet.parsed.dont_fragment {
        return super::fragment::fragment(packet, &verdict, mtu, made, pipeline, scene, out);
    }
    let refusal = Refusal::telling(DropReason::TooBig, Cause::TooBig { mtu: u32::from(mtu) });
    refuse(packet, refusal, made, pipeline, scene, out)
}

/// Drops the packet, and makes the error message for its sender if there is one and the meter allows it.
fn refuse<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'t, B>,
    refusal: Refusal,
    made: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) -> Verdict<'t> {
    if let Some(error) = refusal.error {
        icmp::tell_sender(packet, error, made, pipeline, scene, out);
    }
    Verdict::Drop(refusal.reason)
}
