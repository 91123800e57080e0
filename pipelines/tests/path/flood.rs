//! A flood of handshakes: strangers are asked for cookies, peers that are known pass.

use std::net::SocketAddr;

use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::packet::udp;

use super::bench::packets::parse_datagram;
use super::bench::*;

/// An attacker that knows the node's public key sends a copy of an initiation from many addresses at once.
fn flood(world: &mut World, initiation: &[u8], sources: u32) {
    let frames: Vec<Vec<u8>> = (0..sources)
        .map(|number| {
            let from = SocketAddr::from((std::net::Ipv4Addr::from(0x0b00_0000 + number), 1000));
            world.frame_from(from, world.clients[0].node, 0, initiation)
        })
        .collect();
    world.receive(0, WAN, frames);
}

/// A node with a peer that is known, a peer that is not, and in the midst of a flood.
fn flooded() -> World {
    let mut world = World::new(1, &[Family::V4, Family::V4]);
    let initiation = world.clients[0].initiation();
    world.clients[0].outbox.push(initiation.clone());
    world.exchange();
    world.connect(0);
    world.refused.clear();
    flood(&mut world, &initiation, 3000);
    world.settle();
    world
}

#[test]
fn past_the_strangers_share_every_source_is_asked_for_a_cookie_and_nothing_more_is_worked_on() {
    let mut world = flooded();
    // The copies that passed were refused as replays.
    assert_eq!(world.refused.len(), 2000);
    let sent = world.take_sent(WAN);
    assert_eq!(sent.len(), 1000);
    for packet in &sent {
        let (_, to, reply) = parse_datagram(packet).expect("UDP");
        assert_eq!((reply[0], reply.len(), to.port()), (3, 64, 1000));
        // No more bytes go out than came in: the flood cannot be turned on others with gain.
        assert!(packet.len() <= 20 + udp::HEADER_LENGTH + 148);
    }
}

#[test]
fn a_single_source_gets_no_more_than_its_share_of_cookies() {
    let mut world = flooded();
    world.take_sent(WAN);
    let initiation = world.clients[1].initiation();
    let frames = vec![world.client_frame(1, &initiation); 100];
    world.receive(0, WAN, frames);
    world.settle();
    // Five, or less if the source shares its bucket with one of the attacker's.
    let cookies = world.in_flight() as u64;
    assert!((1..=5).contains(&cookies));
    assert_eq!(world.drops(DropReason::WireguardRateLimited), 100 - cookies);
}

#[test]
fn a_known_peer_makes_its_handshake_in_the_flood_without_a_cookie() {
    let mut world = flooded();
    world.clients[0].datagrams.clear();
    let before = world.peers[0].sending_session().map(|session| session.remote_index);
    world.connect(0);
    let after = world.peers[0].sending_session().map(|session| session.remote_index);
    assert_ne!(before, after, "there is a new session");
    assert_eq!((world.clients[0].count(2), world.clients[0].count(3)), (1, 0));
}

#[test]
fn a_stranger_is_served_in_the_flood_once_it_shows_its_cookie() {
    let mut world = flooded();
    let initiation = world.clients[1].initiation();
    world.clients[1].outbox.push(initiation);
    world.exchange();
    assert_eq!((world.clients[1].count(2), world.clients[1].count(3)), (0, 1));
    // boringtun shows the cookie with its next initiation.
    let initiation = world.clients[1].initiation();
    assert_ne!(initiation[132..], [0; 16]);
    world.clients[1].outbox.push(initiation.clone());
    world.exchange();
    assert_eq!((world.clients[1].count(2), world.clients[1].count(3)), (1, 1));
    assert!(world.peers[1].sending_session().is_some());
    // The same cookie from another address proves nothing.
    let elsewhere = "198.51.100.99:4000".parse().expect("a socket address");
    let frame = world.frame_from(elsewhere, world.clients[1].node, 0, &initiation);
    let refused = world.refused.len();
    world.receive(0, WAN, [frame]);
    world.settle();
    assert_eq!(world.refused.len(), refused, "it is not worked on");
}

#[test]
fn messages_of_senders_that_do_not_know_our_key_cost_a_mac_and_no_more() {
    let mut world = World::connected(1, &[Family::V4]);
    let mut initiation = world.clients[0].initiation();
    initiation[120] ^= 1;
    flood(&mut world, &initiation, 5000);
    world.settle();
    assert_eq!(world.losses(), [("wireguard_bad_mac1", 5000)]);
    assert!(world.refused.is_empty() && world.sent.is_empty());
    world.connect(0);
}
