//! The short way of data messages against the stages: both do the same with them.
//!
//! As for services (`express.rs`), one of two equal nodes gets all frames with a priority tag, and so takes the stages.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use jetway_pipelines::tables::Twin;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::bench::assorted::{PRIORITY_TAG, assert_alike, assorted};
use crate::bench::{FAMILIES, Family, LAN, WAN, World, address, node_inner, server};

const CLIENTS: [Family; 4] = [Family::V4, Family::V6, Family::V4, Family::V6];
/// At the end of each inner packet: its client, and its number.
const MARK: usize = 6;

/// What becomes of a message on its way to the node.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    Nothing,
    Forged,
    Twice,
    Cut,
    OtherReceiver,
    BadOuterChecksum,
    ToOtherPort,
    BesideInitiation,
}

/// A message that both nodes get, each from its own client.
struct Sent {
    client: usize,
    inner: Vec<u8>,
    class: u8,
    mishap: Mishap,
}

/// A client's packet, mostly an ordinary one.
fn inner(random: &mut SmallRng, world: &World, client: usize, number: u32) -> Vec<u8> {
    let family = *FAMILIES.choose(random).expect("some");
    let from = match random.random_range(0..30) {
        0 => world.inner((client + 1) % CLIENTS.len(), family),
        _ => world.inner(client, family),
    };
    let strange = match family {
        Family::V4 => ["10.8.0.77", "192.0.2.99", "203.0.113.9", "127.0.0.1", "255.255.255.255", "8.8.8.8"],
        Family::V6 => ["fd00:8::77", "2001:db8:2::99", "2001:db8:113::9", "::1", "ff02::1", "2001:4860::1"],
    };
    let to: IpAddr = match random.random_range(0..20) {
        0 => address(strange.choose(random).expect("some")),
        1 => node_inner(family),
        2 => world.inner((client + 1) % CLIENTS.len(), family),
        _ => server(family),
    };
    let mark = [&(client as u16).to_be_bytes()[..], &number.to_be_bytes()].concat();
    let mut bytes = assorted(random, from, to, &mark);
    match random.random_range(0..16) {
        // As a client pads.
        0 => bytes.extend([0; 9]),
        1 if random.random_ratio(1, 5) => bytes.clear(),
        _ => {}
    }
    bytes
}

/// A burst comes to a node; what it sends and tells.
fn burst(world: &mut World, burst: &[Sent], tag: &[u8]) {
    let mut frames = Vec::new();
    for Sent { client, inner, class, mishap } in burst {
        let mut message = world.clients[*client].seal(inner);
        match mishap {
            Mishap::Forged => *message.last_mut().expect("a tag") ^= 1,
            Mishap::OtherReceiver => message[5] ^= 0x55,
            Mishap::Nothing | Mishap::Twice | Mishap::Cut | Mishap::BadOuterChecksum | Mishap::ToOtherPort => {}
            Mishap::BesideInitiation => {
                let initiation = world.clients[*client].initiation();
                frames.push(world.client_frame(*client, &initiation));
            }
        }
        world.clients[*client].class = *class;
        let mut frame = world.client_frame(*client, &message);
        match mishap {
            Mishap::Cut => frame.truncate(frame.len() - 20),
            Mishap::BadOuterChecksum if CLIENTS[*client] == Family::V4 => frame[24] ^= 1,
            Mishap::ToOtherPort => frame[if CLIENTS[*client] == Family::V4 { 37 } else { 57 }] ^= 1,
            Mishap::Twice => frames.push(frame.clone()),
            _ => {}
        }
        frames.push(frame);
    }
    for frame in &mut frames {
        frame.splice(12..12, tag.iter().copied());
    }
    world.receive(0, WAN, frames);
    world.exchange();
}

/// What left, by client in its order, in hexadecimal digits. Errors that the node makes come in any order.
fn by_client(world: &mut World) -> BTreeMap<String, Vec<String>> {
    let mut clients = BTreeMap::<_, Vec<_>>::new();
    for packet in world.take_sent(LAN) {
        // Pieces that the node makes follow the packets with which the whole went through the stages.
        let is_piece = packet[0] >> 4 == 4 && (packet[6] & 0x3f, packet[7]) != (0, 0);
        let client = if is_piece { "pieces".into() } else { hex::encode(&packet[packet.len() - MARK..][..2]) };
        clients.entry(client).or_default().push(hex::encode(packet));
    }
    if let Some(pieces) = clients.get_mut("pieces") {
        pieces.sort_unstable();
    }
    for client in 0..CLIENTS.len() {
        let mut received: Vec<_> = world.take_received(client).iter().map(hex::encode).collect();
        received.sort_unstable();
        clients.insert(format!("to {client}"), received);
    }
    // What the kernel gets by a port is sealed still, by each client for its own session.
    let punted = world.punted.drain(..).map(|(to, packet)| match to {
        Twin::Port(_) => format!("{to:?}"),
        Twin::Tunnel(_) => format!("{to:?} {}", hex::encode(packet)),
    });
    let mut punted: Vec<_> = punted.collect();
    punted.sort_unstable();
    clients.insert("kernel".to_owned(), punted);
    clients
}

/// What the node knows of each peer: where it is, and how much it sent.
fn peers(world: &World) -> Vec<(Option<SocketAddr>, u64)> {
    let known = world.peers.iter().map(|peer| {
        let at = peer.endpoint.load().map(|endpoint| endpoint.remote);
        (at, peer.traffic.received_bytes.load(Ordering::Relaxed))
    });
    known.collect()
}

#[test]
fn the_short_way_does_with_every_message_what_the_stages_do() {
    let seed = 1;
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut number, mut sent) = (0, 0);
    for round in 0..40 {
        let (mut short, mut stages) = (World::connected(1, &CLIENTS), World::connected(1, &CLIENTS));
        for step in 0..30 {
            match random.random_range(0..10) {
                0 => {
                    let client = random.random_range(0..CLIENTS.len());
                    for world in [&mut short, &mut stages] {
                        let address = &mut world.clients[client].address;
                        address.set_port(address.port() + 1);
                    }
                }
                1 => {
                    let known = random.random();
                    for (world, family) in [&mut short, &mut stages].into_iter().zip([FAMILIES[step % 2]; 2]) {
                        if known {
                            world.learn_neighbour(LAN, server(family));
                        } else {
                            world.forget_neighbour(LAN, server(family));
                        }
                    }
                }
                2 => {
                    let mtu = *[1500, 1300].choose(&mut random).expect("some");
                    [&mut short, &mut stages].into_iter().for_each(|world| world.set_port_mtu(LAN, mtu));
                }
                3 => {
                    let time = Duration::from_millis(random.random_range(1..20_000));
                    [&mut short, &mut stages].into_iter().for_each(|world| world.pass(time));
                }
                _ => {}
            }
            let is_narrow = random.random_ratio(1, 20);
            if is_narrow {
                [&mut short, &mut stages].into_iter().for_each(|world| world.workers[0].out.room.sent = 3);
            }
            let alike = random.random_ratio(2, 3);
            let only = random.random_range(0..CLIENTS.len());
            let messages: Vec<_> = (0..random.random_range(1..70))
                .map(|_| {
                    number += 1;
                    let client = if alike { only } else { random.random_range(0..CLIENTS.len()) };
                    let mishap = match random.random_range(0..150) {
                        0 => Mishap::Forged,
                        1 => Mishap::Twice,
                        2 => Mishap::Cut,
                        3 => Mishap::OtherReceiver,
                        4 => Mishap::BadOuterChecksum,
                        5 => Mishap::ToOtherPort,
                        6 => Mishap::BesideInitiation,
                        _ => Mishap::Nothing,
                    };
                    let class = if random.random() { 0 } else { random.random() };
                    Sent { client, inner: inner(&mut random, &short, client, number), class, mishap }
                })
                .collect();
            burst(&mut short, &messages, &[]);
            burst(&mut stages, &messages, &PRIORITY_TAG);
            let place = format!("round {round} step {step} of seed {seed}");
            assert_eq!(short.losses(), stages.losses(), "{place}");
            short.check();
            if is_narrow {
                // A queue that is full takes others of a burst, as what the node makes is sent at other places in it.
                break;
            }
            let (by_short, by_stages) = (by_client(&mut short), by_client(&mut stages));
            sent += by_short.values().map(Vec::len).sum::<usize>();
            assert_alike(&by_short, &by_stages, &place);
            assert_eq!(peers(&short), peers(&stages), "{place}");
        }
    }
    assert!(sent > 10_000, "nearly all packets were dropped: {sent}");
}
