//! Begins a WireGuard handshake with a gateway: only who holds the service's private key, and knows the prober as a
//! peer, can answer it.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use jetway_config::{PublicKey, Secret};
use jetway_pipelines::time::Instant;
use jetway_pipelines::wireguard::constants::INITIATION_SIZE;
use jetway_pipelines::wireguard::cookie::{CookieJar, Message};
use jetway_pipelines::wireguard::kdf::Secret as SharedSecret;
use jetway_pipelines::wireguard::message::{CookieReply, MessageType, Response, classify};
use jetway_pipelines::wireguard::noise::Initiator;
use jetway_pipelines::wireguard::timestamp::{Tai64n, WallClock};
use jetway_pipelines::wireguard::x25519::KeyPair;

use super::{ProbeError, udp};

/// The prober's key or the gateways' gives no handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no handshake is possible with the probe's private_key_file and the service's public_key")]
pub struct Unusable;

/// Handshakes with one gateway. A session that comes of one is never used.
pub struct Handshake {
    keys: KeyPair,
    gateway: [u8; 32],
    static_static: SharedSecret,
    born: std::time::Instant,
    past: Mutex<Past>,
}

/// What one probe leaves for the next.
#[derive(Default)]
struct Past {
    cookies: CookieJar,
    timestamp: Tai64n,
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handshake(..)")
    }
}

impl Handshake {
    /// Handshakes by `private_key` with the holder of `gateway`.
    pub fn new(private_key: &Secret, gateway: &PublicKey) -> Result<Self, Unusable> {
        let keys = KeyPair::new(private_key.expose());
        let static_static = keys.agree(&gateway.0).map_err(|_| Unusable)?;
        Ok(Self { keys, gateway: gateway.0, static_static, born: std::time::Instant::now(), past: Mutex::default() })
    }

    /// Sends an initiation and waits for its response; or for a cookie, with which the next initiation will be welcome.
    pub async fn ask(&self, to: SocketAddr) -> Result<(), ProbeError> {
        let socket = udp::connect(to).await?;
        let sender: u32 = rand::random();
        let (initiator, message) = self.initiation(sender)?;
        socket.send(&message).await?;
        let mut datagram = [0; INITIATION_SIZE];
        loop {
            let length = socket.recv(&mut datagram).await?;
            let datagram = datagram.get(..length).unwrap_or_default();
            // What is forged or old is not for us; the answer may still come.
            match classify(datagram) {
                Ok(MessageType::Response) if self.completes(&initiator, sender, datagram) => return Ok(()),
                Ok(MessageType::CookieReply) if self.takes_cookie(sender, datagram) => return Ok(()),
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn initiation(&self, sender: u32) -> Result<(Initiator, Message), ProbeError> {
        let own = |error: &dyn std::fmt::Display| ProbeError::Own(error.to_string());
        let mut ephemeral = SharedSecret::default();
        getrandom::fill(&mut *ephemeral).map_err(|error| own(&error))?;
        let wall = WallClock(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.timestamp = Tai64n::following(past.timestamp, wall);
        let timestamp = past.timestamp;
        let started = Initiator::start(&self.keys, &self.gateway, &self.static_static, sender, timestamp, &ephemeral);
        let (initiator, body) = started.map_err(|error| own(&error))?;
        Ok((initiator, past.cookies.complete(&self.gateway, &body, self.now())))
    }

    fn completes(&self, initiator: &Initiator, sender: u32, datagram: &[u8]) -> bool {
        const NO_PRESHARED_KEY: [u8; 32] = [0; 32];
        Response::parse(datagram).is_ok_and(|response| {
            response.receiver == sender && initiator.finish(&self.keys, &NO_PRESHARED_KEY, &response).is_ok()
        })
    }

    fn takes_cookie(&self, sender: u32, datagram: &[u8]) -> bool {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        CookieReply::parse(datagram).is_ok_and(|reply| {
            reply.receiver == sender && past.cookies.accept(&self.gateway, &reply, self.now()).is_ok()
        })
    }

    /// The time by which a cookie grows old.
    fn now(&self) -> Instant {
        Instant::ZERO + self.born.elapsed()
    }
}
