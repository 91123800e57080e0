//! A whole worker with a tunnel and a session: whatever comes in, what goes out is right and all is accounted for.

mod services;
mod traffic;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use ipnet::IpNet;
use jetway_aead::{Aead, Key, OpenJob, SealJob};
use jetway_config::Encapsulation;
use jetway_pipelines::buffer::{HeapBuf, PacketBuf};
use jetway_pipelines::counters::WorkerCounters;
use jetway_pipelines::dispatch::decapsulation::Decapsulation;
use jetway_pipelines::dispatch::direct_flows::DirectFlows;
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::ids::{NodeId, PeerIndex, PortId, SlotIndex, TunnelId, WorkerId};
use jetway_pipelines::lpm::Lpm;
use jetway_pipelines::packet::ecn::Dscp;
use jetway_pipelines::packet::udp::Udp;
use jetway_pipelines::packet::{Frame, MacAddress, Parsed, Protocol, ipv4, udp};
use jetway_pipelines::path::slots::Page;
use jetway_pipelines::path::{Command, ControlEvent, HandshakeEvent, Outputs, Pipeline, RingFull, Scene, Settings};
use jetway_pipelines::tables::{ChecksumBy, PortEntry, Route, Source as Addresses, Tables, TunnelEntry, Twin};
use jetway_pipelines::time::Instant;
use jetway_pipelines::wireguard::constants::{DATA_HEADER_SIZE, TAG_SIZE};
use jetway_pipelines::wireguard::cookie::{CookieChecker, CookieSecrets};
use jetway_pipelines::wireguard::index::{IndexKey, IndexLayout};
use jetway_pipelines::wireguard::kdf::Secret;
use jetway_pipelines::wireguard::message::Data;
use jetway_pipelines::wireguard::send_counter::SendCounter;
use jetway_pipelines::wireguard::{Endpoint, Peer, Receiver, Role, SendingHalf};

use crate::fuzz::Outcome;
use crate::fuzz::source::Source;
use traffic::{frame, packet};

const WAN: PortId = PortId(0);
const LAN: PortId = PortId(1);
const TUNNEL: TunnelId = TunnelId(0);
const MACS: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2])];
const NEIGHBOUR: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
const MTU: u16 = 1500;
const TUNNEL_MTU: u16 = 1420;
const LISTEN_PORT: u16 = 51820;
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const OUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CLIENT_INDEX: u32 = 0x1234_5678;
const KEY_FROM_CLIENT: [u8; 32] = [7; 32];
const KEY_TO_CLIENT: [u8; 32] = [8; 32];
/// Steps that one input makes at most.
const MAX_STEPS: usize = 64;

/// Feeds a worker with frames, datagrams, sealed packets and packets of the kernel.
pub fn worker(data: &[u8]) -> Outcome {
    let mut source = Source::new(data);
    let mut world = World::new();
    for _ in 0..MAX_STEPS {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
        world.check();
    }
    let drops = DropReason::ALL.iter().filter(|reason| world.pipeline.counters().drops[**reason as usize].get() > 0);
    let drops: BTreeSet<&str> = drops.map(|reason| reason.name()).collect();
    Outcome::of((drops, world.ways))
}

struct World {
    pipeline: Pipeline<HeapBuf>,
    tables: Tables,
    now: Instant,
    out: Lists,
    aead: Aead,
    our_index: u32,
    next_counter: u64,
    /// Counters under which the worker has sealed.
    counters_seen: HashSet<u64>,
    /// Which ways out were taken.
    ways: BTreeSet<&'static str>,
}

/// Ways out that remember what went.
#[derive(Default)]
struct Lists {
    sent: Vec<(PortId, HeapBuf)>,
    punted: Vec<(Twin, HeapBuf)>,
    handed_off: u64,
}

impl Outputs<HeapBuf> for Lists {
    fn send(&mut self, port: PortId, frame: HeapBuf) -> Result<(), HeapBuf> {
        self.sent.push((port, frame));
        Ok(())
    }

    fn punt(&mut self, to: Twin, packet: HeapBuf) -> Result<(), HeapBuf> {
        self.punted.push((to, packet));
        Ok(())
    }

    fn hand_off(&mut self, to: WorkerId, _port: PortId, _frame: HeapBuf) -> Result<(), HeapBuf> {
        assert_eq!(to, WorkerId(1), "the only other worker");
        self.handed_off += 1;
        Ok(())
    }

    fn tell_handshaker(&mut self, _event: HandshakeEvent) -> Result<(), RingFull> {
        Ok(())
    }

    fn tell_control(&mut self, _event: ControlEvent) -> Result<(), RingFull> {
        Ok(())
    }

    fn allocate(&mut self) -> Option<HeapBuf> {
        Some(HeapBuf::with_room(2048))
    }
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix that stands in this file")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address that stands in this file")
}

fn tables(peer: &Arc<Peer>) -> Tables {
    let port = |mac, v4: [u8; 4], v6: &str| PortEntry {
        mac,
        mtu: MTU,
        l4_checksum: ChecksumBy::Software,
        source: Addresses { v4: Some(v4.into()), v6: v6.parse().ok() },
    };
    let to = |port, gateway: Option<&str>| Route::Port { port, gateway: gateway.map(address), source: None, mtu: None };
    let secrets = Arc::new(CookieSecrets::new(Secret::new([3; 32]), Secret::new([4; 32])));
    let tunnel = TunnelEntry {
        listen_port: LISTEN_PORT,
        mtu: TUNNEL_MTU,
        source: Addresses { v4: Some(Ipv4Addr::new(10, 8, 0, 1)), v6: "fd00:8::1".parse().ok() },
        dscp: Dscp::Hide,
        allowed_ips: ["10.8.0.2/32", "fd00:8::2/128"].map(|text| (net(text), Arc::clone(peer))).into_iter().collect(),
        checker: Arc::new(CookieChecker::new(&[5; 32], secrets)),
    };
    let ours = ["198.51.100.1", "192.0.2.1", "10.8.0.1", "2001:db8::1", "2001:db8:2::1", "fd00:8::1"];
    Tables {
        epoch: 1,
        ports: [port(MACS[0], [198, 51, 100, 1], "2001:db8::1"), port(MACS[1], [192, 0, 2, 1], "2001:db8:2::1")].into(),
        tunnels: vec![Arc::new(tunnel)],
        listeners: Arc::new([(LISTEN_PORT, TUNNEL)].into_iter().collect()),
        local: Arc::new(ours.into_iter().chain(services::ADDRESSES).map(address).collect()),
        services: Arc::new(services::services()),
        routes: routes(to),
        neighbours: Arc::default(),
        decapsulation: Some(Arc::new(decapsulation())),
        ..Tables::default()
    }
}

/// Hosts of the LAN may send packets inside others.
fn decapsulation() -> Decapsulation {
    let from = ["192.0.2.0/24", "2001:db8:2::/64"].map(|network| network.parse::<IpNet>().expect("a network"));
    Decapsulation::new(from, &[Encapsulation::Ipip, Encapsulation::Gre, Encapsulation::Gue])
}

fn routes(to: impl Fn(PortId, Option<&str>) -> Route) -> Lpm<Route> {
    [
        ("198.51.100.0/24", to(WAN, None)),
        ("2001:db8::/64", to(WAN, None)),
        ("192.0.2.0/24", to(LAN, None)),
        ("2001:db8:2::/64", to(LAN, None)),
        ("0.0.0.0/0", to(WAN, Some("198.51.100.9"))),
        ("10.8.0.0/16", Route::Tunnel(TUNNEL)),
        ("fd00:8::/64", Route::Tunnel(TUNNEL)),
        ("203.0.113.0/26", Route::Blackhole),
        ("203.0.113.64/26", Route::Unreachable),
        ("203.0.113.128/26", Route::Prohibit),
    ]
    .into_iter()
    .map(|(text, route)| (net(text), route))
    .collect()
}

impl World {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let aead = Aead::best();
        let layout = IndexLayout::new(NodeId(1), 2, &IndexKey::new([1; 8]));
        let our_index = layout.encode(WorkerId(0), SlotIndex(3));
        let peer = Arc::new(Peer::new(PeerIndex(0), TUNNEL, [6; 32]));
        let counter = SendCounter::new(0).expect("generation 0");
        let key = aead.key(&KEY_TO_CLIENT);
        let half = SendingHalf { key, counter, created: now, remote_index: CLIENT_INDEX, role: Role::Responder };
        peer.endpoint.store(Endpoint::configured(SocketAddr::from((CLIENT, 4000))));
        let session = peer.set_current(&half);
        let mut pipeline = Pipeline::new(Settings {
            node: NodeId(1),
            worker: WorkerId(0),
            index_layout: layout,
            aead: Aead::best(),
            counters: Arc::new(WorkerCounters::default()),
            flows: 64,
            direct_flows: Arc::new(DirectFlows::new([1, 2, 3, 4])),
            hash_key: [1, 2, 3, 4],
        });
        let tables = tables(&peer);
        let mut out = Lists::default();
        let scene = Scene { tables: &tables, now };
        let key = aead.key(&KEY_FROM_CLIENT);
        let receiver = Box::new(Receiver::new(key, our_index, peer, session, now));
        pipeline.command(Command::AddPage(0, Page::new()), &scene, &mut out);
        pipeline.command(Command::InstallReceiver(SlotIndex(3), receiver), &scene, &mut out);
        Self {
            pipeline,
            tables,
            now,
            out,
            aead,
            our_index,
            next_counter: 0,
            counters_seen: HashSet::new(),
            ways: BTreeSet::new(),
        }
    }

    fn step(&mut self, source: &mut Source<'_>) {
        let choice = source.byte();
        let port = PortId(u16::from(choice >> 7));
        match choice & 7 {
            0 => self.receive(port, source.bytes(255).to_vec()),
            1 => {
                let message = source.bytes(255).to_vec();
                self.datagram(&message, 0);
            }
            2 | 3 => {
                let packet = packet(source);
                self.sealed(&packet, choice);
            }
            4 => {
                let packet = packet(source);
                self.receive(port, frame(port, &packet));
            }
            5 => {
                let packet = packet(source);
                let twin = if choice & 8 == 0 { Twin::Tunnel(TUNNEL) } else { Twin::Port(port) };
                let buffer = HeapBuf::from_packet(&if choice & 8 == 0 { packet } else { frame(port, &packet) });
                let scene = Scene { tables: &self.tables, now: self.now };
                self.pipeline.from_kernel(twin, buffer, &scene, &mut self.out);
            }
            6 => {
                self.now += Duration::from_millis(u64::from(source.byte()) * 50);
                services::change(&self.tables.services, choice >> 3);
            }
            _ => self.neighbours(choice),
        }
        let scene = Scene { tables: &self.tables, now: self.now };
        self.pipeline.release_held(&scene, &mut self.out);
    }

    fn receive(&mut self, port: PortId, frame: Vec<u8>) {
        self.pipeline.counters().received.add(1);
        let mut burst: ArrayVec<HeapBuf, { jetway_pipelines::path::BURST }> = ArrayVec::new();
        burst.push(HeapBuf::from_packet(&frame));
        let scene = Scene { tables: &self.tables, now: self.now };
        self.pipeline.frames(port, &mut burst, &scene, &mut self.out);
    }

    /// A datagram from the client to the tunnel's port.
    fn datagram(&mut self, message: &[u8], traffic_class: u8) {
        let length = (udp::HEADER_LENGTH + message.len()) as u16;
        let (mut ip, mut header) = ([0; ipv4::HEADER_LENGTH], [0; udp::HEADER_LENGTH]);
        ipv4::Header {
            source: CLIENT,
            destination: OUTER,
            protocol: Protocol::UDP,
            traffic_class,
            ttl: 64,
            fragmentation: ipv4::Fragmentation::Forbidden,
            total_length: length + ipv4::HEADER_LENGTH as u16,
        }
        .write(&mut ip);
        udp::write(&mut header, 4000, LISTEN_PORT, length, udp::Checksum::None);
        self.receive(WAN, frame(WAN, &[&ip[..], &header, message].concat()));
    }

    /// A packet as the client seals it; choices mark congestion outside, repeat a counter, or break the seal.
    fn sealed(&mut self, packet: &[u8], choice: u8) {
        let counter = if choice & 8 == 0 { self.next_counter } else { self.next_counter.saturating_sub(1) };
        self.next_counter += 1;
        let mut message = Data::header(self.our_index, counter).to_vec();
        message.extend(packet);
        message.resize(DATA_HEADER_SIZE + packet.len().next_multiple_of(16) + TAG_SIZE, 0);
        let key: Key = self.aead.key(&KEY_FROM_CLIENT);
        let buffer = &mut message[DATA_HEADER_SIZE..];
        self.aead.seal_burst(&mut [SealJob { key: &key, counter, buffer }]);
        if choice & 0x30 == 0x30 {
            let last = message.len() - 1;
            message[last] ^= 1;
        }
        self.datagram(&message, choice >> 6);
    }

    /// Neighbours come and go.
    fn neighbours(&mut self, choice: u8) {
        let there = [(WAN, "198.51.100.9"), (LAN, "192.0.2.11"), (LAN, "2001:db8:2::11")];
        let entries = there.into_iter().enumerate().filter(|(bit, _)| choice >> (bit + 3) & 1 == 1);
        let entries = entries.map(|(_, (port, text))| ((port, address(text)), NEIGHBOUR));
        self.tables.neighbours = Arc::new(entries.collect::<HashMap<_, _, _>>());
        self.tables.epoch += 1;
    }

    /// Looks at all that went out since the last time.
    fn check(&mut self) {
        for (port, frame) in std::mem::take(&mut self.out.sent) {
            self.pipeline.counters().sent.add(1);
            self.check_frame(port, frame.data());
        }
        for (twin, packet) in std::mem::take(&mut self.out.punted) {
            self.ways.insert("punted");
            if twin == Twin::Tunnel(TUNNEL) {
                let inner = Parsed::from_ip(packet.data()).expect("only packets go to a tunnel's twin");
                assert!(is_clients(inner.source), "{} is not allowed", inner.source);
            }
        }
        let counters = self.pipeline.counters();
        assert_eq!(counters.unaccounted(), 0, "a packet is not accounted for");
        assert_eq!(counters.drops[DropReason::Undecided as usize].get(), 0, "a stage left a packet without a verdict");
        assert_eq!(counters.handed_off.get(), self.out.handed_off);
    }

    fn check_frame(&mut self, port: PortId, data: &[u8]) {
        let frame = Frame::parse(data).expect("frames are whole");
        let packet = frame.payload(data);
        if frame.destination != NEIGHBOUR || frame.source != MACS[port.index()] {
            // The kernel's own frames pass as they are.
            self.ways.insert("kernel's");
            return;
        }
        let Some(Ok(parsed)) = Parsed::from_payload(frame.ethertype, packet) else { panic!("{port}: no packet") };
        assert_eq!(parsed.verify_header_checksum(packet), Ok(()));
        assert_eq!(parsed.total_length as usize, packet.len(), "frames end with their packet");
        assert!(packet.len() <= usize::from(MTU));
        assert!(parsed.source != parsed.destination || !self.tables.is_local(parsed.source));
        if let IpAddr::V4(source) = parsed.source {
            let of_tunnel = source.octets()[..2] == [10, 8];
            assert!(
                !of_tunnel || is_clients(source.into()) || source == Ipv4Addr::new(10, 8, 0, 1),
                "{source} is spoofed"
            );
        }
        self.ways.insert(if port == WAN { "wan" } else { "lan" });
        let l4 = parsed.l4(packet);
        if port == WAN && parsed.source == IpAddr::V4(OUTER) && parsed.protocol == Protocol::UDP {
            let datagram = Udp::parse(l4).expect("outer datagrams are whole");
            if datagram.source_port == LISTEN_PORT
                && let Ok(message) = Data::parse(datagram.payload(l4))
            {
                self.check_message(&message);
            }
        }
    }

    /// What is sealed is for the client, whole, padded and never under the same counter.
    fn check_message(&mut self, message: &Data<'_>) {
        assert_eq!(message.receiver, CLIENT_INDEX);
        assert!(self.counters_seen.insert(message.counter), "a nonce was used twice");
        let mut packet = message.encrypted_packet.to_vec();
        let key = self.aead.key(&KEY_TO_CLIENT);
        let mut jobs = [OpenJob { key: &key, counter: message.counter, buffer: &mut packet, authentic: false }];
        self.aead.open_burst(&mut jobs);
        assert!(jobs[0].authentic);
        packet.truncate(packet.len() - TAG_SIZE);
        let inner = Parsed::from_ip(&packet).expect("only packets are sealed");
        assert!(inner.total_length <= u32::from(TUNNEL_MTU), "{} bytes", inner.total_length);
        assert!(is_clients(inner.destination), "sealed for {}", inner.destination);
        assert!(packet.len().is_multiple_of(16) || packet.len() == usize::from(TUNNEL_MTU), "{} bytes", packet.len());
        assert!(packet[inner.total_length as usize..].iter().all(|byte| *byte == 0), "padding is zero");
        self.ways.insert("sealed");
    }
}

fn is_clients(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address == Ipv4Addr::new(10, 8, 0, 2),
        IpAddr::V6(address) => address == Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, 2),
    }
}
