//! Virtual services: whose packet goes to which server, how, and how the answer comes back.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jetway_config::{AllDown, Forward, OnDown, Persistence};
use jetway_pipelines::dispatch::backend::BackendTraffic;
use jetway_pipelines::dispatch::{Administration, Backend, Health};
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::packet::tcp::{self, Flags, Tcp};
use jetway_pipelines::packet::{Parsed, Protocol, checksum};
use jetway_pipelines::path::ControlEvent;
use jetway_pipelines::tables::Twin;

use crate::bench::packets::{Inner, datagram, frame, parse_datagram};
use crate::bench::services::{SERVER_PORT, SERVICE_PORT, ServicePlan, server_address, servers, service_address};
use crate::bench::{FAMILIES, FLOWS, Family, LAN, MACS, WAN, World, address, neighbour_mac};

/// A client in clear on the WAN, behind the gateway there.
pub fn plain_client(family: Family, port: u16) -> SocketAddr {
    let ip = match family {
        Family::V4 => address("203.0.114.7"),
        Family::V6 => address("2001:db8:ffff::7"),
    };
    SocketAddr::new(ip, port)
}

pub fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => address("198.51.100.254"),
        Family::V6 => address("2001:db8::fe"),
    }
}

pub fn service(family: Family) -> SocketAddr {
    SocketAddr::new(service_address(family), SERVICE_PORT)
}

pub fn udp_service(servers: &[Arc<Backend>], family: Family) -> jetway_pipelines::dispatch::service::Service {
    ServicePlan::nat(family, Protocol::UDP).service(servers)
}

impl World {
    /// A packet arrives on the WAN by the gateway.
    pub fn wan_packet(&mut self, worker: usize, packet: &[u8]) {
        let family = if packet[0] >> 4 == 4 { Family::V4 } else { Family::V6 };
        self.receive(worker, WAN, [frame(MACS[0], neighbour_mac(gateway(family)), packet)]);
        self.settle();
    }

    /// A host of the LAN, a server, sends a packet.
    pub fn server_packet(&mut self, worker: usize, packet: &[u8]) {
        let from = Parsed::from_ip(packet).expect("a packet").source;
        self.receive(worker, LAN, [frame(MACS[1], neighbour_mac(from), packet)]);
        self.settle();
    }

    /// What left on the LAN, one packet.
    pub fn sent_to_server(&mut self) -> Vec<u8> {
        let mut sent = self.take_sent(LAN);
        assert_eq!(sent.len(), 1, "one packet leaves: {:?}", self.losses());
        sent.remove(0)
    }

    /// The address that a datagram of this client's port went to.
    pub fn server_of(&mut self, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        self.wan_packet(0, &datagram(from, to, 0, b"who are you"));
        let packet = self.sent_to_server();
        parse_datagram(&packet).expect("a datagram").1
    }
}

/// A TCP segment without data.
fn segment(from: SocketAddr, to: SocketAddr, sequence: u32, flags: Flags) -> Vec<u8> {
    let mut bytes = vec![0; tcp::HEADER_LENGTH];
    let header =
        tcp::Header { source_port: from.port(), destination_port: to.port(), sequence, acknowledgement: 77, flags };
    header.write(bytes.first_chunk_mut().expect("room"));
    let sum = checksum::pseudo(from.ip(), to.ip(), Protocol::TCP, bytes.len() as u32).bytes(&bytes).checksum();
    tcp::set_checksum(&mut bytes, sum);
    Inner::new(from.ip(), to.ip(), Protocol::TCP, bytes).bytes()
}

pub fn destination(packet: &[u8]) -> IpAddr {
    Parsed::from_ip(packet).expect("a packet").destination
}

#[test]
fn a_datagram_goes_to_a_server_and_the_answer_comes_from_the_service() {
    for family in FAMILIES {
        let mut world = World::new(1, &[]);
        world.offer([udp_service(&servers(family, 1..=3), family)]);
        let client = plain_client(family, 5000);
        world.wan_packet(0, &datagram(client, service(family), 0, b"question"));
        let packet = world.sent_to_server();
        let (from, to, payload) = parse_datagram(&packet).expect("a datagram");
        assert_eq!((from, to.port(), payload), (client, SERVER_PORT, &b"question"[..]));
        let parsed = Parsed::from_ip(&packet).expect("a packet");
        assert_eq!(parsed.ttl, 63);
        world.server_packet(0, &datagram(to, client, 0, b"answer"));
        let sent = world.take_sent(WAN);
        let (from, to, payload) = parse_datagram(&sent[0]).expect("a datagram");
        assert_eq!((from, to, payload), (service(family), client, &b"answer"[..]));
        assert_eq!(world.losses(), []);
    }
}

#[test]
fn a_way_to_a_server_that_was_used_before_ends_when_the_tables_change() {
    for (family, forward) in
        FAMILIES.into_iter().flat_map(|f| [(f, Forward::Nat), (f, Forward::Ipip), (f, Forward::L2)])
    {
        let mut world = World::new(1, &[]);
        let plan = ServicePlan { forward, ..ServicePlan::nat(family, Protocol::UDP) };
        world.offer([plan.service(&servers(family, 1..=1))]);
        let (client, server) = (plain_client(family, 5000), server_address(family, 1));
        let question = datagram(client, service(family), 0, &[7; 1300]);
        world.wan_packet(0, &question);
        let first = world.sent_to_server();

        world.forget_neighbour(LAN, server);
        world.wan_packet(0, &question);
        assert_eq!((world.held(), world.take_sent(LAN).len()), (1, 0), "it waits for the server's link-layer address");
        assert_eq!(world.control, [ControlEvent::NeighbourWanted(LAN, server)]);
        world.learn_neighbour(LAN, server);
        world.settle();
        world.wan_packet(0, &question);
        let later = world.take_sent(LAN);
        assert_eq!(later.len(), 2);
        assert!(later.iter().all(|packet| packet.len() == first.len()));

        world.set_port_mtu(LAN, 1290);
        world.wan_packet(0, &question);
        assert!(world.take_sent(LAN).iter().all(|packet| packet.len() <= 1290), "nothing is longer than the new MTU");
    }
}

#[test]
fn a_tunnels_peer_reaches_a_service_and_hears_the_answer() {
    for family in FAMILIES {
        let mut world = World::connected(1, &[family]);
        world.offer([udp_service(&servers(family, 1..=3), family)]);
        let client = SocketAddr::new(world.inner(0, family), 5000);
        world.client_sends(0, &datagram(client, service(family), 0, b"question"));
        let packet = world.sent_to_server();
        let (_, server, _) = parse_datagram(&packet).expect("a datagram");
        world.server_packet(0, &datagram(server, client, 0, b"answer"));
        world.exchange();
        let received = world.take_received(0);
        let (from, to, payload) = parse_datagram(&received[0]).expect("a datagram");
        assert_eq!((from, to, payload), (service(family), client, &b"answer"[..]));
        assert_eq!(world.losses(), []);
    }
}

#[test]
fn a_server_is_still_reached_at_its_own_address_whichever_worker_sees_the_answer() {
    for family in FAMILIES {
        let mut world = World::new(2, &[]);
        world.offer([udp_service(&servers(family, 1..=1), family)]);
        let server = SocketAddr::new(server_address(family, 1), SERVER_PORT);
        let (direct, served) = (plain_client(family, 5000), plain_client(family, 5001));
        world.wan_packet(0, &datagram(direct, server, 0, b"question"));
        world.wan_packet(0, &datagram(served, service(family), 0, b"question"));
        assert_eq!(world.take_sent(LAN).len(), 2);
        for (client, from) in [(direct, server), (served, service(family))] {
            world.server_packet(1, &datagram(server, client, 0, b"answer"));
            let sent = world.take_sent(WAN).remove(0);
            assert_eq!(parse_datagram(&sent).map(|(from, to, _)| (from, to)), Some((from, client)));
        }
    }
}

#[test]
fn flows_spread_over_all_servers_and_each_stays_where_it_is() {
    let mut world = World::new(1, &[]);
    world.offer([udp_service(&servers(Family::V4, 1..=4), Family::V4)]);
    let ports = 2000..2200u16;
    let first: Vec<_> =
        ports.clone().map(|port| world.server_of(plain_client(Family::V4, port), service(Family::V4))).collect();
    for number in 1..=4 {
        let share = first.iter().filter(|server| server.ip() == server_address(Family::V4, number)).count();
        assert!((20..=90).contains(&share), "server {number} has {share} of 200 flows");
    }
    // Three more servers, and the order is another one.
    let more: Vec<_> = servers(Family::V4, (1..=7).rev());
    world.offer([udp_service(&more, Family::V4)]);
    let again: Vec<_> =
        ports.map(|port| world.server_of(plain_client(Family::V4, port), service(Family::V4))).collect();
    assert_eq!(first, again);
}

#[test]
fn a_server_that_is_down_loses_its_flows_at_once_and_no_other_does() {
    let mut world = World::new(1, &[]);
    let all = servers(Family::V4, 1..=4);
    world.offer([udp_service(&all, Family::V4)]);
    let ports = 2000..2200u16;
    let before: Vec<_> =
        ports.clone().map(|port| world.server_of(plain_client(Family::V4, port), service(Family::V4))).collect();
    all[1].set_health(Health::Down);
    let dead = server_address(Family::V4, 2);
    for (port, before) in ports.clone().zip(&before) {
        let after = world.server_of(plain_client(Family::V4, port), service(Family::V4));
        assert_ne!(after.ip(), dead);
        assert!(before.ip() == dead || after == *before, "the flow of a live server moved");
    }
    let moved = all[1].all_traffic()[0].moved.get();
    assert_eq!(moved as usize, before.iter().filter(|server| server.ip() == dead).count());
}

#[test]
fn a_draining_server_keeps_its_flows_and_gets_no_new_ones() {
    let mut world = World::new(1, &[]);
    let all = servers(Family::V4, 1..=2);
    world.offer([udp_service(&all, Family::V4)]);
    let before: Vec<_> =
        (0..50).map(|port| world.server_of(plain_client(Family::V4, 2000 + port), service(Family::V4))).collect();
    all[0].set_administration(Administration::Draining);
    for (port, before) in (0..50).zip(&before) {
        assert_eq!(world.server_of(plain_client(Family::V4, 2000 + port), service(Family::V4)), *before);
        let fresh = world.server_of(plain_client(Family::V4, 3000 + port), service(Family::V4));
        assert_eq!(fresh.ip(), server_address(Family::V4, 2));
    }
}

#[test]
fn a_client_of_a_tunnel_keeps_its_server_over_ports_inner_addresses_and_a_changed_pool() {
    let mut world = World::connected(1, &[Family::V4, Family::V4, Family::V4]);
    let plan = || ServicePlan { persistence: Persistence::Client, ..ServicePlan::nat(Family::V4, Protocol::UDP) };
    world.offer([plan().service(&servers(Family::V4, 1..=5))]);
    for client in 0..3 {
        let inner = world.inner(client, Family::V4);
        let mut seen = Vec::new();
        for port in 5000..5020 {
            if port == 5010 {
                world.offer([plan().service(&servers(Family::V4, 1..=9))]);
            }
            world.client_sends(client, &datagram(SocketAddr::new(inner, port), service(Family::V4), 0, b"hello"));
            seen.push(destination(&world.sent_to_server()));
        }
        assert!(seen.iter().all(|server| *server == seen[0]), "{seen:?}");
    }
}

#[test]
fn a_connection_to_a_dead_server_is_reset_where_the_service_wants_that() {
    for family in FAMILIES {
        let mut world = World::new(1, &[]);
        let all = servers(family, 1..=2);
        let plan = ServicePlan { on_down: OnDown::Reset, ..ServicePlan::nat(family, Protocol::TCP) };
        world.offer([plan.service(&all)]);
        let client = plain_client(family, 6000);
        world.wan_packet(0, &segment(client, service(family), 1000, Flags::SYN));
        let chosen = destination(&world.sent_to_server());
        world.wan_packet(0, &segment(client, service(family), 1001, Flags::ACK));
        world.sent_to_server();
        let server = all.iter().find(|server| server.address == chosen).expect("a server");
        server.set_health(Health::Down);
        world.wan_packet(0, &segment(client, service(family), 1001, Flags::ACK));
        let reset = world.take_sent(WAN).remove(0);
        let parsed = Parsed::from_ip(&reset).expect("a packet");
        let header = Tcp::parse(parsed.l4(&reset)).expect("a segment");
        assert_eq!((parsed.source, parsed.destination), (service(family).ip(), client.ip()));
        assert_eq!((header.flags, header.sequence), (Flags::RST, 77), "at what the client acknowledged");
        let sum = checksum::pseudo(parsed.source, parsed.destination, Protocol::TCP, 20).bytes(parsed.l4(&reset));
        assert!(sum.is_right());
        // It connects anew, from the same port.
        world.wan_packet(0, &segment(client, service(family), 5000, Flags::SYN));
        assert_ne!(destination(&world.sent_to_server()), chosen);
        assert_eq!(world.drops(DropReason::ServerGone), 1);
    }
}

#[test]
fn without_any_server_a_connection_stays_at_its_own_where_all_serve_then() {
    for on_down in [OnDown::Reset, OnDown::Move] {
        let mut world = World::new(1, &[]);
        let all = servers(Family::V4, 1..=4);
        let plan = ServicePlan { on_down, ..ServicePlan::nat(Family::V4, Protocol::TCP) };
        world.offer([plan.service(&all)]);
        let (client, to) = (plain_client(Family::V4, 6000), service(Family::V4));
        world.wan_packet(0, &segment(client, to, 1000, Flags::SYN));
        let chosen = destination(&world.sent_to_server());
        all.iter().for_each(|server| server.set_health(Health::Down));
        for sequence in 1001..1009 {
            world.wan_packet(0, &segment(client, to, sequence, Flags::ACK));
            assert_eq!(destination(&world.sent_to_server()), chosen, "{on_down:?}");
        }
        assert_eq!(world.losses(), []);
        let counts =
            |count: fn(&BackendTraffic) -> u64| all.iter().map(|server| count(&server.all_traffic()[0])).sum::<u64>();
        assert_eq!(
            (counts(|traffic| traffic.flows.get()), counts(|traffic| traffic.moved.get())),
            (1, 0),
            "{on_down:?}"
        );
    }
}

#[test]
fn without_any_server_the_policy_of_the_service_decides() {
    let mut world = World::new(1, &[]);
    let all = servers(Family::V4, 1..=2);
    all.iter().for_each(|server| server.set_health(Health::Down));
    world.offer([udp_service(&all, Family::V4)]);
    world.server_of(plain_client(Family::V4, 5000), service(Family::V4));
    let plan = ServicePlan { all_down: AllDown::Refuse, ..ServicePlan::nat(Family::V4, Protocol::UDP) };
    world.offer([plan.service(&all)]);
    world.wan_packet(0, &datagram(plain_client(Family::V4, 5001), service(Family::V4), 0, b"anybody?"));
    let refusal = world.take_sent(WAN).remove(0);
    let parsed = Parsed::from_ip(&refusal).expect("a packet");
    assert_eq!((parsed.protocol, &parsed.l4(&refusal)[..2]), (Protocol::ICMP, &[3, 3][..]));
    assert_eq!(world.drops(DropReason::ServiceDown), 1);
}

#[test]
fn a_full_flow_table_still_serves() {
    let mut world = World::new(1, &[]);
    world.offer([udp_service(&servers(Family::V4, 1..=4), Family::V4)]);
    let flows = FLOWS as u16 * 2;
    for port in 0..flows {
        let client = SocketAddr::new(address("203.0.114.9"), 1024 + port);
        let first = world.server_of(client, service(Family::V4));
        assert_eq!(world.server_of(client, service(Family::V4)), first);
    }
    let counters = &world.workers[0].counters;
    assert!(counters.flows_untracked.get() > 0 && counters.flows.get() as usize <= FLOWS * 2);
    // A minute after their last packet, they have long gone.
    world.pass(Duration::from_secs(300));
    let untracked = world.workers[0].counters.flows_untracked.get();
    world.server_of(plain_client(Family::V4, 999), service(Family::V4));
    assert_eq!(world.workers[0].counters.flows_untracked.get(), untracked);
}

#[test]
fn what_is_for_the_service_but_none_of_its_ports_goes_to_the_kernel() {
    for family in FAMILIES {
        let mut world = World::connected(1, &[family]);
        world.offer([udp_service(&servers(family, 1..=2), family)]);
        let other = SocketAddr::new(service_address(family), SERVICE_PORT + 1);
        world.wan_packet(0, &datagram(plain_client(family, 5000), other, 0, b"hello"));
        world.wan_packet(0, &Inner::ping(plain_client(family, 0).ip(), service_address(family)).bytes());
        assert_eq!(world.punted.iter().filter(|(twin, _)| *twin == Twin::Port(WAN)).count(), 2);
        world.client_sends(0, &Inner::ping(world.inner(0, family), service_address(family)).bytes());
        assert_eq!(world.punted.len(), 3);
        assert_eq!(world.losses(), []);
    }
}

#[test]
fn a_client_in_clear_with_the_address_of_a_tunnels_peer_is_turned_away() {
    let mut world = World::connected(1, &[Family::V4]);
    world.offer([udp_service(&servers(Family::V4, 1..=3), Family::V4)]);
    let forged = SocketAddr::new(world.inner(0, Family::V4), 5000);
    world.wan_packet(0, &datagram(forged, service(Family::V4), 0, b"it is me"));
    assert_eq!((world.take_sent(LAN).len(), world.drops(DropReason::ReversePath)), (0, 1));
}

#[test]
fn a_client_on_its_servers_own_link_is_answered_by_the_service_too() {
    for family in FAMILIES {
        for workers in [1, 3] {
            let mut world = World::new(workers, &[]);
            world.offer([udp_service(&servers(family, 1..=2), family)]);
            let client = SocketAddr::new(server_address(family, 9), 5000);
            world.learn_neighbour(LAN, client.ip());
            for worker in 0..usize::from(workers) {
                world.server_packet(worker, &datagram(client, service(family), 0, b"question"));
                let (from, server, _) =
                    parse_datagram(&world.sent_to_server()).map(|(f, t, p)| (f, t, p.to_vec())).unwrap();
                assert_ne!(from.ip(), client.ip(), "the server would answer it directly");
                // The answer comes to any worker.
                for other in 0..usize::from(workers) {
                    world.server_packet(other, &datagram(server, from, 0, b"answer"));
                    let answer = world.sent_to_server();
                    let (from, to, payload) = parse_datagram(&answer).expect("a datagram");
                    assert_eq!((from, to, payload), (service(family), client, &b"answer"[..]));
                }
            }
            assert_eq!(world.losses(), []);
        }
    }
}

#[test]
fn a_refused_or_repeated_connection_puts_the_server_under_suspicion() {
    let mut world = World::new(1, &[]);
    world.offer([ServicePlan::nat(Family::V4, Protocol::TCP).service(&servers(Family::V4, 1..=1))]);
    let (client, server) =
        (plain_client(Family::V4, 6000), SocketAddr::new(server_address(Family::V4, 1), SERVER_PORT));
    world.wan_packet(0, &segment(client, service(Family::V4), 1000, Flags::SYN));
    assert_eq!(world.control.len(), 0);
    world.wan_packet(0, &segment(client, service(Family::V4), 1000, Flags::SYN));
    assert_eq!(world.control.len(), 1, "the SYN was repeated");
    world.tables.services.iter().for_each(|service| service.servers[0].lower_signal());
    world.server_packet(0, &segment(server, client, 0, Flags(Flags::RST.0 | Flags::ACK.0)));
    assert_eq!(world.control.len(), 2, "nobody listens");
}
