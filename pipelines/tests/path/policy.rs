//! Who may send what where: allowed IPs, the reverse path, routes that lead nowhere, addresses that may not pass.

use std::net::IpAddr;
use std::sync::Arc;

use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::packet::Protocol;

use super::bench::packets::{Inner, frame, packet_of};
use super::bench::*;

/// The ICMP type and code of the only packet that left by the LAN.
fn icmp_to_lan(world: &mut World) -> Option<(IpAddr, u8, u8)> {
    let sent = world.take_sent(LAN);
    assert!(sent.len() <= 1);
    let packet = sent.first()?;
    let ip = jetway_pipelines::packet::Parsed::from_ip(packet).expect("a packet");
    assert!(matches!(ip.protocol, Protocol::ICMP | Protocol::ICMPV6));
    let message = ip.l4(packet);
    Some((ip.source, message[0], message[1]))
}

#[test]
fn a_peer_sends_from_its_own_addresses_only() {
    let mut world = World::connected(1, &[Family::V4, Family::V4]);
    let spoofed = [world.inner(1, Family::V4), server(Family::V4), node_inner(Family::V4), address("10.8.0.77")];
    for source in spoofed {
        for destination in [server(Family::V4), world.inner(1, Family::V4), node_inner(Family::V4)] {
            world.client_sends(0, &Inner::udp(source, destination, 60).bytes());
        }
    }
    for source in [world.inner(1, Family::V6), server(Family::V6), address("fe80::1"), address("::")] {
        world.client_sends(0, &Inner::udp(source, server(Family::V6), 60).bytes());
    }
    assert_eq!(world.losses(), [("inner_source_not_allowed", 16)]);
    assert_eq!((world.take_sent(LAN).len(), world.punted.len(), world.take_received(1).len()), (0, 0, 0));
}

#[test]
fn an_address_that_is_taken_from_a_peer_stops_at_once_both_ways() {
    let mut world = World::connected(1, &[Family::V4, Family::V4]);
    let (own, peer) = (net("10.8.0.2/32"), Arc::clone(&world.peers[1]));
    world.change_tunnel(|tunnel| _ = tunnel.allowed_ips.insert(own, peer));
    world.client_sends(0, &Inner::udp(world.inner(0, Family::V4), server(Family::V4), 60).bytes());
    assert_eq!(world.losses(), [("inner_source_not_allowed", 1)]);
    let packet = Inner::udp(server(Family::V4), world.inner(0, Family::V4), 60);
    world.lan_sends(0, &packet.bytes());
    assert_eq!((world.take_received(0), world.take_received(1)), (vec![], vec![packet.forwarded()]));
}

#[test]
fn a_peers_packet_from_no_source_does_not_pass_behind_a_good_one_to_the_same_place() {
    let mut world = World::connected(1, &[Family::V4]);
    let peer = Arc::clone(&world.peers[0]);
    world.change_tunnel(|tunnel| _ = tunnel.allowed_ips.insert(net("169.254.0.0/16"), peer));
    let sources = [world.inner(0, Family::V4), address("169.254.1.1"), world.inner(0, Family::V4)];
    let frames = sources.map(|source| {
        let message = world.clients[0].seal(&Inner::udp(source, server(Family::V4), 60).bytes());
        world.client_frame(0, &message)
    });
    world.receive(0, WAN, frames);
    world.exchange();
    assert_eq!(world.losses(), [("martian_address", 1)]);
    assert_eq!(world.take_sent(LAN).len(), 2);
}

#[test]
fn what_is_sealed_has_to_be_a_packet() {
    let mut world = World::connected(1, &[Family::V4]);
    let good = Inner::udp(world.inner(0, Family::V4), server(Family::V4), 60).bytes();
    let mut wrong_sum = good.clone();
    wrong_sum[10] ^= 1;
    world.client_sends(0, &wrong_sum);
    assert_eq!(world.losses(), [("ipv4_bad_checksum", 1)]);
    let mut wrong_version = good.clone();
    wrong_version[0] = 0x75;
    for packet in [&good[..59], &good[..19], &good[..1], &wrong_version, &[0; 32]] {
        world.client_sends(0, packet);
    }
    assert_eq!(world.drops(DropReason::InnerMalformed), 5);
    assert_eq!((world.take_sent(LAN).len(), world.punted.len()), (0, 0));
}

#[test]
fn packets_in_clear_with_a_tunnels_source_are_dropped() {
    let mut world = World::connected(1, &[Family::V4, Family::V6]);
    for family in FAMILIES {
        for destination in [world.inner(1, family), server(family)] {
            let packet = Inner::udp(world.inner(0, family), destination, 60).bytes();
            world.receive(0, WAN, [frame(MACS[0], neighbour_mac(server(family)), &packet)]);
            world.exchange();
        }
    }
    assert_eq!(world.losses(), [("reverse_path", 4)]);
    assert_eq!((world.take_sent(LAN).len(), world.take_received(1).len()), (0, 0));
}

#[test]
fn senders_are_told_of_routes_that_lead_nowhere_but_of_blackholes() {
    let mut world = World::connected(1, &[Family::V4]);
    let us = node_lan(Family::V4);
    for (destination, reason, told) in [
        ("203.0.113.1", DropReason::RouteBlackhole, None),
        ("203.0.113.65", DropReason::RouteBlackhole, Some((us, 3, 1))),
        ("203.0.113.129", DropReason::RouteBlackhole, Some((us, 3, 13))),
        ("10.8.0.99", DropReason::NoAllowedIp, Some((us, 3, 1))),
    ] {
        let before = world.drops(reason);
        world.lan_sends(0, &Inner::udp(server(Family::V4), address(destination), 60).bytes());
        assert_eq!((world.drops(reason) - before, icmp_to_lan(&mut world)), (1, told), "{destination}");
    }
    let us = node_lan(Family::V6);
    for (destination, reason, told) in [
        ("2001:db8:9999::1", DropReason::NoRoute, Some((us, 1, 0))),
        ("fd00:8::99", DropReason::NoAllowedIp, Some((us, 1, 3))),
    ] {
        world.lan_sends(0, &Inner::udp(server(Family::V6), address(destination), 60).bytes());
        assert_eq!((world.drops(reason) > 0, icmp_to_lan(&mut world)), (true, told), "{destination}");
    }
    // Through the tunnel the same.
    let packet = Inner::udp(world.inner(0, Family::V4), address("203.0.113.129"), 60);
    world.client_sends(0, &packet.bytes());
    let told = world.take_received(0);
    assert_eq!((told.len(), told[0][20], told[0][21]), (1, 3, 13));
}

#[test]
fn addresses_that_may_not_pass_a_router_do_not() {
    let mut world = World::connected(1, &[Family::V4]);
    let (v4, v6) = (world.inner(0, Family::V4), world.inner(0, Family::V6));
    let from_client = ["127.0.0.1", "224.0.0.5", "255.255.255.255", "169.254.1.1", "0.0.0.0"].map(|to| (v4, to));
    let from_client = from_client.into_iter().chain(["ff02::1", "::1", "fe80::1", "::"].map(|to| (v6, to)));
    let mut count = 0;
    for (source, destination) in from_client {
        world.client_sends(0, &Inner::udp(source, address(destination), 60).bytes());
        count += 1;
        assert_eq!(world.losses(), [("martian_address", count)], "{destination}");
    }
    for source in ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1"] {
        world.lan_sends(0, &Inner::udp(address(source), v4, 60).bytes());
        count += 1;
        assert_eq!(world.losses(), [("martian_address", count)], "{source}");
    }
    assert!(world.take_received(0).is_empty() && world.take_sent(LAN).is_empty() && world.punted.is_empty());
}

#[test]
fn frames_for_other_stations_and_broken_ones_are_dropped() {
    let mut world = World::new(1, &[]);
    let packet = Inner::udp(server(Family::V4), address("8.8.8.8"), 60).bytes();
    let good = frame(MACS[1], neighbour_mac(server(Family::V4)), &packet);
    let other = frame(MACS[0], neighbour_mac(server(Family::V4)), &packet);
    let mut wrong_sum = good.clone();
    wrong_sum[14 + 11] ^= 1;
    world.receive(0, LAN, [other, good[..13].to_vec(), good[..40].to_vec(), wrong_sum]);
    world.exchange();
    let mut expected = [("ethernet_truncated", 1), ("not_for_us", 1), ("ipv4_malformed", 1), ("ipv4_bad_checksum", 1)];
    let mut losses = world.losses();
    losses.sort_unstable();
    expected.sort_unstable();
    assert_eq!(losses, expected);
    world.receive(0, LAN, [good.clone()]);
    world.exchange();
    let left = world.sent.pop().expect("the good one leaves").1;
    assert_eq!(packet_of(&left).len(), packet_of(&good).len());
}
