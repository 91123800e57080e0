//! Messages that are handed over together.

use std::sync::Arc;

use jetway_aead::{Aead, OpenJob, SealJob};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::world::*;
use crate::ids::{PeerIndex, WorkerId};
use crate::time::Instant;
use crate::wireguard::cookie::{CookieJar, Message};
use crate::wireguard::handshaker::{CookieRequest, HandshakeError, Output, Received};
use crate::wireguard::kdf::Secret;
use crate::wireguard::message::{MessageType, Response, classify};
use crate::wireguard::noise::Initiator;
use crate::wireguard::timestamp::{Tai64n, WallClock};
use crate::wireguard::x25519::KeyPair;
use crate::wireguard::{Endpoint, Peer, Receiver};

const PEERS: u32 = 12;
/// Nobody's, in this world.
const STRANGER: u32 = 99;

fn keys(number: u32) -> KeyPair {
    let mut private = [0x55; 32];
    private[4..8].copy_from_slice(&number.to_le_bytes());
    KeyPair::new(&private)
}

/// A responder with all the peers.
fn responder() -> Node {
    let mut node = Node::new(2, [2; 32], *keys(0).public(), 5);
    for number in 1..=PEERS {
        let peer = Arc::new(Peer::new(PeerIndex(number), TUNNEL, *keys(number).public()));
        node.handshaker.add_peer(peer, None, Instant::ZERO).unwrap();
    }
    node
}

/// A message with what is needed to end its handshake.
struct Sample {
    number: u32,
    initiator: Initiator,
    message: Message,
    cookie: CookieRequest,
}

/// Initiations of peers and of a stranger, some of them spoilt, sent twice, or to be answered by a cookie.
fn samples(random: &mut StdRng, public: &[u8; 32], wall: WallClock) -> Vec<Sample> {
    (0..40)
        .map(|step| {
            let number = if random.random_ratio(1, 8) { STRANGER } else { random.random_range(1..=PEERS) };
            let keys = keys(number);
            let mut ephemeral = Secret::default();
            random.fill_bytes(ephemeral.as_mut_slice());
            let timestamp = Tai64n::of(WallClock(wall.0 + SECOND * step));
            let shared = keys.agree(public).unwrap();
            let (initiator, body) = Initiator::start(&keys, public, &shared, step, timestamp, &ephemeral).unwrap();
            let mut message = CookieJar::default().complete(public, &body, Instant::ZERO);
            let mut cookie = CookieRequest::None;
            match random.random_range(0..8) {
                // The ephemeral key, the static key, the timestamp, the type.
                0 => message[8 + random.random_range(0..31)] ^= 1,
                1 => message[40 + random.random_range(0..48)] ^= 1,
                2 => message[88 + random.random_range(0..28)] ^= 1,
                3 => message[0] = 9,
                // A point of small order.
                4 => message[8..40].fill(0),
                5 => cookie = CookieRequest::Reply,
                _ => {}
            }
            Sample { number, initiator, message, cookie }
        })
        .collect()
}

/// Hands the messages over, so many at a time, and says what became of each.
fn hand_over(
    node: &mut Node,
    samples: &[Sample],
    wall: WallClock,
    mut together: impl FnMut() -> usize,
) -> Vec<Result<(), HandshakeError>> {
    let received: Vec<_> = samples
        .iter()
        .map(|sample| Received {
            tunnel: TUNNEL,
            from: Endpoint::configured(([192, 0, 2, sample.number as u8], 1).into()),
            worker: WorkerId(1),
            message: &sample.message,
            cookie: sample.cookie,
        })
        .collect();
    let mut outcomes = vec![Ok(()); samples.len()];
    let mut rest = &received[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(together().min(rest.len()));
        node.handshaker.handle_messages(Instant::from_nanos(1_000_000_000), wall, now, |message, error| {
            let number = received.iter().position(|other| std::ptr::eq(other.message, message.message)).unwrap();
            assert_eq!(outcomes[number], Ok(()), "told twice");
            outcomes[number] = Err(error);
        });
        rest = later;
    }
    outcomes
}

/// Ends every handshake that was answered, and sends a packet through its session. Returns how many.
fn end_handshakes(node: &mut Node, samples: &[Sample]) -> usize {
    let mut receivers: Vec<Box<Receiver>> = Vec::new();
    let (aead, mut ended) = (Aead::best(), 0);
    while let Some(output) = node.handshaker.poll_output() {
        match output {
            Output::InstallReceiver { receiver, .. } => receivers.push(receiver),
            Output::Send { message, to, .. } if classify(&message) == Ok(MessageType::Response) => {
                let response = Response::parse(&message).unwrap();
                let sample = &samples[response.receiver as usize];
                assert_eq!(to, Endpoint::configured(([192, 0, 2, sample.number as u8], 1).into()));
                let secrets = sample.initiator.finish(&keys(sample.number), &[0; 32], &response).unwrap();
                let receiver = receivers.iter().find(|r| r.local_index == response.sender).unwrap();
                assert_eq!(receiver.peer.index, PeerIndex(sample.number));
                let mut packet = [7; 64];
                let key = aead.key(&secrets.send);
                aead.seal_burst(&mut [SealJob { key: &key, counter: 0, buffer: &mut packet }]);
                let mut jobs = [OpenJob { key: &receiver.key, counter: 0, buffer: &mut packet, authentic: false }];
                aead.open_burst(&mut jobs);
                assert!(jobs[0].authentic, "the keys of sample {} differ", response.receiver);
                ended += 1;
            }
            _ => {}
        }
    }
    ended
}

#[test]
fn messages_that_come_together_fare_as_one_by_one() {
    let wall = WallClock(1_700_000_000 * SECOND);
    for seed in 0..30 {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let [mut alone, mut together] = [responder(), responder()];
        let samples = samples(&mut random, &alone.public, wall);
        let expected = hand_over(&mut alone, &samples, wall, || 1);
        let outcomes = hand_over(&mut together, &samples, wall, || random.random_range(1..=20));
        assert_eq!(outcomes, expected);
        let accepted = samples.iter().zip(&expected);
        let accepted =
            accepted.filter(|(sample, outcome)| sample.cookie == CookieRequest::None && outcome.is_ok()).count();
        assert!(accepted >= 3, "{expected:?}");
        assert_eq!(end_handshakes(&mut alone, &samples), accepted);
        assert_eq!(end_handshakes(&mut together, &samples), accepted);
        assert_eq!(alone.handshaker.slots_in_use(), together.handshaker.slots_in_use());
    }
}
