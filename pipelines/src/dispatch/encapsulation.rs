//! Puts a packet into another IP packet, by which it gets to a server as it is: IP in IP, GRE, GUE.
//!
//! ```text
//!  ipip   | IP, protocol 4 or 41          | packet      RFC 2003, RFC 2473, RFC 4213
//!  gre    | IP, protocol 47 | 4 bytes GRE | packet      RFC 2784, RFC 7676
//!  gue    | IP | UDP, to port 6080        | packet      draft-ietf-intarea-gue, variant 1
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::buffer::{NoRoom, PacketBuf};
use crate::packet::ecn::{self, Dscp};
use crate::packet::ipv4::Fragmentation;
use crate::packet::udp::Checksum;
use crate::packet::{EtherType, Parsed, Protocol, ipv4, ipv6, udp};

/// What stands between the two IP headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encapsulation {
    /// Nothing.
    Ipip,
    /// A GRE header without options.
    Gre,
    /// A UDP header, whose source port tells the flow, so that routers and network cards spread flows by it.
    Gue,
}

/// The UDP port of GUE (the IANA registry "Service Name and Transport Protocol Port Number").
pub const GUE_PORT: u16 = 6080;
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

impl Encapsulation {
    /// Bytes that it adds to a packet on its way to `destination`.
    #[inline]
    pub const fn overhead(self, destination: IpAddr) -> u16 {
        let ip = match destination {
            IpAddr::V4(_) => ipv4::HEADER_LENGTH,
            IpAddr::V6(_) => ipv6::HEADER_LENGTH,
        };
        (ip + self.shim()) as u16
    }

    const fn shim(self) -> usize {
        match self {
            Self::Ipip => 0,
            Self::Gre => GRE_LENGTH,
            Self::Gue => udp::HEADER_LENGTH,
        }
    }

    /// Puts the packet in `buffer`, parsed as `inner`, into an outer one.
    ///
    /// The outer header shows the inner traffic class: both lie in the operator's network (RFC 2983 section 3.1), and
    /// its ECN field is as RFC 6040 section 4.1 has it. Routers may cut the outer packet only if they may cut the
    /// inner one (RFC 2003 section 3.1). `entropy` tells flows apart.
    pub fn wrap<B: PacketBuf>(
        self,
        buffer: &mut B,
        inner: &Parsed,
        ends: Ends,
        entropy: u64,
        ip_id: &mut u16,
    ) -> Result<(), NoRoom> {
        let traffic_class = ecn::encapsulate(inner.traffic_class, Dscp::Copy);
        let protocol = self.put_shim(buffer, inner, ends, entropy)?;
        let payload = buffer.data().len();
        match ends {
            Ends::V4 { source, destination } => {
                let fragmentation = if inner.dont_fragment {
                    Fragmentation::Forbidden
                } else {
                    *ip_id = ip_id.wrapping_add(1);
                    Fragmentation::Allowed { identification: *ip_id }
                };
                let total = payload + ipv4::HEADER_LENGTH;
                let total_length = u16::try_from(total).map_err(|_| NoRoom(total))?;
                buffer.grow_front(ipv4::HEADER_LENGTH)?;
                let header = ipv4::Header {
                    source,
                    destination,
                    protocol,
                    traffic_class,
                    ttl: HOPS,
                    fragmentation,
                    total_length,
                };
                if let Some(place) = buffer.data_mut().first_chunk_mut() {
                    header.write(place);
                }
            }
            Ends::V6 { source, destination } => {
                let payload_length = u16::try_from(payload).map_err(|_| NoRoom(payload))?;
                buffer.grow_front(ipv6::HEADER_LENGTH)?;
                let flow_label = (entropy >> 32) as u32 & 0x000f_ffff;
                let header = ipv6::Header {
                    source,
                    destination,
                    protocol,
                    traffic_class,
                    flow_label,
                    hop_limit: HOPS,
                    payload_length,
                };
                if let Some(place) = buffer.data_mut().first_chunk_mut() {
                    header.write(place);
                }
            }
        }
        Ok(())
    }

    /// Writes what stands between the IP headers, and gives the protocol that the outer one names.
    fn put_shim<B: PacketBuf>(
        self,
        buffer: &mut B,
        inner: &Parsed,
        ends: Ends,
        entropy: u64,
    ) -> Result<Protocol, NoRoom> {
        match self {
            Self::Ipip => Ok(if inner.is_ipv4() { Protocol::IPV4 } else { Protocol::IPV6 }),
            Self::Gre => {
                let EtherType(ethertype) = if inner.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
                buffer.grow_front(GRE_LENGTH)?;
                if let Some(place) = buffer.data_mut().first_chunk_mut::<GRE_LENGTH>() {
                    let [high, low] = ethertype.to_be_bytes();
                    *place = [0, 0, high, low];
                }
                Ok(Protocol::GRE)
            }
            Self::Gue => {
                let length = buffer.data().len() + udp::HEADER_LENGTH;
                let length = u16::try_from(length).map_err(|_| NoRoom(length))?;
                buffer.grow_front(udp::HEADER_LENGTH)?;
                let source_port = FIRST_DYNAMIC_PORT | entropy as u16;
                let write = |buffer: &mut B, checksum| {
                    if let Some(place) = buffer.data_mut().first_chunk_mut() {
                        udp::write(place, source_port, GUE_PORT, length, checksum);
                    }
                };
                write(buffer, Checksum::None);
                // Over IPv6 a zero checksum needs a receiver that was told so (RFC 6935): a stock one was not.
                if let Ends::V6 { source, destination } = ends {
                    let checksum = udp::checksum_of(source.into(), destination.into(), buffer.data());
                    write(buffer, Checksum::Value(checksum));
                }
                Ok(Protocol::UDP)
            }
        }
    }
}

#[cfg(test)]
mod tests;
