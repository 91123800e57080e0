//! The IPv4 header (RFC 791).

use std::net::Ipv4Addr;

use super::checksum::{self, Sum};
use super::ecn::Ecn;
use super::{Fragment, IpError, Protocol, bytes_at, bytes_at_mut};

/// Bytes of a header without options.
pub const HEADER_LENGTH: usize = 20;

/// The first byte of a header without options.
pub(super) const WITHOUT_OPTIONS: u8 = 0x45;

/// Bytes of the longest header: 15 words.
pub const MAX_HEADER_LENGTH: usize = 60;

/// What an IPv4 header says; its options are skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4 {
    /// The sender.
    pub source: Ipv4Addr,
    /// The receiver.
    pub destination: Ipv4Addr,
    /// Bytes of the header with its options, `20..=60`.
    pub header_length: u8,
    /// Bytes of header and payload.
    pub total_length: u16,
    /// DSCP (6 bits) and ECN (2 bits).
    pub traffic_class: u8,
    /// Names the datagram to which a fragment belongs.
    pub identification: u16,
    /// Whether routers may not fragment it.
    pub dont_fragment: bool,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Hops that are left.
    pub ttl: u8,
    /// What it carries.
    pub protocol: Protocol,
}

impl Ipv4 {
    /// Parses the header of a packet that may be followed by other bytes (Ethernet pads short frames).
    /// The checksum is not looked at: see [`checksum_is_right`].
    #[inline(always)]
    pub fn parse(data: &[u8]) -> Result<Self, IpError> {
        let header = Self::parse_quote(data)?;
        if usize::from(header.total_length) > data.len() { Err(IpError::Ipv4Truncated) } else { Ok(header) }
    }

    /// As [`Ipv4::parse`], for the beginning of a packet that may have been cut anywhere behind the fixed header.
    #[inline(always)]
    pub(super) fn parse_quote(data: &[u8]) -> Result<Self, IpError> {
        // Each field is read from its place: that compiles to one load, where taking the array apart takes many.
        let header: &[u8; HEADER_LENGTH] = bytes_at(data, 0).ok_or(IpError::Ipv4Truncated)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let address = |at: usize| Ipv4Addr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if header[0] >> 4 != 4 {
            return Err(IpError::Ipv4Version);
        }
        let (header_length, total_length) = ((header[0] & 0x0f) * 4, word(2));
        if usize::from(header_length) < HEADER_LENGTH || u16::from(header_length) > total_length {
            return Err(IpError::Ipv4HeaderLength);
        }
        let flags = word(6);
        Ok(Self {
            source: address(12),
            destination: address(16),
            header_length,
            total_length,
            traffic_class: header[1],
            identification: word(4),
            dont_fragment: flags & 0x4000 != 0,
            // Nearly every packet is whole, which one look tells.
            fragment: match flags & 0x3fff {
                0 => Fragment::No,
                _ => Fragment::of(flags & 0x1fff, flags & 0x2000 != 0),
            },
            ttl: header[8],
            protocol: Protocol(header[9]),
        })
    }
}

/// Whether the checksum of the header at the front of `packet` is right; not if the header is truncated.
#[inline]
pub fn checksum_is_right(packet: &[u8]) -> bool {
    // Nearly every header has no options: a sum of known length needs no loop.
    if let Some(header @ [WITHOUT_OPTIONS, ..]) = packet.first_chunk::<HEADER_LENGTH>() {
        return Sum::ZERO.bytes(header).is_right();
    }
    let length = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    length >= HEADER_LENGTH && packet.get(..length).is_some_and(|header| Sum::ZERO.bytes(header).is_right())
}

/// Takes one hop off the TTL and corrects the checksum. `None`, and nothing is changed, if no hop is left after it
/// (the packet's TTL is 1 or 0) or the header is truncated.
#[inline(always)]
pub fn decrement_ttl(packet: &mut [u8]) -> Option<()> {
    let [ttl, _, c0, c1] = bytes_at_mut(packet, 8)?;
    if *ttl <= 1 {
        return None;
    }
    *ttl -= 1;
    // The word of TTL and protocol is less by one in its high byte.
    [*c0, *c1] = checksum::update(u16::from_be_bytes([*c0, *c1]), 0x0100, 0).to_be_bytes();
    Some(())
}

/// Sets the ECN field and corrects the checksum; no effect on a truncated header.
#[inline]
pub fn set_ecn(packet: &mut [u8], ecn: Ecn) {
    let Some(header) = bytes_at_mut::<HEADER_LENGTH>(packet, 0) else { return };
    let [version, class, .., c0, c1, _, _, _, _, _, _, _, _] = header;
    let old = u16::from_be_bytes([*version, *class]);
    *class = (*class & !3) | ecn as u8;
    let new = u16::from_be_bytes([*version, *class]);
    [*c0, *c1] = checksum::update(u16::from_be_bytes([*c0, *c1]), old, new).to_be_bytes();
}

/// Whether routers may fragment a packet that we make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragmentation {
    /// They may not. The identification then means nothing and is zero (RFC 6864 section 4.1).
    Forbidden,
    /// They may. The identification has to be unique among the packets under way of the same addresses and protocol.
    Allowed {
        /// The identification.
        identification: u16,
    },
}

/// A header without options, to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The sender.
    pub source: Ipv4Addr,
    /// The receiver.
    pub destination: Ipv4Addr,
    /// What it carries.
    pub protocol: Protocol,
    /// DSCP (6 bits) and ECN (2 bits).
    pub traffic_class: u8,
    /// Hops.
    pub ttl: u8,
    /// Whether routers may fragment it.
    pub fragmentation: Fragmentation,
    /// Bytes of header and payload.
    pub total_length: u16,
}

impl Header {
    /// Writes the header with its checksum.
    #[inline]
    pub fn write(&self, header: &mut [u8; HEADER_LENGTH]) {
        let Protocol(protocol) = self.protocol;
        let (identification, flags) = match self.fragmentation {
            Fragmentation::Forbidden => (0u16, 0x4000u16),
            Fragmentation::Allowed { identification } => (identification, 0),
        };
        let (source, destination) = (self.source.octets(), self.destination.octets());
        let class = u16::from_be_bytes([0x45, self.traffic_class]);
        let hops = u16::from_be_bytes([self.ttl, protocol]);
        // Summed before it is written: reading bytes that were just written one by one has to wait for each of them.
        let sum = Sum::ZERO.bytes(&source).bytes(&destination).word(class).word(hops);
        let sum = sum.word(self.total_length).word(identification).word(flags);
        let mut field = |at: usize, value: [u8; 2]| [header[at], header[at + 1]] = value;
        field(0, class.to_be_bytes());
        field(2, self.total_length.to_be_bytes());
        field(4, identification.to_be_bytes());
        field(6, flags.to_be_bytes());
        field(8, hops.to_be_bytes());
        field(10, sum.checksum().to_be_bytes());
        let (_, addresses) = header.split_at_mut(12);
        let (to_source, to_destination) = addresses.split_at_mut(4);
        to_source.copy_from_slice(&source);
        to_destination.copy_from_slice(&destination);
    }
}
