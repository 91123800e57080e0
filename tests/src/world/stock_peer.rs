//! A stock client as a library: boringtun's protocol over a UDP socket, for crowds and for packets that no daemon would send.

use super::{KeyPair, Namespace};
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// IPv4 header and ICMP echo header.
const ECHO_HEADERS: usize = 28;
const LARGEST_DATAGRAM: usize = 2048;

/// One client: its tunnel, its socket and its address inside the tunnel.
pub struct StockPeer {
    tunnel: Tunn,
    socket: UdpSocket,
    node: SocketAddr,
    address: Ipv4Addr,
    next_echo: u16,
    /// Echo requests that have no reply yet.
    waiting: Vec<u16>,
    echoes_sent: u32,
    handshakes: u32,
}

impl StockPeer {
    /// A client at `from` (outside) and `address` (inside) that talks to the node at `node`; it has sent nothing yet.
    #[track_caller]
    pub fn new(
        namespace: &Namespace,
        from: SocketAddr,
        node: SocketAddr,
        node_key: &KeyPair,
        key: &KeyPair,
        address: Ipv4Addr,
        index: u32,
    ) -> Self {
        let socket = namespace.inside(|| UdpSocket::bind(from)).unwrap_or_else(|error| panic!("{from}: {error}"));
        socket.set_nonblocking(true).expect("a socket can be made not to block");
        let secret = x25519::StaticSecret::from(key.secret().to_bytes());
        let public = x25519::PublicKey::from(*node_key.public_key().as_bytes());
        let tunnel = Tunn::new(secret, public, None, None, index, None);
        StockPeer { tunnel, socket, node, address, next_echo: 0, waiting: Vec::new(), echoes_sent: 0, handshakes: 0 }
    }

    /// Sends an initiation, even if there is a session or one is under way.
    pub fn initiate(&mut self) {
        let message = self.initiation();
        self.send(&message);
    }

    /// Makes an initiation, without sending it.
    ///
    /// # Panics
    /// If the stock implementation makes none.
    #[track_caller]
    pub fn initiation(&mut self) -> Vec<u8> {
        let mut buffer = [0; LARGEST_DATAGRAM];
        match self.tunnel.format_handshake_initiation(&mut buffer, true) {
            TunnResult::WriteToNetwork(message) => message.to_vec(),
            other => panic!("the client makes no initiation: {other:?}"),
        }
    }

    /// Handshakes that it initiated and that were completed.
    pub fn handshakes(&self) -> u32 {
        self.handshakes
    }

    /// Runs the client's timers; call it a few times a second.
    pub fn turn_timers(&mut self) {
        let mut buffer = [0; LARGEST_DATAGRAM];
        if let TunnResult::WriteToNetwork(message) = self.tunnel.update_timers(&mut buffer) {
            self.send(message);
        }
    }

    /// Seals an inner packet into a datagram, without sending it.
    ///
    /// # Panics
    /// Without a session.
    #[track_caller]
    pub fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        let mut buffer = [0; LARGEST_DATAGRAM];
        match self.tunnel.encapsulate(inner, &mut buffer) {
            TunnResult::WriteToNetwork(datagram) if datagram.first() == Some(&4) => datagram.to_vec(),
            other => panic!("the client has no session: {other:?}"),
        }
    }

    /// Sends a datagram to the node.
    pub fn send(&self, datagram: &[u8]) {
        // A full socket buffer is loss on the client's own side; a node that just ended is a refused port.
        let _ = self.socket.send_to(datagram, self.node);
    }

    /// Sends an echo request to `target` through the tunnel.
    #[track_caller]
    pub fn send_echo(&mut self, target: Ipv4Addr) {
        let sequence = self.next_echo;
        self.next_echo = self.next_echo.wrapping_add(1);
        let datagram = self.seal(&echo_request(self.address, target, sequence));
        self.send(&datagram);
        self.waiting.push(sequence);
        self.echoes_sent += 1;
    }

    /// Echo requests sent.
    pub fn echoes_sent(&self) -> u32 {
        self.echoes_sent
    }

    /// Echo requests that have no reply yet.
    pub fn echoes_unanswered(&self) -> usize {
        self.waiting.len()
    }

    /// Takes everything that has arrived; notes echo replies, answers handshakes. Returns how many datagrams came.
    pub fn receive(&mut self) -> usize {
        let (mut datagram, mut buffer) = ([0; LARGEST_DATAGRAM], [0; LARGEST_DATAGRAM]);
        let mut count = 0;
        loop {
            let length = match self.socket.recv_from(&mut datagram) {
                Ok((length, _)) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
                Err(error) => panic!("a datagram cannot be received: {error}"),
            };
            count += 1;
            let mut input = &datagram[..length];
            // After a handshake message boringtun wants to be asked until nothing is left to send.
            loop {
                match self.tunnel.decapsulate(None, input, &mut buffer) {
                    TunnResult::WriteToNetwork(message) => {
                        let _ = self.socket.send_to(message, self.node);
                        // What follows on a response is the first data message, which confirms the session.
                        self.handshakes += u32::from(input.first() == Some(&2));
                        input = &[];
                    }
                    TunnResult::WriteToTunnelV4(inner, _) => {
                        if let Some(sequence) = echo_reply(inner) {
                            self.waiting.retain(|&waiting| waiting != sequence);
                        }
                        break;
                    }
                    TunnResult::WriteToTunnelV6(..) | TunnResult::Done | TunnResult::Err(_) => break,
                }
            }
        }
    }

    /// Receives until `done` holds.
    ///
    /// # Panics
    /// After `limit`, saying `what` was waited for.
    #[track_caller]
    pub fn receive_until(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + limit;
        while !done(self) {
            assert!(Instant::now() < deadline, "waited {limit:?} in vain until {what}");
            self.receive();
            self.turn_timers();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// An ICMP echo request of 64 bytes of payload in an IPv4 packet.
pub fn echo_request(source: Ipv4Addr, target: Ipv4Addr, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0; ECHO_HEADERS + 64];
    let length = packet.len() as u16;
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[8] = 64;
    packet[9] = 1;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&target.octets());
    let checksum = internet_checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet[20] = 8;
    packet[26..28].copy_from_slice(&sequence.to_be_bytes());
    let checksum = internet_checksum(&packet[20..]);
    packet[22..24].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The sequence number of an ICMP echo reply in an IPv4 packet.
fn echo_reply(packet: &[u8]) -> Option<u16> {
    let icmp = packet.get(20..)?;
    (packet.get(9) == Some(&1) && icmp.first() == Some(&0)).then_some(())?;
    Some(u16::from_be_bytes([*icmp.get(6)?, *icmp.get(7)?]))
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
