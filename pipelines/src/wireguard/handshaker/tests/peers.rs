//! How tunnels and peers come and go, and what many of them cost.

use std::sync::Arc;
use std::time::Duration;

use super::world::*;
use crate::ids::{PeerIndex, TunnelId};
use crate::time::Instant;
use crate::wireguard::handshaker::{AddPeerError, HandshakeError};
use crate::wireguard::message::MessageType;
use crate::wireguard::timestamp::WallClock;
use crate::wireguard::{Endpoint, Peer};

fn peer(index: u32, tunnel: TunnelId, key: [u8; 32]) -> Arc<Peer> {
    Arc::new(Peer::new(PeerIndex(index), tunnel, key))
}

/// A public key of its own for each number.
fn key(number: u32) -> [u8; 32] {
    let mut key = [0x55; 32];
    key[..4].copy_from_slice(&number.to_le_bytes());
    key
}

#[test]
fn a_peer_is_added_once_to_a_tunnel_that_exists() {
    let mut world = World::new(1, None);
    let (now, public) = (world.now, world.nodes[0].public);
    let handshaker = &mut world.nodes[0].handshaker;
    let mut add = |peer| handshaker.add_peer(peer, None, now);
    assert_eq!(add(peer(1, TunnelId(9), key(1))), Err(AddPeerError::UnknownTunnel));
    assert_eq!(add(peer(1, TUNNEL, public)), Err(AddPeerError::OwnKey));
    assert_eq!(add(peer(0, TUNNEL, key(1))), Err(AddPeerError::IndexTaken));
    assert_eq!(add(peer(1, TUNNEL, key(1))), Ok(()));
    assert_eq!(add(peer(2, TUNNEL, key(1))), Err(AddPeerError::KeyTaken));
    handshaker.remove_peer(PeerIndex(1), now);
    assert_eq!(handshaker.add_peer(peer(2, TUNNEL, key(1)), None, now), Ok(()));
}

#[test]
fn removing_a_peer_ends_its_sessions_at_once() {
    let mut world = World::connected(2);
    let now = world.now;
    world.nodes[1].handshaker.remove_peer(PEER, now);
    world.settle(1);
    world.acknowledge(1);
    let node = &world.nodes[1];
    assert!(node.peer.is_removed() && node.receivers.is_empty() && node.peer.sending_session().is_none());
    assert_eq!((node.handshaker.slots_in_use(), node.given_up), (0, 1));
    assert!(node.handshaker.next_timeout().is_none_or(|at| at > now + 60 * SECOND), "no timer of it is left");
    let received = node.received.len();
    for _ in 0..30 {
        world.send(0, b"gone");
        world.run(SECOND);
    }
    assert_eq!(world.nodes[1].received.len(), received);
    assert_eq!(world.nodes[1].errors.last(), Some(&HandshakeError::UnknownPeer));
}

#[test]
fn removing_a_peer_in_mid_handshake_leaves_nothing() {
    let mut world = World::new(3, None);
    world.send(0, b"x");
    let now = world.now;
    world.nodes[0].handshaker.remove_peer(PEER, now);
    world.settle(0);
    world.run(20 * SECOND);
    assert_eq!(world.nodes[0].handshaker.slots_in_use(), 0);
    assert_eq!(world.nodes[0].errors, [HandshakeError::Unexpected]);
    assert_eq!(world.nodes[0].count(MessageType::Initiation, Instant::ZERO), 1);
}

#[test]
fn removing_a_tunnel_removes_its_peers() {
    let mut world = World::connected(4);
    let now = world.now;
    world.nodes[0].handshaker.remove_tunnel(TUNNEL, now);
    world.settle(0);
    assert!(world.nodes[0].peer.is_removed() && world.nodes[0].receivers.is_empty());
    assert!(world.nodes[0].handshaker.cookie_checker(TUNNEL).is_none());
}

#[test]
fn a_tunnel_with_a_new_key_makes_new_sessions_with_it() {
    let mut world = World::connected(5);
    world.nodes[0].handshaker.set_private_key(TUNNEL, &[9; 32]);
    world.settle(0);
    assert!(world.nodes[0].receivers.is_empty());
    world.nodes[0].checker = world.nodes[0].handshaker.cookie_checker(TUNNEL).unwrap();
    world.run(6 * SECOND);
    assert!(!world.both_ways_work(6 * SECOND), "the peer does not know the new key");
    world.nodes[0].handshaker.set_private_key(TUNNEL, &[1; 32]);
    world.settle(0);
    world.nodes[0].checker = world.nodes[0].handshaker.cookie_checker(TUNNEL).unwrap();
    world.run(20 * SECOND);
    assert!(world.both_ways_work(6 * SECOND));
}

#[test]
fn a_packet_for_a_peer_without_endpoint_is_given_up_at_once() {
    let mut world = World::new(6, None);
    world.send(1, b"nowhere");
    assert_eq!((world.nodes[1].given_up, world.nodes[1].held.len()), (1, 0));
    world.send(1, b"nowhere");
    assert_eq!(world.nodes[1].given_up, 2, "and the next one is, too");
}

#[test]
fn when_all_slots_are_taken_initiations_are_refused_and_work_again_later() {
    let mut world = World::new(7, None);
    let now = world.now;
    // Each of these peers takes a slot for its attempt; nobody answers them.
    for number in 1..=700 {
        let peer = peer(number, TUNNEL, key(number));
        peer.endpoint.store(Endpoint::configured("203.0.113.9:9".parse().unwrap()));
        world.nodes[1].handshaker.add_peer(peer, None, now).unwrap();
        world.nodes[1].handshaker.handle_wanted(now, WallClock::default(), PeerIndex(number));
    }
    world.settle(1);
    assert_eq!(world.nodes[1].handshaker.slots_in_use(), 600, "the world's three workers have 200 each");
    assert_eq!(world.nodes[1].given_up, 100);
    world.send(0, b"x");
    world.run(SECOND);
    assert_eq!(world.nodes[1].errors, [HandshakeError::NoSlot]);
    world.run(110 * SECOND);
    world.send(0, b"y");
    world.run(SECOND);
    assert!(world.both_ways_work(SECOND));
}

#[test]
fn a_hundred_thousand_idle_peers_cost_no_time() {
    let mut world = World::new(8, None);
    let now = world.now;
    let handshaker = &mut world.nodes[0].handshaker;
    for number in 1..=100_000 {
        handshaker.add_peer(peer(number, TUNNEL, key(number)), Some([1; 32]), now).unwrap();
    }
    handshaker.handle_timeout(now, WallClock::default());
    let mut at = now;
    for _ in 0..30 {
        let next = handshaker.next_timeout().unwrap();
        assert!(next.since(at) >= Duration::from_secs(120), "only cookies are renewed");
        at = next;
        handshaker.handle_timeout(at, WallClock::default());
    }
    assert!(handshaker.poll_output().is_none());
}

#[test]
fn a_draining_node_goes_on_with_the_sessions_that_it_has_and_takes_no_others() {
    let mut world = World::connected(9);
    world.nodes[1].handshaker.drain();
    for _ in 0..400 {
        world.send(0, b"ping");
        world.send(1, b"pong");
        world.run(SECOND);
    }
    assert!(world.nodes.iter().all(|node| node.received.len() == 401), "rekeys lose nothing");
    assert!(world.nodes[1].errors.is_empty());
    world.run(700 * SECOND);
    let received = world.nodes[1].received.len();
    world.send(0, b"a stranger by now");
    world.run(20 * SECOND);
    assert_eq!(world.nodes[1].received.len(), received);
    assert_eq!(world.nodes[1].errors[0], HandshakeError::Draining);
}
