//! A stock client: boringtun behind an address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use super::Family;

/// Whether a client works on what comes to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    Good,
    None,
}

pub struct Client {
    pub public_key: [u8; 32],
    /// Its outer address now.
    pub address: SocketAddr,
    /// The node's address that it talks to.
    pub node: SocketAddr,
    pub inner_v4: IpAddr,
    pub inner_v6: IpAddr,
    /// The worker to which its datagrams come.
    pub worker: usize,
    /// The traffic class of its datagrams' outer headers.
    pub class: u8,
    /// Bytes that it pads its packets by: boringtun itself does not pad.
    pub padding: usize,
    /// Datagrams that it wants to send.
    pub outbox: Vec<Vec<u8>>,
    /// Inner packets that it received.
    pub received: Vec<Vec<u8>>,
    /// Datagrams that it received, with the traffic class of their outer header.
    pub datagrams: Vec<(u8, Vec<u8>)>,
    /// From which address of the node the last one came.
    pub heard_from: Option<SocketAddr>,
    pub hearing: Hearing,
    /// Why it refused what came.
    pub errors: Vec<WireGuardError>,
    tunn: Tunn,
}

impl Client {
    pub fn new(number: u8, family: Family, node_public_key: [u8; 32]) -> Self {
        let private = StaticSecret::from([number + 50; 32]);
        let public = PublicKey::from(&private);
        let limiter = Arc::new(RateLimiter::new(&public, 1_000_000));
        let node_key = PublicKey::from(node_public_key);
        let tunn = Tunn::new(private, node_key, None, None, u32::from(number) + 1, Some(limiter));
        let (address, node) = match family {
            Family::V4 => (format!("198.51.100.{}:4000", 10 + number), "198.51.100.1:51820"),
            Family::V6 => (format!("[2001:db8::{}]:4000", 10 + number), "[2001:db8::1]:51820"),
        };
        Self {
            public_key: public.to_bytes(),
            address: address.parse().expect("a socket address"),
            node: node.parse().expect("a socket address"),
            inner_v4: IpAddr::from([10, 8, 0, 2 + number]),
            inner_v6: format!("fd00:8::{}", 2 + number).parse().expect("an address"),
            worker: 0,
            class: 0,
            padding: 0,
            outbox: Vec::new(),
            received: Vec::new(),
            datagrams: Vec::new(),
            heard_from: None,
            hearing: Hearing::Good,
            errors: Vec::new(),
            tunn,
        }
    }

    pub fn inner(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.inner_v4,
            Family::V6 => self.inner_v6,
        }
    }

    /// A fresh initiation.
    pub fn initiation(&mut self) -> Vec<u8> {
        let mut buffer = [0; 256];
        match self.tunn.format_handshake_initiation(&mut buffer, true) {
            TunnResult::WriteToNetwork(message) => message.to_vec(),
            other => panic!("boringtun makes no initiation: {other:?}"),
        }
    }

    /// The message in which a packet goes to the node; empty for a keepalive. There has to be a session.
    pub fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut plain = packet.to_vec();
        plain.resize(packet.len() + self.padding, 0);
        let mut buffer = vec![0; plain.len() + 256];
        match self.tunn.encapsulate(&plain, &mut buffer) {
            TunnResult::WriteToNetwork(message) => {
                assert_eq!(message[0], 4, "there is no session");
                message.to_vec()
            }
            other => panic!("boringtun does not seal: {other:?}"),
        }
    }

    /// Takes in a datagram from the node.
    pub fn take(&mut self, from: SocketAddr, class: u8, payload: &[u8]) {
        self.datagrams.push((class, payload.to_vec()));
        self.heard_from = Some(from);
        match self.hearing {
            Hearing::Good => self.process(payload),
            Hearing::None => {}
        }
    }

    /// How many datagrams of a type came.
    pub fn count(&self, kind: u8) -> usize {
        self.datagrams.iter().filter(|(_, payload)| payload.first() == Some(&kind)).count()
    }

    /// Works on a datagram.
    pub fn process(&mut self, payload: &[u8]) {
        let mut buffer = vec![0; 65536];
        let mut input = payload;
        loop {
            match self.tunn.decapsulate(Some(self.node.ip()), input, &mut buffer) {
                TunnResult::WriteToNetwork(answer) => {
                    self.outbox.push(answer.to_vec());
                    input = &[];
                }
                TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                    return self.received.push(packet.to_vec());
                }
                TunnResult::Done => return,
                TunnResult::Err(error) => return self.errors.push(error),
            }
        }
    }
}
