//! The first stage: what a frame from a port is, and which way it goes.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::decapsulate::take_out;
use super::dispatch::may_stand_in;
use super::packet::{BURST, Origin, Packet, Packets, UNPARSED, Verdict};
use crate::buffer::{ChecksumState, PacketBuf};
use crate::drop_reason::DropReason;
use crate::ids::{PortId, TunnelId};
use crate::packet::udp::{self, Udp};
use crate::packet::{EtherType, Fragment, Frame, Ports, Protocol, ethernet, ipv4};
use crate::tables::{PortEntry, Route, Tables, Twin};

/// Parses frames that came in by `port` and decides their way. What `packets` has no room for stays in `frames`.
pub fn classify<'t, B: PacketBuf>(
    frames: &mut ArrayVec<B, BURST>,
    packets: &mut Packets<'t, B>,
    port: PortId,
    tables: &'t Tables,
) {
    let entry = tables.port(port);
    let mut recent = Recent::default();
    // A packet is parsed in its place: it is large, and a copy of what was just written in parts is slow.
    let (before, room) = (packets.len(), packets.remaining_capacity().min(frames.len()));
    let origin = Origin::Port(port);
    packets.extend(frames.drain(..room).map(|buffer| Packet {
        buffer,
        parsed: UNPARSED,
        origin,
        server: None,
        verdict: Verdict::Route,
    }));
    for packet in packets.iter_mut().skip(before) {
        let decided = match entry {
            Some(entry) => decide(packet, port, entry, &mut recent, tables),
            None => Err(DropReason::NotForUs),
        };
        if let Err(reason) = decided {
            packet.verdict = Verdict::Drop(reason);
        }
    }
}

/// What was found out about packets of this burst: mostly it holds for the next one too.
#[derive(Default)]
struct Recent {
    /// The local address and port at which a datagram arrived, with the tunnel that listens there.
    listener: Option<(IpAddr, u16, TunnelId)>,
    /// Source and destination of a packet that may be forwarded.
    forwarded: Option<(IpAddr, IpAddr)>,
    /// The address of a service.
    service: Option<IpAddr>,
}

/// Whether a packet came as it is or inside another. None is taken out of one that came inside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Outer,
    Inner,
}

/// Parses the packet and gives it its verdict, unless it has the right one already.
fn decide<B: PacketBuf>(
    packet: &mut Packet<'_, B>,
    port: PortId,
    entry: &PortEntry,
    recent: &mut Recent,
    tables: &Tables,
) -> Result<(), DropReason> {
    let checksum = packet.buffer.ip_checksum();
    match ethernet::untagged_to(entry.mac, packet.buffer.data()) {
        Some((EtherType::IPV4, ip)) => {
            packet.parsed.read_ipv4(ip)?;
            verify_checksum(checksum, ip)?;
        }
        Some((EtherType::IPV6, ip)) => packet.parsed.read_ipv6(ip)?,
        Some(_) | None => return unusual(packet, port, entry, recent, tables),
    }
    judge(packet, port, ethernet::HEADER_LENGTH, Level::Outer, recent, tables)
}

/// Gives a packet to us alone, parsed at `l3`, its verdict.
#[inline(always)]
fn judge<B: PacketBuf>(
    packet: &mut Packet<'_, B>,
    port: PortId,
    l3: usize,
    level: Level,
    recent: &mut Recent,
    tables: &Tables,
) -> Result<(), DropReason> {
    let parsed = &packet.parsed;
    if let Some((address, number, tunnel)) = recent.listener
        && parsed.protocol == Protocol::UDP
        && parsed.ports.is_some_and(|ports| ports.destination == number)
        && address == parsed.destination
    {
        return to_tunnel(packet, port, l3, tunnel);
    }
    if recent.service == Some(parsed.destination) {
        return to_service(packet, port, l3);
    }
    let is_known =
        |(source, destination): &(IpAddr, IpAddr)| *source == parsed.source && *destination == parsed.destination;
    if !recent.forwarded.as_ref().is_some_and(is_known) {
        if tables.services.has_address(parsed.destination) {
            recent.service = Some(parsed.destination);
            return to_service(packet, port, l3);
        }
        if tables.is_local(parsed.destination) {
            return to_node(packet, port, l3, level, recent, tables);
        }
        if !may_forward(parsed.destination) {
            return Err(DropReason::MartianAddress);
        }
        check_origin(parsed.source, tables)?;
        recent.forwarded = Some((parsed.source, parsed.destination));
    }
    let length = parsed.total_length as usize;
    packet.buffer.narrow(l3, length);
    Ok(())
}

/// Whether the IPv4 header's checksum is right, by the NIC's word or by our own sum.
#[inline(always)]
pub(super) fn verify_checksum(by_nic: ChecksumState, ip: &[u8]) -> Result<(), DropReason> {
    let is_right = match by_nic {
        ChecksumState::Good => true,
        ChecksumState::Bad => false,
        ChecksumState::Unknown => ipv4::checksum_is_right(ip),
    };
    if is_right { Ok(()) } else { Err(DropReason::Ipv4BadChecksum) }
}

/// A frame that is tagged, to several stations, to another station or not of IP: the kernel's, if it is sound. One that
/// is tagged with a priority only is as good as untagged (IEEE 802.1Q section 6.9.1).
#[cold]
fn unusual<B: PacketBuf>(
    packet: &mut Packet<'_, B>,
    port: PortId,
    entry: &PortEntry,
    recent: &mut Recent,
    tables: &Tables,
) -> Result<(), DropReason> {
    let checksum = packet.buffer.ip_checksum();
    let frame = Frame::parse(packet.buffer.data())?;
    if !frame.destination.is_multicast() && frame.destination != entry.mac {
        return Err(DropReason::NotForUs);
    }
    if frame.vlans.iter().flatten().any(|tag| tag.vlan() != 0) {
        return to_kernel(packet, port);
    }
    let ip = frame.payload(packet.buffer.data());
    match frame.ethertype {
        EtherType::IPV4 => {
            packet.parsed.read_ipv4(ip)?;
            verify_checksum(checksum, ip)?;
        }
        EtherType::IPV6 => packet.parsed.read_ipv6(ip)?,
        _ => return to_kernel(packet, port),
    }
    if frame.destination.is_multicast() {
        return to_kernel(packet, port);
    }
    judge(packet, port, frame.l3_offset, Level::Outer, recent, tables)
}

#[cold]
fn to_kernel<B>(packet: &mut Packet<'_, B>, port: PortId) -> Result<(), DropReason> {
    packet.verdict = Verdict::Punt(Twin::Port(port));
    Ok(())
}

/// A packet that may belong to a service; its frame stays whole until that is known.
fn to_service<B: PacketBuf>(packet: &mut Packet<'_, B>, port: PortId, l3: usize) -> Result<(), DropReason> {
    packet.verdict = Verdict::Dispatch { port, l3_offset: l3 as u8 };
    Ok(())
}

/// The tunnel that listens at one of our own addresses, to which no service is offered, for a datagram with these ports.
pub(super) fn tunnel_at(address: IpAddr, port: u16, tables: &Tables) -> Option<TunnelId> {
    let tunnel = tables.listeners.get(&port)?;
    let is_answer = tables.services.translates() && may_stand_in(port);
    (!is_answer && !tables.services.has_address(address) && tables.is_local(address)).then_some(*tunnel)
}

/// A packet to one of our own addresses: a tunnel's message, or the kernel's.
fn to_node<B: PacketBuf>(
    packet: &mut Packet<'_, B>,
    port: PortId,
    l3: usize,
    level: Level,
    recent: &mut Recent,
    tables: &Tables,
) -> Result<(), DropReason> {
    let parsed = &packet.parsed;
    let stands_in = |ports: &Ports| tables.services.translates() && may_stand_in(ports.destination);
    if parsed.ports.as_ref().is_some_and(stands_in) {
        return to_service(packet, port, l3);
    }
    let ports = parsed.ports.filter(|_| parsed.protocol == Protocol::UDP);
    let listener = ports.and_then(|ports| Some((ports, tables.listeners.get(&ports.destination)?)));
    let Some((ports, tunnel)) = listener else { return inside_or_kernel(packet, port, l3, level, recent, tables) };
    recent.listener = Some((parsed.destination, ports.destination, *tunnel));
    to_tunnel(packet, port, l3, *tunnel)
}

/// A packet to the node that no tunnel listens for: the one inside it if it comes from a dispatcher, else the kernel's.
#[inline(never)]
fn inside_or_kernel<B: PacketBuf>(
    packet: &mut Packet<'_, B>,
    port: PortId,
    l3: usize,
    level: Level,
    recent: &mut Recent,
    tables: &Tables,
) -> Result<(), DropReason> {
    let Some(decapsulation) = tables.decapsulation.as_deref().filter(|_| level == Level::Outer) else {
        return to_kernel(packet, port);
    };
    let Some(kind) = decapsulation.kind_of(&packet.parsed) else { return to_kernel(packet, port) };
    take_out(packet, kind, decapsulation, port, l3, tables)?;
    judge(packet, port, ethernet::HEADER_LENGTH, Level::Inner, recent, tables)
}

/// A datagram to a tunnel's port.
#[inline]
fn to_tunnel<B: PacketBuf>(
    packet: &mut Packet<'_, B>,
    port: PortId,
    l3: usize,
    tunnel: TunnelId,
) -> Result<(), DropReason> {
    let parsed = &packet.parsed;
    if parsed.fragment != Fragment::No {
        return Err(DropReason::OuterFragment);
    }
    let ip = packet.buffer.data().get(l3..).unwrap_or_default();
    let datagram = Udp::parse(parsed.l4(ip))?;
    match packet.buffer.l4_checksum() {
        ChecksumState::Good => {}
        ChecksumState::Bad => return Err(DropReason::UdpBadChecksum),
        // The message is authenticated by its own means, so over IPv4 a checksum in software would only cost time;
        // RFC 8200 section 8.1 has no such leave, but the same holds.
        ChecksumState::Unknown => {}
    }
    packet.verdict = Verdict::Open {
        tunnel,
        port,
        message: (l3 + usize::from(parsed.l4_offset) + udp::HEADER_LENGTH) as u16,
        // `Udp::parse` takes no datagram shorter than its header.
        length: datagram.length.saturating_sub(udp::HEADER_LENGTH as u16),
    };
    Ok(())
}

/// Whether what came in clear may come from this address.
pub(super) fn check_origin(source: IpAddr, tables: &Tables) -> Result<(), DropReason> {
    if !may_forward(source) {
        return Err(DropReason::MartianAddress);
    }
    // What has an address behind a tunnel comes out of that.
    match tables.routes.lookup(source) {
        Some(Route::Tunnel(_)) => Err(DropReason::ReversePath),
        _ => Ok(()),
    }
}

/// Whether a unicast packet with this address may cross the node (RFC 1812 section 5.3.7, RFC 4291 section 2.5).
pub fn may_forward(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_loopback() || v4.is_multicast() || v4.is_broadcast() || v4.is_link_local())
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local()),
    }
}
