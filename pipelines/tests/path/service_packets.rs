//! Packets of services that are put into others, come in fragments, do not fit, or are quoted in errors.

use std::net::{IpAddr, SocketAddr};

use jetway_config::Forward;
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::packet::{Parsed, Protocol, checksum};
use jetway_pipelines::path::ControlEvent;

use crate::bench::packets::{Inner, cut, datagram, frame, set_fragment};
use crate::bench::services::{SERVER_PORT, SERVICE_PORT, ServicePlan, server_address, servers, service_address};
use crate::bench::{FAMILIES, Family, LAN, MACS, WAN, World, address, neighbour_mac};
use crate::dispatch::{destination, gateway, plain_client, service, udp_service};

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
        let pieces = cut(&whole.bytes(), 800);
        let [first, second] = &pieces[..] else { panic!("two pieces") };
        world.wan_packet(0, first);
        if identification % 2 == 0 {
            let mut overlapping = second.clone();
            set_fragment(&mut overlapping, 792, false);
            world.wan_packet(0, &overlapping);
            world.wan_packet(0, second);
            assert_eq!(world.take_sent(LAN).len(), 1, "nothing of a datagram with an overlap follows");
            assert_eq!(world.drops(DropReason::FragmentOverlap), u64::from(identification));
            continue;
        }
        world.wan_packet(0, second);
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
    let pieces = cut(&whole.fragmentable(9).bytes(), 800);
    let mac = neighbour_mac(server_address(Family::V4, 1));
    world.receive(0, LAN, pieces.iter().map(|piece| frame(MACS[1], mac, piece)));
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
