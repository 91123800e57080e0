//! Whole handshakes between two nodes.

use std::sync::atomic::Ordering;

use super::world::*;
use crate::wireguard::message::MessageType;

#[test]
fn the_first_packet_makes_a_session_and_arrives_after_one_round_trip() {
    for preshared_key in [None, Some([7; 32])] {
        let mut world = World::new(1, preshared_key);
        world.send(0, b"first");
        world.run(SECOND);
        assert_eq!(world.nodes[1].received, [b"first\0\0\0\0\0\0\0\0\0\0\0".to_vec()]);
        assert!(world.both_ways_work(SECOND));
        let begin = crate::time::Instant::ZERO;
        assert_eq!(world.nodes[0].count(MessageType::Initiation, begin), 1);
        assert_eq!(world.nodes[1].count(MessageType::Initiation, begin), 0);
        assert_eq!(world.nodes[1].count(MessageType::Response, begin), 1);
        for node in &world.nodes {
            assert_eq!(node.receivers.len(), 1);
            assert_eq!(node.handshaker.slots_in_use(), 1);
            let last = node.peer.traffic.last_handshake.load(Ordering::Relaxed);
            assert_eq!(last / 1_000_000_000, 1_700_000_000);
        }
    }
}
