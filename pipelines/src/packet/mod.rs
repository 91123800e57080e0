//! The wire formats of a packet's headers: one parser for each, used by workers, tests, fuzzers and tools alike.
//!
//! Parsers take any bytes without a panic, allocate nothing, and hand back small structs of meaning. Writers fill
//! headers in place. Offsets count from the first byte of what was parsed.

pub mod arp;
pub mod checksum;
pub mod ecn;
pub mod ethernet;
pub mod flow;
pub mod fragment;
pub mod icmp;
pub mod icmp_error;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod mss;
pub mod parsed;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod udp;

pub use ethernet::{EtherType, Frame, FrameError, MacAddress, VlanTag};
pub use flow::FlowHasher;
pub use parsed::{Fragment, IpError, Parsed, Ports, source_of};

/// An IP protocol number (the IANA registry "Protocol Numbers").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Protocol(pub u8);

impl Protocol {
    /// IPv6 hop-by-hop options (RFC 8200 section 4.3).
    pub const HOP_BY_HOP: Self = Self(0);
    /// ICMP (RFC 792).
    pub const ICMP: Self = Self(1);
    /// IPv4 in IP (RFC 2003).
    pub const IPV4: Self = Self(4);
    /// TCP (RFC 9293).
    pub const TCP: Self = Self(6);
    /// UDP (RFC 768).
    pub const UDP: Self = Self(17);
    /// IPv6 in IP (RFC 2473).
    pub const IPV6: Self = Self(41);
    /// IPv6 routing header (RFC 8200 section 4.4).
    pub const ROUTING: Self = Self(43);
    /// IPv6 fragment header (RFC 8200 section 4.5).
    pub const FRAGMENT: Self = Self(44);
    /// GRE (RFC 2784).
    pub const GRE: Self = Self(47);
    /// ESP (RFC 4303): what follows is encrypted.
    pub const ESP: Self = Self(50);
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: Self = Self(51);
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: Self = Self(58);
    /// Nothing follows (RFC 8200 section 4.7).
    pub const NO_NEXT: Self = Self(59);
    /// IPv6 destination options (RFC 8200 section 4.6).
    pub const DESTINATION_OPTIONS: Self = Self(60);
    /// SCTP (RFC 9260).
    pub const SCTP: Self = Self(132);
    /// Mobility header (RFC 6275).
    pub const MOBILITY: Self = Self(135);
    /// Host identity protocol (RFC 7401).
    pub const HOST_IDENTITY: Self = Self(139);
    /// Shim6 (RFC 5533).
    pub const SHIM6: Self = Self(140);
}

/// The `N` bytes at `offset`, if they are there.
#[inline]
pub(crate) fn bytes_at<const N: usize>(data: &[u8], offset: usize) -> Option<&[u8; N]> {
    data.get(offset..)?.first_chunk()
}

/// The `N` bytes at `offset`, to be changed, if they are there.
#[inline]
pub(crate) fn bytes_at_mut<const N: usize>(data: &mut [u8], offset: usize) -> Option<&mut [u8; N]> {
    data.get_mut(offset..)?.first_chunk_mut()
}
