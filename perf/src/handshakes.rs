//! Handshakes a second that one core answers or begins.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use jetway_aead::Aead;
use jetway_pipelines::ids::{PeerIndex, WorkerId};
use jetway_pipelines::time::Instant;
use jetway_pipelines::wireguard::cookie::CookieJar;
use jetway_pipelines::wireguard::handshaker::{CookieRequest, Output, Settings};
use jetway_pipelines::wireguard::kdf::Secret;
use jetway_pipelines::wireguard::noise::Initiator;
use jetway_pipelines::wireguard::timestamp::{Tai64n, WallClock};
use jetway_pipelines::wireguard::x25519::KeyPair;
use jetway_pipelines::wireguard::{Endpoint, Handshaker, Peer};
use rand::SeedableRng;

use crate::result::{Part, Row};
use crate::sample::Effort;
use crate::sample::{median_and_spread, median_nanoseconds};
use crate::traffic;
use crate::world::{self, TUNNEL};

/// Peers that shake hands in each round.
const PEERS: usize = 500;
/// Between two rounds: more than the 20 ms that a peer has to wait.
const BETWEEN: Duration = Duration::from_secs(5);
const SERVER_KEY: [u8; 32] = [0x42; 32];

/// Measures both parts of the handshake.
pub fn measure(effort: Effort) -> Part {
    let mut part = Part::default();
    let (mut answered, mut begun, mut agreements) = (Vec::new(), Vec::new(), Vec::new());
    let mut responder = Responder::new();
    for round in 0..=effort.rounds {
        let figures = responder.round(round);
        // The first round works out what is kept for each peer.
        if round > 0 {
            answered.push(figures.answer);
            begun.push(figures.begin);
            agreements.push(figures.agree);
        }
    }
    for (name, mut times) in [("handshake answered", answered), ("initiation made", begun), ("one X25519", agreements)]
    {
        let (nanoseconds, spread) = median_and_spread(&mut times);
        part.rows.push(Row::new(name, "jetway", nanoseconds, spread).flows(PEERS, None));
    }
    part
}

/// Nanoseconds, medians of one round.
struct Figures {
    answer: f64,
    begin: f64,
    agree: f64,
}

struct Responder {
    handshaker: Handshaker,
    public: [u8; 32],
    /// The initiators' keys, and the secret that each shares with the responder.
    identities: Vec<(KeyPair, Secret)>,
    now: Instant,
}

impl Responder {
    fn new() -> Self {
        let layout = world::layout(1);
        let mut handshaker = Handshaker::new(Settings {
            slots_per_worker: layout.slots_per_worker(),
            layout,
            aead: Aead::best(),
            randomness: Box::new(rand::rngs::StdRng::seed_from_u64(3)),
            cookie_secrets: world::cookie_secrets(),
        });
        handshaker.add_tunnel(TUNNEL, &SERVER_KEY).expect("a key");
        let public = *KeyPair::new(&SERVER_KEY).expect("a key").public();
        let now = Instant::from_nanos(1_000_000_000);
        let identity = |number: usize| {
            let mut private = [0x77; 32];
            private[4..12].copy_from_slice(&number.to_le_bytes());
            let keys = KeyPair::new(&private).expect("a key");
            let shared = keys.agree(&public).expect("a public key of full order");
            let peer = Peer::new(PeerIndex(number as u32), TUNNEL, *keys.public());
            handshaker.add_peer(Arc::new(peer), None, now).expect("keys and numbers differ");
            (keys, shared)
        };
        let identities = (0..PEERS).map(identity).collect();
        Self { handshaker, public, identities, now }
    }

    fn round(&mut self, round: usize) -> Figures {
        self.now += BETWEEN;
        let wall = WallClock(Duration::from_secs(1_700_000_000) + self.now.since(Instant::ZERO));
        let (mut begins, mut agrees) = (Vec::new(), Vec::new());
        let initiate = |(number, (keys, shared)): (usize, &(KeyPair, Secret))| {
            let mut ephemeral = Secret::new([round as u8 + 1; 32]);
            ephemeral[..8].copy_from_slice(&number.to_le_bytes());
            let start = Clock::now();
            let begun = Initiator::start(keys, &self.public, shared, 1, Tai64n::of(wall), &ephemeral);
            let (_, body) = begun.expect("a public key of full order");
            let message = CookieJar::default().complete(&self.public, &body, self.now);
            begins.push(start.elapsed());
            let start = Clock::now();
            std::hint::black_box(keys.agree(&self.public)).expect("a public key of full order");
            agrees.push(start.elapsed());
            message
        };
        let messages: Vec<_> = self.identities.iter().enumerate().map(initiate).collect();
        let mut answers = Vec::with_capacity(PEERS);
        for (number, message) in messages.iter().enumerate() {
            let from = Endpoint::configured(traffic::endpoint(number));
            let start = Clock::now();
            let result =
                self.handshaker.handle_message(self.now, wall, TUNNEL, from, WorkerId(0), message, CookieRequest::None);
            self.take_outputs();
            answers.push(start.elapsed());
            assert_eq!(result, Ok(()), "an initiation was refused");
        }
        Figures {
            answer: median_nanoseconds(&mut answers),
            begin: median_nanoseconds(&mut begins),
            agree: median_nanoseconds(&mut agrees),
        }
    }

    /// Does what workers do with what the handshaker decided.
    fn take_outputs(&mut self) {
        while let Some(output) = self.handshaker.poll_output() {
            if let Output::RemoveReceiver { worker, slot } = output {
                self.handshaker.receiver_removed(worker, slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_initiation_is_answered() {
        let part = measure(Effort { rounds: 2, pieces: 1 });
        assert!(part.rows.iter().all(|row| row.ns_per_packet > 0.0));
    }
}
