//! Several workers on one session, and ways out that are full.

use std::collections::HashSet;

use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::tables::Twin;

use super::bench::packets::{Inner, frame};
use super::bench::*;

fn lan_frame(packet: &Inner) -> Vec<u8> {
    frame(MACS[1], neighbour_mac(server(Family::V4)), &packet.bytes())
}

/// Messages of the client with packets to the server, told apart by their length.
fn messages(world: &mut World, lengths: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    let source = world.inner(0, Family::V4);
    let packets = lengths.map(|length| Inner::udp(source, server(Family::V4), length).bytes());
    let messages: Vec<_> = packets.map(|packet| world.clients[0].seal(&packet)).collect();
    messages.iter().map(|message| world.client_frame(0, message)).collect()
}

fn lengths(packets: &[Vec<u8>]) -> Vec<usize> {
    packets.iter().map(Vec::len).collect()
}

#[test]
fn messages_that_come_to_the_wrong_worker_are_handed_to_their_home_in_order() {
    let mut world = World::connected(2, &[Family::V4, Family::V6]);
    let frames = messages(&mut world, 40..240);
    world.receive(1, WAN, frames);
    world.exchange();
    assert_eq!(lengths(&world.take_sent(LAN)), (40..240).collect::<Vec<_>>());
    assert_eq!(world.workers[1].counters.handed_off.get(), 200);
    assert_eq!(world.workers[0].counters.taken_over.get(), 200);
    assert_eq!(world.losses(), []);
}

#[test]
fn a_session_is_at_home_on_the_worker_to_which_its_handshake_came() {
    let mut world = World::new(2, &[Family::V4, Family::V4]);
    world.clients[1].worker = 1;
    for client in 0..2 {
        world.connect(client);
        let packet = Inner::udp(world.inner(client, Family::V4), server(Family::V4), 100);
        world.client_sends(client, &packet.bytes());
        assert_eq!(world.take_sent(LAN), [packet.forwarded()]);
        assert!(world.workers[client].counters.opened.get() > 0);
    }
    assert!(world.workers.iter().all(|worker| worker.counters.handed_off.get() == 0));
}

#[test]
fn two_workers_seal_for_one_peer_and_never_use_a_nonce_twice() {
    let mut world = World::connected(2, &[Family::V4]);
    let before = world.sealed_by.len();
    let packet = Inner::udp(server(Family::V4), world.inner(0, Family::V4), 100);
    for number in 0..400 {
        // Bursts of changing size, by turns. The bench fails on a nonce that it has seen.
        world.receive(number % 2, LAN, vec![lan_frame(&packet); 1 + number % 7]);
        if number % 8 == 7 {
            world.exchange();
        }
    }
    let count: usize = (0..400).map(|number| 1 + number % 7).sum();
    let sealed = &world.sealed_by[before..];
    assert_eq!(sealed.len(), count);
    let workers: HashSet<usize> = sealed.iter().map(|(worker, ..)| *worker).collect();
    assert_eq!(workers, HashSet::from([0, 1]));
    let mut counters: Vec<u64> = sealed.iter().map(|(_, _, counter)| *counter).collect();
    counters.sort_unstable();
    assert!(counters.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no nonce is left out");
    assert_eq!(world.take_received(0).len(), count);
    assert_eq!(world.losses(), []);
}

#[test]
fn what_a_full_way_out_refuses_is_dropped_for_that_reason_and_counted() {
    let mut world = World::connected(2, &[Family::V4]);
    let frames = messages(&mut world, 40..50);
    world.workers[1].out.room.handed_off = 4;
    world.receive(1, WAN, frames);
    world.exchange();
    assert_eq!((world.take_sent(LAN).len(), world.drops(DropReason::HandoffQueueFull)), (4, 6));

    world.workers[0].out.room.sent = 3;
    let packet = Inner::udp(server(Family::V4), world.inner(0, Family::V4), 100);
    world.receive(0, LAN, vec![lan_frame(&packet); 10]);
    world.exchange();
    assert_eq!((world.take_received(0).len(), world.drops(DropReason::TransmitQueueFull)), (3, 7));

    world.workers[1].out.room.punted = 2;
    world.receive(1, LAN, vec![lan_frame(&Inner::ping(server(Family::V4), node_lan(Family::V4))); 5]);
    world.exchange();
    assert_eq!((world.punted.len(), world.drops(DropReason::PuntQueueFull)), (2, 3));
    assert_eq!(world.punted[0].0, Twin::Port(LAN));

    world.workers[1].out.room.handshakes = 0;
    world.clients[0].worker = 1;
    let initiation = world.clients[0].initiation();
    world.clients[0].outbox.push(initiation);
    world.exchange();
    assert_eq!(world.drops(DropReason::WireguardQueueFull), 1);
}

#[test]
fn without_buffers_nothing_is_made_and_everything_else_goes_on() {
    let mut world = World::connected(1, &[Family::V4]);
    world.workers[0].out.room.buffers = 0;
    let expired = Inner::udp(server(Family::V4), world.inner(0, Family::V4), 100).ttl(1);
    let cut = Inner::udp(server(Family::V4), world.inner(0, Family::V4), 1500).fragmentable(1);
    let good = Inner::udp(server(Family::V4), world.inner(0, Family::V4), 100);
    world.receive(0, LAN, [&expired, &cut, &good].map(lan_frame));
    world.exchange();
    assert_eq!(world.take_received(0), [good.forwarded()]);
    assert_eq!(world.losses(), [("ttl_exceeded", 1), ("buffer_pool_empty", 1)]);
    assert_eq!(world.take_sent(LAN), Vec::<Vec<u8>>::new());
}
