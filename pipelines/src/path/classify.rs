//! The first stage: what a frame from a port is, and which way it goes.

use std::net::IpAddr;

use super::packet::{Origin, Packet, UNPARSED, Verdict};
use crate::buffer::{ChecksumState, PacketBuf};
use crate::drop_reason::DropReason;
use crate::ids::PortId;
use crate::packet::udp::{self, Udp};
use crate::packet::{Fragment, Frame, Parsed, Protocol};
use crate::tables::{PortEntry, Route, Tables, Twin};

/// Parses a frame that came in by `port` and decides its way.
pub fn classify<'t, B: PacketBuf>(buffer: B, port: PortId, tables: &'t Tables) -> Packet<'t, B> {
    let mut packet =
        Packet { buffer, parsed: UNPARSED, origin: Origin::Port(port), verdict: Verdict::Punt(Twin::Port(port)) };
    let verdict = match tables.port(port) {
        Some(entry) => decide(&mut packet, port, entry, tables),
        None => Err(DropReason::NotForUs),
    };
    packet.verdict = verdict.unwrap_or_else(Verdict::Drop);
    packet
}

fn decide<'t, B: PacketBuf>(
    packet: &mut Packet<'t, B>,
    port: PortId,
    entry: &PortEntry,
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
    let Some(parsed) = Parsed::from_payload(frame.ethertype, ip) else { return to_kernel };
    packet.parsed = parsed?;
    let parsed = &packet.parsed;
    match packet.buffer.ip_checksum() {
        ChecksumState::Good => {}
        ChecksumState::Bad => return Err(DropReason::Ipv4BadChecksum),
        ChecksumState::Unknown => parsed.verify_header_checksum(ip)?,
    }
    if multicast {
        return to_kernel;
    }
    if tables.is_local(parsed.destination) {
        return to_node(packet, port, l3, tables);
    }
    if !may_forward(parsed.source) || !may_forward(parsed.destination) {
        return Err(DropReason::MartianAddress);
    }
    if matches!(tables.routes.lookup(parsed.source), Some(Route::Tunnel(_))) {
        return Err(DropReason::ReversePath);
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
    tables: &Tables,
) -> Result<Verdict<'t>, DropReason> {
    let to_kernel = Ok(Verdict::Punt(Twin::Port(port)));
    let parsed = &packet.parsed;
    let Some(tunnel) = parsed.ports.and_then(|ports| tables.listeners.get(&ports.destination)) else {
        return to_kernel;
    };
    if parsed.protocol != Protocol::UDP {
        return to_kernel;
    }
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
        tunnel: *tunnel,
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
