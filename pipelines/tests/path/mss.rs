//! TCP connections through the tunnel agree on segments that fit it.

use jetway_pipelines::packet::{Parsed, Protocol, checksum};
use jetway_pipelines::tables::Twin;

use super::bench::packets::Inner;
use super::bench::*;

/// The announced size, of a segment whose checksum is right.
fn announced(packet: &[u8]) -> u16 {
    let ip = Parsed::from_ip(packet).expect("a packet");
    let segment = ip.l4(packet);
    let pseudo = checksum::pseudo(ip.source, ip.destination, Protocol::TCP, segment.len() as u32);
    assert!(pseudo.bytes(segment).is_right(), "the checksum is right");
    u16::from_be_bytes([segment[22], segment[23]])
}

#[test]
fn what_a_syn_announces_is_lowered_to_what_fits_the_tunnel_in_every_direction() {
    for family in FAMILIES {
        let fits = if family == Family::V4 { 1420 - 40 } else { 1420 - 60 };
        for (mss, expected) in [(1460, fits), (65535, fits), (fits + 1, fits), (fits, fits), (536, 536), (0, 0)] {
            let mut world = World::connected(1, &[Family::V4, Family::V4]);
            let client = world.inner(0, family);
            world.client_sends(0, &Inner::syn(client, server(family), mss).bytes());
            assert_eq!(announced(&world.take_sent(LAN)[0]), expected, "from the client");
            world.lan_sends(0, &Inner::syn(server(family), client, mss).bytes());
            assert_eq!(announced(&world.take_received(0)[0]), expected, "to the client");
            world.client_sends(0, &Inner::syn(client, world.inner(1, family), mss).bytes());
            assert_eq!(announced(&world.take_received(1)[0]), expected, "between clients");
            world.kernel_sends(0, Twin::Tunnel(TUNNEL), &Inner::syn(node_inner(family), client, mss).bytes());
            assert_eq!(announced(&world.take_received(0)[0]), expected, "from the node");
        }
    }
}

#[test]
fn connections_past_the_tunnel_and_segments_of_open_ones_are_left_alone() {
    let mut world = World::connected(1, &[Family::V4]);
    let packet = Inner::syn(server(Family::V4), address("8.8.8.8"), 1460);
    world.lan_sends(0, &packet.bytes());
    assert_eq!(world.take_sent(WAN), [packet.forwarded()]);
    let mut packet = Inner::syn(server(Family::V4), world.inner(0, Family::V4), 1460);
    packet.payload[13] = 0x10;
    world.lan_sends(0, &packet.bytes());
    assert_eq!(world.take_received(0), [packet.forwarded()]);
}
