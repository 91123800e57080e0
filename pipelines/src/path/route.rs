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
pub(super) struct Refusal {
    /// The counted reason.
    pub reason: DropReason,
    /// What the sender is told, if anything.
    pub error: Option<Cause>,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self { reason, error: None }
    }
}

impl Refusal {
    pub(super) fn telling(reason: DropReason, error: Cause) -> Self {
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
            Ok(Way { verdict, mtu, .. }) if fits(packet, mtu) => verdict,
            Ok(Way { verdict, mtu, .. }) => too_big(packet, verdict, mtu, made, pipeline, scene, out),
            Err(refusal) => refuse(packet, refusal, made, pipeline, scene, out),
        };
    }
}

/// Where a packet goes and how long it may be.
pub(super) struct Way<'t> {
    /// [`Verdict::Emit`], [`Verdict::Seal`] or [`Verdict::Punt`].
    pub verdict: Verdict<'t>,
    /// The longest packet that it carries.
    pub mtu: u16,
    /// The address to speak from on it, for packets that we make.
    pub source: Option<IpAddr>,
    /// The tunnel that it leads into.
    pub tunnel: Option<TunnelId>,
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
                let verdict = Verdict::Punt(Twin::Tunnel(tunnel));
                return Ok(Way { verdict, mtu: u16::MAX, source: None, tunnel: None });
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
    let way = way_by(route, destination, tables)?;
    hop(packet)?;
    clamp_for(packet, &way, tables);
    Ok(way)
}

/// The way that leads to an address.
pub(super) fn way_to<'t>(destination: IpAddr, tables: &'t Tables) -> Result<Way<'t>, Refusal> {
    way_by(tables.routes.lookup(destination), destination, tables)
}

fn way_by<'t>(route: Option<&'t Route>, destination: IpAddr, tables: &'t Tables) -> Result<Way<'t>, Refusal> {
    match route {
        None => Err(Refusal::telling(DropReason::NoRoute, Cause::NoRoute)),
        Some(Route::Blackhole) => Err(DropReason::RouteBlackhole.into()),
        Some(Route::Unreachable) => Err(Refusal::telling(DropReason::RouteBlackhole, Cause::AddressUnreachable)),
        Some(Route::Prohibit) => Err(Refusal::telling(DropReason::RouteBlackhole, Cause::Prohibited)),
        Some(Route::Port { port, gateway, source, mtu }) => {
            to_port(*port, *gateway, *source, *mtu, destination, tables)
        }
        Some(Route::Tunnel(tunnel)) => to_tunnel(destination, *tunnel, tables),
    }
}

/// Takes one hop off a packet that the node forwards.
pub(super) fn hop<B: PacketBuf>(packet: &mut Packet<'_, B>) -> Result<(), Refusal> {
    if packet.origin == Origin::Node {
        return Ok(());
    }
    let left = packet.parsed.decrement_ttl(packet.buffer.data_mut());
    left.ok_or(Refusal::telling(DropReason::TtlExceeded, Cause::TimeExceeded))
}

/// Has TCP keep to the MTU of the tunnels that a packet comes from and goes to.
pub(super) fn clamp_for<B: PacketBuf>(packet: &mut Packet<'_, B>, way: &Way<'_>, tables: &Tables) {
    if let Some(tunnel) = way.tunnel {
        clamp(packet, tunnel, tables);
    }
    if let Origin::Tunnel(tunnel) = packet.origin {
        clamp(packet, tunnel, tables);
    }
}

fn to_port<'t>(
    port: PortId,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    route_mtu: Option<u16>,
    destination: IpAddr,
    tables: &Tables,
) -> Result<Way<'t>, Refusal> {
    let entry = tables.port(port).ok_or(DropReason::NoRoute)?;
    let mtu = route_mtu.map_or(entry.mtu, |mtu| mtu.min(entry.mtu));
    let verdict = Verdict::Emit { port, next_hop: gateway.unwrap_or(destination) };
    Ok(Way { verdict, mtu, source: source.or_else(|| entry.source.towards(destination)), tunnel: None })
}

/// The way into a tunnel.
fn to_tunnel<'t>(destination: IpAddr, id: TunnelId, tables: &'t Tables) -> Result<Way<'t>, Refusal> {
    let tunnel = tables.tunnel(id).ok_or(DropReason::NoRoute)?;
    let Some(peer) = tunnel.allowed_ips.lookup(destination) else {
        return Err(Refusal::telling(DropReason::NoAllowedIp, Cause::AddressUnreachable));
    };
    // Other packets are routed before it is looked at.
    peer.prefetch();
    let source = tunnel.source.towards(destination);
    Ok(Way { verdict: Verdict::Seal(peer), mtu: tunnel.mtu, source, tunnel: Some(id) })
}

/// Sends a packet of the node itself, which the kernel gave to the tunnel's twin, on to its peer.
pub fn from_twin<'t, B: PacketBuf>(packet: &mut Packet<'t, B>, tunnel: TunnelId, tables: &'t Tables) {
    packet.verdict = match to_tunnel(packet.parsed.destination, tunnel, tables) {
        Ok(way) if fits(packet, way.mtu) => {
            clamp_for(packet, &way, tables);
            way.verdict
        }
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

pub(super) fn fits<B: PacketBuf>(packet: &Packet<'_, B>, mtu: u16) -> bool {
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
pub(super) fn refuse<'t, B: PacketBuf, O: Outputs<B>>(
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
