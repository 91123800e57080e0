//! ICMP echoes of all servers over one raw socket for each IP version.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jetway_pipelines::packet::checksum::checksum;
use jetway_pipelines::packet::icmp::{self, Icmp};
use jetway_pipelines::packet::icmpv6;
use jetway_pipelines::packet::ipv4::Ipv4;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::ProbeError;

/// Bytes of an echo: the header and the token that tells it from others.
const ECHO: usize = icmp::HEADER_LENGTH + size_of::<Token>();
/// Bytes of packets that wait for the thread, at most: the replies to all probes that may be under way at once. Those that are
/// lost for want of room would tell of servers that do not answer.
const ROOM: usize = 4 << 20;
/// What an echo brings back: random, so that nobody answers for a server without having seen the question.
type Token = u128;

/// Who waits for which token, from whom.
type Waiting = Arc<Mutex<HashMap<Token, (IpAddr, oneshot::Sender<()>)>>>;

/// Sends echoes and knows their replies.
pub struct Pinger {
    v4: OnceLock<Arc<Raw>>,
    v6: OnceLock<Arc<Raw>>,
}

struct Raw {
    /// A raw socket sends and receives messages with addresses, as one of UDP does.
    socket: UdpSocket,
    waiting: Waiting,
}

/// Forgets the question when nobody waits for its answer any more.
struct Question<'a> {
    raw: &'a Raw,
    token: Token,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        lock(&self.raw.waiting).remove(&self.token);
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<Token, (IpAddr, oneshot::Sender<()>)>> {
    // A map whose holder panicked is still a map.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pinger {
    /// Opens its sockets when they are needed.
    pub fn new() -> Self {
        Self { v4: OnceLock::new(), v6: OnceLock::new() }
    }

    /// Sends an echo and waits for its reply.
    pub async fn echo(&self, to: IpAddr) -> Result<(), ProbeError> {
        let raw = self.raw(to)?;
        let token: Token = rand::random();
        let (answered, answer) = oneshot::channel();
        lock(&raw.waiting).insert(token, (to, answered));
        let _question = Question { raw, token };
        raw.socket.send_to(&echo(to, token), SocketAddr::new(to, 0)).await?;
        // The sender is dropped only with the question.
        answer.await.map_err(|_| ProbeError::Own("the echo's socket is gone".to_owned()))
    }

    fn raw(&self, to: IpAddr) -> io::Result<&Raw> {
        let place = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        if let Some(raw) = place.get() {
            return Ok(raw);
        }
        let raw = Arc::new(Raw::open(to)?);
        let raw = place.get_or_init(|| {
            tokio::spawn(Arc::clone(&raw).read());
            raw
        });
        Ok(raw)
    }
}

impl Raw {
    fn open(to: IpAddr) -> io::Result<Self> {
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Raw, flags, protocol)?;
        // Beyond the system's limit it takes a privilege of its own; within the limit it is there for everybody.
        if setsockopt(&socket, sockopt::RcvBufForce, &ROOM).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &ROOM)?;
        }
        let socket = std::net::UdpSocket::from(socket);
        Ok(Self { socket: UdpSocket::from_std(socket)?, waiting: Waiting::default() })
    }

    /// Gives replies to those who wait for them, until the runtime ends.
    async fn read(self: Arc<Self>) {
        let mut buffer = [0; 256];
        loop {
            // An error that the kernel has for the socket (such as ENETUNREACH) says nothing of any one echo.
            let Ok((length, from)) = self.socket.recv_from(&mut buffer).await else { continue };
            let packet = buffer.get(..length).unwrap_or_default();
            if let Some(token) = reply(packet, from.ip()) {
                self.answered(from.ip(), token);
            }
        }
    }

    fn answered(&self, from: IpAddr, token: Token) {
        let mut waiting = lock(&self.waiting);
        if waiting.get(&token).is_some_and(|(asked, _)| *asked == from)
            && let Some((_, answered)) = waiting.remove(&token)
        {
            // Whoever asked may have given up.
            let _ = answered.send(());
        }
    }
}

/// An echo. The kernel computes the checksum of ICMPv6 (RFC 3542 section 3.1).
fn echo(to: IpAddr, token: Token) -> [u8; ECHO] {
    let mut message = [0; ECHO];
    let (header, payload) = message.split_at_mut(icmp::HEADER_LENGTH);
    header[0] = if to.is_ipv4() { icmp::Kind::ECHO.0 } else { icmpv6::Kind::ECHO.0 };
    payload.copy_from_slice(&token.to_be_bytes());
    if to.is_ipv4() {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// The token of a reply, in a packet as a raw socket gives it: of IPv4 with the IP header, of IPv6 without.
fn reply(packet: &[u8], from: IpAddr) -> Option<Token> {
    let (message, kind) = match from {
        IpAddr::V4(_) => {
            let header = Ipv4::parse(packet).ok()?.header_length;
            (packet.get(usize::from(header)..)?, icmp::Kind::ECHO_REPLY.0)
        }
        IpAddr::V6(_) => (packet, icmpv6::Kind::ECHO_REPLY.0),
    };
    Icmp::parse(message).filter(|header| header.kind.0 == kind)?;
    let token = message.get(icmp::HEADER_LENGTH..)?.first_chunk()?;
    Some(Token::from_be_bytes(*token))
}
