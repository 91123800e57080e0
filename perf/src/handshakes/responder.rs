//! A handshaker with many peers, and what these send to it.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use jetway_pipelines::ids::{PeerIndex, WorkerId};
use jetway_pipelines::time::Instant;
use jetway_pipelines::wireguard::cookie::{CookieChecker, CookieJar, Message};
use jetway_pipelines::wireguard::handshaker::{CookieRequest, Output, Received, Settings};
use jetway_pipelines::wireguard::kdf::Secret;
use jetway_pipelines::wireguard::message::Response;
use jetway_pipelines::wireguard::noise::Initiator;
use jetway_pipelines::wireguard::timestamp::{Tai64n, WallClock};
use jetway_pipelines::wireguard::x25519::KeyPair;
use jetway_pipelines::wireguard::{Endpoint, Handshaker, Peer};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::aead;
use crate::traffic;
use crate::world::{self, TUNNEL};

/// Peers that shake hands in turn.
const PEERS: usize = 512;
/// Between two handshakes of different peers: a peer's own are further apart than the 20 ms that it has to wait.
const BETWEEN: Duration = Duration::from_millis(1);
const SERVER_KEY: [u8; 32] = [0x42; 32];

/// The handshaker with its peers.
pub struct Responder {
    handshaker: Handshaker,
    checker: CookieChecker,
    public: [u8; 32],
    /// The initiators' keys, and the secret that each shares with the responder.
    identities: Vec<(KeyPair, Secret)>,
    random: StdRng,
    now: Instant,
    next: usize,
}

impl Responder {
    /// A handshaker that has yet to hear from its peers.
    pub fn new() -> Self {
        let layout = world::layout(1);
        let mut handshaker = Handshaker::new(Settings {
            slots_per_worker: layout.slots_per_worker(),
            layout,
            aead: aead::chosen(),
            randomness: Box::new(StdRng::seed_from_u64(3)),
            cookie_secrets: world::cookie_secrets(),
        });
        handshaker.add_tunnel(TUNNEL, &SERVER_KEY);
        let checker = handshaker.cookie_checker(TUNNEL).expect("the tunnel was added");
        let public = *KeyPair::new(&SERVER_KEY).public();
        let now = Instant::from_nanos(1_000_000_000);
        let identity = |number: usize| {
            let mut private = [0x77; 32];
            private[4..12].copy_from_slice(&number.to_le_bytes());
            let keys = KeyPair::new(&private);
            let shared = keys.agree(&public).expect("a public key of full order");
            let peer = Peer::new(PeerIndex(number as u32), TUNNEL, *keys.public());
            handshaker.add_peer(Arc::new(peer), None, now).expect("keys and numbers differ");
            (keys, shared)
        };
        let identities = (0..PEERS).map(identity).collect();
        Self { handshaker, checker, public, identities, random: StdRng::seed_from_u64(4), now, next: 0 }
    }

    /// One handshake with every peer.
    pub fn meet_all(&mut self) {
        for _ in 0..PEERS {
            self.answer(1);
        }
    }

    fn wall(&self) -> WallClock {
        WallClock(Duration::from_secs(1_700_000_000) + self.now.since(Instant::ZERO))
    }

    /// The next peer's initiation, with its state and its number.
    fn initiate(&mut self) -> (Initiator, Message, usize) {
        self.now += BETWEEN;
        let number = self.next;
        self.next = (self.next + 1) % PEERS;
        let (keys, shared) = &self.identities[number];
        let mut ephemeral = Secret::default();
        self.random.fill_bytes(ephemeral.as_mut_slice());
        let begun = Initiator::start(keys, &self.public, shared, 1, Tai64n::of(self.wall()), &ephemeral);
        let (initiator, body) = begun.expect("a public key of full order");
        (initiator, CookieJar::default().complete(&self.public, &body, self.now), number)
    }

    /// How long the core takes to answer `together` initiations: mac1, sessions, responses.
    pub fn answer(&mut self, together: usize) -> Duration {
        let messages: Vec<_> =
            (0..together).map(|_| self.initiate()).map(|(_, message, peer)| (message, peer)).collect();
        self.handle(&messages).0
    }

    /// Answers initiations. Returns the last response too.
    fn handle(&mut self, messages: &[(Message, usize)]) -> (Duration, Message) {
        let (now, wall) = (self.now, self.wall());
        let received: Vec<_> = messages
            .iter()
            .map(|(message, peer)| Received {
                tunnel: TUNNEL,
                from: Endpoint::configured(traffic::endpoint(*peer)),
                worker: WorkerId(0),
                message,
                cookie: CookieRequest::None,
            })
            .collect();
        let start = Clock::now();
        let valid = received.iter().filter(|received| self.checker.has_valid_mac1(received.message)).count();
        self.handshaker.handle_messages(now, wall, &received, |_, error| panic!("an initiation was refused: {error}"));
        let mut response = Message::new();
        // What workers do with what was decided.
        while let Some(output) = self.handshaker.poll_output() {
            match output {
                Output::RemoveReceiver { worker, slot } => self.handshaker.receiver_removed(worker, slot),
                Output::Send { message, .. } => response = message,
                _ => {}
            }
        }
        let took = start.elapsed();
        assert_eq!(valid, messages.len());
        (took, response)
    }

    /// How long an initiator takes for its part of a handshake: the initiation, and the session from the response.
    pub fn begin_and_finish(&mut self) -> Duration {
        let start = Clock::now();
        let (initiator, message, peer) = self.initiate();
        let began = start.elapsed();
        let (_, response) = self.handle(&[(message, peer)]);
        let start = Clock::now();
        let response = Response::parse(&response).expect("the answer is a response");
        let session = initiator.finish(&self.identities[peer].0, &[0; 32], &response);
        let ended = start.elapsed();
        assert!(session.is_ok(), "the response is not authentic");
        began + ended
    }
}
