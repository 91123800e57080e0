//! The short way of a service's packets against the stages: both do the same with them.
//!
//! A priority tag changes nothing about a frame (IEEE 802.1Q section 6.9.1), but the short way takes none that is tagged. So
//! one of two equal nodes gets all frames tagged.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jetway_config::{Forward, OnDown, Persistence};
use jetway_pipelines::dispatch::{Administration, Backend, Health};
use jetway_pipelines::ids::{BackendIndex, PortId};
use jetway_pipelines::packet::ipv4::Fragmentation;
use jetway_pipelines::packet::{EtherType, Protocol, checksum};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::bench::assorted::PRIORITY_TAG;
use crate::bench::packets::{Inner, frame_of, set_fragment};
use crate::bench::services::{SERVER_PORT, SERVICE_PORT, ServicePlan, server_address, service_address};
use crate::bench::{FAMILIES, Family, LAN, MACS, WAN, World, address, neighbour_mac};
use crate::dispatch::gateway;

const FORWARDS: [Forward; 5] = [Forward::Nat, Forward::L2, Forward::Ipip, Forward::Gre, Forward::Gue];
const CLIENTS: u16 = 12;
/// Behind the headers of each packet: its client, and its number.
const MARK: usize = 6;

/// A node with its servers.
struct Node {
    world: World,
    servers: Vec<Arc<Backend>>,
}

/// What a test does to both nodes.
#[derive(Clone, Copy)]
struct Case {
    family: Family,
    protocol: Protocol,
    forward: Forward,
    persistence: Persistence,
    on_down: OnDown,
    /// The difference of two servers' numbers: ways to those that are 4,096 apart are kept in one place.
    numbered_by: u32,
}

impl Node {
    fn new(case: Case) -> Self {
        let servers = (1..=4).map(|number| {
            let index = BackendIndex(u32::from(number) * case.numbered_by);
            Arc::new(Backend::new(index, server_address(case.family, number), SERVER_PORT, 1))
        });
        let mut node = Self { world: World::new(1, &[]), servers: servers.collect() };
        node.offer(case, 4);
        node
    }

    fn offer(&mut self, case: Case, count: usize) {
        let Case { family, protocol, forward, persistence, on_down, numbered_by: _ } = case;
        let plan = ServicePlan { forward, persistence, on_down, ..ServicePlan::nat(family, protocol) };
        self.world.offer([plan.service(&self.servers[..count])]);
    }

    /// A burst comes to it; what it sends then.
    fn burst(&mut self, case: Case, packets: &[Vec<u8>], tag: &[u8]) -> Vec<(PortId, Vec<u8>)> {
        let ethertype = if case.family == Family::V4 { EtherType::IPV4 } else { EtherType::IPV6 };
        let frames = packets.iter().map(|packet| {
            let mut frame = frame_of(MACS[0], neighbour_mac(gateway(case.family)), ethertype, packet);
            frame.splice(12..12, tag.iter().copied());
            frame
        });
        self.world.receive(0, WAN, frames.collect::<Vec<_>>());
        self.world.settle();
        std::mem::take(&mut self.world.sent)
    }

    fn counts(&self) -> Vec<[u64; 4]> {
        let traffic = self.servers.iter().map(|server| server.all_traffic());
        traffic
            .map(|workers| &workers[0])
            .map(|t| [t.flows.get(), t.moved.get(), t.packets.get(), t.bytes.get()])
            .collect()
    }
}

/// A client's packet, mostly an ordinary one.
fn packet(random: &mut SmallRng, case: Case, number: u32) -> Vec<u8> {
    let client = random.random_range(0..CLIENTS);
    let from: IpAddr = match (case.family, random.random_ratio(1, 50)) {
        (Family::V4, false) => address("203.0.114.7"),
        (Family::V6, false) => address("2001:db8:ffff::7"),
        // May not cross a router.
        (Family::V4, true) => address("127.0.0.1"),
        (Family::V6, true) => address("fe80::1"),
    };
    let to = SocketAddr::new(service_address(case.family), if random.random_ratio(1, 40) { 99 } else { SERVICE_PORT });
    let length = if random.random_ratio(1, 20) { random.random_range(1400..1480) } else { random.random_range(0..60) };
    let mut data: Vec<u8> = (0..length).map(|_| random.random()).collect();
    data.extend(client.to_be_bytes());
    data.extend(number.to_be_bytes());
    let ports = [(2000 + client).to_be_bytes(), to.port().to_be_bytes()].concat();
    let mut payload = if case.protocol == Protocol::TCP {
        let flags = *[0x10, 0x10, 0x18, 0x02, 0x11, 0x14, 0x12].choose(random).expect("some");
        [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0], &data].concat()
    } else {
        [&ports[..], &((8 + data.len()) as u16).to_be_bytes(), &[0, 0], &data].concat()
    };
    let place = if case.protocol == Protocol::TCP { 16 } else { 6 };
    if case.protocol == Protocol::TCP || case.family == Family::V6 || random.random() {
        let sum = checksum::pseudo(from, to.ip(), case.protocol, payload.len() as u32).bytes(&payload).checksum();
        let sum = if sum == 0 { 0xffff } else { sum };
        payload[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut packet = Inner::new(from, to.ip(), case.protocol, payload).class(random.random());
    packet.ttl = if random.random_ratio(1, 30) { random.random_range(0..3) } else { 64 };
    if case.family == Family::V4 && matches!(case.forward, Forward::Nat | Forward::L2) && random.random() {
        packet.fragmentation = Fragmentation::Allowed { identification: number as u16 };
    }
    let mut bytes = packet.bytes();
    match random.random_range(0..60) {
        0 if case.family == Family::V4 => set_fragment(&mut bytes, 0, true),
        1 if case.family == Family::V4 => bytes[10] ^= 1,
        2 => bytes.truncate(bytes.len() - 1),
        // A header that is longer than most segments.
        4 if case.protocol == Protocol::TCP => bytes[if case.family == Family::V4 { 20 } else { 40 } + 12] = 0xf0,
        // Ethernet pads.
        3 => bytes.extend([0; 9]),
        _ => {}
    }
    bytes
}

/// What was sent: to servers by client in its order, and back to clients in any order. In hexadecimal digits, a frame each.
fn by_client(sent: Vec<(PortId, Vec<u8>)>) -> BTreeMap<String, Vec<String>> {
    let mut clients = BTreeMap::<_, Vec<_>>::new();
    for (port, frame) in sent {
        let client = if port == LAN { hex::encode(&frame[frame.len() - MARK..][..2]) } else { "back".to_owned() };
        clients.entry(client).or_default().push(hex::encode(frame));
    }
    if let Some(back) = clients.get_mut("back") {
        back.sort_unstable();
    }
    clients
}

#[test]
fn the_short_way_does_with_every_packet_what_the_stages_do() {
    let seed = 1;
    let mut random = SmallRng::seed_from_u64(seed);
    let mut number = 0;
    let mut sent = 0;
    for round in 0..120 {
        let case = Case {
            family: FAMILIES[round % 2],
            protocol: [Protocol::UDP, Protocol::TCP][round / 2 % 2],
            forward: FORWARDS[round / 4 % 5],
            persistence: if random.random_ratio(1, 4) { Persistence::Client } else { Persistence::Flow },
            on_down: *[OnDown::Move, OnDown::Reset].choose(&mut random).expect("some"),
            numbered_by: [1, 4096][round / 3 % 2],
        };
        let (mut short, mut stages) = (Node::new(case), Node::new(case));
        for step in 0..60 {
            match random.random_range(0..8) {
                0 => {
                    let server = random.random_range(0..4);
                    let health =
                        *[Health::Up, Health::Up, Health::Suspect, Health::Down].choose(&mut random).expect("some");
                    let wish = [Administration::Enabled, Administration::Enabled, Administration::Draining];
                    let wish = *wish.choose(&mut random).expect("some");
                    for node in [&short, &stages] {
                        node.servers[server].set_health(health);
                        node.servers[server].set_administration(wish);
                    }
                }
                1 => {
                    let count = random.random_range(2..=4);
                    for node in [&mut short, &mut stages] {
                        node.offer(case, count);
                    }
                }
                2 => {
                    let server = stages.servers[random.random_range(0..4)].address;
                    for node in [&mut short, &mut stages] {
                        node.world.learn_neighbour(LAN, server);
                    }
                }
                3 => {
                    let time = Duration::from_secs(random.random_range(1..150));
                    for node in [&mut short, &mut stages] {
                        node.world.now += time;
                    }
                }
                _ => {}
            }
            let packets: Vec<_> = (0..random.random_range(1..70))
                .map(|_| {
                    number += 1;
                    packet(&mut random, case, number)
                })
                .collect();
            let (by_short, by_stages) = (short.burst(case, &packets, &[]), stages.burst(case, &packets, &PRIORITY_TAG));
            sent += by_short.len();
            let place = format!("round {round} step {step} of seed {seed}");
            let (by_short, by_stages) = (by_client(by_short), by_client(by_stages));
            for client in by_short.keys().chain(by_stages.keys()) {
                assert_eq!(by_short.get(client), by_stages.get(client), "{place}, client {client}");
            }
            assert_eq!(short.counts(), stages.counts(), "{place}");
            assert_eq!(short.world.losses(), stages.world.losses(), "{place}");
        }
    }
    assert!(sent > 100_000, "nearly all packets were dropped: {sent}");
}
