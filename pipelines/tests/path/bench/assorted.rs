//! For the short ways against the stages: packets of all sorts, mostly ordinary ones, the tag with which a frame takes the stages, and the
//! comparison of what left.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jetway_pipelines::packet::Protocol;
use jetway_pipelines::packet::ipv4::Fragmentation;
use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use super::packets::{Inner, set_fragment};

/// Of priority 5, and no VLAN.
pub const PRIORITY_TAG: [u8; 4] = [0x81, 0, 0xa0, 0];

/// What left on both ways is the same.
pub fn assert_alike(by_short: &BTreeMap<String, Vec<String>>, by_stages: &BTreeMap<String, Vec<String>>, place: &str) {
    for what in by_short.keys().chain(by_stages.keys()) {
        let (by_short, by_stages) = (by_short.get(what), by_stages.get(what));
        let differ = by_short.into_iter().flatten().zip(by_stages.into_iter().flatten()).find(|(a, b)| a != b);
        assert!(by_short == by_stages, "{place}, {what}, first: {differ:?}");
    }
}

/// A packet of any sort, whose data end with `mark`.
pub fn assorted(random: &mut SmallRng, from: IpAddr, to: IpAddr, mark: &[u8]) -> Vec<u8> {
    let is_ipv4 = from.is_ipv4();
    let length = if random.random_ratio(1, 10) { random.random_range(1300..1420) } else { random.random_range(0..60) };
    let mut data: Vec<u8> = (0..length).map(|_| random.random()).collect();
    data.extend(mark);
    let (protocol, header) = match random.random_range(0..10) {
        0 => (if is_ipv4 { Protocol::ICMP } else { Protocol::ICMPV6 }, vec![8, 0, 0, 0, 0, 0, 0, 0]),
        1 => (Protocol(47), vec![0; 4]),
        2..5 => {
            let flags = *[0x10, 0x18, 0x02, 0x11, 0x12].choose(random).expect("some");
            let (offset, options) = if flags & 2 == 0 { (0x50, &[][..]) } else { (0x60, &[2, 4, 0xff, 0xff][..]) };
            let fixed = [7, 8, 9, 10, 0, 0, 0, 1, 0, 0, 0, 1, offset, flags, 1, 0, 0, 0, 0, 0];
            (Protocol::TCP, [&fixed[..], options].concat())
        }
        _ => (Protocol::UDP, [&[7, 8, 9, 10][..], &((8 + data.len()) as u16).to_be_bytes(), &[0, 0]].concat()),
    };
    let mut packet = Inner::new(from, to, protocol, [header, data].concat()).class(random.random());
    packet.ttl = if random.random_ratio(1, 30) { random.random_range(0..3) } else { 64 };
    if is_ipv4 && random.random() {
        packet.fragmentation = Fragmentation::Allowed { identification: random.random() };
    }
    let mut bytes = packet.bytes();
    match random.random_range(0..80) {
        0 if is_ipv4 => set_fragment(&mut bytes, 0, true),
        1 if is_ipv4 => set_fragment(&mut bytes, 64, false),
        2 if is_ipv4 => bytes[10] ^= 1,
        3 => bytes.truncate(bytes.len() - 1),
        4 => bytes[0] = 0x70,
        _ => {}
    }
    bytes
}
