//! Each timer of the paper's section 6, by name, under a clock that the test turns.

use std::time::Duration;

use super::world::*;
use crate::time::Instant;
use crate::wireguard::Endpoint;
use crate::wireguard::constants::*;
use crate::wireguard::message::MessageType;
use crate::wireguard::send_counter::SEQUENCE_BITS;

const MILLISECOND: Duration = Duration::from_millis(1);
/// After so many messages a session should be replaced.
const REKEY_AT: u64 = (1 << SEQUENCE_BITS) - (1 << (SEQUENCE_BITS - 4));

/// Sends a packet from each node every second.
fn converse(world: &mut World, seconds: u32) {
    for _ in 0..seconds {
        world.send(0, b"ping");
        world.send(1, b"pong");
        world.run(SECOND);
    }
}

fn initiations(world: &World, node: usize, since: Instant) -> usize {
    world.nodes[node].count(MessageType::Initiation, since)
}

#[test]
fn rekey_after_time_the_initiator_renews_the_session_when_it_sends_at_120_seconds() {
    let mut world = World::connected(1);
    let begin = world.now + MILLISECOND;
    converse(&mut world, 120);
    assert_eq!(initiations(&world, 0, begin), 0);
    converse(&mut world, 1);
    assert_eq!(initiations(&world, 0, begin), 1);
    converse(&mut world, 30);
    assert_eq!((initiations(&world, 0, begin), initiations(&world, 1, begin)), (1, 0), "and only the initiator");
    assert!(world.nodes.iter().all(|node| node.received.len() == 152 && node.drops.is_empty()), "nothing is lost");
}

#[test]
fn rekey_after_time_an_idle_session_is_not_renewed() {
    let mut world = World::connected(2);
    let begin = world.now + MILLISECOND;
    world.run(1000 * SECOND);
    assert_eq!((initiations(&world, 0, begin), initiations(&world, 1, begin)), (0, 0));
}

#[test]
fn rekey_after_time_an_initiator_that_only_receives_renews_the_session_at_165_seconds() {
    let mut world = World::connected(3);
    let begin = world.now + MILLISECOND;
    for _ in 0..165 {
        // Keepalives do not make the other side send anything.
        world.send(1, b"");
        world.run(SECOND);
    }
    assert_eq!(initiations(&world, 0, begin), 0);
    world.send(1, b"");
    world.run(SECOND);
    assert_eq!(initiations(&world, 0, begin), 1);
}

#[test]
fn rekey_after_messages_the_sender_renews_the_session_before_its_counter_ends() {
    for node in 0..2 {
        let mut world = World::connected(4);
        let begin = world.now + 6 * SECOND;
        world.run(6 * SECOND);
        world.nodes[node].use_up(REKEY_AT - 2);
        world.send(node, b"the last but one");
        world.run(SECOND);
        assert_eq!(initiations(&world, node, begin), 0);
        world.send(node, b"the last");
        world.run(SECOND);
        assert_eq!(initiations(&world, node, begin), 1);
        assert!(
            world.nodes[node].peer.sending_session().unwrap().sent() < 10,
            "and the next packets go by the new one"
        );
    }
}

#[test]
fn reject_after_time_a_session_carries_nothing_from_180_seconds_on() {
    let mut world = World::connected(5);
    world.network.loss = 100;
    world.run(180 * SECOND - MILLISECOND);
    world.network.loss = 0;
    let now = world.now;
    let early = world.nodes[0].seal(now, b"early").unwrap();
    let late = world.nodes[0].seal(now, b"late").unwrap();
    let datagram = |payload| Datagram {
        from: "192.0.2.1:51820".parse().unwrap(),
        to: "192.0.2.2:51820".parse().unwrap(),
        payload,
    };
    world.receive(1, &datagram(early));
    assert_eq!(world.nodes[1].received.len(), 2);
    world.run(MILLISECOND);
    let now = world.now;
    assert_eq!(world.nodes[0].seal(now, b"too late"), None);
    world.receive(1, &datagram(late));
    assert_eq!((world.nodes[1].received.len(), world.nodes[1].drops["expired"]), (2, 1));
    world.run(10 * SECOND);
    assert!(world.both_ways_work(SECOND), "the next packet makes a new session");
}

#[test]
fn reject_after_messages_a_used_up_session_sends_nothing() {
    let mut world = World::connected(6);
    world.run(6 * SECOND);
    world.nodes[0].use_up((1 << SEQUENCE_BITS) - 1);
    let now = world.now;
    assert!(world.nodes[0].seal(now, b"the last").is_some());
    assert_eq!(world.nodes[0].seal(now, b"one more"), None);
    world.send(0, b"waits for a new session");
    world.run(SECOND);
    assert_eq!(world.nodes[1].received.len(), 2);
}

#[test]
fn rekey_timeout_an_unanswered_initiation_is_sent_again_after_5_seconds_and_jitter() {
    for seed in 0..10 {
        let mut world = World::new(seed, None);
        world.network.loss = 100;
        let begin = world.now;
        world.send(0, b"x");
        world.run(REKEY_TIMEOUT - MILLISECOND);
        assert_eq!(initiations(&world, 0, begin), 1);
        world.run(REKEY_TIMEOUT_JITTER + MILLISECOND);
        assert_eq!(initiations(&world, 0, begin), 2);
    }
}

#[test]
fn rekey_timeout_no_wish_makes_initiations_more_frequent() {
    let mut world = World::connected(7);
    let begin = world.now;
    for _ in 0..300 {
        let (now, wall) = (world.now, world.wall());
        world.nodes[0].use_up(REKEY_AT);
        world.nodes[0].handshaker.handle_wanted(now, wall, PEER);
        world.settle(0);
        world.run(Duration::from_millis(100));
    }
    let times: Vec<_> = world.nodes[0]
        .sent
        .iter()
        .filter(|(_, kind, _)| *kind == MessageType::Initiation)
        .map(|(at, ..)| *at)
        .collect();
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= REKEY_TIMEOUT), "{times:?}");
    assert!(initiations(&world, 0, begin) >= 5);
}

#[test]
fn rekey_attempt_time_after_90_seconds_the_peer_is_given_up_and_what_waits_is_dropped() {
    let mut world = World::new(8, None);
    world.network.loss = 100;
    let begin = world.now;
    world.send(0, b"x");
    world.run(REKEY_ATTEMPT_TIME - MILLISECOND);
    assert_eq!((world.nodes[0].given_up, world.nodes[0].held.len()), (0, 1));
    world.run(REKEY_TIMEOUT + REKEY_TIMEOUT_JITTER);
    assert_eq!((world.nodes[0].given_up, world.nodes[0].held.len()), (1, 0));
    let sent = initiations(&world, 0, begin);
    assert!((17..=18).contains(&sent), "{sent}");
    world.run(1000 * SECOND);
    assert_eq!(initiations(&world, 0, begin), sent, "and nothing is tried any more");
    assert_eq!(world.nodes[0].handshaker.slots_in_use(), 0);
    world.network.loss = 0;
    world.send(0, b"y");
    world.run(SECOND);
    assert_eq!(world.nodes[1].received.len(), 1, "until there is a packet again");
}

#[test]
fn keepalive_timeout_who_received_data_and_sent_nothing_sends_a_keepalive_after_10_seconds() {
    let mut world = World::connected(9);
    world.run(20 * SECOND);
    let begin = world.now;
    world.send(0, b"question");
    world.run(KEEPALIVE_TIMEOUT - MILLISECOND);
    assert_eq!(world.nodes[1].keepalives(begin), 0);
    world.run(MILLISECOND);
    assert_eq!(world.nodes[1].keepalives(begin), 1);
    world.run(60 * SECOND);
    assert_eq!(
        (world.nodes[0].keepalives(begin), world.nodes[1].keepalives(begin)),
        (0, 1),
        "one, and no answer to it"
    );
}

#[test]
fn keepalive_timeout_who_answered_sends_no_keepalive() {
    let mut world = World::connected(10);
    world.run(20 * SECOND);
    let begin = world.now;
    for _ in 0..50 {
        world.send(0, b"question");
        world.run(9 * SECOND / 10);
        world.send(1, b"answer");
        world.run(SECOND / 10);
    }
    assert_eq!((world.nodes[0].keepalives(begin), world.nodes[1].keepalives(begin)), (0, 0));
}

#[test]
fn keepalive_timeout_a_handshake_message_will_do_for_a_keepalive() {
    let mut world = World::connected(18);
    world.run(130 * SECOND);
    let begin = world.now;
    world.send(1, b"question");
    world.run(5 * SECOND);
    world.network.loss = 100;
    let (now, wall) = (world.now, world.wall());
    world.nodes[0].handshaker.handle_wanted(now, wall, PEER);
    world.settle(0);
    world.run(20 * SECOND);
    assert!(initiations(&world, 0, begin) >= 1);
    assert_eq!(world.nodes[0].keepalives(begin), 0);
}

#[test]
fn keepalive_timeout_plus_rekey_timeout_unanswered_data_leads_to_a_new_handshake() {
    let mut world = World::connected(11);
    world.run(20 * SECOND);
    // The peer restarted: it knows nothing of the session.
    world.nodes[1].receivers.clear();
    world.nodes[1].handshaker.remove_peer(PEER, world.now);
    while world.nodes[1].handshaker.poll_output().is_some() {}
    let begin = world.now;
    world.send(0, b"unheard");
    world.run(KEEPALIVE_TIMEOUT + REKEY_TIMEOUT - MILLISECOND);
    assert_eq!(initiations(&world, 0, begin), 0);
    world.run(REKEY_TIMEOUT_JITTER + 2 * MILLISECOND);
    assert_eq!(initiations(&world, 0, begin), 1);
}

#[test]
fn persistent_keepalive_is_sent_whenever_nothing_else_was_for_its_interval() {
    let mut world = World::new(12, None);
    let begin = world.now;
    world.nodes[0].peer.persistent_keepalive.store(25, std::sync::atomic::Ordering::Relaxed);
    let now = world.now;
    world.nodes[0].handshaker.handle_peer_changed(now, PEER);
    world.run(SECOND);
    assert_eq!(initiations(&world, 0, begin), 1, "it makes its session by itself");
    assert_eq!(world.nodes[0].keepalives(begin), 1, "which the first keepalive confirms");
    let begin = world.now;
    world.run(250 * SECOND);
    let sent = world.nodes[0].keepalives(begin);
    assert!((9..=13).contains(&sent), "{sent}");
    let sent = initiations(&world, 0, begin);
    assert!((1..=2).contains(&sent), "and keeps it fresh: {sent}");
    world.nodes[0].peer.persistent_keepalive.store(0, std::sync::atomic::Ordering::Relaxed);
    let now = world.now;
    world.nodes[0].handshaker.handle_peer_changed(now, PEER);
    world.run(SECOND);
    let begin = world.now;
    world.run(500 * SECOND);
    assert_eq!(world.nodes[0].keepalives(begin) + initiations(&world, 0, begin), 0);
}

#[test]
fn persistent_keepalive_goes_on_trying_a_dead_peer_and_finds_it_when_it_is_back() {
    let mut world = World::new(13, None);
    world.network.loss = 100;
    world.nodes[0].peer.persistent_keepalive.store(25, std::sync::atomic::Ordering::Relaxed);
    let now = world.now;
    world.nodes[0].handshaker.handle_peer_changed(now, PEER);
    world.run(3600 * SECOND);
    assert!(world.nodes[0].given_up > 20);
    world.network.loss = 0;
    world.run(40 * SECOND);
    assert!(world.both_ways_work(SECOND));
}

#[test]
fn zeroisation_all_sessions_are_wiped_540_seconds_after_the_last_was_made() {
    let mut world = World::connected(14);
    let now = world.now;
    world.run(3 * REJECT_AFTER_TIME - MILLISECOND - world.now.since(now));
    assert!(world.nodes.iter().all(|node| node.receivers.len() == 1));
    world.run(2 * MILLISECOND);
    for node in &world.nodes {
        assert_eq!((node.receivers.len(), node.handshaker.slots_in_use()), (0, 0));
        assert!(node.peer.sending_session().is_none());
    }
    assert!(world.both_ways_work(SECOND));
}

#[test]
fn zeroisation_a_new_session_puts_it_off() {
    let mut world = World::connected(15);
    converse(&mut world, 600);
    assert!(world.nodes.iter().all(|node| node.received.len() == 601 && node.drops.is_empty()));
    assert!(world.nodes.iter().all(|node| node.receivers.len() == 2), "the current session and the one before");
}

#[test]
fn a_retry_lets_the_route_choose_our_address_anew() {
    let mut world = World::new(16, None);
    world.network.loss = 100;
    let remote = world.nodes[1].address;
    world.nodes[0].peer.endpoint.store(Endpoint { remote, local: Some("192.0.2.99".parse().unwrap()) });
    world.send(0, b"x");
    world.run(6 * SECOND);
    assert_eq!(world.nodes[0].peer.endpoint.load(), Some(Endpoint::configured(remote)));
}

#[test]
fn the_next_timeout_is_never_in_the_past() {
    let mut world = World::connected(17);
    for _ in 0..2000 {
        world.run(Duration::from_millis(337));
        let now = world.now;
        for node in &world.nodes {
            assert!(node.handshaker.next_timeout().is_none_or(|at| at > now));
        }
    }
}
