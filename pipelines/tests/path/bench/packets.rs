//! Packets and frames, built and taken apart by means that are not the path's.

use std::net::{IpAddr, SocketAddr};

use jetway_pipelines::packet::ipv4::Fragmentation;
use jetway_pipelines::packet::udp::{Checksum, Udp};
use jetway_pipelines::packet::{EtherType, Frame, MacAddress, Parsed, Protocol, checksum, ethernet, ipv4, ipv6, udp};

/// An IP packet to be.
#[derive(Clone, Debug)]
pub struct Inner {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub class: u8,
    pub protocol: Protocol,
    pub fragmentation: Fragmentation,
    pub payload: Vec<u8>,
}

impl Inner {
    /// A UDP packet, `length` bytes long as a whole if it can be so short, whose data is different at each place.
    pub fn udp(source: IpAddr, destination: IpAddr, length: usize) -> Self {
        let header = if source.is_ipv4() { ipv4::HEADER_LENGTH } else { ipv6::HEADER_LENGTH };
        let data = length.saturating_sub(header + udp::HEADER_LENGTH);
        let mut payload = vec![0; udp::HEADER_LENGTH];
        payload.extend((0..data).map(|at| (at * 7 + at / 251) as u8));
        let mut packet = Self::new(source, destination, Protocol::UDP, payload);
        packet.set_udp(4321, 9);
        packet
    }

    pub fn new(source: IpAddr, destination: IpAddr, protocol: Protocol, payload: Vec<u8>) -> Self {
        let fragmentation = Fragmentation::Forbidden;
        Self { source, destination, ttl: 64, class: 0, protocol, fragmentation, payload }
    }

    /// An ICMP or ICMPv6 echo request.
    pub fn ping(source: IpAddr, destination: IpAddr) -> Self {
        let (protocol, kind) = if source.is_ipv4() { (Protocol::ICMP, 8) } else { (Protocol::ICMPV6, 128) };
        let mut message = vec![kind, 0, 0, 0, 0, 1, 0, 1, 0xaa, 0xbb];
        let sum = if source.is_ipv4() {
            checksum::checksum(&message)
        } else {
            checksum::pseudo(source, destination, protocol, message.len() as u32).bytes(&message).checksum()
        };
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        Self::new(source, destination, protocol, message)
    }

    /// A TCP SYN that announces a maximum segment size.
    pub fn syn(source: IpAddr, destination: IpAddr, mss: u16) -> Self {
        let [high, low] = mss.to_be_bytes();
        let mut segment = vec![0x10, 0xe1, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0];
        segment.extend([2, 4, high, low]);
        let pseudo = checksum::pseudo(source, destination, Protocol::TCP, segment.len() as u32);
        let sum = pseudo.bytes(&segment).checksum();
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        Self::new(source, destination, Protocol::TCP, segment)
    }

    /// Puts a UDP header with these ports before the data.
    pub fn set_udp(&mut self, source_port: u16, destination_port: u16) {
        let length = self.payload.len() as u16;
        let header = self.payload.first_chunk_mut().expect("the payload begins with room for a UDP header");
        udp::write(header, source_port, destination_port, length, Checksum::Value(0));
        let sum = udp::checksum_of(self.source, self.destination, &self.payload);
        self.payload[6..8].copy_from_slice(&sum.to_be_bytes());
    }

    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    #[must_use]
    pub fn class(mut self, class: u8) -> Self {
        self.class = class;
        self
    }

    /// Routers may fragment it.
    #[must_use]
    pub fn fragmentable(mut self, identification: u16) -> Self {
        self.fragmentation = Fragmentation::Allowed { identification };
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = [0; ipv4::HEADER_LENGTH];
                ipv4::Header {
                    source,
                    destination,
                    protocol: self.protocol,
                    traffic_class: self.class,
                    ttl: self.ttl,
                    fragmentation: self.fragmentation,
                    total_length: (ipv4::HEADER_LENGTH + self.payload.len()) as u16,
                }
                .write(&mut header);
                [&header[..], &self.payload].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = [0; ipv6::HEADER_LENGTH];
                ipv6::Header {
                    source,
                    destination,
                    protocol: self.protocol,
                    traffic_class: self.class,
                    flow_label: 0x12345,
                    hop_limit: self.ttl,
                    payload_length: self.payload.len() as u16,
                }
                .write(&mut header);
                [&header[..], &self.payload].concat()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("addresses of two families"),
        }
    }

    /// What comes out behind a router.
    pub fn forwarded(&self) -> Vec<u8> {
        self.clone().ttl(self.ttl - 1).bytes()
    }
}

/// An IPv4 fragment: `offset` in bytes, and whether more follow.
pub fn set_fragment(packet: &mut [u8], offset: usize, more: bool) {
    let field = (offset / 8) as u16 | u16::from(more) << 13;
    packet[6..8].copy_from_slice(&field.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// An IPv4 packet in fragments whose payloads have so many bytes, a multiple of 8; the last has what is left.
pub fn cut(whole: &[u8], length: usize) -> Vec<Vec<u8>> {
    let (header, payload) = whole.split_at(20);
    let parts = payload.chunks(length).enumerate();
    parts
        .map(|(number, part)| {
            let mut piece = [header, part].concat();
            let total = piece.len() as u16;
            piece[2..4].copy_from_slice(&total.to_be_bytes());
            let offset = number * length;
            set_fragment(&mut piece, offset, offset + part.len() < payload.len());
            piece
        })
        .collect()
}

/// A frame with an IP packet.
pub fn frame(destination: MacAddress, source: MacAddress, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|first| first >> 4 == 6) { EtherType::IPV6 } else { EtherType::IPV4 };
    frame_of(destination, source, ethertype, packet)
}

/// A frame with any payload.
pub fn frame_of(destination: MacAddress, source: MacAddress, ethertype: EtherType, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; ethernet::HEADER_LENGTH];
    ethernet::write(&mut header, destination, source, ethertype);
    [&header[..], payload].concat()
}

/// An IP packet with a UDP datagram.
pub fn datagram(from: SocketAddr, to: SocketAddr, class: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet =
        Inner::new(from.ip(), to.ip(), Protocol::UDP, [&[0; udp::HEADER_LENGTH][..], payload].concat()).class(class);
    packet.set_udp(from.port(), to.port());
    packet.bytes()
}

/// The IP packet in a frame.
pub fn packet_of(frame: &[u8]) -> &[u8] {
    Frame::parse(frame).expect("a whole frame").payload(frame)
}

/// The sender, the receiver and the payload of a UDP datagram in an IP packet.
pub fn parse_datagram(packet: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    let ip = Parsed::from_ip(packet).ok().filter(|ip| ip.protocol == Protocol::UDP)?;
    let l4 = ip.l4(packet);
    let header = Udp::parse(l4).ok()?;
    let (from, to) = (ip.source, ip.destination);
    Some((SocketAddr::new(from, header.source_port), SocketAddr::new(to, header.destination_port), header.payload(l4)))
}
