//! The headers outside a tunnel's messages: which port, which addresses, and their writing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::buffer::{L4Offload, Network, NoRoom, PacketBuf, Transport};
use crate::drop_reason::DropReason;
use crate::ids::PortId;
use crate::packet::ipv4::Fragmentation;
use crate::packet::udp::Checksum;
use crate::packet::{Protocol, ethernet, ipv4, ipv6, udp};
use crate::tables::{ChecksumBy, Route, Tables};
use crate::wireguard::Endpoint;
use crate::wireguard::constants::{DATA_HEADER_SIZE, TAG_SIZE};

/// The way to an endpoint, worked out once for a run of messages.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// The port to leave by.
    pub port: PortId,
    /// Whose link-layer address to send to.
    pub next_hop: IpAddr,
    addresses: Addresses,
    source_port: u16,
    destination_port: u16,
    mtu: u16,
    checksum_by: ChecksumBy,
}

#[derive(Clone, Copy, Debug)]
enum Addresses {
    V4 { source: Ipv4Addr, destination: Ipv4Addr },
    V6 { source: Ipv6Addr, destination: Ipv6Addr },
}

const HOP_LIMIT: u8 = 64;

impl Outer {
    /// Looks up the way to `endpoint` for messages from our UDP port `source_port`.
    pub fn resolve(endpoint: Endpoint, source_port: u16, tables: &Tables) -> Result<Self, DropReason> {
        let destination = endpoint.remote.ip();
        let (port, gateway, preferred, route_mtu) = match tables.routes.lookup(destination) {
            Some(Route::Port { port, gateway, source, mtu }) => (*port, *gateway, *source, *mtu),
            Some(Route::Blackhole | Route::Unreachable | Route::Prohibit) => return Err(DropReason::RouteBlackhole),
            // A tunnel inside a tunnel would need a second turn through the stages: not carried.
            Some(Route::Tunnel(_)) | None => return Err(DropReason::NoRoute),
        };
        let entry = tables.port(port).ok_or(DropReason::NoRoute)?;
        let ours = endpoint.local.filter(|address| tables.is_local(*address));
        let source = ours.or(preferred).or_else(|| entry.source.towards(destination)).ok_or(DropReason::NoRoute)?;
        let addresses = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Addresses::V4 { source, destination },
            (IpAddr::V6(source), IpAddr::V6(destination)) => Addresses::V6 { source, destination },
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Err(DropReason::NoRoute),
        };
        Ok(Self {
            port,
            next_hop: gateway.unwrap_or(destination),
            addresses,
            source_port,
            destination_port: endpoint.remote.port(),
            mtu: route_mtu.map_or(entry.mtu, |mtu| mtu.min(entry.mtu)),
            checksum_by: entry.l4_checksum,
        })
    }

    /// Bytes of the IP and UDP headers.
    const fn overhead(&self) -> u16 {
        let ip = match self.addresses {
            Addresses::V4 { .. } => ipv4::HEADER_LENGTH,
            Addresses::V6 { .. } => ipv6::HEADER_LENGTH,
        };
        (ip + udp::HEADER_LENGTH) as u16
    }

    /// The longest inner packet that fits without outer fragments.
    pub const fn room_for_inner(&self) -> u16 {
        self.mtu.saturating_sub(self.overhead() + (DATA_HEADER_SIZE + TAG_SIZE) as u16)
    }

    /// Puts UDP and IP headers before the message in `buffer`.
    ///
    /// Over IPv4 the UDP checksum is zero, "not computed" (RFC 768): every byte of the message is authenticated.
    /// Over IPv6 it is computed, as RFC 8200 section 8.1 asks.
    pub fn wrap<B: PacketBuf>(&self, buffer: &mut B, traffic_class: u8, ip_id: &mut u16) -> Result<(), NoRoom> {
        let datagram = buffer.data().len() + udp::HEADER_LENGTH;
        let length = u16::try_from(datagram).map_err(|_| NoRoom(datagram))?;
        buffer.grow_front(udp::HEADER_LENGTH)?;
        self.write_udp(buffer, length, Checksum::None);
        match self.addresses {
            Addresses::V4 { source, destination } => {
                *ip_id = ip_id.wrapping_add(1);
                let header = ipv4::Header {
                    source,
                    destination,
                    protocol: Protocol::UDP,
                    traffic_class,
                    ttl: HOP_LIMIT,
                    fragmentation: Fragmentation::Allowed { identification: *ip_id },
                    total_length: length.saturating_add(ipv4::HEADER_LENGTH as u16),
                };
                buffer.grow_front(ipv4::HEADER_LENGTH)?;
                if let Some(place) = buffer.data_mut().first_chunk_mut() {
                    header.write(place);
                }
            }
            Addresses::V6 { source, destination } => {
                self.checksum_v6(buffer, length, source.into(), destination.into());
                let header = ipv6::Header {
                    source,
                    destination,
                    protocol: Protocol::UDP,
                    traffic_class,
                    flow_label: 0,
                    hop_limit: HOP_LIMIT,
                    payload_length: length,
                };
                buffer.grow_front(ipv6::HEADER_LENGTH)?;
                if let Some(place) = buffer.data_mut().first_chunk_mut() {
                    header.write(place);
                }
            }
        }
        Ok(())
    }

    fn checksum_v6<B: PacketBuf>(&self, buffer: &mut B, length: u16, source: IpAddr, destination: IpAddr) {
        let checksum = match self.checksum_by {
            ChecksumBy::Nic => {
                buffer.offload_l4_checksum(L4Offload {
                    l2_length: ethernet::HEADER_LENGTH as u8,
                    l3_length: ipv6::HEADER_LENGTH as u16,
                    network: Network::V6,
                    transport: Transport::Udp,
                });
                udp::offload_seed(source, destination, length)
            }
            ChecksumBy::Software => udp::checksum_of(source, destination, buffer.data()),
        };
        self.write_udp(buffer, length, Checksum::Value(checksum));
    }

    fn write_udp<B: PacketBuf>(&self, buffer: &mut B, length: u16, checksum: Checksum) {
        if let Some(place) = buffer.data_mut().first_chunk_mut() {
            udp::write(place, self.source_port, self.destination_port, length, checksum);
        }
    }
}
