//! Messages that nobody with the keys has made: changed, cut, lengthened, invented, sent again.

use rand::{Rng, RngExt};

use super::world::*;
use crate::wireguard::kdf::{hash, mac};
use crate::wireguard::message::{MACS_SIZE, MessageType, classify};

/// One message of each type that both nodes would accept, and the world in which they would.
fn samples(world: &mut World) -> Vec<(usize, Datagram)> {
    let mut samples = Vec::new();
    world.nodes[1].under_load = true;
    world.send(0, b"x");
    let initiation = world.intercept().remove(0);
    world.receive(1, &initiation);
    samples.push((0, world.intercept().remove(0)));
    world.nodes[1].under_load = false;
    samples.push((1, initiation.clone()));
    world.receive(1, &initiation);
    samples.push((0, world.intercept().remove(0)));
    let response = samples[2].1.clone();
    // A world in which the response was taken has data messages; copies of it keep the other messages fresh.
    world.receive(0, &response);
    samples.extend(world.intercept().into_iter().map(|datagram| (1, datagram)));
    samples
}

/// Changes a message as somebody without keys can.
fn forge(world: &mut World, datagram: &mut Datagram, public: &[u8; 32]) {
    let random = &mut world.random;
    let payload = &mut datagram.payload;
    match random.random_range(0..6) {
        0 => payload.truncate(random.random_range(0..payload.len())),
        1 => payload.extend((0..random.random_range(1..64)).map(|_| 0)),
        2 => {
            let from = random.random_range(4..payload.len());
            random.fill_bytes(&mut payload[from..]);
        }
        _ => {
            for _ in 0..random.random_range(1..4) {
                let bit = random.random_range(0..payload.len() * 8);
                payload[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
    // Everybody knows the public key, so a forger gets mac1 right.
    if random.random_range(0..2) == 0
        && matches!(classify(payload), Ok(MessageType::Initiation | MessageType::Response))
    {
        let (body, macs) = payload.split_last_chunk_mut::<MACS_SIZE>().unwrap();
        macs[..16].copy_from_slice(&mac(&hash(&[b"mac1----", public]), &[body]));
    }
}

#[test]
fn no_forged_message_is_accepted_and_the_session_lives_on() {
    const CASES: usize = 100_000;
    let mut world = World::new(1, Some([5; 32]));
    let samples = samples(&mut world);
    let publics = [world.nodes[0].public, world.nodes[1].public];
    world.run(SECOND);
    assert!(world.both_ways_work(SECOND));
    let state = |world: &World| {
        [0, 1].map(|node: usize| {
            let node = &world.nodes[node];
            let mut places: Vec<_> = node.receivers.keys().copied().collect();
            places.sort();
            (node.received.len(), places, node.handshaker.slots_in_use(), node.peer.endpoint.load(), node.sent.len())
        })
    };
    let before = state(&world);
    let refusals = |world: &World| -> usize {
        world.nodes.iter().map(|node| node.errors.len() + node.drops.values().sum::<u32>() as usize).sum()
    };
    let refused_before = refusals(&world);
    let mut forged = 0;
    for case in 0..CASES {
        let (node, original) = &samples[case % samples.len()];
        let mut datagram = original.clone();
        forge(&mut world, &mut datagram, &publics[*node]);
        datagram.from = "203.0.113.5:5".parse().unwrap();
        if datagram.payload != original.payload {
            forged += 1;
            world.receive(*node, &datagram);
        }
    }
    assert_eq!(state(&world), before);
    assert_eq!(refusals(&world) - refused_before, forged, "each is counted under its reason");
    for node in &world.nodes {
        let counted = node.handshaker.counters().named();
        let refused = counted.iter().filter(|(name, ..)| name.starts_with("refused_")).map(|(.., count)| count);
        assert_eq!(refused.sum::<u64>(), node.errors.len() as u64, "{counted:?}");
    }
    assert!(world.both_ways_work(SECOND));
    println!("{forged} forged messages: {:?} {:?}", world.nodes[0].drops, world.nodes[1].drops);
}

#[test]
fn a_message_is_accepted_once() {
    let mut world = World::new(2, None);
    let samples = samples(&mut world);
    world.run(SECOND);
    let (received, receivers) = (world.nodes[1].received.len(), world.nodes[1].receivers.len());
    for _ in 0..3 {
        for (node, datagram) in &samples[1..] {
            world.receive(*node, datagram);
        }
    }
    let data = samples.len() as u32 - 3;
    // The first time each data message is news.
    assert_eq!(world.nodes[1].received.len() - received, 1);
    assert_eq!(world.nodes[1].drops["replayed"], 2 * data);
    assert_eq!(world.nodes[1].receivers.len(), receivers);
    assert_eq!(world.nodes.iter().map(|node| node.errors.len()).sum::<usize>(), 6);
}
