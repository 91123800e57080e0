//! A peer's endpoint is where its last authentic message came from, and nothing else moves it.

use std::net::SocketAddr;

use super::bench::packets::Inner;
use super::bench::*;

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("a socket address")
}

fn moved(world: &mut World, to: &str) {
    world.clients[0].address = socket(to);
    world.learn_neighbour(WAN, socket(to).ip());
}

#[test]
fn a_client_is_answered_where_its_last_message_came_from() {
    for family in FAMILIES {
        let mut world = World::connected(1, &[family]);
        let node = ["198.51.100.1:51820", "[2001:db8::1]:51820"];
        // To another port, another address, the other IP version and back.
        let steps = [
            ("198.51.100.77:1", node[0]),
            ("198.51.100.77:65535", node[0]),
            ("[2001:db8::77]:9", node[1]),
            ("198.51.100.78:7", node[0]),
        ];
        for (number, (address, node)) in steps.into_iter().enumerate() {
            moved(&mut world, address);
            world.clients[0].node = socket(node);
            // Data and keepalives alike.
            let data = Inner::udp(world.inner(0, Family::V4), server(Family::V4), 50).bytes();
            world.client_sends(0, if number % 2 == 0 { &data } else { &[] });
            assert_eq!(world.peers[0].endpoint.load().expect("it is known").remote, socket(address));
            let packet = Inner::udp(server(Family::V4), world.inner(0, Family::V4), 50);
            world.lan_sends(0, &packet.bytes());
            assert_eq!(world.take_received(0), [packet.forwarded()]);
            assert_eq!(world.clients[0].heard_from, Some(socket(node)));
        }
        assert_eq!(world.losses(), []);
    }
}

#[test]
fn a_client_is_answered_from_the_address_of_ours_that_it_talks_to() {
    let mut world = World::connected(1, &[Family::V4]);
    world.clients[0].node = socket("192.0.2.1:51820");
    world.client_sends(0, &[]);
    let packet = Inner::udp(server(Family::V4), world.inner(0, Family::V4), 50);
    world.lan_sends(0, &packet.bytes());
    assert_eq!(world.take_received(0), [packet.forwarded()]);
    assert_eq!(world.clients[0].heard_from, Some(socket("192.0.2.1:51820")));
}

#[test]
fn neither_forged_nor_replayed_nor_expired_messages_move_a_peer() {
    let mut world = World::connected(1, &[Family::V4]);
    let honest = world.peers[0].endpoint.load();
    let attacker = socket("198.51.100.200:666");
    world.learn_neighbour(WAN, attacker.ip());
    let packet = Inner::udp(world.inner(0, Family::V4), server(Family::V4), 100).bytes();
    let message = world.clients[0].seal(&packet);
    world.clients[0].outbox.push(message.clone());
    world.exchange();
    let mut forged = world.clients[0].seal(&packet);
    let late = forged.clone();
    forged[40] ^= 1;
    for (message, reason) in [(message, "wireguard_replayed"), (forged, "wireguard_forged")] {
        let frame = world.frame_from(attacker, world.clients[0].node, 0, &message);
        world.receive(0, WAN, [frame]);
        world.exchange();
        assert_eq!(world.peers[0].endpoint.load(), honest, "{reason}");
        assert!(world.losses().contains(&(reason, 1)));
    }
    world.now += jetway_pipelines::wireguard::constants::REJECT_AFTER_TIME;
    let frame = world.frame_from(attacker, world.clients[0].node, 0, &late);
    world.receive(0, WAN, [frame]);
    world.exchange();
    assert_eq!(world.peers[0].endpoint.load(), honest);
    assert!(world.losses().contains(&("wireguard_session_expired", 1)));
}
