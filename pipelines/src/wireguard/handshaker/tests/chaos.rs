//! Hours of two nodes under a network that loses, repeats, delays, reorders and changes what they send.

use std::collections::HashSet;
use std::time::Duration;

use rand::RngExt;

use super::world::*;
use crate::ids::{PeerIndex, SlotIndex, TunnelId, WorkerId};
use crate::wireguard::Endpoint;
use crate::wireguard::handshaker::CookieRequest;

/// The most slots that a peer may hold: three sessions and an attempt.
const MOST_SLOTS: usize = 4;

struct Chaos {
    world: World,
    sent: u64,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        Self { world: World::new(seed, seed.is_multiple_of(2).then_some([8; 32])), sent: 0 }
    }

    fn send(&mut self, node: usize) {
        self.sent += 1;
        let payload = self.sent.to_le_bytes();
        self.world.send(node, &[payload, payload].concat());
    }

    /// One thing that happens.
    fn step(&mut self) {
        let world = &mut self.world;
        let node = world.random.random_range(0..2);
        match world.random.random_range(0..100) {
            0..60 => self.send(node),
            60..64 => world.network.loss = *pick(world, &[0, 0, 5, 50, 100]),
            64..68 => world.network.duplicates = *pick(world, &[0, 10, 50]),
            68..70 => world.network.corruption = *pick(world, &[0, 0, 20]),
            70..74 => world.network.jitter = Duration::from_millis(*pick(world, &[0, 30, 500, 8_000])),
            74..76 => {
                // Roams; the other side learns of it by the next authentic message.
                let port = world.random.random_range(1024..1034);
                world.nodes[node].address.set_port(port);
            }
            76..78 => {
                let to = world.nodes[1 - node].address;
                world.nodes[node].peer.endpoint.store(Endpoint::configured(to));
            }
            78..80 => {
                let now = world.now;
                let interval = *pick(world, &[0, 0, 7, 25]);
                world.nodes[node].peer.persistent_keepalive.store(interval, std::sync::atomic::Ordering::Relaxed);
                world.nodes[node].handshaker.handle_peer_changed(now, PEER);
            }
            80..82 => world.nodes[node].under_load = *pick(world, &[false, false, true]),
            82..84 => world.nodes[node].loses_confirmations = *pick(world, &[false, true]),
            _ => {
                let pause = *pick(world, &[10, 1_000, 1_000, 20_000, 130_000, 600_000]);
                world.run(Duration::from_millis(pause));
            }
        }
        let pause = Duration::from_millis(self.world.random.random_range(0..3_000));
        self.world.run(pause);
    }

    fn assert_sound(&self) {
        for node in &self.world.nodes {
            assert!(node.receivers.len() < MOST_SLOTS, "{} receivers", node.receivers.len());
            assert!(node.handshaker.slots_in_use() <= MOST_SLOTS + node.leaving.len());
            let mut seen = HashSet::new();
            for packet in &node.received {
                let number = u64::from_le_bytes(packet[..8].try_into().unwrap());
                assert!(packet[..8] == packet[8..16] && number <= self.sent, "a packet that nobody sent");
                assert!(seen.insert(number), "packet {number} arrived twice");
            }
        }
    }

    /// With a good network and packets to send, both directions work again within the protocol's own timers.
    fn assert_recovers(&mut self) {
        self.world.network = Network { delay: Duration::from_millis(10), ..Network::default() };
        for node in 0..2 {
            let to = self.world.nodes[1 - node].address;
            self.world.nodes[node].peer.endpoint.store(Endpoint::configured(to));
            self.world.nodes[node].under_load = false;
        }
        // A session that only one side has is noticed after 15 s, and a lost attempt repeated after 5 s.
        for _ in 0..30 {
            self.send(0);
            self.send(1);
            self.world.run(SECOND);
        }
        let counts = [0, 1].map(|node: usize| self.world.nodes[node].received.len());
        self.send(0);
        self.send(1);
        self.world.run(SECOND);
        for (node, before) in self.world.nodes.iter().zip(counts) {
            assert!(node.received.len() > before, "{} does not receive again", node.address);
        }
    }

    fn assert_leaves_nothing(&mut self) {
        for node in 0..2 {
            self.world.nodes[node].peer.persistent_keepalive.store(0, std::sync::atomic::Ordering::Relaxed);
        }
        self.world.run(700 * SECOND);
        for node in &self.world.nodes {
            assert_eq!((node.handshaker.slots_in_use(), node.receivers.len()), (0, 0), "a slot leaks");
        }
    }
}

fn pick<'a, T>(world: &mut World, choices: &'a [T]) -> &'a T {
    &choices[world.random.random_range(0..choices.len())]
}

/// The time to go on for after the usual number of seeds: JETWAY_FUZZ_SECONDS, as for the fuzz targets.
fn longer() -> Duration {
    let seconds = std::env::var("JETWAY_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

#[test]
fn whatever_the_network_does_the_nodes_agree_recover_and_leave_nothing() {
    let end = std::time::Instant::now() + longer();
    for seed in (0..).take_while(|seed| *seed < 40 || std::time::Instant::now() < end) {
        let mut chaos = Chaos::new(seed);
        for _ in 0..4 {
            for _ in 0..150 {
                chaos.step();
            }
            chaos.assert_recovers();
            chaos.assert_sound();
        }
        chaos.assert_leaves_nothing();
    }
}

/// Calls that no sane caller makes, in any order.
#[test]
fn no_sequence_of_calls_panics_or_leaks() {
    for seed in 0..10 {
        let mut world = World::connected(seed);
        for _ in 0..3_000 {
            let (now, wall, node) = (world.now, world.wall(), world.random.random_range(0..2));
            let number = world.random.random_range(0..3);
            let kind = world.random.random_range(0..6);
            let length = *pick(&mut world, &[0, 3, 32, 64, 92, 148, 149]);
            let mut message = vec![world.random.random(); length];
            message.iter_mut().zip([kind, 0, 0, 0]).for_each(|(byte, value)| *byte = value);
            let from = Endpoint::configured("203.0.113.7:7".parse().unwrap());
            let handshaker = &mut world.nodes[node].handshaker;
            let (peer, worker) = (PeerIndex(number), WorkerId(number as u16 * 2));
            match world.random.random_range(0..8) {
                0 => handshaker.handle_wanted(now, wall, peer),
                1 => handshaker.handle_confirmed(now, peer, number),
                2 => handshaker.handle_timeout(now, wall),
                3 => handshaker.handle_peer_changed(now, peer),
                4 => handshaker.receiver_removed(worker, SlotIndex(number)),
                5 | 6 => {
                    let tunnel = TunnelId(number as u16);
                    let cookie = if kind % 2 == 0 { CookieRequest::Reply } else { CookieRequest::None };
                    _ = handshaker.handle_message(now, wall, tunnel, from, worker, &message, cookie);
                }
                _ => handshaker.set_preshared_key(PeerIndex(number + 1), None),
            }
            world.settle(node);
            let pause = Duration::from_millis(world.random.random_range(0..1_000));
            world.run(pause);
        }
        world.send(0, b"x");
        world.run(20 * SECOND);
        assert!(world.both_ways_work(SECOND));
        world.run(700 * SECOND);
        assert!(world.nodes.iter().all(|node| node.handshaker.slots_in_use() == 0));
    }
}
