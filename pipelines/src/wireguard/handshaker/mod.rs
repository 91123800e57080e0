//! The handshaker: everything of WireGuard that is not a data message, for all tunnels, without I/O or a clock.
//!
//! One thread owns it. Messages, wishes and the time go in by `handle_*`; what to do comes out of
//! [`Handshaker::poll_output`]. Workers and the handshaker meet in the atomics of [`Peer`](super::Peer).

mod burst;
mod counters;
mod initiator;
mod output;
mod peers;
mod responder;
mod sessions;
mod slots;
mod timers;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use jetway_aead::Aead;
use rand::CryptoRng;

pub use counters::HandshakeCounters;
pub use output::Output;

use self::peers::PeerState;
use self::slots::Slots;
use super::cookie::{CookieChecker, CookieError, CookieSecrets, Secrets};
use super::endpoint::Endpoint;
use super::index::IndexLayout;
use super::kdf::Secret;
use super::message::Malformed;
use super::noise::NoiseError;

use super::timestamp::WallClock;
use super::x25519::KeyPair;
use crate::ids::{PeerIndex, SlotIndex, TunnelId, WorkerId};
use crate::time::Instant;

/// What a handshaker is made of.
pub struct Settings {
    /// How receiver indices are made; workers have the same layout.
    pub layout: IndexLayout,
    /// How many receive slots each worker has; the layout's number if that is less. A peer may take four at once: three
    /// sessions and a handshake, and a fifth for as long as a worker takes to empty one.
    pub slots_per_worker: u32,
    /// Makes the keys of sessions.
    pub aead: Aead,
    /// Where secrets come from: the operating system's generator, or a seeded one in tests.
    pub randomness: Box<dyn CryptoRng + Send>,
    /// The secrets behind cookies, which workers read and the handshaker renews.
    pub cookie_secrets: Arc<CookieSecrets>,
}

/// What to do with a handshake message that a worker hands over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CookieRequest {
    /// Work on it: its sender is no stranger, has proved its address, or there is no load.
    None,
    /// Only send a cookie to where it came from.
    Reply,
}

/// A handshake message with a valid mac1, as a worker hands it over.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The tunnel to which it came.
    pub tunnel: TunnelId,
    /// Who sent it.
    pub from: Endpoint,
    /// The worker that received it.
    pub worker: WorkerId,
    /// The datagram's payload.
    pub message: &'a [u8],
    /// What to do with it.
    pub cookie: CookieRequest,
}

/// Why a message led to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It came for a tunnel that does not exist (any more).
    #[error("there is no such tunnel")]
    UnknownTunnel,
    /// It is no WireGuard message.
    #[error("the message is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// It is a data message, which is not the handshaker's.
    #[error("a data message is not part of a handshake")]
    NotHandshake,
    /// It does not authenticate.
    #[error(transparent)]
    Noise(#[from] NoiseError),
    /// Its static key belongs to no peer of the tunnel.
    #[error("no peer of the tunnel has the initiator's key")]
    UnknownPeer,
    /// It answers no handshake or session of ours.
    #[error("the message answers nothing that we sent")]
    Unexpected,
    /// Its timestamp is not greater than the greatest seen from the peer.
    #[error("the initiation was sent before")]
    Replayed,
    /// The peer's previous initiation was less than 20 ms ago.
    #[error("the peer initiates too often")]
    TooOften,
    /// The worker's receive slots are all taken.
    #[error("no receive slot is free")]
    NoSlot,
    /// The node takes no new peers in: it is being drained.
    #[error("the node is draining, and the peer has no session")]
    Draining,
    /// A cookie reply that was refused.
    #[error(transparent)]
    Cookie(#[from] CookieError),
}

/// Why a peer was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddPeerError {
    /// Its tunnel was not added before.
    #[error("the peer's tunnel does not exist")]
    UnknownTunnel,
    /// Another peer has its number.
    #[error("the peer's number is taken")]
    IndexTaken,
    /// Another peer of the tunnel has its public key.
    #[error("another peer of the tunnel has this public key")]
    KeyTaken,
    /// Its public key is the tunnel's own.
    #[error("the peer's public key is the tunnel's own")]
    OwnKey,
}

/// The handshakes, sessions and timers of all peers of all tunnels.
pub struct Handshaker {
    peers: Vec<Option<Box<PeerState>>>,
    by_key: BTreeMap<(TunnelId, [u8; 32]), PeerIndex>,
    timers: BTreeSet<(Instant, PeerIndex)>,
    cookie_rotation: Option<Instant>,
    retired_cookies: Option<Arc<Secrets>>,
    intake: Intake,
    counters: Arc<HandshakeCounters>,
    resources: Resources,
}

/// Whether peers without a session may get one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Intake {
    Open,
    Draining,
}

/// What the handling of one peer needs besides that peer.
struct Resources {
    aead: Aead,
    randomness: Box<dyn CryptoRng + Send>,
    cookie_secrets: Arc<CookieSecrets>,
    tunnels: HashMap<TunnelId, Tunnel, ahash::RandomState>,
    slots: Slots,
    outputs: VecDeque<Output>,
    wall: WallClock,
    wall_read: Instant,
}

struct Tunnel {
    keys: KeyPair,
    checker: CookieChecker,
}

impl Resources {
    fn random_secret(&mut self) -> Secret {
        let mut secret = Secret::default();
        self.randomness.fill_bytes(secret.as_mut_slice());
        secret
    }

    /// The wall clock at `now`, from when it was last told.
    fn wall(&self, now: Instant) -> WallClock {
        WallClock(self.wall.0 + now.since(self.wall_read))
    }
}

/// Where a handshake message came from.
#[derive(Clone, Copy)]
struct Origin {
    tunnel: TunnelId,
    from: Endpoint,
    worker: WorkerId,
}

impl Handshaker {
    /// A handshaker without tunnels.
    pub fn new(settings: Settings) -> Self {
        let Settings { layout, slots_per_worker, aead, randomness, cookie_secrets } = settings;
        Self {
            peers: Vec::new(),
            by_key: BTreeMap::new(),
            timers: BTreeSet::new(),
            cookie_rotation: cookie_secrets.are_of_cluster().then_some(Instant::ZERO),
            retired_cookies: None,
            intake: Intake::Open,
            counters: Arc::default(),
            resources: Resources {
                aead,
                randomness,
                cookie_secrets,
                tunnels: HashMap::default(),
                slots: Slots::new(layout, slots_per_worker),
                outputs: VecDeque::new(),
                wall: WallClock::default(),
                wall_read: Instant::ZERO,
            },
        }
    }

    /// What becomes of the messages that it gets.
    pub fn counters(&self) -> Arc<HandshakeCounters> {
        Arc::clone(&self.counters)
    }

    /// Works on one message, as [`Handshaker::handle_messages`] does on many.
    #[expect(clippy::too_many_arguments, reason = "a message with all that is known of it")]
    pub fn handle_message(
        &mut self,
        now: Instant,
        wall: WallClock,
        tunnel: TunnelId,
        from: Endpoint,
        worker: WorkerId,
        message: &[u8],
        cookie: CookieRequest,
    ) -> Result<(), HandshakeError> {
        let mut outcome = Ok(());
        let received = Received { tunnel, from, worker, message, cookie };
        self.handle_messages(now, wall, &[received], |_, error| outcome = Err(error));
        outcome
    }

    /// Starts a handshake because a worker has a packet and no session, or a session wants to be replaced.
    pub fn handle_wanted(&mut self, now: Instant, wall: WallClock, peer: PeerIndex) {
        self.tell_time(now, wall);
        self.with_peer(now, peer, |peer, resources| peer.want_session(now, resources));
    }

    /// From now on answers only peers that have a live session: those stay and rekey, everyone else finds another node.
    pub fn drain(&mut self) {
        self.intake = Intake::Draining;
    }

    /// Notes that the session of `local_index` brought its first authentic data message, at its home worker.
    pub fn handle_confirmed(&mut self, now: Instant, peer: PeerIndex, local_index: u32) {
        self.with_peer(now, peer, |peer, resources| peer.confirm_session(now, local_index, resources));
    }

    /// Notes that a worker emptied a slot as [`Output::RemoveReceiver`] asked: it may be used again.
    pub fn receiver_removed(&mut self, worker: WorkerId, slot: SlotIndex) {
        self.resources.slots.removed(worker, slot);
    }

    /// The next thing to do, in order; `None` when there is nothing left.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.resources.outputs.pop_front()
    }

    /// How many receive slots are taken, or left and not yet reported empty.
    pub fn slots_in_use(&self) -> usize {
        self.resources.slots.in_use()
    }

    fn tell_time(&mut self, now: Instant, wall: WallClock) {
        self.resources.wall = wall;
        self.resources.wall_read = now;
    }

    fn peer(&self, index: PeerIndex) -> Option<&PeerState> {
        self.peers.get(index.index())?.as_deref()
    }

    /// Does something with a peer, if it exists, and looks at its timers afterwards.
    fn with_peer<T>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        act: impl FnOnce(&mut PeerState, &mut Resources) -> T,
    ) -> Option<T> {
        let peer = self.peers.get_mut(index.index())?.as_mut()?;
        peer.notice_confirmation(now, &mut self.resources);
        let result = act(peer, &mut self.resources);
        peer.schedule(now, &mut self.timers);
        Some(result)
    }

    fn reply_cookie(&mut self, now: Instant, origin: Origin, message: &[u8]) -> Result<(), HandshakeError> {
        self.rotate_cookies(now);
        let resources = &mut self.resources;
        let tunnel = resources.tunnels.get(&origin.tunnel).ok_or(HandshakeError::UnknownTunnel)?;
        let mut nonce = [0; 24];
        resources.randomness.fill_bytes(&mut nonce);
        let reply = tunnel.checker.reply(message, origin.from.remote, &nonce).ok_or(HandshakeError::NotHandshake)?;
        resources.outputs.push_back(Output::Send {
            tunnel: origin.tunnel,
            peer: None,
            to: origin.from,
            message: reply.into_iter().collect(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
