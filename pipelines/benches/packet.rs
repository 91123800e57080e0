//! What parsing, checksums and the flow hash cost: `cargo bench -p jetway-pipelines --bench packet`.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

use jetway_pipelines::packet::ethernet::{self, EtherType, Frame, MacAddress};
use jetway_pipelines::packet::ipv4::{self, Fragmentation};
use jetway_pipelines::packet::mss::{MssLimit, clamp_mss};
use jetway_pipelines::packet::{FlowHasher, Parsed, Protocol, checksum, ipv6, udp};

/// Calls between two looks at the clock.
const BATCH: u32 = 1024;

/// Prints the median over batches that are shorter than a time slice.
fn measure<T>(name: &str, mut work: impl FnMut() -> T) {
    let mut nanos: Vec<f64> = (0..1001)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..BATCH {
                black_box(work());
            }
            start.elapsed().as_nanos() as f64 / f64::from(BATCH)
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    println!("{name:<48} {:>7.1} ns", nanos[nanos.len() / 2]);
}

/// A frame of UDP over IPv4.
fn frame_v4(payload: usize) -> Vec<u8> {
    let (mut link, mut network, mut transport) = ([0; 14], [0; 20], [0; 8]);
    ethernet::write(&mut link, MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2]), EtherType::IPV4);
    header_v4(28 + payload).write(&mut network);
    udp::write(&mut transport, 5000, 51820, (8 + payload) as u16, udp::Checksum::None);
    [&link[..], &network, &transport, &vec![0xa5; payload]].concat()
}

fn header_v4(length: usize) -> ipv4::Header {
    ipv4::Header {
        source: Ipv4Addr::new(192, 0, 2, 1),
        destination: Ipv4Addr::new(198, 51, 100, 2),
        protocol: Protocol::UDP,
        traffic_class: 0,
        ttl: 64,
        fragmentation: Fragmentation::Forbidden,
        total_length: length as u16,
    }
}

fn main() {
    let frame = frame_v4(1472);
    let packet = frame[14..].to_vec();
    let parsed = Parsed::from_ip(&packet).expect("the packet was written just above");
    let mut header_v6 = [0; 40];
    ipv6::Header {
        source: Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped(),
        destination: Ipv4Addr::new(192, 0, 2, 2).to_ipv6_mapped(),
        protocol: Protocol::UDP,
        traffic_class: 0,
        flow_label: 0,
        hop_limit: 64,
        payload_length: 8,
    }
    .write(&mut header_v6);
    let packet_v6 = [&header_v6[..], &[0; 8]].concat();
    measure("Ethernet frame", || Frame::parse(black_box(&frame)));
    measure("IPv4 packet with ports", || Parsed::from_ip(black_box(&packet)));
    measure("IPv6 packet with ports", || Parsed::from_ip(black_box(&packet_v6)));
    measure("IPv4 header checksum verified", || ipv4::checksum_is_right(black_box(&packet)));
    measure("IPv4 header written", || {
        let mut header = [0; 20];
        header_v4(black_box(1500)).write(&mut header);
        header
    });
    let mut hopping = packet.clone();
    measure("TTL decremented", || {
        hopping[8] = 64;
        ipv4::decrement_ttl(black_box(&mut hopping))
    });
    measure("checksum of 64 bytes", || checksum::checksum(black_box(&packet[..64])));
    measure("checksum of 1,500 bytes", || checksum::checksum(black_box(&packet)));
    let hasher = FlowHasher::new([1, 2, 3, 4]);
    measure("flow hash", || hasher.hash(black_box(&parsed)));
    let mut unclamped = packet.clone();
    measure("MSS clamp of what is no TCP", || clamp_mss(black_box(&mut unclamped), &parsed, MssLimit::for_mtu(1420)));
}
