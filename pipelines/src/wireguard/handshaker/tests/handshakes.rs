//! Whole handshakes between two nodes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::world::*;
use crate::ids::WorkerId;
use crate::time::Instant;
use crate::wireguard::constants::{INITIATION_SIZE, RESPONSE_SIZE};
use crate::wireguard::cookie::CookieJar;
use crate::wireguard::handshaker::{CookieRequest, HandshakeError};
use crate::wireguard::kdf::Secret;
use crate::wireguard::message::MessageType;
use crate::wireguard::noise::Initiator;
use crate::wireguard::timestamp::{Tai64n, WallClock};
use crate::wireguard::x25519::KeyPair;
use crate::wireguard::{Endpoint, Role};

const BEGIN: Instant = Instant::ZERO;

#[test]
fn the_first_packet_makes_a_session_and_arrives_after_one_round_trip() {
    for preshared_key in [None, Some([7; 32])] {
        let mut world = World::new(1, preshared_key);
        world.send(0, b"first");
        world.run(SECOND);
        assert_eq!(world.nodes[1].received, [b"first\0\0\0\0\0\0\0\0\0\0\0".to_vec()]);
        assert!(world.both_ways_work(SECOND));
        assert_eq!(world.nodes[0].count(MessageType::Initiation, BEGIN), 1);
        assert_eq!(world.nodes[1].count(MessageType::Initiation, BEGIN), 0);
        assert_eq!(world.nodes[1].count(MessageType::Response, BEGIN), 1);
        for node in &world.nodes {
            assert_eq!(node.receivers.len(), 1);
            assert_eq!(node.handshaker.slots_in_use(), 1);
            let last = node.peer.traffic.last_handshake.load(Ordering::Relaxed);
            assert_eq!(last / 1_000_000_000, 1_700_000_000);
        }
    }
}

#[test]
fn different_preshared_keys_make_no_session() {
    let mut world = World::new(2, Some([7; 32]));
    world.nodes[1].handshaker.set_preshared_key(PEER, Some([8; 32]));
    world.send(0, b"first");
    world.run(SECOND);
    assert!(world.nodes[1].received.is_empty());
    assert!(matches!(world.nodes[0].errors[..], [HandshakeError::Noise(_)]));
    world.nodes[1].handshaker.set_preshared_key(PEER, Some([7; 32]));
    world.run(6 * SECOND);
    assert_eq!(world.nodes[1].received.len(), 1, "the next attempt makes it");
}

#[test]
fn a_responder_sends_nothing_before_the_initiator_has_proved_its_keys() {
    let mut world = World::new(3, None);
    world.send(0, b"first");
    let initiation = world.intercept().remove(0);
    world.receive(1, &initiation);
    let response = world.intercept().remove(0);
    assert_eq!(response.payload.len(), RESPONSE_SIZE);
    world.send(1, b"held");
    let sent = world.intercept();
    assert!(sent.iter().all(|datagram| datagram.payload.len() == INITIATION_SIZE), "only its own initiation");
    assert!(world.nodes[1].peer.sending_session().is_none());
    world.receive(0, &response);
    world.run(SECOND);
    assert_eq!(world.nodes[0].received.len(), 1, "the confirmed session carries what was held");
    let session = world.nodes[1].peer.sending_session();
    assert_eq!(session.map(|session| session.role()), Some(Role::Responder));
}

#[test]
fn both_sides_may_initiate_at_once() {
    for seed in 0..20 {
        let mut world = World::new(seed, None);
        let first = world.nodes[0].address;
        world.nodes[1].peer.endpoint.store(Endpoint::configured(first));
        world.network.jitter = Duration::from_millis(20);
        world.send(0, b"one");
        world.send(1, b"two");
        world.run(SECOND);
        assert_eq!((world.nodes[0].received.len(), world.nodes[1].received.len()), (1, 1));
        assert!(world.both_ways_work(SECOND));
        let initiations = |node: usize| world.nodes[node].count(MessageType::Initiation, BEGIN);
        assert_eq!((initiations(0), initiations(1)), (1, 1), "no further attempt was needed");
    }
}

#[test]
fn the_home_of_an_answered_session_is_the_worker_that_received_the_initiation() {
    for worker in (0..WORKERS).map(WorkerId) {
        let mut world = World::new(4, None);
        world.send(0, b"x");
        let initiation = world.intercept().remove(0);
        let from = Endpoint::configured(initiation.from);
        let (now, wall, message) = (world.now, world.wall(), &initiation.payload);
        let handshaker = &mut world.nodes[1].handshaker;
        let answer = handshaker.handle_message(now, wall, TUNNEL, from, worker, message, CookieRequest::None);
        assert_eq!(answer, Ok(()));
        world.settle(1);
        assert!(world.nodes[1].receivers.keys().all(|(home, _)| *home == worker));
        // As initiator, the node is at home where the last message of its peer came.
        world.run(200 * SECOND);
        world.intercept();
        world.send(1, b"y");
        let initiation = world.intercept().remove(0);
        let index = crate::wireguard::message::Initiation::parse(&initiation.payload).unwrap().sender;
        assert_eq!(world.nodes[1].layout.decode_local(index).unwrap().0, worker);
    }
}

#[test]
fn an_initiation_sent_again_by_somebody_else_is_refused() {
    let mut world = World::new(5, None);
    world.send(0, b"x");
    let initiation = world.intercept().remove(0);
    world.receive(1, &initiation);
    let receivers = world.nodes[1].receivers.len();
    for _ in 0..3 {
        world.run(SECOND);
        let mut replay = initiation.clone();
        replay.from = "203.0.113.66:6".parse().unwrap();
        world.receive(1, &replay);
        assert_eq!(world.nodes[1].errors.pop(), Some(HandshakeError::Replayed));
    }
    assert_eq!(world.nodes[1].receivers.len(), receivers);
    assert_eq!(world.nodes[1].peer.endpoint.load().unwrap().remote, initiation.from, "nor is its source believed");
}

#[test]
fn a_response_counts_once_and_only_for_the_handshake_that_it_answers() {
    let mut world = World::new(6, None);
    world.send(0, b"x");
    let initiation = world.intercept().remove(0);
    world.receive(1, &initiation);
    let response = world.intercept().remove(0);
    world.run(6 * SECOND);
    world.receive(0, &response);
    assert_eq!(world.nodes[0].errors.pop(), Some(HandshakeError::Unexpected), "the attempt was replaced by its retry");
    world.run(SECOND);
    assert!(world.both_ways_work(SECOND));
    world.receive(0, &response);
    assert_eq!(world.nodes[0].errors.pop(), Some(HandshakeError::Unexpected));
}

#[test]
fn a_peer_is_found_where_its_handshake_came_from() {
    let mut world = World::new(7, None);
    world.send(0, b"x");
    world.run(SECOND);
    let endpoint = world.nodes[1].peer.endpoint.load().unwrap();
    assert_eq!((endpoint.remote, endpoint.local), (world.nodes[0].address, Some(world.nodes[1].address.ip())));
    let elsewhere = "198.51.100.77:7".parse().unwrap();
    world.nodes[0].address = elsewhere;
    world.run(200 * SECOND);
    world.send(0, b"y");
    world.run(SECOND);
    assert_eq!(world.nodes[1].peer.endpoint.load().unwrap().remote, elsewhere);
    assert!(world.both_ways_work(SECOND));
}

#[test]
fn under_load_a_cookie_lets_the_next_attempt_in() {
    let mut world = World::new(8, None);
    world.nodes[1].under_load = true;
    world.send(0, b"x");
    world.run(SECOND);
    assert_eq!(world.nodes[1].count(MessageType::CookieReply, BEGIN), 1);
    assert!(world.nodes[1].received.is_empty());
    assert_eq!(world.nodes[0].count(MessageType::Initiation, BEGIN), 1, "a cookie does not make us send at once");
    world.run(5 * SECOND);
    assert_eq!(world.nodes[1].received.len(), 1);
    assert_eq!(world.nodes[1].count(MessageType::CookieReply, BEGIN), 1);
}

#[test]
fn a_responder_that_is_asked_for_a_cookie_gets_it_too() {
    let mut world = World::new(9, None);
    world.nodes[0].under_load = true;
    world.send(0, b"x");
    world.run(SECOND);
    assert_eq!(world.nodes[0].count(MessageType::CookieReply, BEGIN), 1);
    world.run(6 * SECOND);
    assert_eq!(world.nodes[1].received.len(), 1, "the second response carries the cookie");
    assert!(world.nodes[0].errors.is_empty() && world.nodes[1].errors.is_empty());
}

#[test]
fn a_clock_set_back_does_not_lock_us_out() {
    let mut world = World::new(10, None);
    world.send(0, b"x");
    world.run(SECOND);
    world.wall -= Duration::from_secs(86_400);
    world.run(200 * SECOND);
    assert!(world.both_ways_work(SECOND));
    assert!(world.nodes[1].errors.is_empty());
}

#[test]
fn a_session_whose_confirmation_was_lost_on_the_way_is_noticed() {
    let mut world = World::new(11, None);
    world.nodes[1].loses_confirmations = true;
    world.send(0, b"x");
    world.run(SECOND);
    world.send(1, b"y");
    world.run(SECOND);
    assert_eq!(world.nodes[0].received.len(), 1, "workers send with it");
    world.run(10 * SECOND);
    assert!(world.nodes[1].peer.traffic.last_handshake.load(Ordering::Relaxed) > 0, "and the handshaker sees it");
}

#[test]
fn a_peer_that_initiates_more_than_50_times_a_second_is_refused() {
    let mut world = World::new(12, None);
    let (keys, public) = (KeyPair::new(&[1; 32]), world.nodes[1].public);
    let shared = keys.agree(&public).unwrap();
    let mut answers = Vec::new();
    for number in 0..5u64 {
        let timestamp = Tai64n::of(WallClock(world.wall + SECOND * number as u32));
        let (_, body) = Initiator::start(&keys, &public, &shared, 1, timestamp, &Secret::new([3; 32])).unwrap();
        let payload = CookieJar::default().complete(&public, &body, world.now).to_vec();
        let datagram = Datagram { from: world.nodes[0].address, to: world.nodes[1].address, payload };
        world.receive(1, &datagram);
        answers.push(world.nodes[1].errors.pop());
        world.intercept();
        world.run(Duration::from_millis(10));
    }
    let refused = Some(HandshakeError::TooOften);
    assert_eq!(answers, [None, refused, None, refused, None]);
}

#[test]
fn a_session_from_the_peer_ends_our_own_attempt() {
    let mut world = World::new(13, None);
    let first = world.nodes[0].address;
    world.nodes[1].peer.endpoint.store(Endpoint::configured(first));
    world.send(1, b"from the second");
    world.intercept();
    world.run(SECOND);
    world.send(0, b"from the first");
    world.run(SECOND);
    assert_eq!((world.nodes[0].received.len(), world.nodes[1].received.len()), (1, 1));
    world.run(60 * SECOND);
    assert_eq!(world.nodes[1].count(MessageType::Initiation, BEGIN), 1, "it is not sent again");
    assert_eq!(world.nodes[1].handshaker.slots_in_use(), 1);
}

#[test]
fn what_was_sent_with_the_session_before_still_arrives() {
    for old_sender in 0..2 {
        let mut world = World::connected(14);
        world.run(130 * SECOND);
        let now = world.now;
        let late = world.nodes[old_sender].seal(now, b"late").unwrap();
        world.send(0, b"renew");
        world.run(SECOND);
        assert!(world.both_ways_work(SECOND));
        let created = |node: &Node| node.peer.sending_session().unwrap().created;
        assert!(world.nodes.iter().all(|node| created(node) >= now), "both use the new session");
        let (from, to) = (world.nodes[old_sender].address, world.nodes[1 - old_sender].address);
        let received = world.nodes[1 - old_sender].received.len();
        world.receive(1 - old_sender, &Datagram { from, to, payload: late });
        assert_eq!(world.nodes[1 - old_sender].received.len(), received + 1);
    }
}

#[test]
fn the_secret_behind_cookies_changes_every_two_minutes() {
    let mut world = World::new(15, None);
    world.run(SECOND);
    world.nodes[1].under_load = true;
    world.send(0, b"x");
    world.run(SECOND);
    world.network.delay = 100 * SECOND;
    world.run(6 * SECOND);
    let sent = world.intercept();
    let (message, from) = (sent[0].payload.clone(), sent[0].from);
    assert!(world.nodes[1].checker.has_valid_mac2(&message, from));
    world.run(119 * SECOND);
    assert!(world.nodes[1].checker.has_valid_mac2(&message, from), "a cookie lives at least two minutes");
    world.run(240 * SECOND - 119 * SECOND);
    assert!(!world.nodes[1].checker.has_valid_mac2(&message, from), "and at most four");
}
