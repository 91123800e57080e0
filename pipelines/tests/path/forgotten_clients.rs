//! Clients inside tunnels that control has a worker forget: by their addresses, though they are bound to servers by their keys.

use std::net::{IpAddr, SocketAddr};

use jetway_config::Persistence;
use jetway_pipelines::dispatch::flow_scan::{FlowFilter, FlowScan, FlowTask, Progress};
use jetway_pipelines::packet::Protocol;
use jetway_pipelines::path::dispatch::Client;
use jetway_pipelines::path::{Order, Scene};

use crate::bench::packets::datagram;
use crate::bench::services::{ServicePlan, server_address, servers};
use crate::bench::{Family, World};
use crate::dispatch::{destination, service};

/// The server that a new flow of a client gets.
fn server_of(world: &mut World, client: usize, port: u16) -> IpAddr {
    let from = SocketAddr::new(world.inner(client, Family::V4), port);
    world.client_sends(client, &datagram(from, service(Family::V4), 0, b"hello"));
    destination(&world.sent_to_server())
}

fn forget(world: &mut World, client: usize) {
    let identity = Client::of_peer(&world.peers[client].public_key, &world.tables.services).identity;
    let client = Some(world.inner(client, Family::V4).into());
    let filter = FlowFilter { client, peers: [identity].into(), ..FlowFilter::default() };
    let mut order = Order::Flows(Box::new(FlowScan::new(1, FlowTask::Forget, filter, 0)));
    let scene = Scene { tables: &world.tables, now: world.now };
    while world.workers[0].pipeline.carry_out(&mut order, &scene) == Progress::GoesOn {}
}

#[test]
fn a_tunnels_client_that_is_forgotten_is_given_to_a_server_anew_and_no_other_is() {
    let plan = || ServicePlan { persistence: Persistence::Client, ..ServicePlan::nat(Family::V4, Protocol::UDP) };
    let mut world = World::connected(1, &[Family::V4; 3]);
    world.offer([plan().service(&servers(Family::V4, 1..=1))]);
    let first = server_address(Family::V4, 1);
    for client in 0..3 {
        assert_eq!(server_of(&mut world, client, 5000), first);
    }
    world.offer([plan().service(&servers(Family::V4, 1..=9))]);
    let mut moved = 0;
    for client in 0..3 {
        for other in client..3 {
            assert_eq!(server_of(&mut world, other, 6000 + client as u16), first, "it is bound");
        }
        forget(&mut world, client);
        let anew = server_of(&mut world, client, 5000);
        assert_eq!(server_of(&mut world, client, 7000), anew, "it is bound again");
        moved += usize::from(anew != first);
    }
    assert!(moved > 0, "with nine servers, not all three go to the first");
}
