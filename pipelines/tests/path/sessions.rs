//! The end of sessions, of their nonces and of peers, and the replay window.

use std::time::Duration;

use jetway_aead::Key;
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::ids::PeerIndex;
use jetway_pipelines::wireguard::constants::{REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME};
use jetway_pipelines::wireguard::replay::{READY, WINDOW};

use super::bench::packets::Inner;
use super::bench::*;

fn to_server(world: &World) -> Inner {
    Inner::udp(world.inner(0, Family::V4), server(Family::V4), 60)
}

fn to_client(world: &World) -> Inner {
    Inner::udp(server(Family::V4), world.inner(0, Family::V4), 60)
}

/// The worker gets these messages of the client. Returns how many came out.
fn deliver(world: &mut World, messages: &[Vec<u8>]) -> usize {
    let frames: Vec<_> = messages.iter().map(|message| world.client_frame(0, message)).collect();
    world.receive(0, WAN, frames);
    world.exchange();
    world.take_sent(LAN).len()
}

#[test]
fn a_message_is_accepted_once_also_within_one_burst() {
    let mut world = World::connected(1, &[Family::V4]);
    let packet = to_server(&world).bytes();
    let first = world.clients[0].seal(&packet);
    let second = world.clients[0].seal(&packet);
    assert_eq!(deliver(&mut world, &[second.clone(), first.clone(), second.clone(), first.clone()]), 2);
    assert_eq!(deliver(&mut world, &[first, second]), 0);
    assert_eq!(world.losses(), [("wireguard_replayed", 4)]);
}

#[test]
fn late_messages_are_accepted_within_the_replay_window_only() {
    let mut world = World::connected(1, &[Family::V4]);
    let packet = to_server(&world).bytes();
    let messages: Vec<_> = (0..=WINDOW + 1).map(|_| world.clients[0].seal(&packet)).collect();
    let newest = messages.last().expect("there are many").clone();
    assert_eq!(deliver(&mut world, &[newest]), 1);
    assert_eq!(deliver(&mut world, &messages[..1]), 0, "just behind the window");
    assert_eq!(deliver(&mut world, &messages[1..2]), 1, "just within it");
    // Backwards all others are good as well.
    let others: Vec<_> = messages[2..messages.len() - 1].iter().rev().cloned().collect();
    assert_eq!(deliver(&mut world, &others), others.len());
    assert_eq!(world.losses(), [("wireguard_replayed", 1)]);
}

#[test]
fn sessions_that_miss_messages_get_whole_replay_windows_however_many_there_are() {
    let clients = READY + 12;
    let mut world = World::connected(1, &vec![Family::V4; clients]);
    for client in 0..clients {
        let packet = Inner::udp(world.inner(client, Family::V4), server(Family::V4), 60).bytes();
        let messages: Vec<_> = (0..700).map(|_| world.clients[client].seal(&packet)).collect();
        for message in [&messages[699], &messages[0], &messages[1], &messages[0]] {
            let frame = world.client_frame(client, message);
            world.receive(0, WAN, [frame]);
            world.exchange();
        }
        assert_eq!(world.take_sent(LAN).len(), 3, "client {client}");
    }
    assert_eq!(world.losses(), [("wireguard_replayed", clients as u64)]);
}

#[test]
fn sessions_that_find_the_stock_of_replay_windows_empty_are_counted() {
    let clients = READY + 12;
    let mut world = World::connected(1, &vec![Family::V4; clients]);
    let frames: Vec<_> = (0..clients)
        .map(|client| {
            let packet = Inner::udp(world.inner(client, Family::V4), server(Family::V4), 60).bytes();
            let newest = (0..700).map(|_| world.clients[client].seal(&packet)).last().expect("there are many");
            world.client_frame(client, &newest)
        })
        .collect();
    // All at once: the handshaker has no time to fill the stock up.
    world.receive(0, WAN, frames);
    world.exchange();
    world.pass(Duration::from_secs(1));
    assert_eq!((world.take_sent(LAN).len(), world.workers[0].counters.windows_missing.get()), (clients, 12));
}

#[test]
fn a_session_is_used_up_to_reject_after_time_and_no_longer_in_both_directions() {
    let mut world = World::connected(1, &[Family::V4]);
    let packet = to_server(&world).bytes();
    let messages = [world.clients[0].seal(&packet), world.clients[0].seal(&packet)];
    world.clients[0].hearing = Hearing::None;
    world.clients[0].datagrams.clear();
    world.now += REJECT_AFTER_TIME - Duration::from_nanos(1);
    assert_eq!(deliver(&mut world, &messages[..1]), 1);
    let packet = to_client(&world).bytes();
    world.lan_sends(0, &packet);
    assert_eq!(world.clients[0].count(4), 1);
    world.now += Duration::from_nanos(1);
    assert_eq!(deliver(&mut world, &messages[1..]), 0);
    world.lan_sends(0, &packet);
    assert_eq!((world.clients[0].count(4), world.held()), (1, 1), "the packet waits for the next session");
    assert_eq!(world.losses(), [("wireguard_session_expired", 1)]);
}

#[test]
fn counters_from_reject_after_messages_on_are_refused() {
    let mut world = World::connected(1, &[Family::V4]);
    let packet = to_server(&world).bytes();
    for (counter, reason) in [
        (REJECT_AFTER_MESSAGES - 1, DropReason::WireguardForged),
        (REJECT_AFTER_MESSAGES, DropReason::WireguardSessionExpired),
        (u64::MAX, DropReason::WireguardSessionExpired),
    ] {
        let mut message = world.clients[0].seal(&packet);
        message[8..16].copy_from_slice(&counter.to_le_bytes());
        let before = world.drops(reason);
        assert_eq!(deliver(&mut world, &[message]), 0);
        assert_eq!(world.drops(reason), before + 1, "{counter}");
    }
}

#[test]
fn a_session_whose_nonces_are_used_up_sends_no_more_and_is_replaced() {
    let mut world = World::connected(1, &[Family::V4]);
    let packet = to_client(&world).bytes();
    world.clients[0].hearing = Hearing::None;
    world.clients[0].datagrams.clear();
    {
        let session = world.peers[0].sending_session().expect("there is a session");
        session.reserve((1 << 48) - session.sent() - 2, &mut Key::new(&[0; 32])).expect("there are so many");
    }
    for _ in 0..5 {
        world.lan_sends(0, &packet);
    }
    assert_eq!(world.clients[0].count(4), 2);
    assert_eq!(world.losses(), [("send_session_exhausted", 3)]);
    world.clients[0].hearing = Hearing::Good;
    world.pass(Duration::from_secs(6));
    world.take_received(0);
    world.lan_sends(0, &packet);
    assert_eq!(world.take_received(0).len(), 1, "there is a new session");
}

#[test]
fn a_peer_that_is_removed_stops_at_once_both_ways() {
    let mut world = World::connected(1, &[Family::V4, Family::V4]);
    let (out, back) = (to_server(&world), to_client(&world).bytes());
    let message = world.clients[0].seal(&out.bytes());
    // The flag alone stops it, before any table or slot has changed.
    world.peers[0].remove();
    world.lan_sends(0, &back);
    assert_eq!(deliver(&mut world, std::slice::from_ref(&message)), 0);
    assert_eq!(world.take_received(0).len(), 0);
    assert_eq!(world.losses(), [("peer_removed", 2)]);
    // Then its sessions go, too.
    let now = world.now;
    world.handshaker.remove_peer(PeerIndex(0), now);
    world.exchange();
    assert_eq!(deliver(&mut world, &[message]), 0);
    assert_eq!(world.losses(), [("wireguard_no_session", 1), ("peer_removed", 2)]);
    let initiation = world.clients[0].initiation();
    world.clients[0].datagrams.clear();
    world.clients[0].outbox.push(initiation);
    world.exchange();
    assert_eq!(world.clients[0].datagrams.len(), 0, "it gets no answer any more");
    // The other peer is not concerned.
    let packet = Inner::udp(world.inner(1, Family::V4), server(Family::V4), 60);
    world.client_sends(1, &packet.bytes());
    assert_eq!(world.take_sent(LAN), [packet.forwarded()]);
}

#[test]
fn packets_that_wait_for_a_removed_peer_are_dropped() {
    let mut world = World::new(1, &[Family::V4]);
    let endpoint = jetway_pipelines::wireguard::Endpoint::configured(world.clients[0].address);
    world.peers[0].endpoint.store(endpoint);
    world.clients[0].hearing = Hearing::None;
    let packet = to_client(&world).bytes();
    world.lan_sends(0, &packet);
    assert_eq!(world.held(), 1);
    let now = world.now;
    world.handshaker.remove_peer(PeerIndex(0), now);
    world.exchange();
    assert_eq!((world.held(), world.losses()), (0, vec![("no_send_session", 1)]));
}
