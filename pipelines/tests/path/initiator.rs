//! The node begins handshakes by itself, and packets wait for them.

use std::time::Duration;

use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::ids::PeerIndex;
use jetway_pipelines::packet::Parsed;
use jetway_pipelines::path::held::HELD_PACKETS;
use jetway_pipelines::wireguard::Endpoint;

use super::bench::packets::{Inner, frame};
use super::bench::*;

/// A node that knows where its peers are, and has no session.
fn configured(clients: &[Family]) -> World {
    let world = World::new(1, clients);
    for (peer, client) in world.peers.iter().zip(&world.clients) {
        peer.endpoint.store(Endpoint::configured(client.address));
    }
    world
}

/// Packets number `numbers` from the server to the client, told apart by their ports.
fn numbered(world: &World, client: usize, numbers: std::ops::Range<u16>) -> Vec<Vec<u8>> {
    let packet = |number| {
        let mut packet = Inner::udp(server(Family::V4), world.inner(client, Family::V4), 60);
        packet.set_udp(number, 9);
        frame(MACS[1], neighbour_mac(server(Family::V4)), &packet.bytes())
    };
    numbers.map(packet).collect()
}

fn numbers(world: &mut World, client: usize) -> Vec<u16> {
    let number = |packet: Vec<u8>| Parsed::from_ip(&packet).ok().and_then(|ip| ip.ports).expect("UDP").source;
    world.take_received(client).into_iter().map(number).collect()
}

#[test]
fn packets_without_a_session_wait_for_the_handshake_that_the_first_begins_and_leave_in_order() {
    for family in FAMILIES {
        let mut world = configured(&[family]);
        let frames = numbered(&world, 0, 0..100);
        world.receive(0, LAN, frames);
        world.settle();
        assert_eq!((world.held(), world.in_flight()), (100, 1), "they wait, and one initiation is under way");
        world.exchange();
        assert_eq!(numbers(&mut world, 0), (0..100).collect::<Vec<_>>());
        assert_eq!((world.held(), world.clients[0].count(1)), (0, 1));
        assert_eq!(world.losses(), []);
    }
}

#[test]
fn packets_for_a_peer_that_does_not_answer_are_given_up_with_the_handshake_and_the_next_begins_anew() {
    let mut world = configured(&[Family::V4]);
    world.clients[0].hearing = Hearing::None;
    let frames = numbered(&world, 0, 0..5);
    world.receive(0, LAN, frames);
    world.pass(Duration::from_secs(89));
    assert_eq!((world.held(), world.drops(DropReason::NoSendSession)), (5, 0));
    world.pass(Duration::from_secs(7));
    assert_eq!((world.held(), world.drops(DropReason::NoSendSession)), (0, 5));
    assert_eq!(world.given_up, [PeerIndex(0)]);
    let tried = world.clients[0].count(1);
    assert!((15..=19).contains(&tried), "{tried} initiations in 90 s, one every 5 s");
    world.pass(Duration::from_secs(60));
    assert_eq!(world.clients[0].count(1), tried, "the node is quiet");

    world.clients[0].hearing = Hearing::Good;
    let frames = numbered(&world, 0, 7..8);
    world.receive(0, LAN, frames);
    world.pass(Duration::from_secs(6));
    assert_eq!(numbers(&mut world, 0), [7]);
}

#[test]
fn a_peers_queue_keeps_its_newest_packets_and_all_queues_together_are_bounded() {
    const HELD: u64 = HELD_PACKETS as u64;
    let mut world = configured(&[Family::V4; 18]);
    for client in 0..18 {
        world.clients[client].hearing = Hearing::None;
    }
    let frames = numbered(&world, 0, 0..200);
    world.receive(0, LAN, frames);
    world.settle();
    assert_eq!((world.held(), world.drops(DropReason::HeldQueueFull)), (128, 72));
    for client in 1..18 {
        let frames = numbered(&world, client, 0..128);
        world.receive(0, LAN, frames);
    }
    world.settle();
    assert_eq!((world.held(), world.drops(DropReason::HeldQueueFull)), (HELD, 72 + 18 * 128 - HELD));

    for client in 0..18 {
        world.clients[client].hearing = Hearing::Good;
    }
    world.pass(Duration::from_secs(6));
    assert_eq!(numbers(&mut world, 0), (72..200).collect::<Vec<_>>());
    assert_eq!(numbers(&mut world, 7), (0..128).collect::<Vec<_>>());
    assert_eq!(world.held(), 0);
}

#[test]
fn a_peer_without_session_and_endpoint_cannot_be_reached() {
    let mut world = World::new(1, &[Family::V4]);
    let frames = numbered(&world, 0, 0..3);
    world.receive(0, LAN, frames);
    world.exchange();
    assert_eq!(world.losses(), [("no_endpoint", 3)]);
}

#[test]
fn a_session_that_grows_old_is_replaced_without_a_loss() {
    let mut world = configured(&[Family::V4]);
    let mut sent = 0;
    // 5 minutes of traffic one way: the node rekeys every two minutes.
    while sent < 300 {
        let frames = numbered(&world, 0, sent..sent + 1);
        world.receive(0, LAN, frames);
        world.pass(Duration::from_secs(1));
        // A client that is never heard would be taken for dead.
        world.client_sends(0, &[]);
        sent += 1;
    }
    assert_eq!(numbers(&mut world, 0), (0..300).collect::<Vec<_>>());
    assert_eq!((world.losses(), world.clients[0].count(1)), (vec![], 3));
}

#[test]
fn a_wish_that_the_handshaker_could_not_take_is_told_again() {
    let mut world = configured(&[Family::V4]);
    world.workers[0].out.room.handshakes = 0;
    let frames = numbered(&world, 0, 0..2);
    world.receive(0, LAN, frames.clone());
    world.exchange();
    assert_eq!((world.held(), world.clients[0].count(1)), (2, 0));
    assert!(world.workers[0].counters.events_lost.get() > 0);
    world.workers[0].out.room.handshakes = usize::MAX;
    let frames = numbered(&world, 0, 2..3);
    world.receive(0, LAN, frames);
    world.exchange();
    assert_eq!(numbers(&mut world, 0), [0, 1, 2]);
}

#[test]
fn a_session_that_we_answered_is_not_sent_with_before_the_peer_has_proved_its_keys() {
    let mut world = World::new(1, &[Family::V4]);
    world.clients[0].hearing = Hearing::None;
    let initiation = world.clients[0].initiation();
    world.clients[0].outbox.push(initiation);
    world.exchange();
    let response = world.clients[0].datagrams[0].1.clone();
    assert_eq!(response[0], 2);
    let frames = numbered(&world, 0, 0..3);
    world.receive(0, LAN, frames);
    world.exchange();
    assert_eq!((world.held(), world.clients[0].count(4)), (3, 0));
    // The response arrives late; the client's first message proves its keys.
    world.clients[0].hearing = Hearing::Good;
    world.clients[0].process(&response);
    world.exchange();
    assert_eq!(numbers(&mut world, 0), [0, 1, 2]);
}
