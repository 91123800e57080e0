//! boringtun's handshakes: two ends in this process, without sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use crate::stock::ROOM;

/// Two ends that shake hands as often as they are asked to.
pub struct Pair {
    server: Box<Tunn>,
    client: Box<Tunn>,
}

impl Pair {
    /// Two ends without limits on handshakes.
    pub fn new() -> Self {
        let keys = [[1; 32], [2; 32]].map(StaticSecret::from);
        let [client_public, server_public] = [&keys[0], &keys[1]].map(PublicKey::from);
        let [client_key, server_key] = keys;
        // Their default is to ask for a cookie after ten handshakes a second.
        let unlimited = |public| Some(Arc::new(RateLimiter::new(public, u64::MAX)));
        let limits = [&client_public, &server_public].map(unlimited);
        let [client_limit, server_limit] = limits;
        let client = Box::new(Tunn::new(client_key, server_public, None, None, 1, client_limit));
        let server = Box::new(Tunn::new(server_key, client_public, None, None, 2, server_limit));
        Self { server, client }
    }

    /// One handshake: how long the server took, and the client.
    fn shake_hands(&mut self) -> (Duration, Duration) {
        let (mut one, mut other) = ([0; ROOM], [0; ROOM]);
        let start = Instant::now();
        let initiation = self.client.format_handshake_initiation(&mut one, true);
        let began = start.elapsed();
        let TunnResult::WriteToNetwork(initiation) = initiation else { panic!("no initiation") };
        let start = Instant::now();
        let response = self.server.decapsulate(None, initiation, &mut other);
        let answered = start.elapsed();
        let TunnResult::WriteToNetwork(response) = response else { panic!("no response") };
        let start = Instant::now();
        let keepalive = self.client.decapsulate(None, response, &mut one);
        let ended = start.elapsed();
        let TunnResult::WriteToNetwork(_) = keepalive else { panic!("no session") };
        (answered, began + ended)
    }

    /// How long the server takes to answer an initiation.
    pub fn answer(&mut self) -> Duration {
        self.shake_hands().0
    }

    /// How long the client takes for its part.
    pub fn begin_and_finish(&mut self) -> Duration {
        self.shake_hands().1
    }
}
