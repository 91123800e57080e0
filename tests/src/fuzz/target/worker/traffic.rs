//! Frames and packets that an input describes.

use std::net::Ipv6Addr;

use jetway_pipelines::ids::PortId;
use jetway_pipelines::packet::{EtherType, Protocol, checksum, ethernet, ipv4, ipv6};

use super::services::PORTS;
use super::{MACS, NEIGHBOUR};
use crate::fuzz::source::Source;

/// A frame to a port of ours.
pub(super) fn frame(port: PortId, packet: &[u8]) -> Vec<u8> {
    let mut header = [0; ethernet::HEADER_LENGTH];
    let ethertype = if packet.first().is_some_and(|first| first >> 4 == 6) { EtherType::IPV6 } else { EtherType::IPV4 };
    ethernet::write(&mut header, MACS[port.index()], NEIGHBOUR, ethertype);
    [&header[..], packet].concat()
}

/// The address of the services of IPv6.
const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0, 0x10);

/// Whether the upper bits of the choice of addresses say that the packet is for a service.
const fn to_service(addresses: u8) -> bool {
    addresses >> 6 == 3
}

/// Gives some packets a port of the services: as their destination, or as their source.
fn aim(payload: &mut [u8], choice: u8, kind: u8) {
    let at = match choice {
        3 => 2,
        2 => 0,
        _ => return,
    };
    let port = PORTS[usize::from(kind >> 3) % PORTS.len()];
    if let Some(place) = payload.get_mut(at..at + 2) {
        place.copy_from_slice(&port.to_be_bytes());
    }
}

/// A packet that the input describes: most of its header is right, the rest is the input's.
pub(super) fn packet(source: &mut Source<'_>) -> Vec<u8> {
    const V4: [[u8; 4]; 8] = [
        [10, 8, 0, 2],
        [192, 0, 2, 11],
        [10, 8, 0, 1],
        [10, 8, 0, 3],
        [198, 51, 100, 9],
        [203, 0, 113, 70],
        [192, 0, 2, 1],
        [224, 0, 0, 1],
    ];
    let [addresses, kind, ttl, class, flags] = source.array();
    let length = usize::from(u16::from_le_bytes(source.array()) & 0x07ff);
    let mut payload = source.bytes(255).to_vec();
    payload.resize(length.max(payload.len()), 0x55);
    aim(&mut payload, addresses >> 6, kind);
    let protocol = [Protocol::UDP, Protocol::TCP, Protocol::ICMP, Protocol(kind)][usize::from(kind & 3)];
    let mut packet = if kind & 4 == 0 {
        let mut header = [0; ipv4::HEADER_LENGTH];
        ipv4::Header {
            source: V4[usize::from(addresses & 7)].into(),
            destination: if to_service(addresses) { [10, 100, 0, 10] } else { V4[usize::from(addresses >> 3 & 7)] }
                .into(),
            protocol,
            traffic_class: class,
            ttl,
            fragmentation: if flags & 1 == 0 {
                ipv4::Fragmentation::Forbidden
            } else {
                ipv4::Fragmentation::Allowed { identification: 7 }
            },
            total_length: (payload.len() + ipv4::HEADER_LENGTH) as u16,
        }
        .write(&mut header);
        if flags & 6 == 6 {
            // A fragment: flags and offset, and the checksum over them.
            header[6..8].copy_from_slice(&(u16::from(flags & 8) << 10 | u16::from(flags >> 4)).to_be_bytes());
            header[10..12].fill(0);
            let sum = checksum::checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        [&header[..], &payload].concat()
    } else {
        const V6: [&str; 4] = ["fd00:8::2", "2001:db8:2::11", "fd00:8::1", "fd00:8::3"];
        let v6 = |choice: u8| V6[usize::from(choice & 3)].parse().unwrap_or(Ipv6Addr::UNSPECIFIED);
        let mut header = [0; ipv6::HEADER_LENGTH];
        ipv6::Header {
            source: v6(addresses),
            destination: if to_service(addresses) { SERVICE_V6 } else { v6(addresses >> 3) },
            protocol,
            traffic_class: class,
            flow_label: 0,
            hop_limit: ttl,
            payload_length: payload.len() as u16,
        }
        .write(&mut header);
        [&header[..], &payload].concat()
    };
    if flags & 0xe0 == 0xe0 {
        // Some are cut short, or changed anywhere in their header.
        let at = usize::from(kind) % packet.len();
        packet[at] ^= class;
    }
    packet
}
