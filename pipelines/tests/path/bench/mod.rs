//! A node in memory: workers, a handshaker and tables as the engine joins them, a clock that the test turns, and
//! stock clients.
//!
//! ```text
//! clients --- WAN (port 0) -- workers -- LAN (port 1) --- server
//!                              |   |
//!                     handshaker   kernel's twins
//! ```

pub mod assorted;
mod client;
mod joints;
pub mod outputs;
pub mod packets;
pub mod services;
mod tables;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use jetway_aead::Aead;
use jetway_pipelines::buffer::HeapBuf;
use jetway_pipelines::counters::WorkerCounters;
use jetway_pipelines::dispatch::direct_flows::DirectFlows;
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::ids::{NodeId, PeerIndex, PortId, TunnelId, WorkerId};
use jetway_pipelines::path::{BURST, ControlEvent, Pipeline, Scene, Settings};
use jetway_pipelines::tables::{Tables, Twin};
use jetway_pipelines::time::Instant;
use jetway_pipelines::wireguard::Peer;
use jetway_pipelines::wireguard::cookie::CookieSecrets;
use jetway_pipelines::wireguard::handshaker::{self, HandshakeError, Handshaker};
use jetway_pipelines::wireguard::index::{IndexKey, IndexLayout};
use jetway_pipelines::wireguard::kdf::Secret;
use jetway_pipelines::wireguard::timestamp::WallClock;
use jetway_pipelines::wireguard::x25519::KeyPair;
use rand::SeedableRng;
use rand::rngs::StdRng;

pub use client::{Client, Hearing};
use outputs::Lists;
use packets::{datagram, frame};
pub use tables::*;

pub const TUNNEL: TunnelId = TunnelId(0);
pub const TUNNEL_MTU: u16 = 1420;
pub const PORT_MTU: u16 = 1500;
pub const LISTEN_PORT: u16 = 51820;
const NODE: NodeId = NodeId(1);
/// Flows that a worker remembers.
pub const FLOWS: usize = 4096;
pub const PRIVATE_KEY: [u8; 32] = [1; 32];

/// An IP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

pub struct Worker {
    pub pipeline: Pipeline<HeapBuf>,
    pub out: Lists,
    pub counters: Arc<WorkerCounters>,
    pages: HashSet<u32>,
}

pub struct World {
    pub now: Instant,
    pub tables: Tables,
    pub workers: Vec<Worker>,
    pub handshaker: Handshaker,
    pub peers: Vec<Arc<Peer>>,
    pub clients: Vec<Client>,
    /// Frames that left and were for no client.
    pub sent: Vec<(PortId, Vec<u8>)>,
    pub punted: Vec<(Twin, Vec<u8>)>,
    pub control: Vec<ControlEvent>,
    pub refused: Vec<HandshakeError>,
    /// Data messages to clients, and which worker sent them.
    pub sealed_by: Vec<(usize, u32, u64)>,
    /// Which peers the handshaker has given up.
    pub given_up: Vec<PeerIndex>,
    for_clients: Vec<(usize, SocketAddr, u8, Vec<u8>)>,
    nonces: HashSet<(u32, u64)>,
}

impl World {
    /// A node with so many workers, and a client for each family given; nobody has spoken yet.
    pub fn new(workers: u16, clients: &[Family]) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let layout = IndexLayout::new(NODE, workers, &IndexKey::new([9; 8]));
        let public_key = *KeyPair::new(&PRIVATE_KEY).public();
        let mut handshaker = Handshaker::new(handshaker::Settings {
            layout: layout.clone(),
            slots_per_worker: 1000,
            aead: Aead::best(),
            randomness: Box::new(StdRng::seed_from_u64(7)),
            cookie_secrets: Arc::new(CookieSecrets::new(Secret::new([3; 32]), Secret::new([4; 32]))),
        });
        handshaker.add_tunnel(TUNNEL, &PRIVATE_KEY);
        let clients: Vec<Client> =
            (0..).zip(clients).map(|(number, family)| Client::new(number, *family, public_key)).collect();
        let peers: Vec<Arc<Peer>> = (0..)
            .zip(&clients)
            .map(|(number, client)| Arc::new(Peer::new(PeerIndex(number), TUNNEL, client.public_key)))
            .collect();
        for peer in &peers {
            handshaker.add_peer(Arc::clone(peer), None, now).expect("peers differ");
        }
        let checker = handshaker.cookie_checker(TUNNEL).expect("the tunnel was added");
        let tables = tables(&peers, &clients, checker);
        let direct_flows = Arc::new(DirectFlows::new([1, 2, 3, 4]));
        let workers = (0..workers).map(|number| worker(WorkerId(number), &layout, &direct_flows)).collect();
        Self {
            now,
            tables,
            workers,
            handshaker,
            peers,
            clients,
            sent: Vec::new(),
            punted: Vec::new(),
            control: Vec::new(),
            refused: Vec::new(),
            sealed_by: Vec::new(),
            given_up: Vec::new(),
            for_clients: Vec::new(),
            nonces: HashSet::new(),
        }
    }

    /// A node whose clients have all made their handshake.
    pub fn connected(workers: u16, clients: &[Family]) -> Self {
        let mut world = Self::new(workers, clients);
        for client in 0..world.clients.len() {
            world.connect(client);
        }
        world
    }

    /// The client makes a handshake, and confirms it by its keepalive.
    pub fn connect(&mut self, client: usize) {
        // The node answers no two initiations of one peer at the same moment.
        self.now += Duration::from_millis(100);
        let initiation = self.clients[client].initiation();
        self.clients[client].outbox.push(initiation);
        self.exchange();
        assert!(self.peers[client].sending_session().is_some(), "there is no session: {:?}", self.refused);
    }

    /// The client sends a packet through the tunnel.
    pub fn client_sends(&mut self, client: usize, packet: &[u8]) {
        let message = self.clients[client].seal(packet);
        self.clients[client].outbox.push(message);
        self.exchange();
    }

    /// A message from the client's present address.
    pub fn client_frame(&self, client: usize, message: &[u8]) -> Vec<u8> {
        let client = &self.clients[client];
        self.frame_from(client.address, client.node, client.class, message)
    }

    /// A datagram to the node on the WAN.
    pub fn frame_from(&self, from: SocketAddr, to: SocketAddr, class: u8, message: &[u8]) -> Vec<u8> {
        frame(MACS[0], neighbour_mac(from.ip()), &datagram(from, to, class, message))
    }

    /// A host of the LAN sends a packet by the node.
    pub fn lan_sends(&mut self, worker: usize, packet: &[u8]) {
        self.receive(worker, LAN, [frame(MACS[1], neighbour_mac(server(Family::V4)), packet)]);
        self.exchange();
    }

    /// Frames come to a worker, in bursts as the engine makes them.
    pub fn receive(&mut self, worker: usize, port: PortId, frames: impl IntoIterator<Item = Vec<u8>>) {
        let frames: Vec<_> = frames.into_iter().map(|frame| HeapBuf::from_packet(&frame)).collect();
        self.workers[worker].counters.received.add(frames.len() as u64);
        self.process(worker, port, frames);
    }

    fn process(&mut self, worker: usize, port: PortId, frames: Vec<HeapBuf>) {
        let scene = Scene { tables: &self.tables, now: self.now };
        let Worker { pipeline, out, .. } = &mut self.workers[worker];
        pipeline.begin_turn(&scene, out);
        let mut frames = frames.into_iter().peekable();
        while frames.peek().is_some() {
            let mut burst: ArrayVec<HeapBuf, BURST> = frames.by_ref().take(BURST).collect();
            pipeline.frames(port, &mut burst, &scene, out);
            assert!(burst.is_empty(), "the pipeline takes what it is given");
        }
    }

    /// The kernel sends by a twin.
    pub fn kernel_sends(&mut self, worker: usize, twin: Twin, packet: &[u8]) {
        let scene = Scene { tables: &self.tables, now: self.now };
        let Worker { pipeline, out, .. } = &mut self.workers[worker];
        pipeline.from_kernel(twin, HeapBuf::from_packet(packet), &scene, out);
        self.exchange();
    }

    /// Time passes, in steps of at most a tenth of a second; timers run.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.now = end.min(self.now + Duration::from_millis(100));
            if self.handshaker.next_timeout().is_some_and(|due| due <= self.now) {
                self.handshaker.handle_timeout(self.now, self.wall());
            }
            self.exchange();
            if self.now >= end {
                return;
            }
        }
    }

    pub fn wall(&self) -> WallClock {
        WallClock(Duration::from_secs(1_700_000_000) + self.now.since(Instant::ZERO))
    }

    /// Node and clients send to one another until all is quiet.
    pub fn exchange(&mut self) {
        loop {
            self.settle();
            for (client, from, class, payload) in std::mem::take(&mut self.for_clients) {
                self.clients[client].take(from, class, &payload);
            }
            let mut quiet = true;
            for client in 0..self.clients.len() {
                let messages = std::mem::take(&mut self.clients[client].outbox);
                quiet &= messages.is_empty();
                let frames: Vec<_> = messages.iter().map(|message| self.client_frame(client, message)).collect();
                self.receive(self.clients[client].worker, WAN, frames);
            }
            if quiet {
                return;
            }
        }
    }

    /// Every packet is accounted for, and no stage forgot one.
    pub fn check(&self) {
        for (number, worker) in self.workers.iter().enumerate() {
            assert_eq!(worker.counters.unaccounted(), 0, "worker {number} lost count");
            let undecided = worker.counters.drops[DropReason::Undecided as usize].get();
            assert_eq!(undecided, 0, "worker {number} left packets undecided");
        }
    }

    /// How many packets all workers dropped for `reason`.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.workers.iter().map(|worker| worker.counters.drops[reason as usize].get()).sum()
    }

    /// All drops that were losses, by reason.
    pub fn losses(&self) -> Vec<(&'static str, u64)> {
        let lost = DropReason::ALL.iter().filter(|reason| **reason != DropReason::Consumed);
        lost.map(|reason| (reason.name(), self.drops(*reason))).filter(|(_, count)| *count > 0).collect()
    }

    /// Takes the packets that left by a port.
    pub fn take_sent(&mut self, port: PortId) -> Vec<Vec<u8>> {
        let (taken, left) = std::mem::take(&mut self.sent).into_iter().partition(|(by, _)| *by == port);
        self.sent = left;
        let taken: Vec<(PortId, Vec<u8>)> = taken;
        taken.into_iter().map(|(_, frame)| packets::packet_of(&frame).to_vec()).collect()
    }

    /// Takes the inner packets that a client received.
    pub fn take_received(&mut self, client: usize) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.clients[client].received)
    }

    /// How many packets wait, over all workers.
    pub fn held(&self) -> u64 {
        self.workers.iter().map(|worker| worker.counters.held.get()).sum()
    }

    /// How many datagrams for clients are under way.
    pub fn in_flight(&self) -> usize {
        self.for_clients.len()
    }

    pub fn inner(&self, client: usize, family: Family) -> IpAddr {
        self.clients[client].inner(family)
    }
}

fn worker(number: WorkerId, layout: &IndexLayout, direct_flows: &Arc<DirectFlows>) -> Worker {
    let counters = Arc::new(WorkerCounters::default());
    let settings = Settings {
        node: NODE,
        worker: number,
        index_layout: layout.clone(),
        aead: Aead::best(),
        counters: Arc::clone(&counters),
        flows: FLOWS,
        direct_flows: Arc::clone(direct_flows),
        hash_key: [1, 2, 3, 4],
    };
    Worker { pipeline: Pipeline::new(settings), out: Lists::default(), counters, pages: HashSet::new() }
}
