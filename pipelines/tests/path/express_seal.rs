//! The short way of packets into tunnels against the stages: both do the same with them.
//!
//! As for services (`express.rs`), one of two equal nodes gets all frames with a priority tag, and so takes the stages.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jetway_pipelines::packet::ecn::Dscp;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::bench::assorted::{PRIORITY_TAG, assert_alike, assorted};
use crate::bench::packets::frame;
use crate::bench::{FAMILIES, Family, LAN, MACS, WAN, World, address, neighbour_mac, net, node_inner, server};

/// The last has no session, and no endpoint.
const CLIENTS: [Family; 5] = [Family::V4, Family::V6, Family::V4, Family::V6, Family::V4];
const CONNECTED: usize = CLIENTS.len() - 1;

/// A host's packet to a client, mostly an ordinary one.
fn packet(random: &mut SmallRng, world: &World, client: usize, number: u32) -> Vec<u8> {
    let family = *FAMILIES.choose(random).expect("some");
    let strange: [&str; 7] = match family {
        Family::V4 => {
            ["10.8.0.77", "192.0.2.99", "203.0.113.9", "203.0.113.70", "127.0.0.1", "255.255.255.255", "8.8.8.8"]
        }
        Family::V6 => {
            ["fd00:8::77", "2001:db8:2::99", "2001:db8:113::9", "2001:db8:ffff::1", "::1", "ff02::1", "2001:4860::1"]
        }
    };
    let from: IpAddr = match random.random_range(0..40) {
        0 => address(strange.choose(random).expect("some")),
        1 => world.inner(client, family),
        _ => server(family),
    };
    let to: IpAddr = match random.random_range(0..20) {
        0 => address(strange.choose(random).expect("some")),
        1 => node_inner(family),
        _ => world.inner(client, family),
    };
    let mut bytes = assorted(random, from, to, &number.to_be_bytes());
    if random.random_ratio(1, 15) {
        // As Ethernet pads.
        bytes.extend([0; 9]);
    }
    bytes
}

/// A burst comes to a node by its port to the hosts.
fn burst(world: &mut World, packets: &[Vec<u8>], tag: &[u8]) {
    let frames = packets.iter().map(|packet| {
        let mut frame = frame(MACS[1], neighbour_mac(server(Family::V4)), packet);
        frame.splice(12..12, tag.iter().copied());
        frame
    });
    world.receive(0, LAN, frames);
    world.exchange();
}

/// What left: by client and protocol in its order, for the kernel and by a port in any order, as errors that the node makes come.
fn outcome(world: &mut World) -> BTreeMap<String, Vec<String>> {
    let mut outcome = BTreeMap::<_, Vec<_>>::new();
    for client in 0..CLIENTS.len() {
        for packet in world.take_received(client) {
            let protocol = if packet[0] >> 4 == 4 { packet[9] } else { packet[6] };
            outcome.entry(format!("client {client} protocol {protocol}")).or_default().push(hex::encode(packet));
        }
        let datagrams = std::mem::take(&mut world.clients[client].datagrams);
        let outer = datagrams.into_iter().map(|(class, message)| format!("{class} {}", message.len()));
        outcome.insert(format!("around those of client {client}"), sorted(outer));
        assert!(world.clients[client].errors.is_empty(), "{:?}", world.clients[client].errors);
    }
    for port in [WAN, LAN] {
        outcome.insert(format!("{port:?}"), sorted(world.take_sent(port).iter().map(hex::encode)));
    }
    let punted = world.punted.drain(..).map(|(to, packet)| {
        // As it came by a port: with the tag or without.
        let end = packet.len().saturating_sub(4);
        format!("{to:?} {}", hex::encode(&packet[end..]))
    });
    outcome.insert("kernel".to_owned(), sorted(punted));
    outcome
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<_> = lines.collect();
    lines.sort_unstable();
    lines
}

/// What changes between two bursts.
fn change(random: &mut SmallRng, worlds: [&mut World; 2]) {
    let choice = random.random_range(0..11);
    let client = random.random_range(0..CONNECTED);
    let known: bool = random.random();
    let mtu = *[1500, 1300, 700].choose(random).expect("some");
    let time = Duration::from_millis(random.random_range(1..20_000));
    for world in worlds {
        let at = world.clients[client].address.ip();
        match choice {
            0 if known => world.learn_neighbour(WAN, at),
            0 => world.forget_neighbour(WAN, at),
            1 => world.set_port_mtu(WAN, mtu),
            2 => world.change_tunnel(|tunnel| tunnel.mtu = mtu.saturating_sub(80)),
            3 => world.change_tunnel(|tunnel| tunnel.dscp = if known { Dscp::Copy } else { Dscp::Hide }),
            4 => world.pass(time),
            // Sessions end.
            5 if known => world.pass(Duration::from_secs(200)),
            6 => world.learn_neighbour(WAN, at),
            7 if known && client == 0 => world.peers[client].remove(),
            _ => {}
        }
    }
}

#[test]
fn the_short_way_does_with_every_packet_into_a_tunnel_what_the_stages_do() {
    let seed = 1;
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut number, mut arrived) = (0, 0);
    for round in 0..40 {
        let [mut short, mut stages] = [(); 2].map(|()| {
            let mut world = World::new(1, &CLIENTS);
            (0..CONNECTED).for_each(|client| world.connect(client));
            // Even the node's own addresses are among these.
            let gateway = Arc::clone(&world.peers[0]);
            world.change_tunnel(|tunnel| {
                for prefix in ["10.8.0.0/24", "fd00:8::/64"] {
                    tunnel.allowed_ips.insert(net(prefix), Arc::clone(&gateway));
                }
            });
            world
        });
        for step in 0..30 {
            change(&mut random, [&mut short, &mut stages]);
            let is_narrow = random.random_ratio(1, 20);
            if is_narrow {
                [&mut short, &mut stages].into_iter().for_each(|world| world.workers[0].out.room.sent = 3);
            }
            let alike = random.random_ratio(2, 3);
            let only = random.random_range(0..CONNECTED);
            let packets: Vec<_> = (0..random.random_range(1..70))
                .map(|_| {
                    number += 1;
                    let client = if alike { only } else { random.random_range(0..CLIENTS.len()) };
                    packet(&mut random, &short, client, number)
                })
                .collect();
            burst(&mut short, &packets, &[]);
            burst(&mut stages, &packets, &PRIORITY_TAG);
            let place = format!("round {round} step {step} of seed {seed}");
            assert_eq!(short.losses(), stages.losses(), "{place}");
            short.check();
            if is_narrow {
                // A queue that is full takes others of a burst, as errors and other protocols are sent at other places in it.
                break;
            }
            let (by_short, by_stages) = (outcome(&mut short), outcome(&mut stages));
            arrived += by_short.values().map(Vec::len).sum::<usize>();
            assert_alike(&by_short, &by_stages, &place);
            let sent = |world: &World| -> Vec<_> {
                let traffic = world.peers.iter().map(|peer| peer.traffic.sent_bytes.load(Ordering::Relaxed));
                traffic.collect()
            };
            assert_eq!(sent(&short), sent(&stages), "{place}");
            assert_eq!(short.held(), stages.held(), "{place}");
        }
    }
    assert!(arrived > 10_000, "nearly all packets were dropped: {arrived}");
}
