//! How fast handshakes and peers are. Prints figures; run by `cargo test --release -- --ignored --nocapture speed`.

use std::sync::Arc;
use std::time::Instant as Clock;

use super::world::*;
use crate::ids::{PeerIndex, WorkerId};
use crate::wireguard::handshaker::peers::PeerState;
use crate::wireguard::handshaker::{CookieRequest, Output};
use crate::wireguard::kdf::Secret;
use crate::wireguard::noise::Initiator;
use crate::wireguard::timestamp::{Tai64n, WallClock};
use crate::wireguard::x25519::KeyPair;
use crate::wireguard::{Endpoint, Peer, cookie::CookieJar};

#[test]
#[ignore = "a measurement, to be run by hand in a release build"]
fn speed_of_responding_to_peers() {
    const PEERS: u32 = 500;
    let mut world = World::new(1, None);
    let (public, mut now) = (world.nodes[1].public, world.now);
    let identities: Vec<_> = (1..=PEERS)
        .map(|number| {
            let mut private = [0x77; 32];
            private[4..8].copy_from_slice(&number.to_le_bytes());
            let keys = KeyPair::new(&private);
            let shared = keys.agree(&public).unwrap();
            let peer = Arc::new(Peer::new(PeerIndex(number), TUNNEL, *keys.public()));
            world.nodes[1].handshaker.add_peer(peer, None, now).unwrap();
            (keys, shared)
        })
        .collect();
    let mut agreements: Vec<_> = identities
        .iter()
        .map(|(keys, _)| {
            let begin = Clock::now();
            keys.agree(&public).unwrap();
            begin.elapsed()
        })
        .collect();
    agreements.sort();
    println!("{:?} for one X25519, of which a handshake needs three and a key pair", agreements[agreements.len() / 2]);
    let from = Endpoint::configured("192.0.2.1:1".parse().unwrap());
    for round in 0..5u64 {
        now += 5 * SECOND;
        let wall = WallClock(1_700_000_000 * SECOND + now.since(crate::time::Instant::ZERO));
        let messages: Vec<_> = identities
            .iter()
            .map(|(keys, shared)| {
                let ephemeral = Secret::new([round as u8 + 1; 32]);
                let (_, body) = Initiator::start(keys, &public, shared, 1, Tai64n::of(wall), &ephemeral).unwrap();
                CookieJar::default().complete(&public, &body, now)
            })
            .collect();
        let handshaker = &mut world.nodes[1].handshaker;
        let (mut times, mut removed) = (Vec::new(), Vec::new());
        for (number, message) in messages.iter().enumerate() {
            let begin = Clock::now();
            let worker = WorkerId((number % usize::from(WORKERS)) as u16);
            let result = handshaker.handle_message(now, wall, TUNNEL, from, worker, message, CookieRequest::None);
            while let Some(output) = handshaker.poll_output() {
                if let Output::RemoveReceiver { worker, slot } = output {
                    removed.push((worker, slot));
                }
            }
            for (worker, slot) in removed.drain(..) {
                handshaker.receiver_removed(worker, slot);
            }
            times.push(begin.elapsed());
            assert_eq!(result, Ok(()));
        }
        times.sort();
        let median = times[times.len() / 2];
        println!("round {round}: {median:?} for a handshake, {:.0} a second", 1.0 / median.as_secs_f64());
    }
}

#[test]
#[ignore = "a measurement, to be run by hand in a release build"]
fn speed_of_adding_a_hundred_thousand_peers() {
    let mut world = World::new(2, None);
    let now = world.now;
    let peers: Vec<_> = (1..=100_000u32)
        .map(|number| {
            let mut key = [0x66; 32];
            key[..4].copy_from_slice(&number.to_le_bytes());
            Arc::new(Peer::new(PeerIndex(number), TUNNEL, key))
        })
        .collect();
    let handshaker = &mut world.nodes[0].handshaker;
    let (begin, mut slowest) = (Clock::now(), std::time::Duration::ZERO);
    for peer in peers {
        let one = Clock::now();
        handshaker.add_peer(peer, Some([1; 32]), now).unwrap();
        slowest = slowest.max(one.elapsed());
    }
    let size = size_of::<Peer>() + size_of::<PeerState>();
    println!("a peer takes {size} bytes before its first session, and its place in three tables");
    println!("100,000 peers in {:?}, the slowest in {slowest:?}", begin.elapsed());
}
