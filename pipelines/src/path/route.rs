//! The stage that finds out where an IP packet goes: to the node, out of a port, or into a tunnel.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::classify::may_forward;
use super::icmp;
use super::outputs::Outputs;
use super::packet::{BURST, Origin, Packet, Packets, Verdict};
use super::pipeline::{Pipeline, Scene};
use crate::buffer::PacketBuf;
use crate::drop_reason::DropReason;
use crate::ids::TunnelId;
use crate::lpm::Approach;
use crate::packet::icmp_error::Cause;
use crate::packet::mss::{MssLimit, clamp_mss};
use crate::packet::{Parsed, Protocol};
use crate::tables::{Route, Tables, TunnelEntry, Twin};
use crate::wireguard::Peer;

/// Why a packet goes no further, and what its sender is told.
#[derive(Clone, Copy)]
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
    prefetch_peers(packets, scene.tables);
    let mut last = None;
    for packet in packets.iter_mut() {
        if !matches!(packet.verdict, Verdict::Route) {
            continue;
        }
        match decide(packet, &mut last, scene.tables) {
            Ok(mtu) if fits(packet, mtu) => {}
            Ok(mtu) => packet.verdict = too_big(packet, packet.verdict, mtu, made, pipeline, scene, out),
            Err(refusal) => packet.verdict = refuse(packet, refusal, made, pipeline, scene, out),
        }
    }
}

/// Has the places fetched that lead to the peers of a burst which goes to many: with many peers they are not in the cache.
fn prefetch_peers<B>(packets: &Packets<'_, B>, tables: &Tables) {
    let destination = |packet: &Packet<'_, B>| packet.parsed.destination;
    // A burst of one flow, the usual one, has the same at both ends.
    if packets.first().map(destination) == packets.last().map(destination) {
        return;
    }
    let mut last = None;
    let mut searches = ArrayVec::<_, BURST>::new_const();
    for packet in packets.iter().filter(|packet| matches!(packet.verdict, Verdict::Route)) {
        let destination = packet.parsed.destination;
        if last.replace(destination) != Some(destination) {
            searches.extend(PeerSearch::begin(destination, tables));
        }
    }
    for search in &searches {
        search.go_on();
    }
}

/// The search for the peer to which a tunnel takes packets to an address.
///
/// For many in a row: when this is begun for all of them, then [`PeerSearch::go_on`] for all, then [`PeerSearch::finish`], they wait for
/// memory together.
pub(super) struct PeerSearch<'t> {
    tunnel: &'t TunnelEntry,
    approach: Approach<'t, Arc<Peer>>,
}

impl<'t> PeerSearch<'t> {
    /// `None` if the way does not lead into a tunnel.
    #[inline(always)]
    pub fn begin(destination: IpAddr, tables: &'t Tables) -> Option<Self> {
        let Some(Route::Tunnel(id)) = tables.routes.lookup(destination) else { return None };
        let tunnel = tables.tunnel(*id)?;
        Some(Self { tunnel, approach: tunnel.allowed_ips.approach(destination) })
    }

    /// Has the last memory fetched that the search needs.
    #[inline]
    pub fn go_on(&self) {
        self.approach.go_on();
    }

    /// The peer, if there is one, whose memory is fetched then; and the tunnel's entry.
    #[inline]
    pub fn finish(&self) -> Option<(&'t Arc<Peer>, &'t TunnelEntry)> {
        let peer = self.approach.finish()?;
        // Other packets come before it is looked at.
        peer.prefetch();
        Some((peer, self.tunnel))
    }
}

/// Where a packet goes and how long it may be.
#[derive(Clone, Copy)]
pub(super) struct Way<'t> {
    /// [`Verdict::Emit`] or [`Verdict::Seal`].
    pub verdict: Verdict<'t>,
    /// The longest packet that it carries.
    pub mtu: u16,
    /// The address to speak from, if the route has one.
    pub source: Option<IpAddr>,
    /// The tunnel that it goes into.
    pub into: Option<TunnelId>,
}

/// A packet that was forwarded, with its way: mostly the next one's too, whoever sent it.
struct Last<'t> {
    origin: Origin,
    source: IpAddr,
    destination: IpAddr,
    way: Way<'t>,
}

impl Last<'_> {
    #[inline(always)]
    fn leads<B>(&self, packet: &Packet<'_, B>) -> bool {
        self.destination == packet.parsed.destination && self.origin == packet.origin
    }
}

/// Gives the packet its verdict, and tells how long it may be.
fn decide<'t, B: PacketBuf>(
    packet: &mut Packet<'t, B>,
    last: &mut Option<Last<'t>>,
    tables: &'t Tables,
) -> Result<u16, Refusal> {
    let way = match last {
        Some(last) if last.leads(packet) => {
            if last.source != packet.parsed.source {
                check_source(packet)?;
            }
            &last.way
        }
        last => {
            if let Origin::Tunnel(tunnel) = packet.origin
                && tables.is_local(packet.parsed.destination)
            {
                packet.verdict = Verdict::Punt(Twin::Tunnel(tunnel));
                return Ok(u16::MAX);
            }
            check_source(packet)?;
            let way = find_way(packet, tables)?;
            let Packet { origin, parsed: Parsed { source, destination, .. }, .. } = *packet;
            &last.insert(Last { origin, source, destination, way }).way
        }
    };
    packet.verdict = way.verdict;
    hop(packet)?;
    clamp_for(packet, way.into, tables);
    Ok(way.mtu)
}

/// Takes one hop off a packet that the node forwards.
#[inline]
pub(super) fn hop<B: PacketBuf>(packet: &mut Packet<'_, B>) -> Result<(), Refusal> {
    if packet.origin == Origin::Node {
        return Ok(());
    }
    let left = packet.parsed.decrement_ttl(packet.buffer.data_mut());
    left.ok_or(Refusal::telling(DropReason::TtlExceeded, Cause::TimeExceeded))
}

/// TCP learns from its handshake what fits through each tunnel on the way: the one that it came from and the one `into`
/// which it goes.
#[inline(always)]
pub(super) fn clamp_for<B: PacketBuf>(packet: &mut Packet<'_, B>, into: Option<TunnelId>, tables: &Tables) {
    if packet.parsed.protocol == Protocol::TCP {
        clamp_between(packet, into, tables);
    }
}

#[inline(never)]
fn clamp_between<B: PacketBuf>(packet: &mut Packet<'_, B>, into: Option<TunnelId>, tables: &Tables) {
    let from = if let Origin::Tunnel(tunnel) = packet.origin { Some(tunnel) } else { None };
    for tunnel in [from, into].into_iter().flatten() {
        clamp(packet, tunnel, tables);
    }
}

/// Whether what came out of a tunnel may have been sent from where it says; [`super::classify`] asks that of what came in clear.
fn check_source<B>(packet: &Packet<'_, B>) -> Result<(), Refusal> {
    if matches!(packet.origin, Origin::Tunnel(_)) && !may_forward(packet.parsed.source) {
        return Err(DropReason::MartianAddress.into());
    }
    Ok(())
}

/// The way of a packet that is not for the node itself.
fn find_way<'t, B: PacketBuf>(packet: &Packet<'t, B>, tables: &'t Tables) -> Result<Way<'t>, Refusal> {
    let destination = packet.parsed.destination;
    if matches!(packet.origin, Origin::Tunnel(_)) && !may_forward(destination) {
        return Err(DropReason::MartianAddress.into());
    }
    way_to(destination, tables)
}

/// The way that leads to an address.
pub(super) fn way_to(destination: IpAddr, tables: &Tables) -> Result<Way<'_>, Refusal> {
    match tables.routes.lookup(destination) {
        None => Err(Refusal::telling(DropReason::NoRoute, Cause::NoRoute)),
        Some(Route::Blackhole) => Err(DropReason::RouteBlackhole.into()),
        Some(Route::Unreachable) => Err(Refusal::telling(DropReason::RouteBlackhole, Cause::AddressUnreachable)),
        Some(Route::Prohibit) => Err(Refusal::telling(DropReason::RouteBlackhole, Cause::Prohibited)),
        Some(Route::Port { port, gateway, source, mtu }) => {
            let entry = tables.port(*port).ok_or(DropReason::NoRoute)?;
            let verdict = Verdict::Emit { port: *port, next_hop: gateway.unwrap_or(destination) };
            Ok(Way { verdict, mtu: mtu.map_or(entry.mtu, |mtu| mtu.min(entry.mtu)), source: *source, into: None })
        }
        Some(Route::Tunnel(tunnel)) => to_tunnel(destination, *tunnel, tables),
    }
}

/// The way of a packet into a tunnel.
fn to_tunnel(destination: IpAddr, id: TunnelId, tables: &Tables) -> Result<Way<'_>, Refusal> {
    let tunnel = tables.tunnel(id).ok_or(DropReason::NoRoute)?;
    let Some(peer) = tunnel.allowed_ips.lookup(destination) else {
        return Err(Refusal::telling(DropReason::NoAllowedIp, Cause::AddressUnreachable));
    };
    // Other packets are routed before it is looked at.
    peer.prefetch();
    Ok(Way { verdict: Verdict::Seal(peer), mtu: tunnel.mtu, source: None, into: Some(id) })
}

/// Sends a packet of the node itself, which the kernel gave to the tunnel's twin, on to its peer.
pub fn from_twin<'t, B: PacketBuf>(packet: &mut Packet<'t, B>, tunnel: TunnelId, tables: &'t Tables) {
    let way = to_tunnel(packet.parsed.destination, tunnel, tables);
    if way.is_ok() {
        clamp(packet, tunnel, tables);
    }
    packet.verdict = match way {
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
