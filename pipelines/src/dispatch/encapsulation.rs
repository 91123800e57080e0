//! Puts a packet into another IP packet, by which it gets to a server as it is: IP in IP, GRE, GUE.
//!
//! ```text
//!  ipip   | IP, protocol 4 or 41          | packet      RFC 2003, RFC 2473, RFC 4213
//!  gre    | IP, protocol 47 | 4 bytes GRE | packet      RFC 2784, RFC 7676
//!  gue    | IP | UDP, to port 6080        | packet      draft-ietf-intarea-gue, variant 1
//! ```
//!
//! GUE's source port tells the flow, so that routers and network cards spread flows by it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jetway_config::Encapsulation;

use crate::buffer::{NoRoom, PacketBuf};
use crate::packet::ecn::{self, Dscp};
use crate::packet::ipv4::Fragmentation;
use crate::packet::ipv6::Ipv6;
use crate::packet::udp::Checksum;
use crate::packet::{EtherType, Parsed, Protocol, bytes_at_mut, ethernet, ipv4, ipv6, udp};

/// Bytes of a GRE header without options.
const GRE_LENGTH: usize = 4;
/// Hops of the outer packet.
const HOPS: u8 = 64;
/// The first of the ports that GUE's source port is of: those that IANA gives to nobody (RFC 6335).
const FIRST_DYNAMIC_PORT: u16 = 49_152;

/// The two ends of the outer packet, of one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// Over IPv4.
    V4 {
        /// Ours.
        source: Ipv4Addr,
        /// The server's.
        destination: Ipv4Addr,
    },
    /// Over IPv6.
    V6 {
        /// Ours.
        source: Ipv6Addr,
        /// The server's.
        destination: Ipv6Addr,
    },
}

impl Ends {
    /// The ends of these addresses; `None` if they are of different families.
    pub fn new(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4 { source, destination }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6 { source, destination }),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

/// How a packet was put into the one that was parsed as `outer`, if it was.
pub fn kind_of(outer: &Parsed) -> Option<Encapsulation> {
    match outer.protocol {
        Protocol::IPV4 | Protocol::IPV6 => Some(Encapsulation::Ipip),
        Protocol::GRE => Some(Encapsulation::Gre),
        Protocol::UDP if outer.ports?.destination == Encapsulation::GUE_PORT => Some(Encapsulation::Gue),
        _ => None,
    }
}

/// Bytes that an encapsulation adds to a packet on its way to `destination`.
#[inline]
pub const fn overhead(encapsulation: Encapsulation, destination: IpAddr) -> u16 {
    let ip = match destination {
        IpAddr::V4(_) => ipv4::HEADER_LENGTH,
        IpAddr::V6(_) => ipv6::HEADER_LENGTH,
    };
    (ip + shim(encapsulation)) as u16
}

/// Bytes that stand between the two IP headers.
const fn shim(encapsulation: Encapsulation) -> usize {
    match encapsulation {
        Encapsulation::Ipip => 0,
        Encapsulation::Gre => GRE_LENGTH,
        Encapsulation::Gue => udp::HEADER_LENGTH,
    }
}

/// Puts the packet in `buffer`, parsed as `inner`, into an outer one: see [`Headers::put`].
pub fn wrap<B: PacketBuf>(
    encapsulation: Encapsulation,
    buffer: &mut B,
    inner: &Parsed,
    ends: Ends,
    entropy: u64,
    ip_id: &mut u16,
) -> Result<(), NoRoom> {
    let carried = if inner.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
    Headers::outer(encapsulation, ends, carried).put(buffer, Inner::of(inner), entropy, ip_id)
}

/// What an outer header shows of the packet in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inner {
    /// Its DSCP and ECN.
    pub traffic_class: u8,
    /// Whether routers may not fragment it.
    pub dont_fragment: bool,
}

impl Inner {
    /// Of a packet that was parsed.
    #[inline]
    pub const fn of(packet: &Parsed) -> Self {
        Self { traffic_class: packet.traffic_class, dont_fragment: packet.dont_fragment }
    }
}

/// Room for all headers that are put before a packet: Ethernet, IPv6 and UDP are the longest, with 62 bytes.
pub const HEADERS_ROOM: usize = 64;

/// Headers before packets to one server, in which only what differs from packet to packet is missing.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    /// They end where this ends, so that all of it is copied, whatever their length.
    bytes: [u8; HEADERS_ROOM],
    length: u8,
    /// `None` if they are a link-layer header alone.
    outer: Option<Outer>,
}

/// The outer packet whose headers have to be completed.
#[derive(Clone, Copy, Debug)]
enum Outer {
    /// Over IPv4; with the sum of what is known of the header.
    V4(Encapsulation, u16),
    /// Over IPv6.
    V6(Encapsulation),
}

impl Headers {
    /// The headers of outer packets between these ends, which carry packets of this kind.
    pub fn outer(encapsulation: Encapsulation, ends: Ends, carried: EtherType) -> Self {
        let mut headers = Self::NONE;
        let protocol = match encapsulation {
            Encapsulation::Ipip if carried == EtherType::IPV4 => Protocol::IPV4,
            Encapsulation::Ipip => Protocol::IPV6,
            Encapsulation::Gre => {
                let [high, low] = carried.0.to_be_bytes();
                headers.prepend(&[0, 0, high, low]);
                Protocol::GRE
            }
            Encapsulation::Gue => {
                let mut header = [0; udp::HEADER_LENGTH];
                udp::write(&mut header, 0, Encapsulation::GUE_PORT, 0, Checksum::None);
                headers.prepend(&header);
                Protocol::UDP
            }
        };
        let traffic_class = 0;
        match ends {
            Ends::V4 { source, destination } => {
                let mut bytes = [0; ipv4::HEADER_LENGTH];
                let fragmentation = Fragmentation::Allowed { identification: 0 };
                let (ttl, total_length) = (HOPS, 0);
                ipv4::Header { source, destination, protocol, traffic_class, ttl, fragmentation, total_length }
                    .write(&mut bytes);
                let known = !u16::from_be_bytes([bytes[10], bytes[11]]);
                headers.prepend(&bytes);
                headers.outer = Some(Outer::V4(encapsulation, known));
            }
            Ends::V6 { source, destination } => {
                let mut bytes = [0; ipv6::HEADER_LENGTH];
                let (hop_limit, flow_label, payload_length) = (HOPS, 0, 0);
                ipv6::Header { source, destination, protocol, traffic_class, flow_label, hop_limit, payload_length }
                    .write(&mut bytes);
                headers.prepend(&bytes);
                headers.outer = Some(Outer::V6(encapsulation));
            }
        }
        headers
    }

    /// A link-layer header alone.
    pub fn link(header: &[u8; ethernet::HEADER_LENGTH]) -> Self {
        Self::NONE.behind(header)
    }

    const NONE: Self = Self { bytes: [0; HEADERS_ROOM], length: 0, outer: None };

    /// These behind a link-layer header.
    #[must_use]
    pub fn behind(mut self, link: &[u8; ethernet::HEADER_LENGTH]) -> Self {
        self.prepend(link);
        self
    }

    fn prepend(&mut self, header: &[u8]) {
        let end = HEADERS_ROOM - usize::from(self.length);
        // Whatever is put together here fits: see `HEADERS_ROOM`.
        if let Some(place) = end.checked_sub(header.len()).and_then(|start| self.bytes.get_mut(start..end)) {
            place.copy_from_slice(header);
            self.length += header.len() as u8;
        }
    }

    /// Puts the headers before the packet in `buffer`, of which they show `inner`.
    ///
    /// The outer header shows the inner traffic class: both lie in the operator's network (RFC 2983 section 3.1), and
    /// its ECN field is as RFC 6040 section 4.1 has it. Routers may cut the outer packet only if they may cut the
    /// inner one (RFC 2003 section 3.1). `entropy` tells flows apart. The buffer needs [`HEADERS_ROOM`].
    #[inline]
    pub fn put<B: PacketBuf>(&self, buffer: &mut B, inner: Inner, entropy: u64, ip_id: &mut u16) -> Result<(), NoRoom> {
        let Some(outer) = self.outer else {
            let room = NoRoom(ethernet::HEADER_LENGTH);
            let link = self.bytes.last_chunk::<{ ethernet::HEADER_LENGTH }>().ok_or(room)?;
            buffer.grow_front(link.len())?;
            *buffer.data_mut().first_chunk_mut().ok_or(room)? = *link;
            return Ok(());
        };
        let packet = buffer.data().len();
        let length = u16::try_from(packet + HEADERS_ROOM).map_err(|_| NoRoom(packet))? - HEADERS_ROOM as u16;
        buffer.grow_front(HEADERS_ROOM)?;
        let place = buffer.data_mut().first_chunk_mut().ok_or(NoRoom(HEADERS_ROOM))?;
        *place = self.bytes;
        match outer {
            Outer::V4(encapsulation, known) => {
                complete_v4(place, encapsulation, known, inner, length, ip_id);
                if encapsulation == Encapsulation::Gue {
                    complete_gue(place, length, entropy);
                }
            }
            Outer::V6(encapsulation) => {
                complete_v6(place, encapsulation, inner, length, entropy);
                if encapsulation == Encapsulation::Gue {
                    complete_gue(place, length, entropy);
                    checksum_gue(buffer);
                }
            }
        }
        buffer.trim_front(HEADERS_ROOM - usize::from(self.length));
        Ok(())
    }
}

/// Fills in an IPv4 header around a packet of `length` bytes, with its checksum.
#[inline]
fn complete_v4(
    place: &mut [u8; HEADERS_ROOM],
    encapsulation: Encapsulation,
    known: u16,
    inner: Inner,
    length: u16,
    ip_id: &mut u16,
) {
    let (identification, flags) = if inner.dont_fragment {
        (0, 0x4000)
    } else {
        *ip_id = ip_id.wrapping_add(1);
        (*ip_id, 0)
    };
    let between = shim(encapsulation);
    let class = ecn::encapsulate(inner.traffic_class, Dscp::Copy);
    let total = length + (ipv4::HEADER_LENGTH + between) as u16;
    // All these words were zero in the sum so far, but for the version beside the class.
    let sum = u32::from(known) + u32::from(class) + u32::from(total) + u32::from(identification) + u32::from(flags);
    let sum = (sum >> 16) + (sum & 0xffff);
    let checksum = !((sum >> 16) + (sum & 0xffff)) as u16;
    let at = HEADERS_ROOM - between - ipv4::HEADER_LENGTH;
    if let Some(header) = bytes_at_mut::<{ ipv4::HEADER_LENGTH }>(place, at) {
        header[1] = class;
        [header[2], header[3]] = total.to_be_bytes();
        [header[4], header[5]] = identification.to_be_bytes();
        [header[6], header[7]] = u16::to_be_bytes(flags);
        [header[10], header[11]] = checksum.to_be_bytes();
    }
}

/// Fills in an IPv6 header around a packet of `length` bytes.
#[inline]
fn complete_v6(place: &mut [u8; HEADERS_ROOM], encapsulation: Encapsulation, inner: Inner, length: u16, entropy: u64) {
    let between = shim(encapsulation);
    let class = ecn::encapsulate(inner.traffic_class, Dscp::Copy);
    let flow_label = (entropy >> 32) as u32 & 0x000f_ffff;
    let at = HEADERS_ROOM - between - ipv6::HEADER_LENGTH;
    if let Some([first @ .., high, low]) = bytes_at_mut::<6>(place, at) {
        *first = (6 << 28 | u32::from(class) << 20 | flow_label).to_be_bytes();
        [*high, *low] = (length + between as u16).to_be_bytes();
    }
}

/// Fills in GUE's UDP header.
#[inline]
fn complete_gue(place: &mut [u8; HEADERS_ROOM], length: u16, entropy: u64) {
    if let Some(header) = bytes_at_mut(place, HEADERS_ROOM - udp::HEADER_LENGTH) {
        let source_port = FIRST_DYNAMIC_PORT | entropy as u16;
        udp::write(header, source_port, Encapsulation::GUE_PORT, length + udp::HEADER_LENGTH as u16, Checksum::None);
    }
}

/// Fills in GUE's checksum over IPv6: that it is zero a receiver must have been told (RFC 6935), and a stock one was not.
fn checksum_gue<B: PacketBuf>(buffer: &mut B) {
    let at = HEADERS_ROOM - udp::HEADER_LENGTH;
    let Some((head, datagram)) = buffer.data().split_at_checked(at) else { return };
    let Some(Ok(ip)) = head.last_chunk::<{ ipv6::HEADER_LENGTH }>().map(|header| Ipv6::parse_quote(header)) else {
        return;
    };
    let checksum = udp::checksum_of(ip.source.into(), ip.destination.into(), datagram);
    if let Some(field) = bytes_at_mut(buffer.data_mut(), at + udp::CHECKSUM_OFFSET) {
        *field = checksum.to_be_bytes();
    }
}

#[cfg(test)]
mod tests;
