//! Errors that a router sends about a packet: ICMP (RFC 792, 1191, 1812) and ICMPv6 (RFC 4443).
//!
//! First [`IcmpError::about`] decides whether the packet may be answered at all; the caller asks its rate limiter
//! (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)); then [`IcmpError::write`] makes the packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::buffer::{NoRoom, PacketBuf};

use super::checksum::{self, Sum};
use super::icmp::{self, Icmp};
use super::icmpv6::{self, Icmpv6};
use super::{Fragment, Parsed, Protocol, ipv4, ipv6};

/// The longest ICMP error for IPv4 (RFC 1812 section 4.3.2.3).
pub const MAX_LENGTH_V4: usize = 576;

/// The longest ICMPv6 error: the least MTU of IPv6 (RFC 4443 section 2.4 (c)).
pub const MAX_LENGTH_V6: usize = ipv6::MIN_MTU;

/// Hops that an error may go.
const HOPS: u8 = 64;

/// The precedence "internetwork control" (RFC 1812 section 4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;

/// What is wrong with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Its hops ran out.
    TimeExceeded,
    /// It exceeds the next link's MTU and may not be fragmented.
    TooBig {
        /// That MTU, in bytes.
        mtu: u32,
    },
    /// No route leads to its destination.
    NoRoute,
    /// Its destination does not answer, or no peer of the tunnel has it.
    AddressUnreachable,
    /// Policy or a "prohibit" route forbids it.
    Prohibited,
    /// Nobody listens on its port.
    PortUnreachable,
}

/// How a packet came over its link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// To us alone: by unicast, or through a tunnel.
    Unicast,
    /// To several stations.
    Group,
}

/// Why a packet gets no error as an answer (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 (e)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAnswered {
    /// It is an ICMP error or redirect itself, or too short to tell.
    #[error("the packet is an ICMP error itself")]
    IsError,
    /// It is a fragment other than the first.
    #[error("the packet is a later fragment")]
    LaterFragment,
    /// It was for several receivers, by its address or on its link.
    #[error("the packet is for several receivers")]
    Group,
    /// Its source is no single host.
    #[error("the packet's source is no single host")]
    Source,
}

/// An error to be sent about a packet, which it quotes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError<'a> {
    destination: IpAddr,
    kind: u8,
    code: u8,
    rest: u32,
    quote: &'a [u8],
}

impl<'a> IcmpError<'a> {
    /// The error about `packet`, of which `parsed` was parsed, if it may be answered.
    pub fn about(packet: &'a [u8], parsed: &Parsed, arrival: Arrival, cause: Cause) -> Result<Self, NotAnswered> {
        may_answer(packet, parsed, arrival, cause)?;
        let (kind, code, rest) = if parsed.is_ipv4() { message_v4(cause) } else { message_v6(cause) };
        let most = if parsed.is_ipv4() {
            MAX_LENGTH_V4 - ipv4::HEADER_LENGTH - icmp::HEADER_LENGTH
        } else {
            MAX_LENGTH_V6 - ipv6::HEADER_LENGTH - icmpv6::HEADER_LENGTH
        };
        let length = most.min(parsed.total_length as usize).min(packet.len());
        let quote = packet.get(..length).unwrap_or_default();
        Ok(Self { destination: parsed.source, kind, code, rest, quote })
    }

    /// Where it goes: to the sender of the packet.
    pub const fn destination(&self) -> IpAddr {
        self.destination
    }

    /// Bytes of the whole IP packet.
    pub const fn length(&self) -> usize {
        let headers = match self.destination {
            IpAddr::V4(_) => ipv4::HEADER_LENGTH + icmp::HEADER_LENGTH,
            IpAddr::V6(_) => ipv6::HEADER_LENGTH + icmpv6::HEADER_LENGTH,
        };
        headers + self.quote.len()
    }

    /// Writes the IP packet to the front of `out` and gives its length. `source` is an address of ours, best that of
    /// the interface on which the packet came; of the other family nothing can be written and 0 is given.
    pub fn write(&self, source: IpAddr, out: &mut [u8]) -> Result<usize, NoRoom> {
        let missing = NoRoom(self.length().saturating_sub(out.len()));
        let out = out.get_mut(..self.length()).ok_or(missing)?;
        match (source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (header, message) = out.split_first_chunk_mut().ok_or(missing)?;
                header_v4(source, destination, self.length()).write(header);
                self.write_message(message, Sum::ZERO).ok_or(missing)?;
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (header, message) = out.split_first_chunk_mut().ok_or(missing)?;
                header_v6(source, destination, message.len()).write(header);
                let pseudo = checksum::pseudo_v6(source, destination, Protocol::ICMPV6, message.len() as u32);
                self.write_message(message, pseudo).ok_or(missing)?;
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Ok(0),
        }
        Ok(self.length())
    }

    /// Writes the IP packet behind what `buffer` holds. If there is no room, the buffer is left as it was.
    pub fn append<B: PacketBuf>(&self, source: IpAddr, buffer: &mut B) -> Result<(), NoRoom> {
        let held = buffer.data().len();
        buffer.grow_back(self.length())?;
        let written = self.write(source, buffer.data_mut().get_mut(held..).unwrap_or_default());
        buffer.truncate(held + written.unwrap_or(0));
        written.map(drop)
    }

    /// Writes the ICMP message; `None` if it does not fit.
    fn write_message(&self, message: &mut [u8], pseudo: Sum) -> Option<()> {
        let (header, quote) = message.split_first_chunk_mut::<{ icmp::HEADER_LENGTH }>()?;
        let [r0, r1, r2, r3] = self.rest.to_be_bytes();
        *header = [self.kind, self.code, 0, 0, r0, r1, r2, r3];
        quote.get_mut(..self.quote.len())?.copy_from_slice(self.quote);
        let [c0, c1] = pseudo.bytes(header).bytes(self.quote).checksum().to_be_bytes();
        header[2] = c0;
        header[3] = c1;
        Some(())
    }
}

fn may_answer(packet: &[u8], parsed: &Parsed, arrival: Arrival, cause: Cause) -> Result<(), NotAnswered> {
    if parsed.fragment == Fragment::Later {
        return Err(NotAnswered::LaterFragment);
    }
    // "Packet too big" is answered even to multicast, so that path MTU discovery works for it (RFC 4443 section 2.4 (e.3)).
    let too_big_v6 = !parsed.is_ipv4() && matches!(cause, Cause::TooBig { .. });
    if (arrival == Arrival::Group || is_group(parsed.destination)) && !too_big_v6 {
        return Err(NotAnswered::Group);
    }
    if parsed.source.is_unspecified() || parsed.source.is_loopback() || is_group(parsed.source) {
        return Err(NotAnswered::Source);
    }
    let l4 = parsed.l4(packet);
    let is_error = match parsed.protocol {
        Protocol::ICMP => Icmp::parse(l4).is_none_or(|message| message.kind.is_error()),
        Protocol::ICMPV6 => {
            Icmpv6::parse(l4).is_none_or(|message| message.kind.is_error() || message.kind == icmpv6::Kind::REDIRECT)
        }
        _ => false,
    };
    if is_error { Err(NotAnswered::IsError) } else { Ok(()) }
}

/// Whether an address stands for several hosts. Broadcasts of a subnet are known only by its routers: to them those
/// packets come as [`Arrival::Group`].
fn is_group(address: IpAddr) -> bool {
    match address {
        // 240.0.0.0/4 is reserved; its last address is the broadcast.
        IpAddr::V4(address) => address.is_multicast() || address.octets()[0] >= 240,
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// Type, code and the word behind the checksum.
fn message_v4(cause: Cause) -> (u8, u8, u32) {
    match cause {
        Cause::TimeExceeded => (icmp::Kind::TIME_EXCEEDED.0, 0, 0),
        Cause::TooBig { mtu } => (icmp::Kind::UNREACHABLE.0, icmp::CODE_FRAGMENTATION_NEEDED, mtu.min(0xffff)),
        Cause::NoRoute => (icmp::Kind::UNREACHABLE.0, 0, 0),
        Cause::AddressUnreachable => (icmp::Kind::UNREACHABLE.0, 1, 0),
        Cause::Prohibited => (icmp::Kind::UNREACHABLE.0, 13, 0),
        Cause::PortUnreachable => (icmp::Kind::UNREACHABLE.0, 3, 0),
    }
}

/// Type, code and the word behind the checksum.
fn message_v6(cause: Cause) -> (u8, u8, u32) {
    match cause {
        Cause::TimeExceeded => (icmpv6::Kind::TIME_EXCEEDED.0, 0, 0),
        Cause::TooBig { mtu } => (icmpv6::Kind::PACKET_TOO_BIG.0, 0, mtu),
        Cause::NoRoute => (icmpv6::Kind::UNREACHABLE.0, 0, 0),
        Cause::AddressUnreachable => (icmpv6::Kind::UNREACHABLE.0, 3, 0),
        Cause::Prohibited => (icmpv6::Kind::UNREACHABLE.0, 1, 0),
        Cause::PortUnreachable => (icmpv6::Kind::UNREACHABLE.0, 4, 0),
    }
}

fn header_v4(source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> ipv4::Header {
    ipv4::Header {
        source,
        destination,
        protocol: Protocol::ICMP,
        traffic_class: INTERNETWORK_CONTROL,
        ttl: HOPS,
        fragmentation: ipv4::Fragmentation::Forbidden,
        // At most MAX_LENGTH_V4.
        total_length: length as u16,
    }
}

fn header_v6(source: Ipv6Addr, destination: Ipv6Addr, length: usize) -> ipv6::Header {
    ipv6::Header {
        source,
        destination,
        protocol: Protocol::ICMPV6,
        traffic_class: INTERNETWORK_CONTROL,
        flow_label: 0,
        hop_limit: HOPS,
        // Less than MAX_LENGTH_V6.
        payload_length: length as u16,
    }
}
