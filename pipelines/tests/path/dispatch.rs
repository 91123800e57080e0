//! Virtual services: whose packet goes to which server, how, and how the answer comes back.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jetway_config::{AllDown, Forward, OnDown, Persistence};
use jetway_pipelines::dispatch::{Administration, Backend, Health};
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::packet::tcp::{self, Flags, Tcp};
use jetway_pipelines::packet::{Parsed, Protocol, checksum};
use jetway_pipelines::path::ControlEvent;
use jetway_pipelines::tables::Twin;

use crate::bench::packets::{Inner, datagram, frame, parse_datagram, set_fragment};
use crate::bench::services::{SERVER_PORT, SERVICE_PORT, ServicePlan, server_address, servers, service_address};
use crate::bench::{FAMILIES, FLOWS, Family, LAN, MACS, WAN, World, address, neighbour_mac};

/// A client in clear on the WAN, behind the gateway there.
fn plain_client(family: Family, port: u16) -> SocketAddr {
    let ip = match family {
        Family::V4 => address("203.0.114.7"),
        Family::V6 => address("2001:db8:ffff::7"),
    };
    SocketAddr::new(ip, port)
}

fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => address("198.51.100.254"),
        Family::V6 => address("2001:db8::fe"),
    }
}

fn service(family: Family) -> SocketAddr {
    SocketAddr::new(service_address(family), SERVICE_PORT)
}

fn udp_service(servers: &[Arc<Backend>], family: Family) -> jetway_pipelines::dispatch::service::Service {
    ServicePlan::nat(family, Protocol::UDP).service(servers)
}

impl World {
    /// A packet arrives on the WAN by the gateway.
    fn wan_packet(&mut self, worker: usize, packet: &[u8]) {
        let family = if packet[0] >> 4 == 4 { Family::V4 } else { Family::V6 };
        self.receive(worker, WAN, [frame(MACS[0], neighbour_mac(gateway(family)), packet)]);
        self.settle();
    }

    /// A host of the LAN, a server, sends a packet.
    fn server_packet(&mut self, worker: usize, packet: &[u8]) {
        let from = Parsed::from_ip(packet).expect("a packet").source;
        self.receive(worker, LAN, [frame(MACS[1], neighbour_mac(from), packet)]);
        self.settle();
    }

    /// What left on the LAN, one packet.
    fn sent_to_server(&mut self) -> Vec<u8> {
        let mut sent = self.take_sent(LAN);
        assert_eq!(sent.len(), 1, "one packet leaves: {:?}", self.losses());
        sent.remove(0)
    }

    /// The address that a datagram of this client's port went to.
    fn server_of(&mut self, from: SocketAddr, to: SocketAddr) -> SocketAddr {
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

fn destination(packet: &[u8]) -> IpAddr {
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
fn every_encapsulation_brings_the_packet_as_it_was() {
    let forwards = [(Forward::Ipip, 20, 0), (Forward::Gre, 20, 4), (Forward::Gue, 20, 8), (Forward::L2, 0, 0)];
    for family in FAMILIES {
        for servers_family in FAMILIES {
            for (forward, ip, shim) in forwards {
                if forward == Forward::L2 && family != servers_family {
                    continue;
                }
                let header = if ip == 0 {
                    0
                } else if servers_family == Family::V4 {
                    20
                } else {
                    40
                };
                let mut world = World::new(1, &[]);
                let plan = ServicePlan { forward, ..ServicePlan::nat(family, Protocol::UDP) };
                world.offer([plan.service(&servers(servers_family, 1..=2))]);
                let packet = Inner::udp(plain_client(family, 0).ip(), service_address(family), 300);
                let mut packet = packet.class(0b1011_1010);
                packet.set_udp(4000, SERVICE_PORT);
                world.wan_packet(0, &packet.bytes());
                let sent = world.sent_to_server();
                assert_eq!(sent[header + shim..], packet.forwarded(), "{forward:?} {family:?} {servers_family:?}");
                assert_eq!(world.losses(), []);
            }
        }
    }
}

#[test]
fn what_no_longer_fits_in_its_encapsulation_is_told_to_the_client() {
    for family in FAMILIES {
        let mut world = World::new(1, &[]);
        let plan = ServicePlan { forward: Forward::Gue, ..ServicePlan::nat(family, Protocol::UDP) };
        world.offer([plan.service(&servers(family, 1..=2))]);
        let room = if family == Family::V4 { 1500 - 28 } else { 1500 - 48 };
        for length in [room, room + 1] {
            let mut packet = Inner::udp(plain_client(family, 0).ip(), service_address(family), length);
            packet.set_udp(4000, SERVICE_PORT);
            world.wan_packet(0, &packet.bytes());
        }
        assert_eq!(world.take_sent(LAN).len(), 1);
        let error = world.take_sent(WAN).remove(0);
        let parsed = Parsed::from_ip(&error).expect("a packet");
        let mtu = &parsed.l4(&error)[4..8];
        assert_eq!(u32::from_be_bytes(mtu.try_into().expect("four bytes")), room as u32);
        assert_eq!(world.drops(DropReason::TooBig), 1);
    }
}

#[test]
fn a_hop_limit_that_ends_here_is_told_by_the_node() {
    let mut world = World::new(1, &[]);
    world.offer([udp_service(&servers(Family::V4, 1..=2), Family::V4)]);
    let mut probe = Inner::udp(plain_client(Family::V4, 0).ip(), service_address(Family::V4), 60).ttl(1);
    probe.set_udp(4000, SERVICE_PORT);
    world.wan_packet(0, &probe.bytes());
    let error = world.take_sent(WAN).remove(0);
    let parsed = Parsed::from_ip(&error).expect("a packet");
    assert_eq!((parsed.source, parsed.l4(&error)[0]), (address("198.51.100.1"), 11));
}

#[test]
fn a_fragmented_datagram_reaches_one_server_whole_and_an_overlapping_one_does_not() {
    let mut world = World::new(1, &[]);
    world.offer([udp_service(&servers(Family::V4, 1..=4), Family::V4)]);
    let client = plain_client(Family::V4, 0).ip();
    for identification in 1..20u16 {
        let mut whole = Inner::udp(client, service_address(Family::V4), 20 + 1600).fragmentable(identification);
        whole.set_udp(4000 + identification, SERVICE_PORT);
        let whole = whole.bytes();
        let mut first = whole[..20 + 800].to_vec();
        let mut second = [&whole[..20], &whole[20 + 800..]].concat();
        for (piece, offset, more) in [(&mut first, 0, true), (&mut second, 800, false)] {
            let length = piece.len() as u16;
            piece[2..4].copy_from_slice(&length.to_be_bytes());
            set_fragment(piece, offset, more);
        }
        world.wan_packet(0, &first);
        if identification % 2 == 0 {
            let mut overlapping = second.clone();
            set_fragment(&mut overlapping, 792, false);
            world.wan_packet(0, &overlapping);
            world.wan_packet(0, &second);
            assert_eq!(world.take_sent(LAN).len(), 1, "nothing of a datagram with an overlap follows");
            assert_eq!(world.drops(DropReason::FragmentOverlap), u64::from(identification));
            continue;
        }
        world.wan_packet(0, &second);
        let sent = world.take_sent(LAN);
        assert_eq!(sent.len(), 2, "{:?}", world.losses());
        let (head, tail) = (&sent[0], &sent[1]);
        assert_eq!(destination(head), destination(tail));
        let mut joined = [&head[..], &tail[20..]].concat();
        let length = joined.len() as u16;
        joined[2..4].copy_from_slice(&length.to_be_bytes());
        set_fragment(&mut joined, 0, false);
        let parsed = Parsed::from_ip(&joined).expect("a packet");
        let l4 = parsed.l4(&joined);
        let udp = jetway_pipelines::packet::udp::Udp::parse(l4).expect("whole");
        assert_eq!(udp.verify_checksum(&parsed, l4), Ok(()), "the first fragment's checksum covers all of them");
    }
}

#[test]
fn fragments_of_an_answer_that_come_together_all_come_from_the_service() {
    let mut world = World::new(1, &[]);
    world.offer([udp_service(&servers(Family::V4, 1..=1), Family::V4)]);
    let mut whole = Inner::udp(server_address(Family::V4, 1), plain_client(Family::V4, 0).ip(), 20 + 1600);
    whole.set_udp(SERVER_PORT, 5000);
    let whole = whole.fragmentable(9).bytes();
    let mut pieces = [whole[..20 + 800].to_vec(), [&whole[..20], &whole[20 + 800..]].concat()];
    for (number, piece) in pieces.iter_mut().enumerate() {
        let length = piece.len() as u16;
        piece[2..4].copy_from_slice(&length.to_be_bytes());
        set_fragment(piece, number * 800, number == 0);
    }
    let mac = neighbour_mac(server_address(Family::V4, 1));
    world.receive(0, LAN, pieces.map(|piece| frame(MACS[1], mac, &piece)));
    world.settle();
    let sources: Vec<_> =
        world.take_sent(WAN).iter().map(|packet| Parsed::from_ip(packet).expect("a packet").source).collect();
    assert_eq!(sources, [service_address(Family::V4); 2], "{:?}", world.losses());
}

#[test]
fn a_server_that_answers_directly_hears_from_the_node_what_does_not_fit_the_tunnel() {
    for family in FAMILIES {
        let mut world = World::connected(1, &[family]);
        let plan = ServicePlan { forward: Forward::L2, ..ServicePlan::nat(family, Protocol::UDP) };
        world.offer([plan.service(&servers(family, 1..=3))]);
        let client = SocketAddr::new(world.inner(0, family), 5000);
        world.client_sends(0, &datagram(client, service(family), 0, b"question"));
        world.take_sent(LAN);
        let mut answer = Inner::udp(service_address(family), client.ip(), 1500);
        answer.set_udp(SERVICE_PORT, client.port());
        world.receive(0, LAN, [frame(MACS[1], neighbour_mac(server_address(family, 1)), &answer.bytes())]);
        world.settle();
        let told = world.sent_to_server();
        let parsed = Parsed::from_ip(&told).expect("a packet");
        assert_eq!(parsed.destination, service_address(family));
        assert_eq!(parsed.l4(&told)[0], if family == Family::V4 { 3 } else { 2 });
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
fn a_router_behind_the_clients_is_heard_by_the_server_that_has_the_flow() {
    for family in FAMILIES {
        let mut world = World::new(1, &[]);
        world.offer([udp_service(&servers(family, 1..=4), family)]);
        for port in 5000..5020 {
            let client = plain_client(family, port);
            let server = world.server_of(client, service(family));
            let answer = datagram(service(family), client, 0, &[1; 400]);
            let error = error_about(&answer, gateway(family), service_address(family));
            world.wan_packet(0, &error);
            let heard = world.sent_to_server();
            assert_eq!(destination(&heard), server.ip());
            let parsed = Parsed::from_ip(&heard).expect("a packet");
            let quoted = Parsed::from_quote(&parsed.l4(&heard)[8..]).expect("a quote");
            assert_eq!((quoted.source, quoted.destination), (server.ip(), client.ip()));
            assert_eq!(quoted.ports.map(|ports| ports.source), Some(SERVER_PORT));
            assert_icmp_checksum(&heard);
        }
    }
}

#[test]
fn an_error_about_a_clients_packet_tells_of_the_service_and_puts_the_server_under_suspicion() {
    for family in FAMILIES {
        let mut world = World::new(1, &[]);
        world.offer([udp_service(&servers(family, 1..=4), family)]);
        let client = plain_client(family, 5000);
        world.wan_packet(0, &datagram(client, service(family), 0, b"question"));
        let sent = world.sent_to_server();
        let server = destination(&sent);
        world.server_packet(0, &error_about(&sent, server, client.ip()));
        let told = world.take_sent(WAN).remove(0);
        let parsed = Parsed::from_ip(&told).expect("a packet");
        assert_eq!((parsed.source, parsed.destination), (service_address(family), client.ip()));
        let quoted = Parsed::from_quote(&parsed.l4(&told)[8..]).expect("a quote");
        assert_eq!((quoted.source, quoted.destination), (client.ip(), service_address(family)));
        assert_icmp_checksum(&told);
        assert!(world.control.iter().any(|event| matches!(event, ControlEvent::ServerInTrouble(_))));
    }
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

/// What a router says of a packet: it is too long, or its port cannot be reached.
fn error_about(packet: &[u8], from: IpAddr, to: IpAddr) -> Vec<u8> {
    let quote = &packet[..packet.len().min(200)];
    let (protocol, kind) = if from.is_ipv4() { (Protocol::ICMP, 3) } else { (Protocol::ICMPV6, 1) };
    let mut message = [&[kind, if from.is_ipv4() { 3 } else { 4 }, 0, 0, 0, 0, 0, 0][..], quote].concat();
    let sum = match protocol {
        Protocol::ICMP => checksum::checksum(&message),
        _ => checksum::pseudo(from, to, protocol, message.len() as u32).bytes(&message).checksum(),
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Inner::new(from, to, protocol, message).bytes()
}

fn assert_icmp_checksum(packet: &[u8]) {
    let parsed = Parsed::from_ip(packet).expect("a packet");
    let message = parsed.l4(packet);
    let pseudo = match parsed.protocol {
        Protocol::ICMP => checksum::Sum::ZERO,
        protocol => checksum::pseudo(parsed.source, parsed.destination, protocol, message.len() as u32),
    };
    assert!(pseudo.bytes(message).is_right());
}
