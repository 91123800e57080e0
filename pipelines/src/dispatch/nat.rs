//! Rewrites a packet's addresses and ports in place, and every checksum that covers them (RFC 1624, RFC 5508).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::checksum::{self, Sum};
use crate::packet::icmp::Icmp;
use crate::packet::icmpv6::Icmpv6;
use crate::packet::{Fragment, Parsed, Ports, Protocol, bytes_at_mut, icmp, icmpv6, ipv4, tcp};

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Who sent it.
    Source,
    /// Whom it is for.
    Destination,
}

/// What an end becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rewrite {
    /// The end.
    pub end: End,
    /// Its address from now on, of the packet's family.
    pub address: IpAddr,
    /// Its port from now on.
    pub port: u16,
}

/// Why a packet cannot be rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NatError {
    /// The new address is of the other IP version.
    #[error("the addresses are of different IP versions")]
    Family,
    /// The packet ends within the header that holds its ports or checksum.
    #[error("the transport's header is truncated")]
    Truncated,
}

/// Rewrites one end of the packet that was parsed as `parsed`, and says so in `parsed`.
///
/// Of a later fragment only the address changes: the first one holds ports and checksum, which covers all of them.
/// Nothing is changed when an error is returned.
pub fn rewrite(packet: &mut [u8], parsed: &mut Parsed, to: Rewrite) -> Result<(), NatError> {
    let from = match to.end {
        End::Source => parsed.source,
        End::Destination => parsed.destination,
    };
    let (ip, transport) = packet.split_at_mut_checked(usize::from(parsed.l4_offset)).ok_or(NatError::Truncated)?;
    if parsed.fragment != Fragment::Later {
        rewrite_transport(transport, parsed.protocol, from, to)?;
    } else if from.is_ipv4() != to.address.is_ipv4() {
        return Err(NatError::Family);
    }
    rewrite_address(ip, from, to)?;
    match to.end {
        End::Source => parsed.source = to.address,
        End::Destination => parsed.destination = to.address,
    }
    if let Some(ports) = parsed.ports {
        parsed.ports = Some(with_port(ports, to.end, to.port));
    }
    Ok(())
}

/// Rewrites the packet that an ICMP error quotes, and the error's checksum; of the error's own header nothing.
///
/// `error` is the whole packet, parsed as `parsed`; `quoted` is what its quote was parsed to. A quote may be cut
/// anywhere behind its ports, and then has no checksum of its own to correct.
pub fn rewrite_quote(error: &mut [u8], parsed: &Parsed, quoted: &QuotedPacket, to: Rewrite) -> Result<(), NatError> {
    let start = usize::from(parsed.l4_offset);
    let header = match parsed.protocol {
        Protocol::ICMP => icmp::HEADER_LENGTH,
        _ => icmpv6::HEADER_LENGTH,
    };
    let message = error.get_mut(start..parsed.total_length as usize).ok_or(NatError::Truncated)?;
    let (head, quote) = message.split_at_mut_checked(header).ok_or(NatError::Truncated)?;
    // All that changes lies in the headers of the quote.
    let changing = usize::from(quoted.l4_offset) + tcp::CHECKSUM_OFFSET + 2;
    let length = changing.min(quote.len()) & !1;
    let mut before = [0; MAX_QUOTED_HEADERS];
    let (Some(old), Some(new)) = (before.get_mut(..length), quote.get_mut(..length)) else {
        return Err(NatError::Truncated);
    };
    old.copy_from_slice(new);
    quoted.rewrite(quote, to)?;
    let place = bytes_at_mut::<2>(head, 2).ok_or(NatError::Truncated)?;
    let new = quote.get(..length).ok_or(NatError::Truncated)?;
    *place = checksum::update_bytes(u16::from_be_bytes(*place), old, new).to_be_bytes();
    Ok(())
}

/// Bytes of a quote that can change at most: the longest IP header that is walked, and a TCP header up to its checksum.
const MAX_QUOTED_HEADERS: usize = 256;

/// What the beginning of a packet, as ICMP errors quote it, says of its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuotedPacket {
    /// Who sent it.
    pub source: IpAddr,
    /// Whom it was for.
    pub destination: IpAddr,
    /// What it carries.
    pub protocol: Protocol,
    /// Its ports.
    pub ports: Ports,
    /// Where its transport's header begins.
    pub l4_offset: u16,
}

impl QuotedPacket {
    /// Reads what an ICMP error quotes; `packet` begins with the IP header that `parsed` is of.
    pub fn of_error(parsed: &Parsed, packet: &[u8]) -> Option<Self> {
        if parsed.fragment != Fragment::No {
            return None;
        }
        let message = match parsed.protocol {
            Protocol::ICMP | Protocol::ICMPV6 => parsed.l4(packet),
            _ => return None,
        };
        let quote = match parsed.protocol {
            Protocol::ICMP => Icmp::parse(message)?.embedded(message)?,
            _ => Icmpv6::parse(message)?.embedded(message)?,
        };
        Self::parse(quote)
    }

    /// Reads a quote that may be cut behind its ports; `None` if it does not tell its flow.
    pub fn parse(quote: &[u8]) -> Option<Self> {
        // A quote is a prefix of the packet: the length in its header is that of the whole.
        let parsed = Parsed::from_quote(quote)?;
        let fits = usize::from(parsed.l4_offset) + tcp::CHECKSUM_OFFSET + 2 <= MAX_QUOTED_HEADERS;
        let ports = parsed.ports.filter(|_| fits)?;
        let Parsed { source, destination, protocol, l4_offset, .. } = parsed;
        Some(Self { source, destination, protocol, ports, l4_offset })
    }

    fn rewrite(&self, quote: &mut [u8], to: Rewrite) -> Result<(), NatError> {
        let from = match to.end {
            End::Source => self.source,
            End::Destination => self.destination,
        };
        let (ip, transport) = quote.split_at_mut_checked(usize::from(self.l4_offset)).ok_or(NatError::Truncated)?;
        match rewrite_transport(transport, self.protocol, from, to) {
            Ok(()) => {}
            Err(NatError::Family) => return Err(NatError::Family),
            Err(NatError::Truncated) => drop(swap_port(transport, to)?),
        }
        rewrite_address(ip, from, to)
    }
}

fn with_port(ports: Ports, end: End, port: u16) -> Ports {
    match end {
        End::Source => Ports { source: port, ..ports },
        End::Destination => Ports { destination: port, ..ports },
    }
}

/// Writes the port and corrects the checksum of TCP or UDP for port and address; nothing is changed on an error.
fn rewrite_transport(transport: &mut [u8], protocol: Protocol, from: IpAddr, to: Rewrite) -> Result<(), NatError> {
    let (place, has_ports) = match protocol {
        Protocol::TCP => (tcp::CHECKSUM_OFFSET, true),
        Protocol::UDP => (UDP_CHECKSUM_OFFSET, true),
        Protocol::ICMPV6 => (ICMP_CHECKSUM_OFFSET, false),
        // Its checksum covers no address (RFC 792), or nobody here knows what it covers.
        _ if from.is_ipv4() == to.address.is_ipv4() => return Ok(()),
        _ => return Err(NatError::Family),
    };
    let field = *bytes_at_mut::<2>(transport, place).ok_or(NatError::Truncated)?;
    let old = u16::from_be_bytes(field);
    let new = match (from, to.address) {
        (IpAddr::V4(from), IpAddr::V4(address)) => checksum::update_bytes(old, &from.octets(), &address.octets()),
        (IpAddr::V6(from), IpAddr::V6(address)) => checksum::update_bytes(old, &from.octets(), &address.octets()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Err(NatError::Family),
    };
    let port = if has_ports { swap_port(transport, to)? } else { to.port };
    if let Some(field) = bytes_at_mut::<2>(transport, place) {
        *field = updated(old, checksum::update(new, port, to.port), protocol).to_be_bytes();
    }
    Ok(())
}

/// What the transport's checksum becomes, by what it was and what it would come to.
#[inline]
const fn updated(old: u16, sum: u16, protocol: Protocol) -> u16 {
    match (sum, protocol) {
        // A datagram without a checksum stays without; one that comes to zero is written as all ones (RFC 768).
        (_, Protocol::UDP) if old == 0 => 0,
        (0, Protocol::UDP) => 0xffff,
        (sum, _) => sum,
    }
}

/// Where the checksum stands in a UDP header.
const UDP_CHECKSUM_OFFSET: usize = 6;
/// Where the checksum stands in an ICMPv6 header.
const ICMP_CHECKSUM_OFFSET: usize = 2;

/// Writes the port of the end, and gives the one that was there.
fn swap_port(transport: &mut [u8], to: Rewrite) -> Result<u16, NatError> {
    let offset = match to.end {
        End::Source => 0,
        End::Destination => 2,
    };
    let place = bytes_at_mut::<2>(transport, offset).ok_or(NatError::Truncated)?;
    let before = u16::from_be_bytes(*place);
    *place = to.port.to_be_bytes();
    Ok(before)
}

/// Writes the address, and corrects the checksum of an IPv4 header.
fn rewrite_address(ip: &mut [u8], from: IpAddr, to: Rewrite) -> Result<(), NatError> {
    match (from, to.address) {
        (IpAddr::V4(from), IpAddr::V4(address)) => {
            let offset = if to.end == End::Source { 12 } else { 16 };
            *bytes_at_mut(ip, offset).ok_or(NatError::Truncated)? = address.octets();
            let sum = bytes_at_mut::<2>(ip, 10).ok_or(NatError::Truncated)?;
            *sum = checksum::update_bytes(u16::from_be_bytes(*sum), &from.octets(), &address.octets()).to_be_bytes();
        }
        (IpAddr::V6(_), IpAddr::V6(address)) => {
            let offset = if to.end == End::Source { 8 } else { 24 };
            *bytes_at_mut(ip, offset).ok_or(NatError::Truncated)? = address.octets();
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Err(NatError::Family),
    }
    Ok(())
}

/// The rewriting of one end that is the same in many packets, so that what it does to their checksums is known: of a
/// destination, always from one address and port to another.
#[derive(Clone, Copy, Debug)]
pub struct Translation {
    address: IpAddr,
    port: u16,
    /// What is added to the sum under the checksum of an IPv4 header.
    to_header: u16,
    /// What is added to the sum under the transport's checksum.
    to_transport: u16,
}

impl Translation {
    /// From one address and port to another of the same family; `None` if it is of the other.
    pub fn new(from: (IpAddr, u16), to: (IpAddr, u16)) -> Option<Self> {
        let sum = |address| match address {
            IpAddr::V4(address) => Sum::ZERO.bytes(&Ipv4Addr::octets(&address)),
            IpAddr::V6(address) => Sum::ZERO.bytes(&Ipv6Addr::octets(&address)),
        };
        // Subtracting a sum is adding its complement (RFC 1624).
        let difference = |from: Sum, to: Sum| Sum::ZERO.word(!from.folded()).plus(to).folded();
        (from.0.is_ipv4() == to.0.is_ipv4()).then(|| Self {
            address: to.0,
            port: to.1,
            to_header: difference(sum(from.0), sum(to.0)),
            to_transport: difference(sum(from.0).word(from.1), sum(to.0).word(to.1)),
        })
    }

    /// Rewrites a UDP or TCP packet, no later fragment, for the address and port that this translates from; its
    /// transport's header is at `l4_offset`. Nothing is changed on an error.
    #[inline]
    pub fn apply(&self, packet: &mut [u8], l4_offset: usize, protocol: Protocol) -> Result<(), NatError> {
        let (ip, transport) = packet.split_at_mut_checked(l4_offset).ok_or(NatError::Truncated)?;
        let place = if protocol == Protocol::TCP { tcp::CHECKSUM_OFFSET } else { UDP_CHECKSUM_OFFSET };
        let old = u16::from_be_bytes(*bytes_at_mut::<2>(transport, place).ok_or(NatError::Truncated)?);
        match self.address {
            IpAddr::V4(address) => {
                let header = ip.first_chunk_mut::<{ ipv4::HEADER_LENGTH }>().ok_or(NatError::Truncated)?;
                let sum = checksum::add(u16::from_be_bytes([header[10], header[11]]), self.to_header);
                [header[10], header[11]] = sum.to_be_bytes();
                [header[16], header[17], header[18], header[19]] = address.octets();
            }
            IpAddr::V6(address) => {
                *bytes_at_mut(ip, 24).ok_or(NatError::Truncated)? = address.octets();
            }
        }
        if let Some(field) = bytes_at_mut::<2>(transport, 2) {
            *field = self.port.to_be_bytes();
        }
        if let Some(field) = bytes_at_mut::<2>(transport, place) {
            *field = updated(old, checksum::add(old, self.to_transport), protocol).to_be_bytes();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
