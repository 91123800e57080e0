//! The IPv6 header and its extension headers (RFC 8200).

use std::net::Ipv6Addr;

use super::ecn::Ecn;
use super::{Fragment, IpError, Protocol, bytes_at, bytes_at_mut};

/// Bytes of the fixed header.
pub const HEADER_LENGTH: usize = 40;

/// How many extension headers are walked before the packet is given up.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// The MTU that every link of IPv6 has at least (RFC 8200 section 5).
pub const MIN_MTU: usize = 1280;

/// What an IPv6 header and its extension headers say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6 {
    /// The sender.
    pub source: Ipv6Addr,
    /// The receiver.
    pub destination: Ipv6Addr,
    /// Bytes of the fixed header and of the extension headers.
    pub header_length: u16,
    /// Bytes of the headers and the payload.
    pub total_length: u32,
    /// DSCP (6 bits) and ECN (2 bits).
    pub traffic_class: u8,
    /// The sender's name for the flow, 20 bits (RFC 6437).
    pub flow_label: u32,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Hops that are left.
    pub hop_limit: u8,
    /// What it carries behind the extension headers.
    pub protocol: Protocol,
}

impl Ipv6 {
    /// Parses the headers of a packet that may be followed by other bytes (Ethernet pads short frames).
    #[inline]
    pub fn parse(data: &[u8]) -> Result<Self, IpError> {
        Self::read(data, |length| data.get(..length).ok_or(IpError::Ipv6Truncated))
    }

    /// As [`Ipv6::parse`], for the beginning of a packet that may have been cut anywhere behind the extension headers.
    pub(crate) fn parse_quote(data: &[u8]) -> Result<Self, IpError> {
        Self::read(data, |length| Ok(data.get(..length).unwrap_or(data)))
    }

    /// `whole` gives the packet of a length, or what there is of it.
    #[inline(always)]
    fn read<'a>(data: &[u8], whole: impl FnOnce(usize) -> Result<&'a [u8], IpError>) -> Result<Self, IpError> {
        let [v0, v1, v2, v3, l0, l1, next, hop_limit, addresses @ ..] =
            bytes_at::<HEADER_LENGTH>(data, 0).ok_or(IpError::Ipv6Truncated)?;
        let first = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
        if first >> 28 != 6 {
            return Err(IpError::Ipv6Version);
        }
        let total_length = HEADER_LENGTH + usize::from(u16::from_be_bytes([*l0, *l1]));
        let packet = whole(total_length)?;
        let chain = Chain::walk(packet, Protocol(*next))?;
        // Both halves of 32 bytes are 16 long.
        let (source, destination) = addresses.split_at(16);
        let address =
            |bytes| bytes_at::<16>(bytes, 0).map(|bytes| Ipv6Addr::from(*bytes)).ok_or(IpError::Ipv6Truncated);
        Ok(Self {
            source: address(source)?,
            destination: address(destination)?,
            header_length: chain.end,
            total_length: total_length as u32,
            traffic_class: (first >> 20) as u8,
            flow_label: first & 0x000f_ffff,
            fragment: chain.fragment,
            hop_limit: *hop_limit,
            protocol: chain.protocol,
        })
    }
}

/// The end of a chain of extension headers.
struct Chain {
    protocol: Protocol,
    /// At most 40 + 8 headers of at most 2,048 bytes.
    end: u16,
    fragment: Fragment,
}

impl Chain {
    /// Walks the extension headers of `packet` up to what it carries. Behind the header of a later fragment there
    /// are no headers, but a piece of the payload.
    fn walk(packet: &[u8], next: Protocol) -> Result<Self, IpError> {
        let mut chain = Self { protocol: next, end: HEADER_LENGTH as u16, fragment: Fragment::No };
        for _ in 0..MAX_EXTENSION_HEADERS {
            let Some(length) = extension_length(packet, usize::from(chain.end), chain.protocol)? else {
                return Ok(chain);
            };
            let [next, _, f0, f1] =
                *bytes_at::<4>(packet, usize::from(chain.end)).ok_or(IpError::Ipv6ExtensionTruncated)?;
            if chain.protocol == Protocol::FRAGMENT {
                let field = u16::from_be_bytes([f0, f1]);
                // An atomic fragment is a whole packet (RFC 6946), unless a header before it says otherwise.
                match Fragment::of(field >> 3, field & 1 != 0) {
                    Fragment::No => {}
                    fragment @ (Fragment::First | Fragment::Later) => chain.fragment = fragment,
                }
            }
            chain.protocol = Protocol(next);
            chain.end += length;
            if usize::from(chain.end) > packet.len() {
                return Err(IpError::Ipv6ExtensionTruncated);
            }
            if chain.fragment == Fragment::Later {
                return Ok(chain);
            }
        }
        match extension_length(packet, usize::from(chain.end), chain.protocol)? {
            Some(_) => Err(IpError::Ipv6TooManyExtensions),
            None => Ok(chain),
        }
    }
}

/// Bytes of the extension header of kind `protocol` at `offset`, or `None` if that is no extension header.
fn extension_length(packet: &[u8], offset: usize, protocol: Protocol) -> Result<Option<u16>, IpError> {
    let length = || Ok(u16::from(bytes_at::<2>(packet, offset).ok_or(IpError::Ipv6ExtensionTruncated)?[1]));
    match protocol {
        Protocol::HOP_BY_HOP
        | Protocol::ROUTING
        | Protocol::DESTINATION_OPTIONS
        | Protocol::MOBILITY
        | Protocol::HOST_IDENTITY
        | Protocol::SHIM6 => Ok(Some((length()? + 1) * 8)),
        Protocol::FRAGMENT => Ok(Some(8)),
        Protocol::AUTHENTICATION => match length()? {
            // Shorter than its own fixed fields (RFC 4302 section 2).
            0 => Err(IpError::Ipv6ExtensionTruncated),
            words => Ok(Some((words + 2) * 4)),
        },
        _ => Ok(None),
    }
}

/// Bytes of the fragment header.
pub(super) const FRAGMENT_HEADER_LENGTH: usize = 8;

/// The first fragment header that is not that of an atomic fragment (RFC 6946), with its offset.
pub(super) fn fragment_header(packet: &[u8]) -> Option<(usize, [u8; FRAGMENT_HEADER_LENGTH])> {
    let mut protocol = Protocol(*packet.get(6)?);
    let mut offset = HEADER_LENGTH;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let length = extension_length(packet, offset, protocol).ok()??;
        let header = *bytes_at::<FRAGMENT_HEADER_LENGTH>(packet, offset)?;
        let [next, _, f0, f1, ..] = header;
        if protocol == Protocol::FRAGMENT && u16::from_be_bytes([f0, f1]) & 0xfff9 != 0 {
            return Some((offset, header));
        }
        (protocol, offset) = (Protocol(next), offset + usize::from(length));
    }
    None
}

/// Takes one hop off the hop limit. `None`, and nothing is changed, if no hop is left after it (the packet's hop
/// limit is 1 or 0) or the header is truncated.
#[inline]
pub fn decrement_hop_limit(packet: &mut [u8]) -> Option<()> {
    let [hop_limit] = bytes_at_mut(packet, 7)?;
    if *hop_limit <= 1 {
        return None;
    }
    *hop_limit -= 1;
    Some(())
}

/// Sets the ECN field; no effect on a truncated header.
#[inline]
pub fn set_ecn(packet: &mut [u8], ecn: Ecn) {
    if let Some([byte]) = bytes_at_mut(packet, 1) {
        *byte = (*byte & 0xcf) | (ecn as u8) << 4;
    }
}

/// A header without extension headers, to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The sender.
    pub source: Ipv6Addr,
    /// The receiver.
    pub destination: Ipv6Addr,
    /// What it carries.
    pub protocol: Protocol,
    /// DSCP (6 bits) and ECN (2 bits).
    pub traffic_class: u8,
    /// A name for the flow, 20 bits, so that routers spread flows without looking inside (RFC 6438); 0 for none.
    pub flow_label: u32,
    /// Hops.
    pub hop_limit: u8,
    /// Bytes behind the header.
    pub payload_length: u16,
}

impl Header {
    /// Writes the header.
    #[inline]
    pub fn write(&self, header: &mut [u8; HEADER_LENGTH]) {
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000f_ffff;
        let [l0, l1] = self.payload_length.to_be_bytes();
        let (fixed, addresses) = header.split_at_mut(8);
        let (start, rest) = fixed.split_at_mut(4);
        start.copy_from_slice(&first.to_be_bytes());
        rest.copy_from_slice(&[l0, l1, self.protocol.0, self.hop_limit]);
        let (source, destination) = addresses.split_at_mut(16);
        source.copy_from_slice(&self.source.octets());
        destination.copy_from_slice(&self.destination.octets());
    }
}
