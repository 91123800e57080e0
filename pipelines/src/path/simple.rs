//! What most packets are: whole UDP and TCP packets without options or extension headers, read by one look at fixed places.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::classify::verify_checksum;
use crate::buffer::{ChecksumState, PacketBuf};
use crate::dispatch::encapsulation::Inner;
use crate::dispatch::flow_table::address_bytes;
use crate::packet::tcp::{Flags, Tcp};
use crate::packet::{EtherType, MacAddress, Ports, Protocol, bytes_at, ethernet, ipv4, ipv6, udp};

/// Frames in a row that are not of a short way, after which it does not look at the rest of the burst.
const OTHERS: usize = 2;

/// Offers the frames of a burst to a short way with their places, until one is too intricate or too many are none of it.
#[inline(always)]
pub fn offer<B>(frames: &[B], mut take: impl FnMut(u8, &B) -> Result<(), Unfit>) {
    let mut others = 0;
    for (number, frame) in (0..).zip(frames) {
        match take(number, frame) {
            Ok(()) => others = 0,
            Err(Unfit::Other) if others < OTHERS => others += 1,
            Err(Unfit::Other | Unfit::Intricate) => return,
        }
    }
}

/// Why a frame does not go a short way.
pub enum Unfit {
    /// The way is not its own, or the stages drop it.
    Other,
    /// It is its own perhaps, in a way that only the stages know: what comes behind it may be of its flow.
    Intricate,
}

/// The headers of a whole packet without options or extension headers, as far as a short way asks for them.
pub struct Simple {
    /// Who sent it, and whom it is for.
    pub addresses: Addresses,
    /// The ports of both.
    pub ports: Ports,
    /// UDP or TCP.
    pub protocol: Protocol,
    /// Of a TCP segment; none of a datagram.
    pub flags: Flags,
    /// What an outer header shows of it.
    pub inner: Inner,
    /// Bytes of the IP packet.
    pub length: u16,
}

/// Who sent a packet, and whom it is for, as they stand in its header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// Of IPv4.
    V4(u32, u32),
    /// Of IPv6.
    V6(u128, u128),
}

impl Simple {
    /// Reads what comes behind the Ethernet header of an untagged frame to the station `mac`. Returns that, too.
    #[inline(always)]
    pub fn of_frame<B: PacketBuf>(mac: MacAddress, frame: &B) -> Result<(Self, &[u8]), Unfit> {
        match ethernet::untagged_to(mac, frame.data()) {
            Some((EtherType::IPV4, ip)) => Ok((Self::of_ipv4(ip, frame.ip_checksum())?, ip)),
            Some((EtherType::IPV6, ip)) => Ok((Self::of_ipv6(ip)?, ip)),
            Some(_) => Err(Unfit::Other),
            None => Err(Unfit::Intricate),
        }
    }

    /// Reads an IPv4 packet. `checksum` is what the NIC said of its header's.
    #[inline(always)]
    pub fn of_ipv4(ip: &[u8], checksum: ChecksumState) -> Result<Self, Unfit> {
        let header: &[u8; ipv4::HEADER_LENGTH] = ip.first_chunk().ok_or(Unfit::Intricate)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let address = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let fragmentation = word(6);
        if header[0] != 0x45 || fragmentation & 0x3fff != 0 || header[8] <= 1 {
            return Err(Unfit::Intricate);
        }
        verify_checksum(checksum, ip).map_err(|_| Unfit::Other)?;
        let (length, protocol) = (word(2), Protocol(header[9]));
        let packet = ip.get(..usize::from(length)).ok_or(Unfit::Other)?;
        let (ports, flags) = transport(packet, ipv4::HEADER_LENGTH, protocol)?;
        let inner = Inner { traffic_class: header[1], dont_fragment: fragmentation & 0x4000 != 0 };
        Ok(Self { addresses: Addresses::V4(address(12), address(16)), ports, protocol, flags, inner, length })
    }

    /// Reads an IPv6 packet.
    #[inline(always)]
    pub fn of_ipv6(ip: &[u8]) -> Result<Self, Unfit> {
        let header: &[u8; ipv6::HEADER_LENGTH] = ip.first_chunk().ok_or(Unfit::Intricate)?;
        let [v0, v1, _, _, l0, l1, next, hop_limit, ..] = *header;
        if v0 >> 4 != 6 || hop_limit <= 1 {
            return Err(Unfit::Intricate);
        }
        let length = u16::from_be_bytes([l0, l1]).checked_add(ipv6::HEADER_LENGTH as u16).ok_or(Unfit::Intricate)?;
        let packet = ip.get(..usize::from(length)).ok_or(Unfit::Other)?;
        let protocol = match Protocol(next) {
            protocol @ (Protocol::UDP | Protocol::TCP) => protocol,
            Protocol::ICMPV6 => return Err(Unfit::Other),
            _ => return Err(Unfit::Intricate),
        };
        let (ports, flags) = transport(packet, ipv6::HEADER_LENGTH, protocol)?;
        let address = |at| bytes_at::<16>(header, at).map(|bytes| u128::from_be_bytes(*bytes)).ok_or(Unfit::Other);
        let addresses = Addresses::V6(address(8)?, address(24)?);
        let inner = Inner { traffic_class: (v0 << 4) | (v1 >> 4), dont_fragment: true };
        Ok(Self { addresses, ports, protocol, flags, inner, length })
    }
}

/// Ports, and flags of a TCP segment. What has no whole header is dropped by the stages, or forwarded as they see fit.
#[inline(always)]
fn transport(packet: &[u8], offset: usize, protocol: Protocol) -> Result<(Ports, Flags), Unfit> {
    match protocol {
        Protocol::UDP => {
            let [s0, s1, d0, d1, ..] = *bytes_at::<{ udp::HEADER_LENGTH }>(packet, offset).ok_or(Unfit::Intricate)?;
            let ports = Ports { source: u16::from_be_bytes([s0, s1]), destination: u16::from_be_bytes([d0, d1]) };
            Ok((ports, Flags(0)))
        }
        Protocol::TCP => {
            let header = packet.get(offset..).and_then(Tcp::parse).ok_or(Unfit::Intricate)?;
            Ok((Ports { source: header.source_port, destination: header.destination_port }, header.flags))
        }
        _ => Err(Unfit::Other),
    }
}

impl Addresses {
    /// Bytes of the header that they stand in.
    #[inline(always)]
    pub fn header_length(self) -> usize {
        match self {
            Self::V4(..) => ipv4::HEADER_LENGTH,
            Self::V6(..) => ipv6::HEADER_LENGTH,
        }
    }

    /// Both as keys of flows have them.
    #[inline]
    pub fn bytes(self) -> ([u8; 16], [u8; 16]) {
        match self {
            Self::V4(source, destination) => {
                let bytes = |address| address_bytes(IpAddr::V4(Ipv4Addr::from_bits(address)));
                (bytes(source), bytes(destination))
            }
            Self::V6(source, destination) => (source.to_be_bytes(), destination.to_be_bytes()),
        }
    }

    /// Who sent it.
    #[inline]
    pub fn source(self) -> IpAddr {
        match self {
            Self::V4(source, _) => Ipv4Addr::from_bits(source).into(),
            Self::V6(source, _) => Ipv6Addr::from_bits(source).into(),
        }
    }

    /// Whom it is for.
    #[inline]
    pub fn destination(self) -> IpAddr {
        match self {
            Self::V4(_, destination) => Ipv4Addr::from_bits(destination).into(),
            Self::V6(_, destination) => Ipv6Addr::from_bits(destination).into(),
        }
    }
}
