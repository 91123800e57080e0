//! Which handshake messages a worker lets through to the handshaker.

use std::fmt;
use std::net::SocketAddr;

use super::event::{Answer, HandshakeEvent, HandshakeMessage};
use super::outputs::Outputs;
use super::pipeline::Scene;
use crate::drop_reason::DropReason;
use crate::ids::TunnelId;
use crate::time::Instant;
use crate::wireguard::Endpoint;
use crate::wireguard::cookie::CookieChecker;
use crate::wireguard::load::{AddressProof, Decision, HandshakeLimiter, Known, KnownEndpoints, Limits};
use crate::wireguard::message::MessageType;

/// Endpoints that a worker remembers as those of live peers: 8 bytes each.
const KNOWN_ENDPOINTS: usize = 1 << 16;
/// Bytes of the MAC at the end of a handshake message, all zero when its sender has no cookie.
const MAC2_SIZE: usize = 16;

/// A worker's gate for handshake messages. Of fixed size, whatever comes.
pub struct Admission {
    limiter: HandshakeLimiter,
    known: KnownEndpoints,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

impl Admission {
    /// The gate of one of `workers` workers; `key` is random, so that nobody can make sources collide.
    pub fn new(workers: u16, key: [u64; 4]) -> Self {
        let limiter = HandshakeLimiter::new(Limits::of_worker(workers), key);
        Self { limiter, known: KnownEndpoints::new(KNOWN_ENDPOINTS, key) }
    }

    /// Has the memory fetched that [`Admission::remember`] of `from` needs.
    pub fn prefetch(&self, from: Endpoint) {
        self.known.prefetch(from.remote);
    }

    /// Notes where an authentic data message came from: what comes from there is not a stranger's.
    pub fn remember(&mut self, from: Endpoint, now: Instant) {
        self.known.note(now, from.remote);
    }

    /// Hands the message to the handshaker if its MACs and its source's share allow it. Returns how it is counted.
    pub fn admit<B, O: Outputs<B>>(
        &mut self,
        kind: MessageType,
        message: &[u8],
        tunnel: TunnelId,
        from: Endpoint,
        scene: &Scene<'_>,
        out: &mut O,
    ) -> DropReason {
        self.try_admit(kind, message, tunnel, from, scene, out).err().unwrap_or(DropReason::Consumed)
    }

    fn try_admit<B, O: Outputs<B>>(
        &mut self,
        kind: MessageType,
        message: &[u8],
        tunnel: TunnelId,
        from: Endpoint,
        scene: &Scene<'_>,
        out: &mut O,
    ) -> Result<(), DropReason> {
        let entry = scene.tables.tunnel(tunnel).ok_or(DropReason::WireguardNoSession)?;
        let known = self.known.knows(scene.now, from.remote);
        let answer = judge(&mut self.limiter, &entry.checker, (kind, message), from.remote, known, scene.now)?;
        let message = HandshakeMessage::try_from(message).map_err(|_| DropReason::WireguardMalformed)?;
        out.tell_handshaker(HandshakeEvent::Message { tunnel, from, message, answer })
            .map_err(|_| DropReason::WireguardQueueFull)
    }
}

/// What a handshake message from `from` is worth, by its MACs and by what `limiter` has left for its source.
pub(super) fn judge(
    limiter: &mut HandshakeLimiter,
    checker: &CookieChecker,
    (kind, message): (MessageType, &[u8]),
    from: SocketAddr,
    known: Known,
    now: Instant,
) -> Result<Answer, DropReason> {
    let proof = match kind {
        MessageType::Initiation | MessageType::Response if !checker.has_valid_mac1(message) => {
            return Err(DropReason::WireguardBadMac1);
        }
        MessageType::Initiation | MessageType::Response => proof(checker, message, from),
        MessageType::CookieReply | MessageType::Data => AddressProof::None,
    };
    match (limiter.judge(now, from, proof, known), kind) {
        (Decision::Pass, _) => Ok(Answer::Handshake),
        (Decision::AskCookie, MessageType::Initiation | MessageType::Response) => Ok(Answer::Cookie),
        (Decision::AskCookie, MessageType::CookieReply | MessageType::Data) | (Decision::Drop, _) => {
            Err(DropReason::WireguardRateLimited)
        }
    }
}

/// Checks a cookie only if there is one: most messages carry none.
pub(super) fn proof(checker: &CookieChecker, message: &[u8], from: SocketAddr) -> AddressProof {
    let has_cookie = message.last_chunk::<MAC2_SIZE>().is_some_and(|mac2| *mac2 != [0; MAC2_SIZE]);
    if has_cookie && checker.has_valid_mac2(message, from) { AddressProof::Cookie } else { AddressProof::None }
}
