//! What one IP packet says that stages ask for, whatever its version.

use std::net::{IpAddr, Ipv6Addr};

use crate::drop_reason::DropReason;

use super::ecn::Ecn;
use super::ipv4::{self, Ipv4};
use super::ipv6::{self, Ipv6};
use super::{EtherType, Protocol, bytes_at};

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// The whole of it.
    No,
    /// The first fragment: it holds the transport's header.
    First,
    /// A later fragment: no ports in it.
    Later,
}

impl Fragment {
    /// From the offset (in whatever unit) and whether more fragments follow.
    #[inline]
    pub(super) const fn of(offset: u16, more: bool) -> Self {
        match (offset, more) {
            (0, false) => Self::No,
            (0, true) => Self::First,
            (1.., _) => Self::Later,
        }
    }
}

/// The ports of UDP, TCP or SCTP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ports {
    /// The sender's.
    pub source: u16,
    /// The receiver's.
    pub destination: u16,
}

impl Ports {
    /// Those of an answer.
    pub const fn swapped(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }
}

/// Why bytes are no IP packet that we handle. Each variant is one rule; all but [`IpError::Ipv6TooManyExtensions`]
/// are the sender's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IpError {
    /// The first four bits are neither 4 nor 6, or there are none.
    #[error("the packet is of no IP version")]
    UnknownVersion,
    /// The frame said IPv4, the packet does not.
    #[error("the packet's version is not 4")]
    Ipv4Version,
    /// The packet ends within its header or before its total length.
    #[error("the IPv4 packet is truncated")]
    Ipv4Truncated,
    /// The header's length is less than 20 bytes or more than the total length.
    #[error("the IPv4 header's length is impossible")]
    Ipv4HeaderLength,
    /// The header's checksum is wrong.
    #[error("the IPv4 header's checksum is wrong")]
    Ipv4Checksum,
    /// The frame said IPv6, the packet does not.
    #[error("the packet's version is not 6")]
    Ipv6Version,
    /// The packet ends within its header or before its payload length.
    #[error("the IPv6 packet is truncated")]
    Ipv6Truncated,
    /// The packet ends within an extension header, or such a header within its own fixed fields.
    #[error("the IPv6 packet ends within an extension header")]
    Ipv6ExtensionTruncated,
    /// There are more extension headers than [`ipv6::MAX_EXTENSION_HEADERS`].
    #[error("the IPv6 packet has too many extension headers")]
    Ipv6TooManyExtensions,
}

impl From<IpError> for DropReason {
    fn from(error: IpError) -> Self {
        match error {
            IpError::UnknownVersion => Self::IpVersionUnknown,
            IpError::Ipv4Version | IpError::Ipv4Truncated | IpError::Ipv4HeaderLength => Self::Ipv4Malformed,
            IpError::Ipv4Checksum => Self::Ipv4BadChecksum,
            IpError::Ipv6Version | IpError::Ipv6Truncated | IpError::Ipv6ExtensionTruncated => Self::Ipv6Malformed,
            IpError::Ipv6TooManyExtensions => Self::Ipv6ExtensionLimit,
        }
    }
}

/// What an IP packet says. Offsets count from the packet's first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// The sender; of the same family as the receiver.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// Bytes of the packet. The buffer may hold more: Ethernet and tunnels pad.
    pub total_length: u32,
    /// Where the transport's header begins: behind options and extension headers. Never beyond `total_length`.
    pub l4_offset: u16,
    /// What the packet carries. For a later fragment: what the whole datagram carries.
    pub protocol: Protocol,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
    /// The ports, if the protocol has any and the packet holds them.
    pub ports: Option<Ports>,
    /// Whether routers may not fragment it: DF of IPv4, always so for IPv6.
    pub dont_fragment: bool,
    /// DSCP (6 bits) and ECN (2 bits).
    pub traffic_class: u8,
    /// Hops that are left (TTL, hop limit).
    pub ttl: u8,
}

/// Who sent an IP packet, as its header says without a further look; `None` if there is no such place.
///
/// For hints about what is to come; what decides about a packet reads [`Parsed`].
#[inline]
pub fn source_of(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(12..)?.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
        6 => packet.get(8..)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
        _ => None,
    }
}

impl Parsed {
    /// Stands where nothing is known of a packet's IP header.
    pub const NOTHING: Self = Self {
        source: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        destination: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        total_length: 0,
        l4_offset: 0,
        protocol: Protocol::NO_NEXT,
        fragment: Fragment::No,
        ports: None,
        dont_fragment: true,
        traffic_class: 0,
        ttl: 0,
    };

    /// Parses a bare IP packet of either version; other bytes may follow it.
    ///
    /// The transport's header may be malformed: a router forwards it as it is. The checksum of an IPv4 header is
    /// not verified (the NIC may have done so): see [`Parsed::verify_header_checksum`].
    #[inline]
    pub fn from_ip(data: &[u8]) -> Result<Self, IpError> {
        match data.first().map(|first| first >> 4) {
            Some(4) => Self::from_ipv4(data),
            Some(6) => Self::from_ipv6(data),
            Some(_) | None => Err(IpError::UnknownVersion),
        }
    }

    /// Parses what a frame of this EtherType carries; `None` if the EtherType is not of IP.
    #[inline]
    pub fn from_payload(ethertype: EtherType, data: &[u8]) -> Option<Result<Self, IpError>> {
        match ethertype {
            EtherType::IPV4 => Some(Self::from_ipv4(data)),
            EtherType::IPV6 => Some(Self::from_ipv6(data)),
            _ => None,
        }
    }

    /// Parses the beginning of a packet, as ICMP errors quote it: it may be cut anywhere behind its IP headers.
    /// `total_length` is of what is there.
    pub fn from_quote(quote: &[u8]) -> Option<Self> {
        let mut parsed = Self::NOTHING;
        match quote.first()? >> 4 {
            4 => parsed.take_ipv4(&Ipv4::parse_quote(quote).ok()?, quote),
            6 => parsed.take_ipv6(&Ipv6::parse_quote(quote).ok()?, quote),
            _ => return None,
        }
        parsed.total_length = parsed.total_length.min(u32::try_from(quote.len()).unwrap_or(u32::MAX));
        Some(parsed)
    }

    /// Parses an IPv4 packet, as [`Parsed::from_ip`] does.
    #[inline]
    pub(crate) fn from_ipv4(data: &[u8]) -> Result<Self, IpError> {
        let mut parsed = Self::NOTHING;
        parsed.take_ipv4(&Ipv4::parse(data)?, data);
        Ok(parsed)
    }

    /// Parses an IPv6 packet, as [`Parsed::from_ip`] does.
    #[inline]
    pub(crate) fn from_ipv6(data: &[u8]) -> Result<Self, IpError> {
        let mut parsed = Self::NOTHING;
        parsed.read_ipv6(data)?;
        Ok(parsed)
    }

    /// Parses an IPv4 packet in place; unchanged if it is malformed.
    // In place and always inlined: a copy of a struct that was just written field by field waits for each of them to
    // leave the store buffer.
    #[inline(always)]
    pub(crate) fn read_ipv4(&mut self, data: &[u8]) -> Result<(), IpError> {
        // Nearly every header has no options: where the compiler knows that, it leaves out what depends on them.
        if data.first() != Some(&ipv4::WITHOUT_OPTIONS) {
            return self.read_ipv4_with_options(data);
        }
        self.take_ipv4(&Ipv4::parse(data)?, data);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn read_ipv4_with_options(&mut self, data: &[u8]) -> Result<(), IpError> {
        self.take_ipv4(&Ipv4::parse(data)?, data);
        Ok(())
    }

    #[inline(always)]
    fn take_ipv4(&mut self, header: &Ipv4, data: &[u8]) {
        self.source = header.source.into();
        self.destination = header.destination.into();
        self.total_length = u32::from(header.total_length);
        self.l4_offset = u16::from(header.header_length);
        self.protocol = header.protocol;
        self.fragment = header.fragment;
        self.dont_fragment = header.dont_fragment;
        self.traffic_class = header.traffic_class;
        self.ttl = header.ttl;
        let (start, end) = (header.header_length.into(), usize::from(header.total_length).min(data.len()));
        self.ports = ports(header.protocol, header.fragment, data, start, end);
    }

    /// Parses an IPv6 packet in place; unchanged if it is malformed.
    #[inline]
    pub(crate) fn read_ipv6(&mut self, data: &[u8]) -> Result<(), IpError> {
        self.take_ipv6(&Ipv6::parse(data)?, data);
        Ok(())
    }

    #[inline]
    fn take_ipv6(&mut self, header: &Ipv6, data: &[u8]) {
        self.source = header.source.into();
        self.destination = header.destination.into();
        self.total_length = header.total_length;
        self.l4_offset = header.header_length;
        self.protocol = header.protocol;
        self.fragment = header.fragment;
        self.dont_fragment = true;
        self.traffic_class = header.traffic_class;
        self.ttl = header.hop_limit;
        let (start, end) = (header.header_length.into(), (header.total_length as usize).min(data.len()));
        self.ports = ports(header.protocol, header.fragment, data, start, end);
    }

    /// The transport's header and data in the packet that was parsed, without what follows the packet.
    #[inline]
    pub fn l4<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        data.get(usize::from(self.l4_offset)..self.total_length as usize).unwrap_or_default()
    }

    /// As [`Parsed::l4`], to be changed.
    #[inline]
    pub fn l4_mut<'a>(&self, data: &'a mut [u8]) -> &'a mut [u8] {
        data.get_mut(usize::from(self.l4_offset)..self.total_length as usize).unwrap_or_default()
    }

    /// Whether it is an IPv4 packet.
    #[inline]
    pub const fn is_ipv4(&self) -> bool {
        self.destination.is_ipv4()
    }

    /// The DSCP, `0..64`.
    #[inline]
    pub const fn dscp(&self) -> u8 {
        self.traffic_class >> 2
    }

    /// The ECN field.
    #[inline]
    pub const fn ecn(&self) -> Ecn {
        Ecn::of(self.traffic_class)
    }

    /// Verifies the checksum of an IPv4 header in the packet that was parsed; IPv6 has none.
    #[inline]
    pub fn verify_header_checksum(&self, data: &[u8]) -> Result<(), IpError> {
        if self.is_ipv4() && !ipv4::checksum_is_right(data) { Err(IpError::Ipv4Checksum) } else { Ok(()) }
    }

    /// Takes one hop off the packet that was parsed. `None`, and nothing is changed, if no hop is left after it.
    #[inline]
    pub fn decrement_ttl(&mut self, data: &mut [u8]) -> Option<()> {
        if self.is_ipv4() {
            ipv4::decrement_ttl(data)?
        } else {
            ipv6::decrement_hop_limit(data)?
        }
        self.ttl = self.ttl.saturating_sub(1);
        Some(())
    }

    /// Sets the ECN field of the packet that was parsed.
    #[inline]
    pub fn set_ecn(&mut self, data: &mut [u8], ecn: Ecn) {
        if self.is_ipv4() {
            ipv4::set_ecn(data, ecn)
        } else {
            ipv6::set_ecn(data, ecn)
        }
        self.traffic_class = (self.traffic_class & !3) | ecn as u8;
    }
}

/// The ports at `start` of a packet that ends at `end`, if it holds any.
#[inline(always)]
fn ports(protocol: Protocol, fragment: Fragment, data: &[u8], start: usize, end: usize) -> Option<Ports> {
    let (Protocol::UDP | Protocol::TCP | Protocol::SCTP, Fragment::No | Fragment::First) = (protocol, fragment) else {
        return None;
    };
    let ports: &[u8; 4] = data.get(..end).and_then(|packet| bytes_at(packet, start))?;
    Some(Ports {
        source: u16::from_be_bytes([ports[0], ports[1]]),
        destination: u16::from_be_bytes([ports[2], ports[3]]),
    })
}
