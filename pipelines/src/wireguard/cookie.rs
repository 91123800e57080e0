//! The MACs and cookies by which a node under load makes strangers prove their addresses (paper, sections 5.3, 5.4.4
//! and 5.4.7).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use arrayvec::ArrayVec;
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use subtle::ConstantTimeEq;

use super::constants::{COOKIE_LIFETIME, COOKIE_REPLY_SIZE, INITIATION_SIZE};
use super::kdf::{Hmac, PreparedMac, Secret, hash, mac};
use super::message::{CookieReply, Initiation, MACS_SIZE, MessageType, Response, classify};
use super::timestamp::WallClock;
use crate::time::Instant;

const MAC_SIZE: usize = 16;
type Cookie = [u8; MAC_SIZE];

/// A handshake message or cookie reply, ready to be sent.
pub type Message = ArrayVec<u8, INITIATION_SIZE>;

/// The secrets behind the cookies that we give out; workers read them, the handshaker changes them.
///
/// The secret before the current one is still good, so that a cookie lives its whole two minutes.
pub struct CookieSecrets {
    secrets: ArcSwap<Secrets>,
    source: Source,
}

/// Where secrets come from.
enum Source {
    /// The handshaker's randomness.
    Random,
    /// The cluster's key and the time: a client has one cookie for all nodes that share a static key, so a gateway must
    /// take the one that a dispatcher in front of it gave out, and the other way round.
    Cluster(Secret),
}

/// Secrets that follow one another.
pub struct Secrets {
    /// How many lifetimes of a cookie lie between 1970 and these, if they are a cluster's.
    period: u64,
    current: Secret,
    previous: Secret,
    /// What another node of the cluster may be using already: its clock is a little ahead of ours.
    next: Option<Secret>,
}

impl Secrets {
    fn of_cluster(key: &Secret, period: u64) -> Self {
        let keyed = Hmac::new(key);
        let secret = |period: u64| keyed.code(&[COOKIE_SECRET_LABEL, &period.to_be_bytes()]);
        Self {
            period,
            current: secret(period),
            previous: secret(period.wrapping_sub(1)),
            next: Some(secret(period.wrapping_add(1))),
        }
    }

    /// Cookies of `from` that are good.
    fn cookies(&self, from: SocketAddr) -> impl Iterator<Item = Cookie> {
        [Some(&self.current), Some(&self.previous), self.next.as_ref()]
            .into_iter()
            .flatten()
            .map(move |secret| cookie(secret, from))
    }
}

/// What a cluster's key derives these secrets for.
const COOKIE_SECRET_LABEL: &[u8] = b"jetway cookie secret";
/// How soon a wall clock that was set is noticed.
const CLOCK_LOOKS: Duration = Duration::from_secs(10);

impl CookieSecrets {
    /// Secrets of one node alone, that begin with two random ones.
    pub fn new(current: Secret, previous: Secret) -> Self {
        let secrets = Secrets { period: 0, current, previous, next: None };
        Self { secrets: ArcSwap::from_pointee(secrets), source: Source::Random }
    }

    /// Secrets that all nodes with the same `key` derive alike, as long as their wall clocks differ by less than a
    /// cookie's lifetime.
    pub fn of_cluster(key: Secret, wall: WallClock) -> Self {
        let secrets = Secrets::of_cluster(&key, period(wall));
        Self { secrets: ArcSwap::from_pointee(secrets), source: Source::Cluster(key) }
    }

    /// Whether time alone changes them, whether or not this node gives any cookies out.
    pub fn are_of_cluster(&self) -> bool {
        matches!(self.source, Source::Cluster(_))
    }

    /// Makes the secrets those of `wall`, or the ones after the present if they are of this node alone. What comes back
    /// is kept until no worker can be reading it, and then dropped.
    pub fn renew(&self, wall: WallClock, fresh: impl FnOnce() -> Secret) -> Option<Arc<Secrets>> {
        let present = self.secrets.load();
        let next = match &self.source {
            Source::Random => Secrets { period: 0, current: fresh(), previous: present.current.clone(), next: None },
            Source::Cluster(_) if period(wall) == present.period => return None,
            Source::Cluster(key) => Secrets::of_cluster(key, period(wall)),
        };
        Some(self.secrets.swap(Arc::new(next)))
    }

    /// How long after `wall` [`CookieSecrets::renew`] wants to be called again.
    pub fn renewal_after(&self, wall: WallClock) -> Duration {
        let lifetime = COOKIE_LIFETIME.as_nanos() as u64;
        match self.source {
            Source::Random => COOKIE_LIFETIME,
            Source::Cluster(_) => Duration::from_nanos(lifetime - wall.as_nanos() % lifetime).min(CLOCK_LOOKS),
        }
    }

    fn cookie(&self, from: SocketAddr) -> Cookie {
        cookie(&self.secrets.load().current, from)
    }
}

fn period(wall: WallClock) -> u64 {
    wall.0.as_secs() / COOKIE_LIFETIME.as_secs()
}

impl std::fmt::Debug for CookieSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieSecrets(..)")
    }
}

fn cookie(secret: &Secret, from: SocketAddr) -> Cookie {
    let port = from.port().to_be_bytes();
    match from.ip() {
        IpAddr::V4(address) => mac(secret, &[&address.octets(), &port]),
        IpAddr::V6(address) => mac(secret, &[&address.octets(), &port]),
    }
}

/// Checks the MACs of messages to one tunnel, and makes its cookie replies. Workers hold one for each tunnel.
#[derive(Clone, Debug)]
pub struct CookieChecker {
    /// The MACs of initiations and of responses, without what all of them begin with.
    initiation_mac1: PreparedMac,
    response_mac1: PreparedMac,
    cookie_key: [u8; 32],
    secrets: Arc<CookieSecrets>,
}

impl CookieChecker {
    /// The checker of the tunnel whose static public key is `public_key`.
    pub fn new(public_key: &[u8; 32], secrets: Arc<CookieSecrets>) -> Self {
        let key = mac1_key(public_key);
        Self {
            initiation_mac1: PreparedMac::new(&key, &Initiation::BEGINNING),
            response_mac1: PreparedMac::new(&key, &Response::BEGINNING),
            cookie_key: cookie_key(public_key),
            secrets,
        }
    }

    /// Whether an initiation's or response's sender knows our public key.
    pub fn has_valid_mac1(&self, message: &[u8]) -> bool {
        let Some(macs) = split_macs(message) else { return false };
        let (mac1, beginning) = match macs.message {
            MessageType::Response => (&self.response_mac1, Response::BEGINNING),
            _ => (&self.initiation_mac1, Initiation::BEGINNING),
        };
        equal(&mac1.clone().code(&[&macs.body[beginning.len()..]]), macs.mac1)
    }

    /// Whether an initiation's or response's sender has shown a cookie that we gave to the address `from`.
    /// A mac2 of zeros stands for none.
    pub fn has_valid_mac2(&self, message: &[u8], from: SocketAddr) -> bool {
        let Some(macs) = split_macs(message).filter(|macs| *macs.mac2 != [0; MAC_SIZE]) else { return false };
        self.secrets.secrets.load().cookies(from).any(|cookie| equal(&mac(&cookie, &[macs.body, macs.mac1]), macs.mac2))
    }

    /// The cookie reply to an initiation or response that came from `from`; `None` to anything else.
    ///
    /// `nonce` is 24 random bytes.
    pub fn reply(&self, message: &[u8], from: SocketAddr, nonce: &[u8; 24]) -> Option<[u8; COOKIE_REPLY_SIZE]> {
        let (receiver, mac1) = match classify(message).ok()? {
            MessageType::Initiation => Initiation::parse(message).map(|m| (m.sender, m.mac1)),
            MessageType::Response => Response::parse(message).map(|m| (m.sender, m.mac1)),
            MessageType::CookieReply | MessageType::Data => return None,
        }
        .ok()?;
        let mut encrypted_cookie = [0; 32];
        let (text, tag) = encrypted_cookie.split_at_mut(MAC_SIZE);
        text.copy_from_slice(&self.secrets.cookie(from));
        let cipher = XChaCha20Poly1305::new((&self.cookie_key).into());
        tag.copy_from_slice(&cipher.encrypt_inout_detached(nonce.into(), mac1, text.into()).ok()?);
        Some(CookieReply { receiver, nonce, encrypted_cookie: &encrypted_cookie }.to_bytes())
    }
}

/// What a peer must know to be sent handshake messages: the last one's mac1, and the cookie that it gave us.
#[derive(Default)]
pub struct CookieJar {
    last_mac1: Option<[u8; MAC_SIZE]>,
    cookie: Option<(Cookie, Instant)>,
}

/// A cookie reply that was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CookieError {
    /// We have sent nothing that it could answer.
    #[error("no message of ours awaits a cookie")]
    Unexpected,
    /// It does not decrypt.
    #[error("the cookie reply is not authentic")]
    Forged,
}

impl CookieJar {
    /// Completes a message to the holder of `remote`: its body, mac1, and mac2 if we hold a fresh cookie.
    pub fn complete(&mut self, remote: &[u8; 32], body: &[u8], now: Instant) -> Message {
        let mac1 = mac(&mac1_key(remote), &[body]);
        let mac2 = match self.cookie {
            Some((cookie, received)) if now.since(received) < COOKIE_LIFETIME => mac(&cookie, &[body, &mac1]),
            Some(_) | None => [0; MAC_SIZE],
        };
        self.last_mac1 = Some(mac1);
        body.iter().chain(&mac1).chain(&mac2).copied().take(INITIATION_SIZE).collect()
    }

    /// Takes the cookie out of a reply from the holder of `remote` to our last message.
    ///
    /// As the paper asks, this does not send the message again: its retransmission will carry the cookie.
    pub fn accept(&mut self, remote: &[u8; 32], reply: &CookieReply<'_>, now: Instant) -> Result<(), CookieError> {
        let mac1 = self.last_mac1.ok_or(CookieError::Unexpected)?;
        let mut cookie: Cookie = [0; MAC_SIZE];
        let (text, tag) = reply.encrypted_cookie.split_at(MAC_SIZE);
        cookie.copy_from_slice(text);
        let tag: [u8; MAC_SIZE] = tag.try_into().map_err(|_| CookieError::Forged)?;
        XChaCha20Poly1305::new((&cookie_key(remote)).into())
            .decrypt_inout_detached(reply.nonce.into(), &mac1, cookie.as_mut_slice().into(), (&tag).into())
            .map_err(|_| CookieError::Forged)?;
        self.cookie = Some((cookie, now));
        self.last_mac1 = None;
        Ok(())
    }
}

/// The key of mac1 on messages to the holder of `public_key`.
fn mac1_key(public_key: &[u8; 32]) -> [u8; 32] {
    hash(&[b"mac1----", public_key])
}

/// The key under which the holder of `public_key` encrypts its cookies.
fn cookie_key(public_key: &[u8; 32]) -> [u8; 32] {
    hash(&[b"cookie--", public_key])
}

struct Macs<'a> {
    /// An initiation or a response.
    message: MessageType,
    body: &'a [u8],
    mac1: &'a [u8; MAC_SIZE],
    mac2: &'a [u8; MAC_SIZE],
}

/// The MACs at the end of an initiation or response; `None` if `message` is neither.
fn split_macs(message: &[u8]) -> Option<Macs<'_>> {
    let kind = classify(message).ok()?;
    if !matches!(kind, MessageType::Initiation | MessageType::Response) {
        return None;
    }
    let (body, macs) = message.split_last_chunk::<MACS_SIZE>()?;
    let (mac1, rest) = macs.split_first_chunk()?;
    Some(Macs { message: kind, body, mac1, mac2: rest.first_chunk()? })
}

fn equal(a: &[u8; MAC_SIZE], b: &[u8; MAC_SIZE]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests;
