//! Two nodes, a network between them that can lose, repeat and delay, and a clock that the test turns.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

pub use super::node::Node;
use crate::ids::{PeerIndex, TunnelId, WorkerId};
use crate::time::Instant;
use crate::wireguard::Endpoint;
use crate::wireguard::handshaker::{CookieRequest, Output};
use crate::wireguard::message::{Data, MessageType, classify};
use crate::wireguard::peer::Content;
use crate::wireguard::timestamp::WallClock;
use crate::wireguard::x25519::KeyPair;

pub const TUNNEL: TunnelId = TunnelId(0);
pub const PEER: PeerIndex = PeerIndex(0);
pub const WORKERS: u16 = 3;
pub const SECOND: Duration = Duration::from_secs(1);

/// The world: two nodes, the network, the clock.
pub struct World {
    pub now: Instant,
    pub wall: Duration,
    pub nodes: [Node; 2],
    pub network: Network,
    pub random: StdRng,
    in_flight: BTreeMap<(Instant, u64), Datagram>,
    datagrams: u64,
}

/// What the network does to datagrams, in percent and time.
#[derive(Clone, Copy, Default)]
pub struct Network {
    pub loss: u32,
    pub duplicates: u32,
    pub corruption: u32,
    pub delay: Duration,
    pub jitter: Duration,
}

#[derive(Clone)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub payload: Vec<u8>,
}

impl World {
    /// Two nodes that know each other's keys; only the first knows the other's address.
    pub fn new(seed: u64, preshared_key: Option<[u8; 32]>) -> Self {
        println!("seed {seed}");
        let keys = [[1; 32], [2; 32]];
        let publics = keys.map(|key| *KeyPair::new(&key).public());
        let mut nodes =
            [Node::new(1, keys[0], publics[1], seed), Node::new(2, keys[1], publics[0], seed.wrapping_add(1))];
        let now = Instant::from_nanos(1_000_000_000);
        for node in &mut nodes {
            node.handshaker.add_peer(Arc::clone(&node.peer), preshared_key, now).unwrap();
        }
        nodes[0].peer.endpoint.store(Endpoint::configured(nodes[1].address));
        Self {
            now,
            wall: Duration::from_secs(1_700_000_000),
            nodes,
            network: Network { delay: Duration::from_millis(10), ..Network::default() },
            random: StdRng::seed_from_u64(seed ^ 0x5eed),
            in_flight: BTreeMap::new(),
            datagrams: 0,
        }
    }

    /// A world without delay, with a session that node 0 initiated just now.
    pub fn connected(seed: u64) -> Self {
        let mut world = Self::new(seed, None);
        world.network.delay = Duration::ZERO;
        world.send(0, b"hello");
        world.run(Duration::ZERO);
        world.send(1, b"hello");
        world.run(Duration::ZERO);
        assert_eq!((world.nodes[0].received.len(), world.nodes[1].received.len()), (1, 1));
        world
    }

    pub fn wall(&self) -> WallClock {
        WallClock(self.wall)
    }

    /// A worker of `node` has a packet for the peer.
    pub fn send(&mut self, node: usize, payload: &[u8]) {
        if !self.try_send(node, payload) {
            let (now, wall) = (self.now, self.wall());
            let this = &mut self.nodes[node];
            this.held.push_back(payload.to_vec());
            if this.peer.want_handshake() {
                this.handshaker.handle_wanted(now, wall, PEER);
            }
        }
        self.settle(node);
    }

    /// Sends a payload if there is a session to send it with, and asks for the next one if that is due.
    fn try_send(&mut self, node: usize, payload: &[u8]) -> bool {
        let (now, wall) = (self.now, self.wall());
        let this = &mut self.nodes[node];
        let Some(message) = this.seal(now, payload) else { return false };
        this.peer.activity.sent(now, if payload.is_empty() { Content::Empty } else { Content::Data });
        let to = this.peer.endpoint.load().expect("a session has an endpoint").remote;
        let wants_rekey = this.peer.sending_session().is_some_and(|s| s.wants_rekey(now));
        if wants_rekey && this.peer.want_handshake() {
            this.handshaker.handle_wanted(now, wall, PEER);
        }
        self.transmit(node, to, message);
        true
    }

    /// Does what the handshaker of `node` asks for.
    pub fn settle(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].handshaker.poll_output() {
            let this = &mut self.nodes[node];
            match output {
                Output::Send { to, message, .. } => self.transmit(node, to.remote, message.to_vec()),
                Output::InstallReceiver { worker, slot, receiver } => {
                    assert!(!this.leaving.contains(&(worker, slot)), "the slot is still being emptied");
                    assert!(this.receivers.insert((worker, slot), receiver).is_none(), "the slot was not empty");
                }
                Output::RemoveReceiver { worker, slot } => {
                    assert!(this.receivers.remove(&(worker, slot)).is_some(), "the slot was empty");
                    this.leaving.push((worker, slot));
                }
                // A worker that has no session for it lets it be.
                Output::SendKeepalive { .. } => _ = self.try_send(node, &[]),
                Output::SessionReady { .. } => {
                    for payload in std::mem::take(&mut this.held) {
                        self.send(node, &payload);
                    }
                }
                Output::GiveUp { .. } => {
                    this.held.clear();
                    this.given_up += 1;
                }
            }
        }
    }

    /// Workers report the slots that they have emptied.
    pub fn acknowledge(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        for (worker, slot) in std::mem::take(&mut this.leaving) {
            this.handshaker.receiver_removed(worker, slot);
        }
    }

    fn transmit(&mut self, node: usize, to: SocketAddr, payload: Vec<u8>) {
        let kind = classify(&payload).expect("what we send is well-formed");
        self.nodes[node].sent.push((self.now, kind, payload.len()));
        let from = self.nodes[node].address;
        self.inject(Datagram { from, to, payload });
    }

    /// Puts a datagram into the network.
    pub fn inject(&mut self, mut datagram: Datagram) {
        let network = self.network;
        let copies = if self.random.random_range(0..100) < network.duplicates { 2 } else { 1 };
        for _ in 0..copies {
            if self.random.random_range(0..100) < network.loss {
                continue;
            }
            if self.random.random_range(0..100) < network.corruption {
                let bit = self.random.random_range(0..datagram.payload.len() * 8);
                datagram.payload[bit / 8] ^= 1 << (bit % 8);
            }
            let jitter = self.random.random_range(Duration::ZERO..=network.jitter);
            self.datagrams += 1;
            self.in_flight.insert((self.now + network.delay + jitter, self.datagrams), datagram.clone());
        }
    }

    /// Takes everything out of the network.
    pub fn intercept(&mut self) -> Vec<Datagram> {
        std::mem::take(&mut self.in_flight).into_values().collect()
    }

    /// Lets `duration` pass with everything that happens in it.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
            let timers = self.nodes.iter().filter_map(|node| node.handshaker.next_timeout());
            let next = timers.chain(arrival).min().filter(|at| *at <= end);
            self.turn_clock(next.unwrap_or(end));
            let Some(_) = next else { return };
            self.deliver();
            for node in 0..2 {
                let (now, wall) = (self.now, self.wall());
                self.nodes[node].handshaker.handle_timeout(now, wall);
                self.settle(node);
                self.acknowledge(node);
            }
        }
    }

    fn turn_clock(&mut self, to: Instant) {
        self.wall += to.since(self.now);
        self.now = self.now.max(to);
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.in_flight.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let datagram = entry.remove();
            if let Some(node) = self.nodes.iter().position(|node| node.address == datagram.to) {
                self.receive(node, &datagram);
            }
        }
    }

    /// A worker of `node` receives a datagram.
    pub fn receive(&mut self, node: usize, datagram: &Datagram) {
        let (now, from) = (self.now, datagram.from);
        let this = &mut self.nodes[node];
        match classify(&datagram.payload) {
            Err(_) => this.drop_packet("malformed"),
            Ok(MessageType::Data) => match this.open(now, from, &datagram.payload) {
                Err(reason) => this.drop_packet(reason),
                Ok(packet) => self.received(node, &datagram.payload, packet),
            },
            Ok(kind) => self.receive_handshake(node, kind, datagram),
        }
        self.settle(node);
    }

    fn received(&mut self, node: usize, message: &[u8], packet: Vec<u8>) {
        let (now, wall) = (self.now, self.wall());
        let this = &mut self.nodes[node];
        let index = Data::parse(message).unwrap().receiver;
        let place = this.layout.decode_local(index).unwrap();
        let receiver = this.receivers.get_mut(&place).unwrap();
        let (is_news, wants_rekey) = (receiver.confirm(), receiver.wants_rekey(now));
        if is_news && !this.loses_confirmations {
            this.handshaker.handle_confirmed(now, PEER, index);
        }
        if wants_rekey && this.peer.want_handshake() {
            this.handshaker.handle_wanted(now, wall, PEER);
        }
        if !packet.is_empty() {
            this.received.push(packet);
        }
    }

    fn receive_handshake(&mut self, node: usize, kind: MessageType, datagram: &Datagram) {
        let worker = WorkerId(self.random.next_u32() as u16 % WORKERS);
        let (now, wall) = (self.now, self.wall());
        let this = &mut self.nodes[node];
        let message = &datagram.payload;
        let mut cookie = CookieRequest::None;
        if kind != MessageType::CookieReply {
            if !this.checker.has_valid_mac1(message) {
                return this.drop_packet("bad mac1");
            }
            if this.under_load && !this.checker.has_valid_mac2(message, datagram.from) {
                cookie = CookieRequest::Reply;
            }
        }
        let from = Endpoint { remote: datagram.from, local: Some(datagram.to.ip()) };
        if let Err(error) = this.handshaker.handle_message(now, wall, TUNNEL, from, worker, message, cookie) {
            this.errors.push(error);
        }
    }

    /// Whether a packet sent by each node now reaches the other within `time`.
    pub fn both_ways_work(&mut self, time: Duration) -> bool {
        let counts = [self.nodes[0].received.len(), self.nodes[1].received.len()];
        self.send(0, b"to the second node");
        self.send(1, b"to the first node");
        self.run(time);
        (0..2).all(|node| self.nodes[node].received.len() > counts[node])
    }
}
