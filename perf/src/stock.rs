//! boringtun as a contestant: two ends of a tunnel in this process, without sockets.

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

/// Two ends with a session.
pub struct Pair {
    /// The end that answered.
    pub server: Box<Tunn>,
    /// The end that began.
    pub client: Box<Tunn>,
}

/// Room for whatever boringtun writes.
pub const ROOM: usize = 2048;

impl Pair {
    /// Two ends that have shaken hands.
    ///
    /// # Panics
    /// If boringtun does not do as its documentation says.
    pub fn new() -> Self {
        let keys = [[1; 32], [2; 32]].map(StaticSecret::from);
        let [client_public, server_public] = [&keys[0], &keys[1]].map(PublicKey::from);
        let [client_key, server_key] = keys;
        let mut client = Tunn::new(client_key, server_public, None, None, 1, None);
        let mut server = Tunn::new(server_key, client_public, None, None, 2, None);
        let (mut one, mut other) = ([0; ROOM], [0; ROOM]);
        let TunnResult::WriteToNetwork(initiation) = client.format_handshake_initiation(&mut one, false) else {
            panic!("no initiation")
        };
        let TunnResult::WriteToNetwork(response) = server.decapsulate(None, initiation, &mut other) else {
            panic!("no response")
        };
        let TunnResult::WriteToNetwork(keepalive) = client.decapsulate(None, response, &mut one) else {
            panic!("no keepalive")
        };
        let TunnResult::Done = server.decapsulate(None, keepalive, &mut other) else { panic!("no session") };
        Self { server: Box::new(server), client: Box::new(client) }
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}
