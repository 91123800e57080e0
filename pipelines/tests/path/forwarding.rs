//! Packets that pass: between clients, servers and the node's kernel, over both IP versions inside and outside.

use jetway_pipelines::tables::Twin;
use jetway_pipelines::wireguard::constants::KEEPALIVE_SIZE;

use super::bench::packets::Inner;
use super::bench::*;

/// Every outer family with every inner one.
fn each_combination(mut run: impl FnMut(World, Family)) {
    for outer in FAMILIES {
        for inner in FAMILIES {
            run(World::connected(1, &[outer, outer]), inner);
        }
    }
}

/// Packet lengths from the least up to the tunnel's MTU, each remainder of the padding among them.
fn lengths(inner: Family) -> impl Iterator<Item = usize> {
    let least = match inner {
        Family::V4 => 28,
        Family::V6 => 48,
    };
    let most = usize::from(TUNNEL_MTU);
    (least..least + 34).chain([500, 1000, 1280]).chain(most - 18..=most)
}

#[test]
fn a_clients_packet_reaches_a_server_unchanged_but_for_its_hops() {
    each_combination(|mut world, family| {
        for length in lengths(family) {
            for padding in [0, length.next_multiple_of(16) - length] {
                world.clients[0].padding = padding;
                let packet = Inner::udp(world.inner(0, family), server(family), length);
                world.client_sends(0, &packet.bytes());
                assert_eq!(world.take_sent(LAN), [packet.forwarded()], "{length} bytes");
            }
        }
        assert_eq!(world.losses(), []);
    });
}

#[test]
fn a_servers_packet_reaches_the_client_unchanged_but_for_its_hops_and_is_padded_on_the_way() {
    each_combination(|mut world, family| {
        for length in lengths(family) {
            world.clients[0].datagrams.clear();
            let packet = Inner::udp(server(family), world.inner(0, family), length);
            world.lan_sends(0, &packet.bytes());
            assert_eq!(world.take_received(0), [packet.forwarded()], "{length} bytes");
            let (_, datagram) = &world.clients[0].datagrams[0];
            let padded = length.next_multiple_of(16).min(usize::from(TUNNEL_MTU));
            assert_eq!(datagram.len(), padded + KEEPALIVE_SIZE, "{length} bytes");
        }
        assert_eq!((world.losses(), world.clients[0].errors.len()), (vec![], 0));
    });
}

#[test]
fn a_packet_from_client_to_client_loses_one_hop() {
    each_combination(|mut world, family| {
        for length in lengths(family) {
            let packet = Inner::udp(world.inner(0, family), world.inner(1, family), length);
            world.client_sends(0, &packet.bytes());
            assert_eq!(world.take_received(1), [packet.forwarded()], "{length} bytes");
        }
        assert_eq!(world.take_received(0), Vec::<Vec<u8>>::new());
        assert_eq!(world.losses(), []);
    });
}

#[test]
fn a_client_and_the_nodes_kernel_talk_through_the_tunnels_twin() {
    each_combination(|mut world, family| {
        for length in lengths(family) {
            // A packet to the node itself is not forwarded: it keeps its hops. Each of the node's addresses is the node.
            for node in [node_inner(family), node_lan(family)] {
                world.now += std::time::Duration::from_millis(10);
                let packet = Inner::udp(world.inner(0, family), node, length).ttl(1).bytes();
                world.client_sends(0, &packet);
                assert_eq!(std::mem::take(&mut world.punted), [(Twin::Tunnel(TUNNEL), packet)], "{length} bytes");
            }
            let packet = Inner::udp(node_inner(family), world.inner(0, family), length).ttl(1).bytes();
            world.kernel_sends(0, Twin::Tunnel(TUNNEL), &packet);
            assert_eq!(world.take_received(0), [packet], "{length} bytes");
        }
        assert_eq!(world.losses(), []);
    });
}

#[test]
fn frames_of_the_kernel_leave_their_port_as_they_are() {
    let mut world = World::new(1, &[]);
    let frame = packets::frame(
        neighbour_mac(server(Family::V4)),
        MACS[1],
        &Inner::ping(node_lan(Family::V4), server(Family::V4)).bytes(),
    );
    world.kernel_sends(0, Twin::Port(LAN), &frame);
    assert_eq!(std::mem::take(&mut world.sent), [(LAN, frame)]);
}

#[test]
fn packets_in_clear_are_routed_between_ports() {
    for family in FAMILIES {
        let mut world = World::new(1, &[]);
        let outside = match family {
            Family::V4 => address("8.8.8.8"),
            Family::V6 => address("2001:db8:ffff::8"),
        };
        let packet = Inner::udp(server(family), outside, 1500);
        world.lan_sends(0, &packet.bytes());
        assert_eq!(world.take_sent(WAN), [packet.forwarded()]);
        assert_eq!(world.losses(), []);
    }
}

#[test]
fn padding_of_short_ethernet_frames_does_not_get_into_the_tunnel() {
    let mut world = World::connected(1, &[Family::V4]);
    let packet = Inner::udp(server(Family::V4), world.inner(0, Family::V4), 30);
    let mut padded = packet.bytes();
    padded.resize(46, 0xee);
    world.lan_sends(0, &padded);
    assert_eq!(world.take_received(0), [packet.forwarded()]);
    let (_, datagram) = world.clients[0].datagrams.last().expect("a datagram came");
    assert_eq!(datagram.len(), 32 + KEEPALIVE_SIZE);
}

#[test]
fn a_burst_of_many_flows_is_delivered_whole_and_in_order() {
    let mut world = World::connected(1, &[Family::V4, Family::V6]);
    // 1,000 packets: client to server, server to two clients, interleaved within each burst.
    let mut frames = Vec::new();
    for number in 0..500 {
        let client = number % 2;
        let mut packet = Inner::udp(server(Family::V4), world.inner(client, Family::V4), 40 + number);
        packet.set_udp(number as u16, 9);
        frames.push(packets::frame(MACS[1], neighbour_mac(server(Family::V4)), &packet.bytes()));
    }
    world.receive(0, LAN, frames);
    world.exchange();
    for client in 0..2 {
        let received = world.take_received(client);
        let lengths: Vec<usize> = received.iter().map(Vec::len).collect();
        let expected: Vec<usize> = (0..500).filter(|number| number % 2 == client).map(|number| 40 + number).collect();
        assert_eq!(lengths, expected);
    }
    assert_eq!(world.losses(), []);
}
