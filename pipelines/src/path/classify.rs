//! The first stage: what a frame from a port is, and which way it goes.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::dispatch::may_stand_in;
use super::packet::{BURST, Origin, Packet, Packets, UNPARSED, Verdict};
use crate::buffer::{ChecksumState, PacketBuf};
use crate::drop_reason::DropReason;
use crate::ids::{PortId, TunnelId};
use crate::packet::udp::{self, Udp};
use crate::packet::{EtherType, Fragment, Frame, Ports, Protocol};
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
        verdict: Verdict::Route,
    }));
    for packet in packets.iter_mut().skip(before) {
        let verdict = match entry {
            Some(entry) => decide(packet, port, entry, &mut recent, tables),
            None => Err(DropReason::NotForUs),
        };
        packet.verdict = verdict.unwrap_or_else(Verdict::Drop);
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

fn decide<'t, B: PacketBuf>(
    packet: &mut Packet<'t, B>,
    port: PortId,
    entry: &PortEntry,
    recent: &mut Recent,
    tables: &Tables,
) -> Result<Verdict<'t>, DropReason> {
    let to_kernel = Ok(Verdict::Punt(Twin::Port(port)));
    let frame = Frame::parse(packet.buffer.data())?;
    let multicast = frame.destination.is_multicast();
    if !multicast && frame.destination != entry.mac {
        return Err(DropReason::NotForUs);
    }
    if frame.vlans[0].is_some() {
        return to_kernel;
    }
    let l3 = frame.l3_offset;
    let ip = frame.payload(packet.buffer.data());
    match frame.ethertype {
        EtherType::IPV4 => packet.parsed.read_ipv4(ip)?,
        EtherType::IPV6 => packet.parsed.read_ipv6(ip)?,
        _ => return to_kernel,
    }
    let parsed = &packet.parsed;
    match packet.buffer.ip_checksum() {
        ChecksumState::Good => {}
        ChecksumState::Bad => return Err(DropReason::Ipv4BadChecksum),
        ChecksumState::Unknown => parsed.verify_header_checksum(ip)?,
    }
    if multicast {
        return to_kernel;
    }
    if let Some((address, number, tunnel)) = recent.listener
        && address == parsed.destination
        && parsed.protocol == Protocol::UDP
        && parsed.ports.is_some_and(|ports| ports.destination == number)
    {
        return to_tunnel(packet, port, l3, tunnel);
    }
    if recent.service == Some(parsed.destination) {
        return Ok(Verdict::Dispatch { port, l3_offset: l3 as u8 });
    }
    let is_known = |(source, destination)| source == parsed.source && destination == parsed.destination;
    if !recent.forwarded.is_some_and(is_known) {
        if tables.services.has_address(parsed.destination) {
            recent.service = Some(parsed.destination);
            return Ok(Verdict::Dispatch { port, l3_offset: l3 as u8 });
        }
        if tables.is_local(parsed.destination) {
            return to_node(packet, port, l3, recent, tables);
        }
        if !may_forward(parsed.source) || !may_forward(parsed.destination) {
            return Err(DropReason::MartianAddress);
        }
        if matches!(tables.routes.lookup(parsed.source), Some(Route::Tunnel(_))) {
            return Err(DropReason::ReversePath);
        }
        recent.forwarded = Some((parsed.source, parsed.destination));
    }
    let length = parsed.total_length as usize;
    packet.buffer.trim_front(l3);
    packet.buffer.truncate(length);
    Ok(Verdict::Route)
}

/// A packet to one of our own addresses: a tunnel's message, or the kernel's.
fn to_node<'t, B: PacketBuf>(
    packet: &Packet<'t, B>,
    port: PortId,
    l3: usize,
    recent: &mut Recent,
    tables: &Tables,
) -> Result<Verdict<'t>, DropReason> {
    let to_kernel = Ok(Verdict::Punt(Twin::Port(port)));
    let parsed = &packet.parsed;
    let stands_in = |ports: &Ports| tables.services.translates() && may_stand_in(ports.destination);
    if parsed.ports.as_ref().is_some_and(stands_in) {
        return Ok(Verdict::Dispatch { port, l3_offset: l3 as u8 });
    }
    let Some(ports) = parsed.ports.filter(|_| parsed.protocol == Protocol::UDP) else { return to_kernel };
    let Some(tunnel) = tables.listeners.get(&ports.destination) else { return to_kernel };
    recent.listener = Some((parsed.destination, ports.destination, *tunnel));
    to_tunnel(packet, port, l3, *tunnel)
}

/// A datagram to a tunnel's port.
fn to_tunnel<'t, B: PacketBuf>(
    packet: &Packet<'t, B>,
    port: PortId,
    l3: usize,
    tunnel: TunnelId,
) -> Result<Verdict<'t>, DropReason> {
    let parsed = &packet.parsed;
    if parsed.fragment != Fragment::No {
        return Err(DropReason::OuterFragment);
    }
    let ip = packet.buffer.data().get(l3..).unwrap_or_default();
    let segment = parsed.l4(ip);
    let datagram = Udp::parse(segment)?;
    match packet.buffer.l4_checksum() {
        ChecksumState::Good => {}
        ChecksumState::Bad => return Err(DropReason::UdpBadChecksum),
        // The message is authenticated by its own means, so over IPv4 a checksum in software would only cost time;
        // RFC 8200 section 8.1 has no such leave, but the same holds.
        ChecksumState::Unknown => {}
    }
    Ok(Verdict::Open {
        tunnel,
        port,
        message: (l3 + usize::from(parsed.l4_offset) + udp::HEADER_LENGTH) as u16,
        length: datagram.payload(segment).len() as u16,
    })
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
