//! A worker with a tunnel and peers that have sessions, and the clients' side of them.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jetway_aead::{Aead, Key, SealJob};
use jetway_engine::exits::{PortAccess, PortShare};
use jetway_engine::links::{self, OtherEnds};
use jetway_engine::port::PortQueue;
use jetway_engine::worker::Worker;
use jetway_pipelines::buffer::{BufferPool, HeapBuf, PacketBuf};
use jetway_pipelines::counters::WorkerCounters;
use jetway_pipelines::dispatch::direct_flows::DirectFlows;
use jetway_pipelines::dispatch::service::Services;
use jetway_pipelines::ids::{NodeId, PeerIndex, PortId, SlotIndex, TunnelId, WorkerId};
use jetway_pipelines::lpm::Lpm;
use jetway_pipelines::packet::ecn::Dscp;
use jetway_pipelines::path::slots::Page;
use jetway_pipelines::path::{Command, Pipeline, Settings};
use jetway_pipelines::tables::{ChecksumBy, PortEntry, Route, Source, Tables, TunnelEntry};
use jetway_pipelines::time::Instant;
use jetway_pipelines::wireguard::constants::{DATA_HEADER_SIZE, TAG_SIZE};
use jetway_pipelines::wireguard::cookie::{CookieChecker, CookieSecrets};
use jetway_pipelines::wireguard::index::{IndexKey, IndexLayout};
use jetway_pipelines::wireguard::kdf::Secret;
use jetway_pipelines::wireguard::message::Data;
use jetway_pipelines::wireguard::send_counter::SendCounter;
use jetway_pipelines::wireguard::session::SessionRef;
use jetway_pipelines::wireguard::{Endpoint, Peer, Receiver, Role, SendingHalf};
use jetway_sync::published::Publisher;

use crate::aead;
use crate::line::Line;
use crate::traffic::{self, LISTEN_PORT, MACS, NEIGHBOUR, OUTER, ROUTER, SERVER};

/// Towards clients.
pub const WAN: PortId = PortId(0);
/// Towards servers.
pub const LAN: PortId = PortId(1);
/// The only tunnel.
pub const TUNNEL: TunnelId = TunnelId(0);
/// The time in which measurements happen; a turn is told it and reads no clock.
pub const NOW: Instant = Instant::from_nanos(10_000_000_000);

const MTU: u16 = 1500;
/// The largest inner packet.
pub const TUNNEL_MTU: u16 = 1420;

/// A worker with the publisher of its tables; its ports are lines unless something else is said.
pub struct World<B: PacketBuf = HeapBuf, L = [Line; 2]> {
    /// The worker.
    pub worker: Worker<B>,
    /// Its ports' other ends: towards clients, towards servers.
    pub lines: L,
    /// What it counts.
    pub counters: Arc<WorkerCounters>,
    /// The clients.
    pub clients: Vec<Client>,
    /// The AEAD that both sides use.
    pub aead: Aead,
    _publisher: Publisher<Tables>,
    _others: OtherEnds<B>,
}

/// A client's side of a session.
pub struct Client {
    /// The key under which it sends.
    pub key: Key,
    /// Our index, which its messages carry.
    pub index: u32,
    /// Its next counter.
    pub counter: u64,
}

impl Client {
    /// The client of this number, whose session has the slot of this number at worker 0.
    pub fn new(number: usize, layout: &IndexLayout, aead: Aead) -> Self {
        Self::with_index(number, layout.encode(WorkerId(0), SlotIndex(number as u32)), aead)
    }

    /// The client of this number, whose session has this receiver index.
    pub fn with_index(number: usize, index: u32, aead: Aead) -> Self {
        Self { key: aead.key(&secret(number, 0)), index, counter: 0 }
    }

    /// The message in which it sends a packet, as it is before it is sealed.
    pub fn open_message(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut message = Data::header(self.index, self.counter).to_vec();
        self.counter += 1;
        message.extend(packet);
        message.resize(DATA_HEADER_SIZE + packet.len().next_multiple_of(16).min(TUNNEL_MTU.into()) + TAG_SIZE, 0);
        message
    }

    /// The frame in which its packet of `length` bytes to the server comes; `number` is its own.
    pub fn sealed_frame(&mut self, number: usize, length: usize, aead: Aead) -> Vec<u8> {
        let packet = traffic::packet(traffic::client(number), SERVER, length, number);
        let mut message = self.open_message(&packet);
        let counter = self.counter - 1;
        aead.seal_burst(&mut [SealJob { key: &self.key, counter, buffer: &mut message[DATA_HEADER_SIZE..] }]);
        let datagram = traffic::datagram(traffic::endpoint(number), (OUTER, LISTEN_PORT).into(), &message);
        traffic::frame(WAN.index(), &datagram)
    }
}

/// A pool that never has a buffer: the measured paths make no packets.
pub struct NoPool;

impl<B: PacketBuf> BufferPool<B> for NoPool {
    fn allocate(&mut self) -> Option<B> {
        None
    }
}

impl World {
    /// A worker with `peers` peers, each with an IPv4 and an IPv6 address and a session.
    pub fn new(peers: usize) -> Self {
        Self::with_services(peers, Services::default(), 0)
    }

    /// The same with services whose servers are neighbours on the LAN, and room for so many flows.
    pub fn with_services(peers: usize, services: Services, flows: usize) -> Self {
        let lines = [Line::default(), Line::default()];
        let queues = lines.each_ref().map(Line::queue);
        Self::on_ports(peers, aead::chosen(), (services, flows), queues, lines)
    }
}

impl<B: PacketBuf + 'static, L> World<B, L> {
    /// The same with these queues as ports, towards clients and towards servers, whose other ends are `lines`.
    pub fn on_ports(
        peers: usize,
        aead: Aead,
        (services, flows): (Services, usize),
        queues: [Box<dyn PortQueue<B>>; 2],
        lines: L,
    ) -> Self {
        let layout = layout(1);
        let peers: Vec<_> = (0..peers).map(peer).collect();
        let mut publisher = Publisher::new(Arc::new(tables(allowed_ips(&peers), services)));
        let counters = Arc::new(WorkerCounters::default());
        let (mut links, mut others) = links::connect(1);
        let ports = queues.into_iter().map(|queue| PortShare::new(PortAccess::Queue(queue))).collect();
        let pipeline = Pipeline::new(Settings { flows, ..settings(layout.clone(), aead, &counters) });
        let links = links.remove(0);
        let mut worker =
            Worker::new(publisher.reader(), pipeline, links, ports, Box::new(NoPool), Arc::clone(&counters));
        let mut clients = Vec::with_capacity(peers.len());
        for (number, peer) in peers.iter().enumerate() {
            let slot = SlotIndex(number as u32);
            let index = layout.encode(WorkerId(0), slot);
            let receiver = Box::new(receiver(number, peer, index, aead));
            let commands = &mut others.handshaker[0].commands;
            if number.is_multiple_of(jetway_pipelines::path::slots::PAGE_SLOTS) {
                commands.send(Command::AddPage(Page::of(slot), Page::new()));
            }
            commands.send(Command::InstallReceiver(slot, receiver));
            clients.push(Client::new(number, &layout, aead));
        }
        while others.handshaker[0].commands.outstanding() > 0 {
            others.handshaker[0].commands.flush();
            worker.turn(NOW);
        }
        Self { worker, lines, counters, clients, aead, _publisher: publisher, _others: others }
    }

    /// The message in which a client sends a packet, as it is before it is sealed.
    pub fn open_message(&mut self, client: usize, packet: &[u8]) -> Vec<u8> {
        self.clients[client].open_message(packet)
    }

    /// The frame in which a client's packet to the server comes.
    pub fn sealed_frame(&mut self, client: usize, length: usize) -> Vec<u8> {
        self.clients[client].sealed_frame(client, length, self.aead)
    }

    /// The frame in which a server's packet to a client comes.
    pub fn plain_frame(&self, client: usize, length: usize) -> Vec<u8> {
        traffic::frame(LAN.index(), &traffic::packet(SERVER, traffic::client(client), length, client))
    }
}

/// The layout of receiver indices of node 1 with so many workers.
pub fn layout(workers: u16) -> IndexLayout {
    IndexLayout::new(NodeId(1), workers, &IndexKey::new([1; 8]))
}

/// What a pipeline of worker 0 is made with.
pub fn settings(layout: IndexLayout, aead: Aead, counters: &Arc<WorkerCounters>) -> Settings {
    Settings {
        node: NodeId(1),
        worker: WorkerId(0),
        index_layout: layout,
        aead,
        counters: Arc::clone(counters),
        flows: 0,
        direct_flows: Arc::new(DirectFlows::new([1, 2, 3, 4])),
        hash_key: [1, 2, 3, 4],
    }
}

/// A key for one direction of a client's session: 0 from it, 1 to it.
fn secret(number: usize, direction: u8) -> [u8; 32] {
    let mut bytes = [direction; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    bytes
}

/// The peer of this number.
pub fn peer(number: usize) -> Arc<Peer> {
    let peer = Peer::new(PeerIndex(number as u32), TUNNEL, secret(number, 9));
    peer.endpoint.store(Endpoint { remote: traffic::endpoint(number), local: Some(IpAddr::V4(OUTER)) });
    Arc::new(peer)
}

/// Gives the peer a session to send with, made at [`NOW`].
pub fn give_session(number: usize, peer: &Peer, aead: Aead) -> SessionRef {
    let counter = SendCounter::new(0).expect("there is a generation 0");
    let key = aead.key(&secret(number, 1));
    let role = Role::Responder;
    peer.set_current(&SendingHalf { key, counter, created: NOW, remote_index: number as u32, role })
}

/// The receiving half of the session of the peer of this number.
pub fn receiver(number: usize, peer: &Arc<Peer>, index: u32, aead: Aead) -> Receiver {
    let session = give_session(number, peer, aead);
    Receiver::new(aead.key(&secret(number, 0)), index, Arc::clone(peer), session, NOW)
}

/// The clients' inner addresses.
pub fn allowed_ips(peers: &[Arc<Peer>]) -> Lpm<Arc<Peer>> {
    let nets =
        |number| [IpNet::from(IpAddr::V4(traffic::client(number))), IpAddr::V6(traffic::client_v6(number)).into()];
    peers.iter().enumerate().flat_map(|(number, peer)| nets(number).map(|net| (net, Arc::clone(peer)))).collect()
}

/// The ports, towards clients and towards servers.
pub fn ports() -> Vec<PortEntry> {
    let port = |mac, v4| PortEntry {
        mac,
        mtu: MTU,
        l4_checksum: ChecksumBy::Software,
        source: Source { v4: Some(v4), v6: None },
    };
    vec![port(MACS[0], OUTER), port(MACS[1], [192, 0, 2, 1].into())]
}

/// A tunnel without peers.
pub fn tunnel(public_key: &[u8; 32], secrets: Arc<CookieSecrets>) -> TunnelEntry {
    TunnelEntry {
        listen_port: LISTEN_PORT,
        mtu: TUNNEL_MTU,
        source: Source::default(),
        dscp: Dscp::Hide,
        allowed_ips: Lpm::default(),
        checker: Arc::new(CookieChecker::new(public_key, secrets)),
    }
}

/// Secrets for cookies; no secret at all.
pub fn cookie_secrets() -> Arc<CookieSecrets> {
    Arc::new(CookieSecrets::new(Secret::new([3; 32]), Secret::new([4; 32])))
}

/// The routes of every world: its networks, the clients' outer addresses by the router, inner ones into the tunnel.
pub fn routes() -> Lpm<Route> {
    let to = |port, gateway: Option<IpAddr>| Route::Port { port, gateway, source: None, mtu: None };
    [
        ("198.51.100.0/24", to(WAN, None)),
        ("192.0.2.0/24", to(LAN, None)),
        ("0.0.0.0/0", to(WAN, Some(ROUTER.into()))),
        ("10.0.0.0/8", Route::Tunnel(TUNNEL)),
        ("fd00:8::/32", Route::Tunnel(TUNNEL)),
    ]
    .into_iter()
    .map(|(net, route)| (net.parse().expect("a prefix that stands in this file"), route))
    .collect()
}

/// The tables of every world.
pub fn tables(allowed_ips: Lpm<Arc<Peer>>, services: Services) -> Tables {
    let servers = services.iter().flat_map(|service| &service.servers).map(|server| (LAN, server.address));
    let tunnel = TunnelEntry { allowed_ips, ..tunnel(&[5; 32], cookie_secrets()) };
    let neighbours = [(WAN, IpAddr::V4(ROUTER)), (LAN, IpAddr::V4(SERVER))].into_iter().chain(servers);
    Tables {
        epoch: 1,
        ports: ports().into(),
        tunnels: vec![Arc::new(tunnel)],
        listeners: Arc::new([(LISTEN_PORT, TUNNEL)].into_iter().collect()),
        local: Arc::new([OUTER, [192, 0, 2, 1].into(), [10, 0, 0, 1].into()].map(IpAddr::V4).into_iter().collect()),
        routes: routes(),
        neighbours: Arc::new(neighbours.map(|next_hop| (next_hop, NEIGHBOUR)).collect()),
        services: Arc::new(services),
        ..Tables::default()
    }
}
