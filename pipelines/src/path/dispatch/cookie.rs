//! A flood of handshakes to a service of gateways: what passes, and what is asked to prove its address instead.
//!
//! ```text
//! initiation or response --mac1 wrong--> dropped
//!          | by its source's share, as at the node's own tunnels (`wireguard/load.rs`)
//!          +--> to its gateway, which is not under load then
//!          +--> answered with a cookie, by which the next one shows that its source is no lie
//!          '--> dropped
//! ```
//! The cookie is made from secrets that the gateways have, too: a client keeps one for all of them, and one of them may be
//! under load by itself.

use std::fmt;
use std::net::SocketAddr;

use super::Desk;
use super::answer::put_ip_header;
use crate::buffer::PacketBuf;
use crate::dispatch::service::Gateways;
use crate::drop_reason::DropReason;
use crate::ids::WorkerId;
use crate::packet::udp::{self, Checksum};
use crate::packet::{Parsed, Protocol};
use crate::path::admission::judge;
use crate::path::event::Answer;
use crate::path::outputs::Outputs;
use crate::path::packet::{Packet, Verdict};
use crate::path::seal::HANDSHAKE_TOS;
use crate::time::Instant;
use crate::wireguard::constants::COOKIE_REPLY_SIZE;
use crate::wireguard::kdf::mac;
use crate::wireguard::load::{AddressProof, Decision, HandshakeLimiter, Known, Limits};
use crate::wireguard::message::MessageType;

/// A worker's gate for handshakes to gateways. Of fixed size: it makes at most as many cookies as its limiter has
/// buckets for sources, each with its rate: 80,000 a second.
pub struct GatewayAdmission {
    limiter: HandshakeLimiter,
    nonces: Nonces,
}

impl fmt::Debug for GatewayAdmission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayAdmission").finish_non_exhaustive()
    }
}

impl GatewayAdmission {
    /// The gate of one of `workers` workers; `key` is random and of this worker alone.
    pub fn new(workers: u16, worker: WorkerId, key: [u64; 4]) -> Self {
        Self { limiter: HandshakeLimiter::new(Limits::of_worker(workers), key), nonces: Nonces::new(worker, key) }
    }

    /// What would become of a handshake message with a right mac1 now, without any effect.
    pub fn foresee(&self, from: SocketAddr, proof: AddressProof, now: Instant) -> Decision {
        self.limiter.foresee(now, from, proof, Known::No)
    }
}

/// Nonces for cookies, each used once: the key that they are used with is all gateways' and dispatchers'.
struct Nonces {
    prefix: [u8; 16],
    count: u64,
}

impl Nonces {
    /// The key goes in under a one-way function, since others see nonces.
    fn new(WorkerId(worker): WorkerId, [a, b, c, d]: [u64; 4]) -> Self {
        let mut key = [0; 32];
        for (bytes, word) in key.as_chunks_mut().0.iter_mut().zip([a, b, c, d]) {
            *bytes = word.to_be_bytes();
        }
        Self { prefix: mac(&key, &[b"jetway cookie nonces", &worker.to_be_bytes()]), count: 0 }
    }

    fn next(&mut self) -> [u8; 24] {
        self.count = self.count.wrapping_add(1);
        let mut nonce = [0; 24];
        let (prefix, count) = nonce.split_at_mut(16);
        prefix.copy_from_slice(&self.prefix);
        count.copy_from_slice(&self.count.to_be_bytes());
        nonce
    }
}

/// Whether a handshake message may go on to a gateway, or is to be answered with a cookie.
///
/// Nobody is known here: only a gateway sees which endpoints have sessions, so their clients show cookies, too.
pub fn admit<B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'_, B>,
    kind: MessageType,
    message: &[u8],
    gateways: &Gateways,
    desk: &mut Desk<'_, '_, B, O>,
) -> Result<Answer, DropReason> {
    let from = source(&packet.parsed)?;
    let limiter = &mut desk.pipeline.gateway_admission.limiter;
    judge(limiter, &gateways.checker, (kind, message), from, Known::No, desk.scene.now)
}

/// Answers a handshake message with a cookie, from the address that it was sent to. Returns how the message is counted.
pub fn reply<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'t, B>,
    message: &[u8],
    gateways: &Gateways,
    desk: &mut Desk<'_, 't, B, O>,
) -> DropReason {
    let Ok(from) = source(&packet.parsed) else { return DropReason::ServiceMalformed };
    if desk.made.is_full() {
        return DropReason::WireguardRateLimited;
    }
    let nonce = desk.pipeline.gateway_admission.nonces.next();
    let Some(reply) = gateways.checker.reply(message, from, &nonce) else { return DropReason::WireguardMalformed };
    let Some(mut buffer) = desk.out.allocate() else { return DropReason::BufferPoolEmpty };
    let written = write(&mut buffer, &packet.parsed, &reply);
    let Some(parsed) = written.and_then(|()| Parsed::from_ip(buffer.data()).ok()) else {
        return DropReason::BufferNoRoom;
    };
    desk.pipeline.counters.created.add(1);
    desk.pipeline.counters.cookies_for_gateways.add(1);
    desk.made.push(Packet::made(buffer, parsed, Verdict::Route));
    DropReason::Consumed
}

fn source(parsed: &Parsed) -> Result<SocketAddr, DropReason> {
    let ports = parsed.ports.ok_or(DropReason::ServiceMalformed)?;
    Ok(SocketAddr::new(parsed.source, ports.source))
}

/// Writes the reply into an empty buffer as a datagram that answers `asked`.
fn write<B: PacketBuf>(buffer: &mut B, asked: &Parsed, reply: &[u8; COOKIE_REPLY_SIZE]) -> Option<()> {
    const LENGTH: usize = udp::HEADER_LENGTH + COOKIE_REPLY_SIZE;
    let ports = asked.ports?.swapped();
    let (source, destination) = (asked.destination, asked.source);
    buffer.grow_back(LENGTH).ok()?;
    let put_header = |buffer: &mut B, checksum| {
        let header = buffer.data_mut().first_chunk_mut()?;
        udp::write(header, ports.source, ports.destination, LENGTH as u16, checksum);
        Some(())
    };
    put_header(buffer, Checksum::None)?;
    *buffer.data_mut().last_chunk_mut()? = *reply;
    let checksum = udp::checksum_of(source, destination, buffer.data());
    put_header(buffer, Checksum::Value(checksum))?;
    put_ip_header(buffer, source, destination, Protocol::UDP, HANDSHAKE_TOS)
}
