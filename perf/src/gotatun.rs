//! gotatun as a contestant: two ends of a tunnel in this process, without sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::gotatun::noise::index_table::IndexTable;
use ::gotatun::noise::rate_limiter::RateLimiter;
use ::gotatun::noise::{Tunn, TunnResult};
use ::gotatun::packet::{Packet, WgKind};
use ::gotatun::tun::MtuWatcher;
use ::gotatun::x25519::{PublicKey, StaticSecret};

/// Two ends with a session.
pub struct Pair {
    server: Tunn,
    client: Tunn,
    mtu: MtuWatcher,
    /// What a piece of work made, freed after its time was taken.
    opened: Vec<TunnResult>,
    sealed: Vec<Option<WgKind>>,
}

/// Initiations that its rate limiter lets through in a second; there is one.
const HANDSHAKES: u64 = 100;

impl Pair {
    /// Two ends that have shaken hands.
    ///
    /// # Panics
    /// If gotatun does not do as its documentation says.
    pub fn new(mtu: u16) -> Self {
        let keys = [[1; 32], [2; 32]].map(StaticSecret::from);
        let [client_public, server_public] = [&keys[0], &keys[1]].map(PublicKey::from);
        let end = |key, own: &PublicKey, other| {
            let limiter = Arc::new(RateLimiter::new(own, HANDSHAKES));
            Tunn::new(key, other, None, None, IndexTable::from_os_rng(), limiter)
        };
        let [client_key, server_key] = keys;
        let mut client = end(client_key, &client_public, server_public);
        let mut server = end(server_key, &server_public, client_public);
        let initiation = client.format_handshake_initiation(false).expect("an initiation");
        let response = answer(&mut server, initiation.into()).expect("a response");
        let keepalive = answer(&mut client, response).expect("a keepalive");
        assert!(answer(&mut server, keepalive).is_none(), "a keepalive has no answer");
        Self { server, client, mtu: MtuWatcher::new(mtu), opened: Vec::new(), sealed: Vec::new() }
    }

    /// The server decrypts what the client sends of `packets`. Returns how long that took the server.
    ///
    /// # Panics
    /// If it refuses a packet.
    pub fn decapsulate(&mut self, packets: &[Vec<u8>]) -> Duration {
        let seal = |packet: &Vec<u8>| {
            let sealed = self.client.handle_outgoing_packet(Packet::copy_from(packet.as_slice()), Some(&mut self.mtu));
            Packet::from(sealed.expect("the client has a session"))
        };
        let datagrams: Vec<Packet> = packets.iter().map(seal).collect();
        self.opened.clear();
        self.opened.reserve(datagrams.len());
        let start = Instant::now();
        for datagram in datagrams {
            // Telling the kinds of messages apart is the receiver's work.
            let result = datagram.try_into_wg().map(|message| self.server.handle_incoming_packet(message));
            self.opened.extend(result);
        }
        let took = start.elapsed();
        let passed = |result: &&TunnResult| matches!(result, TunnResult::WriteToTunnel(_));
        assert_eq!(self.opened.iter().filter(passed).count(), packets.len(), "gotatun refused packets");
        took
    }

    /// The server encrypts `packets`. Returns how long that took.
    ///
    /// # Panics
    /// If it refuses a packet.
    pub fn encapsulate(&mut self, packets: &[Vec<u8>]) -> Duration {
        let packets: Vec<Packet> = packets.iter().map(|packet| Packet::copy_from(packet.as_slice())).collect();
        let count = packets.len();
        self.sealed.clear();
        self.sealed.reserve(count);
        let start = Instant::now();
        for packet in packets {
            self.sealed.push(self.server.handle_outgoing_packet(packet, Some(&mut self.mtu)));
        }
        let took = start.elapsed();
        let passed = |result: &&Option<WgKind>| matches!(result, Some(WgKind::Data(_)));
        assert_eq!(self.sealed.iter().filter(passed).count(), count, "gotatun refused packets");
        took
    }
}

/// What an end says to a message.
fn answer(end: &mut Tunn, message: WgKind) -> Option<WgKind> {
    match end.handle_incoming_packet(message) {
        TunnResult::WriteToNetwork(answer) => Some(answer),
        TunnResult::Done | TunnResult::WriteToTunnel(_) => None,
        TunnResult::Err(error) => panic!("gotatun refuses its own message: {error:?}"),
    }
}
