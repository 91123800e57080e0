//! Packets whose next hop's link-layer address is not known yet.

use std::time::Duration;

use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::path::ControlEvent;

use super::bench::packets::Inner;
use super::bench::*;

/// A packet of the client to a host, told apart by its length.
fn to(world: &World, destination: &str, length: usize) -> Inner {
    let destination = address(destination);
    let family = if destination.is_ipv4() { Family::V4 } else { Family::V6 };
    Inner::udp(world.inner(0, family), destination, length)
}

#[test]
fn packets_wait_until_the_kernel_knows_the_neighbour_and_leave_in_order() {
    for host in ["192.0.2.50", "2001:db8:2::50"] {
        let mut world = World::connected(1, &[Family::V4]);
        let packets: Vec<Inner> = (0..5).map(|number| to(&world, host, 100 + number)).collect();
        for packet in &packets {
            world.client_sends(0, &packet.bytes());
        }
        assert_eq!((world.held(), world.take_sent(LAN).len()), (5, 0));
        let asked = std::mem::take(&mut world.control);
        assert!(asked.iter().all(|event| *event == ControlEvent::NeighbourWanted(LAN, address(host))));
        assert!(!asked.is_empty());
        world.learn_neighbour(LAN, address(host));
        world.exchange();
        assert_eq!(world.take_sent(LAN), packets.iter().map(Inner::forwarded).collect::<Vec<_>>());
        assert_eq!((world.held(), world.losses()), (0, vec![]));
    }
}

#[test]
fn a_neighbour_that_does_not_answer_for_three_seconds_is_given_up() {
    let mut world = World::connected(1, &[Family::V4]);
    world.client_sends(0, &to(&world, "192.0.2.50", 100).bytes());
    world.pass(Duration::from_millis(2900));
    assert_eq!((world.held(), world.drops(DropReason::NoNeighbour)), (1, 0));
    world.pass(Duration::from_millis(100));
    assert_eq!((world.held(), world.drops(DropReason::NoNeighbour)), (0, 1));
    // The next packet asks again.
    world.control.clear();
    world.client_sends(0, &to(&world, "192.0.2.50", 100).bytes());
    assert_eq!(world.control, [ControlEvent::NeighbourWanted(LAN, address("192.0.2.50"))]);
}

#[test]
fn a_neighbours_queue_keeps_its_newest_packets() {
    let mut world = World::connected(1, &[Family::V4]);
    for number in 0..260 {
        world.client_sends(0, &to(&world, "192.0.2.50", 100 + number).bytes());
    }
    assert_eq!((world.held(), world.drops(DropReason::HeldQueueFull)), (256, 4));
    world.learn_neighbour(LAN, address("192.0.2.50"));
    world.exchange();
    let lengths: Vec<usize> = world.take_sent(LAN).iter().map(Vec::len).collect();
    assert_eq!(lengths, (104..360).collect::<Vec<_>>());
}

#[test]
fn packets_by_a_gateway_wait_for_the_gateway() {
    let mut world = World::connected(1, &[Family::V4]);
    let gateway = address("198.51.100.254");
    world.forget_neighbour(WAN, gateway);
    for host in ["8.8.8.8", "9.9.9.9"] {
        world.client_sends(0, &to(&world, host, 100).bytes());
    }
    assert_eq!(world.control, [ControlEvent::NeighbourWanted(WAN, gateway); 2]);
    world.learn_neighbour(WAN, gateway);
    world.exchange();
    assert_eq!(world.take_sent(WAN).len(), 2);
}

#[test]
fn sealed_packets_and_handshakes_wait_for_the_peers_neighbour() {
    for family in FAMILIES {
        let mut world = World::new(1, &[family]);
        let client = world.clients[0].address;
        world.forget_neighbour(WAN, client.ip());
        let initiation = world.clients[0].initiation();
        world.clients[0].outbox.push(initiation);
        world.exchange();
        assert_eq!((world.held(), world.clients[0].datagrams.len()), (1, 0), "the response waits");
        world.learn_neighbour(WAN, client.ip());
        world.exchange();
        world.forget_neighbour(WAN, client.ip());
        let packet = Inner::udp(server(Family::V4), world.inner(0, Family::V4), 100);
        world.lan_sends(0, &packet.bytes());
        assert_eq!((world.held(), world.take_received(0).len()), (1, 0), "the sealed packet waits");
        world.learn_neighbour(WAN, client.ip());
        world.exchange();
        assert_eq!(world.take_received(0), [packet.forwarded()]);
        assert_eq!(world.losses(), []);
    }
}
