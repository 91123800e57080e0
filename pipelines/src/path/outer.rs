//! The headers outside a tunnel's messages: which port, which addresses, and their writing.

use std::net::{IpAddr, SocketAddr};
use std::ptr;

use super::emit::LinkHeaders;
use crate::buffer::{L4Offload, Network, NoRoom, PacketBuf, Transport};
use crate::drop_reason::DropReason;
use crate::ids::PortId;
use crate::packet::ipv4::Fragmentation;
use crate::packet::ipv6::Ipv6;
use crate::packet::udp::Checksum;
use crate::packet::{Protocol, checksum, ethernet, ipv4, ipv6, udp};
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
    headers: Headers,
    /// Whether the first of the headers is there.
    is_linked: bool,
    mtu: u16,
    checksum_by: ChecksumBy,
}

/// Ethernet, IP and UDP headers in which only what differs from message to message is missing. The first is zero until the neighbour's
/// address is known.
#[derive(Clone, Copy, Debug)]
enum Headers {
    V4([u8; ethernet::HEADER_LENGTH + V4_LENGTH]),
    V6([u8; ethernet::HEADER_LENGTH + V6_LENGTH]),
}

/// Bytes of the IP and UDP headers.
const V4_LENGTH: usize = ipv4::HEADER_LENGTH + udp::HEADER_LENGTH;
const V6_LENGTH: usize = ipv6::HEADER_LENGTH + udp::HEADER_LENGTH;

impl Headers {
    /// The headers between two addresses, or `None` if these are of different families.
    fn new(source: IpAddr, destination: IpAddr, ports: [u16; 2]) -> Option<Self> {
        let [source_port, destination_port] = ports;
        let mut datagram = [0; udp::HEADER_LENGTH];
        udp::write(&mut datagram, source_port, destination_port, 0, Checksum::None);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut headers = [0; ethernet::HEADER_LENGTH + V4_LENGTH];
                let header = ipv4::Header {
                    source,
                    destination,
                    protocol: Protocol::UDP,
                    traffic_class: 0,
                    ttl: HOP_LIMIT,
                    fragmentation: Fragmentation::Allowed { identification: 0 },
                    total_length: 0,
                };
                let (_, behind) = headers.split_first_chunk_mut::<{ ethernet::HEADER_LENGTH }>()?;
                let (ip, udp) = behind.split_first_chunk_mut()?;
                header.write(ip);
                udp.copy_from_slice(&datagram);
                Some(Self::V4(headers))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut headers = [0; ethernet::HEADER_LENGTH + V6_LENGTH];
                let header = ipv6::Header {
                    source,
                    destination,
                    protocol: Protocol::UDP,
                    traffic_class: 0,
                    flow_label: 0,
                    hop_limit: HOP_LIMIT,
                    payload_length: 0,
                };
                let (_, behind) = headers.split_first_chunk_mut::<{ ethernet::HEADER_LENGTH }>()?;
                let (ip, udp) = behind.split_first_chunk_mut()?;
                header.write(ip);
                udp.copy_from_slice(&datagram);
                Some(Self::V6(headers))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

const HOP_LIMIT: u8 = 64;

/// The way that was found last: in a burst mostly the next one too, but for the end of it.
#[derive(Default)]
pub struct LastWay<'t> {
    /// An address that was found to be the node's.
    ours: Option<IpAddr>,
    known: Option<KnownWay<'t>>,
}

struct KnownWay<'t> {
    route: &'t Route,
    local: Option<IpAddr>,
    source_port: u16,
    outer: Outer,
}

impl KnownWay<'_> {
    /// Whether it is the way to `endpoint` too, but for the end of it.
    #[inline(always)]
    fn leads_to(&self, route: &Route, endpoint: &Endpoint, source_port: u16) -> bool {
        let has_gateway = matches!(route, Route::Port { gateway: Some(_), .. });
        ptr::eq(self.route, route)
            && self.source_port == source_port
            && self.local == endpoint.local
            && (has_gateway || self.outer.next_hop == endpoint.remote.ip())
    }
}

impl<'t> LastWay<'t> {
    /// Looks up the way to `endpoint` for messages from our UDP port `source_port`. [`Outer::turn_to`] has to follow.
    #[inline(always)]
    pub fn find(&mut self, endpoint: &Endpoint, source_port: u16, tables: &'t Tables) -> Result<&Outer, DropReason> {
        let route = tables.routes.lookup(endpoint.remote.ip()).ok_or(DropReason::NoRoute)?;
        if !self.known.as_ref().is_some_and(|known| known.leads_to(route, endpoint, source_port)) {
            self.look_up(route, endpoint, source_port, tables)?;
        }
        self.known.as_ref().map(|known| &known.outer).ok_or(DropReason::NoRoute)
    }

    fn look_up(
        &mut self,
        route: &'t Route,
        endpoint: &Endpoint,
        source_port: u16,
        tables: &Tables,
    ) -> Result<(), DropReason> {
        let (port, gateway, preferred, route_mtu) = match route {
            Route::Port { port, gateway, source, mtu } => (*port, *gateway, *source, *mtu),
            Route::Blackhole | Route::Unreachable | Route::Prohibit => return Err(DropReason::RouteBlackhole),
            // A tunnel inside a tunnel would need a second turn through the stages: not carried.
            Route::Tunnel(_) => return Err(DropReason::NoRoute),
        };
        let entry = tables.port(port).ok_or(DropReason::NoRoute)?;
        if endpoint.local.is_some() && endpoint.local != self.ours {
            self.ours = endpoint.local.filter(|address| tables.is_local(*address));
        }
        let destination = endpoint.remote.ip();
        // The same for every destination by this route.
        let source = endpoint.local.and(self.ours).or(preferred).or_else(|| entry.source.towards(destination));
        let source = source.ok_or(DropReason::NoRoute)?;
        let ports = [source_port, endpoint.remote.port()];
        let outer = Outer {
            port,
            next_hop: gateway.unwrap_or(destination),
            headers: Headers::new(source, destination, ports).ok_or(DropReason::NoRoute)?,
            is_linked: false,
            mtu: route_mtu.map_or(entry.mtu, |mtu| mtu.min(entry.mtu)),
            checksum_by: entry.l4_checksum,
        };
        self.known = Some(KnownWay { route, local: endpoint.local, source_port, outer });
        Ok(())
    }

    /// Takes the Ethernet header to the next hop, also for the ways that are like this one.
    pub fn set_link(&mut self, link: &LinkHeaders) {
        if let Some(known) = &mut self.known {
            known.outer.set_link(link);
        }
    }
}

impl Outer {
    /// Looks up the way to `endpoint` for messages from our UDP port `source_port`.
    pub fn resolve(endpoint: &Endpoint, source_port: u16, tables: &Tables) -> Result<Self, DropReason> {
        let mut outer = *LastWay::default().find(endpoint, source_port, tables)?;
        outer.turn_to(endpoint.remote);
        Ok(outer)
    }

    /// Makes the way to one endpoint the way to another.
    ///
    /// To be called where the headers will be used: whatever copies them at once waits until these bytes are in the cache.
    #[inline(always)]
    pub fn turn_to(&mut self, remote: SocketAddr) {
        match (&mut self.headers, remote) {
            (Headers::V4(headers), SocketAddr::V4(remote)) => {
                let Some(headers) = headers.last_chunk_mut::<V4_LENGTH>() else { return };
                let to = remote.ip().octets();
                let checksum = u16::from_be_bytes([headers[10], headers[11]]);
                let checksum = checksum::update_bytes(checksum, &headers[16..20], &to);
                [headers[10], headers[11]] = checksum.to_be_bytes();
                [headers[16], headers[17], headers[18], headers[19]] = to;
                [headers[22], headers[23]] = remote.port().to_be_bytes();
            }
            (Headers::V6(headers), SocketAddr::V6(remote)) => {
                let Some(headers) = headers.last_chunk_mut::<V6_LENGTH>() else { return };
                if let Some(place) = headers[24..].first_chunk_mut() {
                    *place = remote.ip().octets();
                }
                [headers[42], headers[43]] = remote.port().to_be_bytes();
            }
            // One route has addresses of one family alone.
            (Headers::V4(_), SocketAddr::V6(_)) | (Headers::V6(_), SocketAddr::V4(_)) => {}
        }
    }

    /// Whether it has the Ethernet header to the next hop.
    pub const fn is_linked(&self) -> bool {
        self.is_linked
    }

    /// Bytes of the IP and UDP headers.
    const fn overhead(&self) -> u16 {
        match self.headers {
            Headers::V4(_) => V4_LENGTH as u16,
            Headers::V6(_) => V6_LENGTH as u16,
        }
    }

    /// The longest inner packet that fits without outer fragments.
    pub const fn room_for_inner(&self) -> u16 {
        self.mtu.saturating_sub(self.overhead() + (DATA_HEADER_SIZE + TAG_SIZE) as u16)
    }

    /// Puts UDP and IP headers before the message in `buffer`.
    pub fn wrap<B: PacketBuf>(&self, buffer: &mut B, traffic_class: u8, ip_id: &mut u16) -> Result<(), NoRoom> {
        match &self.headers {
            Headers::V4(headers) => {
                let Some(headers) = headers.last_chunk() else { return Err(NoRoom(V4_LENGTH)) };
                put_before(headers, buffer, |place, datagram| {
                    complete_v4(place, traffic_class, datagram, next(ip_id))
                })?;
            }
            Headers::V6(headers) => {
                let Some(headers) = headers.last_chunk() else { return Err(NoRoom(V6_LENGTH)) };
                put_before(headers, buffer, |place, datagram| complete_v6(place, traffic_class, datagram))?;
            }
        }
        self.complete(buffer, 0);
        Ok(())
    }

    /// Takes the Ethernet header to the next hop, for [`Self::put_before`].
    #[inline]
    pub fn set_link(&mut self, link: &LinkHeaders) {
        let (place, header) = match &mut self.headers {
            Headers::V4(headers) => (headers.first_chunk_mut(), link.ipv4),
            Headers::V6(headers) => (headers.first_chunk_mut(), link.ipv6),
        };
        if let Some(place) = place {
            *place = header;
            self.is_linked = true;
        }
    }

    /// Puts all headers before the message in `buffer`, which may be encrypted later; then [`Self::complete`] has to follow.
    #[inline(always)]
    pub fn put_before<B: PacketBuf>(&self, buffer: &mut B, traffic_class: u8, ip_id: &mut u16) -> Result<(), NoRoom> {
        match &self.headers {
            Headers::V4(headers) => put_before(headers, buffer, |place, datagram| {
                if let Some(place) = place.last_chunk_mut() {
                    complete_v4(place, traffic_class, datagram, next(ip_id));
                }
            }),
            Headers::V6(headers) => put_before(headers, buffer, |place, datagram| {
                if let Some(place) = place.last_chunk_mut() {
                    complete_v6(place, traffic_class, datagram);
                }
            }),
        }
    }

    /// Fills in the checksum that covers the message. The outer IP header is `l3` bytes behind the beginning of the buffer.
    ///
    /// Over IPv4 the UDP checksum is zero, "not computed" (RFC 768): every byte of the message is authenticated.
    /// Over IPv6 it is computed, as RFC 8200 section 8.1 asks.
    #[inline]
    pub fn complete<B: PacketBuf>(&self, buffer: &mut B, l3: usize) {
        if let Headers::V6(_) = self.headers {
            self.checksum_v6(buffer, l3);
        }
    }

    /// Fills in the UDP checksum over IPv6, whose field is still zero.
    fn checksum_v6<B: PacketBuf>(&self, buffer: &mut B, l3: usize) {
        let packet = buffer.data().get(l3..).unwrap_or_default();
        let Ok(ip) = Ipv6::parse(packet) else { return };
        let (source, destination) = (ip.source.into(), ip.destination.into());
        let Some(datagram) = packet.get(ipv6::HEADER_LENGTH..) else { return };
        let checksum = match self.checksum_by {
            ChecksumBy::Nic => {
                let seed = udp::offload_seed(source, destination, datagram.len() as u16);
                buffer.offload_l4_checksum(L4Offload {
                    l2_length: ethernet::HEADER_LENGTH as u8,
                    l3_length: ipv6::HEADER_LENGTH as u16,
                    network: Network::V6,
                    transport: Transport::Udp,
                });
                seed
            }
            ChecksumBy::Software => udp::checksum_of(source, destination, datagram),
        };
        if let Some(field) = buffer.data_mut().get_mut(l3 + ipv6::HEADER_LENGTH + udp::CHECKSUM_OFFSET..) {
            for (byte, value) in field.iter_mut().zip(checksum.to_be_bytes()) {
                *byte = value;
            }
        }
    }
}

/// Puts headers before a message, and has them completed for the length of the datagram.
#[inline(always)]
fn put_before<B: PacketBuf, const N: usize>(
    headers: &[u8; N],
    buffer: &mut B,
    complete: impl FnOnce(&mut [u8; N], u16),
) -> Result<(), NoRoom> {
    let datagram = buffer.data().len() + udp::HEADER_LENGTH;
    let length = u16::try_from(datagram).map_err(|_| NoRoom(datagram))?;
    buffer.grow_front(N)?;
    let place = buffer.data_mut().first_chunk_mut().ok_or(NoRoom(N))?;
    *place = *headers;
    complete(place, length);
    Ok(())
}

/// The identification of the next packet.
fn next(ip_id: &mut u16) -> u16 {
    *ip_id = ip_id.wrapping_add(1);
    *ip_id
}

/// Fills in what a message changes in the headers over IPv4, with the checksum of the IP header (RFC 1624).
#[inline(always)]
fn complete_v4(headers: &mut [u8; V4_LENGTH], traffic_class: u8, datagram: u16, identification: u16) {
    let total = datagram.saturating_add(ipv4::HEADER_LENGTH as u16);
    // These words were zero in the checksum so far, but for the version beside the traffic class.
    let old = u16::from_be_bytes([headers[10], headers[11]]);
    let sum = u32::from(!old) + u32::from(traffic_class) + u32::from(total) + u32::from(identification);
    let sum = (sum >> 16) + (sum & 0xffff);
    let checksum = !((sum >> 16) + (sum & 0xffff)) as u16;
    headers[1] = traffic_class;
    [headers[2], headers[3]] = total.to_be_bytes();
    [headers[4], headers[5]] = identification.to_be_bytes();
    [headers[10], headers[11]] = checksum.to_be_bytes();
    [headers[24], headers[25]] = datagram.to_be_bytes();
}

/// Fills in what a message changes in the headers over IPv6.
#[inline(always)]
fn complete_v6(headers: &mut [u8; V6_LENGTH], traffic_class: u8, datagram: u16) {
    headers[0] |= traffic_class >> 4;
    headers[1] |= traffic_class << 4;
    [headers[4], headers[5]] = datagram.to_be_bytes();
    [headers[44], headers[45]] = datagram.to_be_bytes();
}

#[cfg(test)]
mod tests;
