//! Against boringtun, an independent implementation of WireGuard, in both roles.

use std::net::IpAddr;
use std::sync::Arc;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use super::world::*;
use crate::wireguard::message::{MessageType, classify};

/// The second node of the world is boringtun; the world's own second node stays out of it.
struct Stock {
    tunnel: Box<Tunn>,
    world: World,
    received: Vec<Vec<u8>>,
}

fn ipv4(length: usize) -> Vec<u8> {
    let mut packet = vec![0xab; length];
    packet[..20].copy_from_slice(&[
        0x45,
        0,
        (length >> 8) as u8,
        length as u8,
        0,
        0,
        0,
        0,
        64,
        17,
        0,
        0,
        10,
        0,
        0,
        1,
        10,
        0,
        0,
        2,
    ]);
    packet
}

impl Stock {
    /// `handshakes` a second are answered by boringtun without a cookie.
    fn new(seed: u64, preshared_key: Option<[u8; 32]>, handshakes: u64) -> Self {
        let world = World::new(seed, preshared_key);
        let private = StaticSecret::from([2; 32]);
        let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&private), handshakes));
        let remote = PublicKey::from(world.nodes[0].public);
        let tunnel = Tunn::new(private, remote, preshared_key, None, 77, Some(limiter));
        Self { tunnel: Box::new(tunnel), world, received: Vec::new() }
    }

    /// Hands every datagram to the other side until nobody sends any more.
    fn exchange(&mut self) -> Vec<MessageType> {
        let mut seen = Vec::new();
        loop {
            let datagrams = self.world.intercept();
            if datagrams.is_empty() {
                return seen;
            }
            for datagram in datagrams {
                seen.push(classify(&datagram.payload).unwrap());
                self.give_stock(&datagram.payload, &mut seen);
            }
        }
    }

    fn give_stock(&mut self, payload: &[u8], seen: &mut Vec<MessageType>) {
        let from: IpAddr = self.world.nodes[0].address.ip();
        let mut buffer = [0; 2048];
        let mut input = payload;
        loop {
            match self.tunnel.decapsulate(Some(from), input, &mut buffer) {
                TunnResult::WriteToNetwork(answer) => {
                    let answer = answer.to_vec();
                    seen.push(classify(&answer).unwrap());
                    self.take_from_stock(answer);
                    input = &[];
                }
                TunnResult::WriteToTunnelV4(packet, _) => return self.received.push(packet.to_vec()),
                TunnResult::WriteToTunnelV6(..) => panic!("no IPv6 was sent"),
                TunnResult::Done => return,
                TunnResult::Err(error) => panic!("boringtun refuses what we sent: {error:?}"),
            }
        }
    }

    fn take_from_stock(&mut self, payload: Vec<u8>) {
        let (from, to) = (self.world.nodes[1].address, self.world.nodes[0].address);
        self.world.receive(0, &Datagram { from, to, payload });
        assert!(self.world.nodes[0].drops.is_empty(), "{:?}", self.world.nodes[0].drops);
        assert!(self.world.nodes[0].errors.is_empty(), "{:?}", self.world.nodes[0].errors);
    }

    /// boringtun sends a packet, or an initiation if it has no session.
    fn send_from_stock(&mut self, packet: &[u8]) {
        let mut buffer = [0; 2048];
        match self.tunnel.encapsulate(packet, &mut buffer) {
            TunnResult::WriteToNetwork(message) => {
                let message = message.to_vec();
                self.take_from_stock(message);
            }
            _ => panic!("boringtun sent nothing"),
        }
    }

    fn assert_packets_flow(&mut self) {
        for length in [20, 21, 36, 576, 1420] {
            self.world.send(0, &ipv4(length));
            self.exchange();
            assert_eq!(self.received.last(), Some(&ipv4(length)));
            self.send_from_stock(&ipv4(length));
            let received = self.world.nodes[0].received.last().unwrap();
            assert_eq!(received[..length], ipv4(length));
        }
    }
}

#[test]
fn as_initiator_we_make_a_session_with_a_stock_peer() {
    for preshared_key in [None, Some([3; 32])] {
        let mut stock = Stock::new(1, preshared_key, 100);
        stock.world.send(0, &ipv4(100));
        let seen = stock.exchange();
        use MessageType::{Data, Initiation, Response};
        assert_eq!(seen, [Initiation, Response, Data, Data]);
        assert_eq!(stock.received, [ipv4(100)]);
        stock.assert_packets_flow();
    }
}

#[test]
fn as_responder_we_make_a_session_with_a_stock_peer() {
    for preshared_key in [None, Some([3; 32])] {
        let mut stock = Stock::new(2, preshared_key, 100);
        stock.send_from_stock(&ipv4(100));
        stock.exchange();
        assert_eq!(stock.world.nodes[0].received.len(), 1, "the packet that waited in the stock peer");
        stock.assert_packets_flow();
    }
}

#[test]
fn a_stock_peer_under_load_gets_our_cookie() {
    let mut stock = Stock::new(3, None, 0);
    stock.world.send(0, &ipv4(100));
    assert_eq!(stock.exchange(), [MessageType::Initiation, MessageType::CookieReply]);
    stock.world.network.delay = 100 * SECOND;
    stock.world.run(6 * SECOND);
    let seen = stock.exchange();
    assert_eq!(seen[..2], [MessageType::Initiation, MessageType::Response]);
    assert_eq!(stock.received, [ipv4(100)]);
}

#[test]
fn a_stock_peer_gives_us_the_cookie_that_we_ask_for() {
    let mut stock = Stock::new(4, None, 100);
    stock.world.nodes[0].under_load = true;
    stock.send_from_stock(&ipv4(100));
    assert_eq!(stock.exchange(), [MessageType::CookieReply]);
    let mut buffer = [0; 2048];
    let TunnResult::WriteToNetwork(retry) = stock.tunnel.format_handshake_initiation(&mut buffer, true) else {
        panic!("no retry");
    };
    let retry = retry.to_vec();
    stock.take_from_stock(retry);
    let seen = stock.exchange();
    assert_eq!(seen[0], MessageType::Response, "{seen:?}");
    assert_eq!(stock.world.nodes[0].received.len(), 1);
}
