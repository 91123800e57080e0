//! What the node learns of packets that were too long for their way to a server, inside others.

use std::net::IpAddr;
use std::sync::Arc;

use jetway_config::Forward;
use jetway_pipelines::dispatch::Backend;
use jetway_pipelines::packet::icmp::Icmp;
use jetway_pipelines::packet::icmpv6::Icmpv6;
use jetway_pipelines::packet::{Parsed, Protocol, checksum};
use jetway_pipelines::path::{ControlEvent, PathMtu};

use super::bench::packets::{Inner, frame};
use super::bench::services::{SERVICE_PORT, ServicePlan, servers, service_address};
use super::bench::*;

const FORWARDS: [(Forward, u16); 3] = [(Forward::Ipip, 0), (Forward::Gre, 4), (Forward::Gue, 8)];

/// A router between the node and its servers.
fn router(family: Family) -> IpAddr {
    match family {
        Family::V4 => address("192.0.2.254"),
        Family::V6 => address("2001:db8:2::fe"),
    }
}

/// A client in clear, beyond the gateway on the WAN.
fn client(family: Family) -> IpAddr {
    match family {
        Family::V4 => address("203.0.114.7"),
        Family::V6 => address("2001:db8:ffff::7"),
    }
}

/// A node that forwards to one server, over `outer`.
fn dispatcher(family: Family, outer: Family, forward: Forward) -> (World, Arc<Backend>) {
    let server = servers(outer, [1]).remove(0);
    let mut world = World::new(1, &[]);
    let plan = ServicePlan { forward, ..ServicePlan::nat(family, Protocol::UDP) };
    world.offer([plan.service(&[Arc::clone(&server)])]);
    (world, server)
}

/// A client sends so many bytes, as a whole, to the service.
fn client_sends(world: &mut World, family: Family, length: usize) {
    let mut packet = Inner::udp(client(family), service_address(family), length);
    packet.set_udp(4000, SERVICE_PORT);
    let gateway = if family == Family::V4 { "198.51.100.254" } else { "2001:db8::fe" };
    world.receive(0, WAN, [frame(MACS[0], neighbour_mac(address(gateway)), &packet.bytes())]);
    world.settle();
}

/// What a router says: the packet is too long for a link that carries `mtu`.
fn too_big(packet: &[u8], mtu: u16, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let [high, low] = mtu.to_be_bytes();
    let (protocol, head) = match from {
        IpAddr::V4(_) => (Protocol::ICMP, [3, 4, 0, 0, 0, 0, high, low]),
        IpAddr::V6(_) => (Protocol::ICMPV6, [2, 0, 0, 0, 0, 0, high, low]),
    };
    let mut message = [&head[..], &packet[..packet.len().min(500)]].concat();
    let pseudo = match protocol {
        Protocol::ICMP => checksum::Sum::ZERO,
        _ => checksum::pseudo(from, to, protocol, message.len() as u32),
    };
    let sum = pseudo.bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Inner::new(from, to, protocol, message).bytes()
}

fn router_says(world: &mut World, outer: Family, error: &[u8]) -> Vec<ControlEvent> {
    world.control.clear();
    world.receive(0, LAN, [frame(MACS[1], neighbour_mac(router(outer)), error)]);
    world.settle();
    std::mem::take(&mut world.control)
}

/// The MTU that the node tells a client, and the packet that it quotes.
fn told_to_client(world: &mut World, family: Family) -> (u32, Parsed) {
    let sent = world.take_sent(WAN);
    assert_eq!(sent.len(), 1, "{:?}", world.losses());
    let parsed = Parsed::from_ip(&sent[0]).expect("a packet");
    assert_eq!(parsed.destination, client(family));
    let message = parsed.l4(&sent[0]);
    let (mtu, quote) = match family {
        Family::V4 => {
            let error = Icmp::parse(message).expect("an error");
            (u32::from(error.next_hop_mtu().expect("too big")), error.embedded(message))
        }
        Family::V6 => {
            let error = Icmpv6::parse(message).expect("an error");
            (error.next_hop_mtu().expect("too big"), error.embedded(message))
        }
    };
    (mtu, Parsed::from_quote(quote.expect("a quote")).expect("a packet"))
}

#[test]
fn a_client_is_told_what_a_router_on_the_way_to_its_server_carries() {
    for (forward, shim) in FORWARDS {
        for family in FAMILIES {
            for outer in FAMILIES {
                let (mut world, server) = dispatcher(family, outer, forward);
                client_sends(&mut world, family, 1400);
                let sent = world.take_sent(LAN).remove(0);
                let error = too_big(&sent, 1380, router(outer), node_lan(outer));
                let told = router_says(&mut world, outer, &error);
                let path = PathMtu { server: server.address, mtu: 1380 };
                assert_eq!(told, [ControlEvent::PathMtu(path)], "{forward:?} {family:?} {outer:?}");
                assert_eq!(world.punted.len(), 1, "the kernel hears it, too");

                server.set_path_mtu(Some(1380));
                let room = 1380 - shim - if outer == Family::V4 { 20 } else { 40 };
                client_sends(&mut world, family, usize::from(room));
                assert_eq!(world.take_sent(LAN).remove(0).len(), 1380);
                client_sends(&mut world, family, usize::from(room) + 1);
                let (mtu, quoted) = told_to_client(&mut world, family);
                assert_eq!((mtu, quoted.destination), (u32::from(room), service_address(family)));
                assert_eq!(router_says(&mut world, outer, &error), [], "it is known");

                server.set_path_mtu(None);
                client_sends(&mut world, family, 1400);
                assert_eq!(world.take_sent(LAN).len(), 1, "it is forgotten");
            }
        }
    }
}

#[test]
fn errors_that_quote_what_the_node_did_not_send_or_that_no_link_could_mean_teach_nothing() {
    for outer in FAMILIES {
        let (mut world, server) = dispatcher(Family::V4, outer, Forward::Ipip);
        client_sends(&mut world, Family::V4, 1400);
        let sent = world.take_sent(LAN).remove(0);
        let ours = node_lan(outer);
        let least = if outer == Family::V4 { 552 } else { 1280 };
        let mut elsewhere = sent.clone();
        // The last byte of the outer destination.
        elsewhere[if outer == Family::V4 { 19 } else { 39 }] ^= 1;
        let mut of_another = sent.clone();
        of_another[if outer == Family::V4 { 15 } else { 23 }] ^= 1;
        let mut damaged = too_big(&sent, 1380, router(outer), ours);
        let end = damaged.len() - 1;
        damaged[end] ^= 1;
        let errors = [
            too_big(&sent, least - 1, router(outer), ours),
            too_big(&elsewhere, 1380, router(outer), ours),
            too_big(&of_another, 1380, router(outer), ours),
            damaged,
        ];
        for (number, error) in errors.iter().enumerate() {
            assert_eq!(router_says(&mut world, outer, error), [], "{outer:?} {number}");
        }
        let path = PathMtu { server: server.address, mtu: least };
        let right = too_big(&sent, least, router(outer), ours);
        assert_eq!(router_says(&mut world, outer, &right), [ControlEvent::PathMtu(path)]);
    }
}
