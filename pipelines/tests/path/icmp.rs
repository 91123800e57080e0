//! What senders are told of packets that go no further.

use std::net::IpAddr;
use std::time::Duration;

use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::packet::icmp::Icmp;
use jetway_pipelines::packet::icmpv6::Icmpv6;
use jetway_pipelines::packet::{Parsed, Protocol, checksum};

use super::bench::packets::{Inner, frame, set_fragment};
use super::bench::*;

/// An ICMP error as its receiver reads it.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    from: IpAddr,
    to: IpAddr,
    kind: u8,
    code: u8,
    mtu: Option<u32>,
    quote: Vec<u8>,
}

fn read(packet: &[u8]) -> Told {
    let ip = Parsed::from_ip(packet).expect("a packet");
    let message = ip.l4(packet);
    let (protocol, sum) = match ip.is_ipv4() {
        true => (Protocol::ICMP, checksum::checksum(message)),
        false => {
            let pseudo = checksum::pseudo(ip.source, ip.destination, Protocol::ICMPV6, message.len() as u32);
            (Protocol::ICMPV6, pseudo.bytes(message).checksum())
        }
    };
    assert_eq!((ip.protocol, sum), (protocol, 0), "the checksum over the message is right");
    let mtu = match ip.is_ipv4() {
        true => Icmp::parse(message).and_then(|error| error.next_hop_mtu()).map(u32::from),
        false => Icmpv6::parse(message).and_then(|error| error.next_hop_mtu()),
    };
    let (from, to) = (ip.source, ip.destination);
    Told { from, to, kind: message[0], code: message[1], mtu, quote: message[8..].to_vec() }
}

/// What the server on the LAN was told, if one thing.
fn lan_told(world: &mut World) -> Told {
    let sent = world.take_sent(LAN);
    assert_eq!(sent.len(), 1, "{:?}", world.losses());
    read(&sent[0])
}

fn client_told(world: &mut World) -> Told {
    let received = world.take_received(0);
    assert_eq!(received.len(), 1, "{:?}", world.losses());
    read(&received[0])
}

/// As much of a packet as an error quotes.
fn quoted(packet: &[u8], family: Family) -> Vec<u8> {
    let most = match family {
        Family::V4 => 576 - 28,
        Family::V6 => 1280 - 48,
    };
    packet[..packet.len().min(most)].to_vec()
}

#[test]
fn a_packet_whose_hops_run_out_is_reported_to_its_sender_on_both_sides() {
    for family in FAMILIES {
        let (kind, code) = if family == Family::V4 { (11, 0) } else { (3, 0) };
        let mut world = World::connected(1, &[Family::V4, Family::V6]);
        let client = world.inner(0, family);
        for ttl in [0, 1] {
            let packet = Inner::udp(client, server(family), 1400).ttl(ttl).bytes();
            world.client_sends(0, &packet);
            let quote = quoted(&packet, family);
            let told = Told { from: node_inner(family), to: client, kind, code, mtu: None, quote };
            assert_eq!(client_told(&mut world), told);

            let packet = Inner::udp(server(family), client, 1400).ttl(ttl).bytes();
            world.lan_sends(0, &packet);
            let quote = quoted(&packet, family);
            let told = Told { from: node_lan(family), to: server(family), kind, code, mtu: None, quote };
            assert_eq!(lan_told(&mut world), told);
        }
        assert_eq!(world.losses(), [("ttl_exceeded", 4)]);
        // One more is enough.
        let packet = Inner::udp(client, server(family), 100).ttl(2);
        world.client_sends(0, &packet.bytes());
        assert_eq!(world.take_sent(LAN), [packet.forwarded()]);
    }
}

fn too_big(family: Family) -> (u8, u8) {
    if family == Family::V4 { (3, 4) } else { (2, 0) }
}

#[test]
fn a_packet_that_does_not_fit_the_tunnel_is_reported_with_the_tunnels_mtu() {
    for family in FAMILIES {
        let mut world = World::connected(1, &[Family::V4]);
        let client = world.inner(0, family);
        for length in [1421, 1500] {
            let packet = Inner::udp(server(family), client, length).bytes();
            world.lan_sends(0, &packet);
            let told = lan_told(&mut world);
            assert_eq!((told.kind, told.code), too_big(family));
            assert_eq!((told.from, told.to, told.mtu), (node_lan(family), server(family), Some(1420)));
        }
        assert_eq!((world.losses(), world.take_received(0).len()), (vec![("too_big", 2)], 0));
    }
}

#[test]
fn a_packet_that_does_not_fit_the_way_to_the_peer_is_reported_with_what_does() {
    for outer in FAMILIES {
        for family in FAMILIES {
            let mut world = World::connected(1, &[outer]);
            world.set_port_mtu(WAN, 1400);
            let room = if outer == Family::V4 { 1400 - 60 } else { 1400 - 80 };
            let client = world.inner(0, family);
            world.lan_sends(0, &Inner::udp(server(family), client, room + 1).bytes());
            let told = lan_told(&mut world);
            assert_eq!((told.kind, told.code), too_big(family));
            assert_eq!((told.to, told.mtu), (server(family), Some(room as u32)));
            let packet = Inner::udp(server(family), client, room);
            world.lan_sends(0, &packet.bytes());
            assert_eq!(world.take_received(0), [packet.forwarded()]);
        }
    }
}

#[test]
fn a_clients_packet_that_does_not_fit_the_port_is_reported_through_the_tunnel() {
    for family in FAMILIES {
        let mut world = World::connected(1, &[Family::V4]);
        world.set_port_mtu(LAN, 1300);
        let client = world.inner(0, family);
        world.client_sends(0, &Inner::udp(client, server(family), 1301).bytes());
        let told = client_told(&mut world);
        assert_eq!((told.kind, told.code), too_big(family));
        assert_eq!((told.from, told.to, told.mtu), (node_inner(family), client, Some(1300)));
        let packet = Inner::udp(client, server(family), 1300);
        world.client_sends(0, &packet.bytes());
        assert_eq!(world.take_sent(LAN), [packet.forwarded()]);
    }
}

#[test]
fn nobody_is_told_about_errors_and_later_fragments() {
    let mut world = World::connected(1, &[Family::V4]);
    let client = world.inner(0, Family::V4);
    let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0];
    error.extend(Inner::udp(client, server(Family::V4), 60).bytes());
    let sum = checksum::checksum(&error);
    error[2..4].copy_from_slice(&sum.to_be_bytes());
    world.lan_sends(0, &Inner::new(server(Family::V4), client, Protocol::ICMP, error).ttl(1).bytes());
    let mut fragment = Inner::udp(server(Family::V4), client, 60).ttl(1).fragmentable(1).bytes();
    set_fragment(&mut fragment, 800, false);
    world.lan_sends(0, &fragment);
    assert_eq!((world.losses(), world.take_sent(LAN).len()), (vec![("ttl_exceeded", 2)], 0));
}

#[test]
fn errors_are_made_at_a_thousand_a_second_and_a_hundred_at_once() {
    let mut world = World::connected(1, &[Family::V4]);
    let packet = Inner::udp(server(Family::V4), world.inner(0, Family::V4), 60).ttl(1).bytes();
    let frame = frame(MACS[1], neighbour_mac(server(Family::V4)), &packet);
    world.receive(0, LAN, vec![frame.clone(); 1000]);
    world.exchange();
    assert_eq!(world.take_sent(LAN).len(), 100);
    for _ in 0..1000 {
        world.now += Duration::from_micros(500);
        world.receive(0, LAN, [frame.clone(), frame.clone()]);
    }
    world.exchange();
    let told = world.take_sent(LAN).len();
    assert!((499..=501).contains(&told), "{told} in half a second");
    assert_eq!(world.drops(DropReason::TtlExceeded), 3000);
}
