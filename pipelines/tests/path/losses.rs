//! What is counted of packets that do not get on their way to the server that they were given.

use std::sync::Arc;
use std::time::Duration;

use jetway_config::Forward;
use jetway_pipelines::dispatch::Backend;
use jetway_pipelines::dispatch::loss::Loss;
use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::packet::Protocol;

use super::bench::packets::{Inner, frame};
use super::bench::services::{SERVER_PORT, SERVICE_PORT, ServicePlan, servers, service_address};
use super::bench::*;

const FORWARDS: [Forward; 5] = [Forward::Nat, Forward::L2, Forward::Ipip, Forward::Gre, Forward::Gue];

/// A node with a service of one server.
fn world_with(server: &Arc<Backend>, forward: Forward) -> World {
    let mut world = World::new(1, &[]);
    let plan = ServicePlan { forward, ..ServicePlan::nat(Family::V4, Protocol::UDP) };
    world.offer([plan.service(std::slice::from_ref(server))]);
    world
}

fn a_server() -> Arc<Backend> {
    servers(Family::V4, [1]).remove(0)
}

/// A client in clear sends a datagram of this length, as a whole, to the service.
fn client_sends(world: &mut World, length: usize) {
    let mut packet = Inner::udp(address("203.0.114.7"), service_address(Family::V4), length);
    packet.set_udp(4000, SERVICE_PORT);
    world.receive(0, WAN, [frame(MACS[0], neighbour_mac(address("198.51.100.254")), &packet.bytes())]);
    world.settle();
}

/// What was lost on the way to a server, by reason.
fn lost(server: &Backend) -> Vec<(&'static str, u64)> {
    let counts = Loss::ALL.map(|loss| (loss.name(), server.lost(loss)));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn a_packet_that_arrives_is_no_loss() {
    for forward in FORWARDS {
        let server = a_server();
        let mut world = world_with(&server, forward);
        client_sends(&mut world, 100);
        assert_eq!((world.take_sent(LAN).len(), lost(&server)), (1, vec![]), "{forward:?}");
    }
}

#[test]
fn packets_to_a_server_whose_link_layer_address_stays_unknown_are_its_losses() {
    for forward in FORWARDS {
        let server = a_server();
        let mut world = world_with(&server, forward);
        world.forget_neighbour(LAN, server.address);
        client_sends(&mut world, 100);
        assert_eq!(lost(&server), [], "it waits");
        world.pass(Duration::from_secs(4));
        assert_eq!(lost(&server), [("no_neighbour", 1)], "{forward:?}");
        (0..300).for_each(|_| client_sends(&mut world, 100));
        // Those for which there is no place to wait.
        assert_eq!(lost(&server), [("no_neighbour", 1 + 300 - 256)], "{forward:?}");
    }
}

#[test]
fn packets_that_the_way_does_not_carry_or_the_port_does_not_take_are_its_servers_losses() {
    for forward in FORWARDS {
        let server = a_server();
        let mut world = world_with(&server, forward);
        world.set_port_mtu(LAN, 1000);
        client_sends(&mut world, 1001);
        assert_eq!(lost(&server), [("too_big", 1)], "{forward:?}");
        world.workers[0].out.room.sent = 0;
        client_sends(&mut world, 100);
        assert_eq!(lost(&server), [("too_big", 1), ("port_full", 1)], "{forward:?}");
    }
}

#[test]
fn a_server_without_a_route_loses_what_it_is_given_and_no_other_server_does() {
    let nowhere = Arc::new(Backend::new(BackendIndex(7), address("203.0.113.5"), SERVER_PORT, 1));
    let server = a_server();
    let mut world = World::new(1, &[]);
    world.offer([ServicePlan::nat(Family::V4, Protocol::UDP).service(&[Arc::clone(&nowhere), Arc::clone(&server)])]);
    for port in 0..40 {
        let mut packet = Inner::udp(address("203.0.114.7"), service_address(Family::V4), 100);
        packet.set_udp(4000 + port, SERVICE_PORT);
        world.receive(0, WAN, [frame(MACS[0], neighbour_mac(address("198.51.100.254")), &packet.bytes())]);
        world.settle();
    }
    let arrived = world.take_sent(LAN).len() as u64;
    assert!((1..40).contains(&arrived));
    assert_eq!((lost(&nowhere), lost(&server)), (vec![("no_route", 40 - arrived)], vec![]));
}
