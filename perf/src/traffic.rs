//! The packets of the measurements: sizes, addresses, frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use jetway_pipelines::packet::ipv4::Fragmentation;
use jetway_pipelines::packet::udp::Checksum;
use jetway_pipelines::packet::{EtherType, MacAddress, Protocol, ethernet, ipv4, udp};

/// The worker's Ethernet addresses: towards clients, towards servers.
pub const MACS: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2])];
/// Everyone else's Ethernet address.
pub const NEIGHBOUR: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
/// The node's address towards clients.
pub const OUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The router towards clients.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
/// A server behind the node.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
/// The tunnel's UDP port.
pub const LISTEN_PORT: u16 = 51820;

/// Which packets a measurement sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// All of this many bytes (the inner IP packet).
    Fixed(usize),
    /// Seven of 64, four of 576 and one of 1,420 bytes: the simple Internet mix.
    Imix,
}

impl std::str::FromStr for Size {
    type Err = &'static str;

    /// Reads what [`Size::name`] writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("imix", _) => Ok(Self::Imix),
            (_, Ok(bytes)) if (64..=1420).contains(&bytes) => Ok(Self::Fixed(bytes)),
            (_, _) => Err("a size is 64 to 1420, or imix"),
        }
    }
}

impl Size {
    /// What the measurements go through.
    pub const ALL: [Self; 5] = [Self::Fixed(64), Self::Fixed(256), Self::Fixed(512), Self::Fixed(1420), Self::Imix];
    const MIX: [usize; 12] = [64, 576, 64, 64, 576, 64, 1420, 64, 576, 64, 64, 576];

    /// Its name in results.
    pub fn name(self) -> String {
        match self {
            Self::Fixed(bytes) => bytes.to_string(),
            Self::Imix => "imix".to_owned(),
        }
    }

    /// The mean length in bytes.
    pub fn mean(self) -> f64 {
        match self {
            Self::Fixed(bytes) => bytes as f64,
            Self::Imix => Self::MIX.iter().sum::<usize>() as f64 / Self::MIX.len() as f64,
        }
    }

    /// The length of the packet of this number.
    pub fn of(self, number: usize) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Imix => Self::MIX[number % Self::MIX.len()],
        }
    }
}

/// The inner address of the client of this number.
pub fn client(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 | (number as u32 + 2))
}

/// The inner IPv6 address of the client of this number.
pub fn client_v6(number: usize) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfd00_0008_u128 << 96 | (number as u128 + 2))
}

/// Where the client of this number is on the Internet.
pub fn endpoint(number: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x6440_0000 | number as u32)), 1024 + (number % 60_000) as u16)
}

/// A UDP packet of `length` bytes in all; what it carries is made of `seed`.
pub fn packet(source: Ipv4Addr, destination: Ipv4Addr, length: usize, seed: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..length - ipv4::HEADER_LENGTH - udp::HEADER_LENGTH).map(|i| (i + seed) as u8).collect();
    datagram(SocketAddr::from((source, 5000)), SocketAddr::from((destination, 6000)), &payload)
}

/// An IPv4 packet with `payload` in UDP, without a UDP checksum.
///
/// # Panics
/// If an address is none of IPv4.
pub fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else { panic!("IPv4 only") };
    let length = (udp::HEADER_LENGTH + payload.len()) as u16;
    let (mut ip, mut header) = ([0; ipv4::HEADER_LENGTH], [0; udp::HEADER_LENGTH]);
    ipv4::Header {
        source,
        destination,
        protocol: Protocol::UDP,
        traffic_class: 0,
        ttl: 64,
        fragmentation: Fragmentation::Forbidden,
        total_length: length + ipv4::HEADER_LENGTH as u16,
    }
    .write(&mut ip);
    udp::write(&mut header, from.port(), to.port(), length, Checksum::None);
    [&ip[..], &header, payload].concat()
}

/// The frame in which `packet` comes to the worker's port `port`.
pub fn frame(port: usize, packet: &[u8]) -> Vec<u8> {
    let mut header = [0; ethernet::HEADER_LENGTH];
    ethernet::write(&mut header, MACS[port], NEIGHBOUR, EtherType::IPV4);
    [&header[..], packet].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_seven_to_four_to_one() {
        let lengths: Vec<_> = (0..12).map(|number| Size::Imix.of(number)).collect();
        let count = |wanted| lengths.iter().filter(|length| **length == wanted).count();
        assert_eq!([count(64), count(576), count(1420)], [7, 4, 1]);
    }
}
