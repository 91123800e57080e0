//! A session: the keys that one handshake agreed on, split into what every worker and what one worker needs.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jetway_aead::{Key, prefetch_read};

use super::constants::{REJECT_AFTER_TIME, REKEY_AFTER_TIME, REKEY_AFTER_TIME_RECEIVING};
use super::peer::Peer;
use super::replay::ReplayWindow;
use super::send_counter::SendCounter;
use crate::ids::TunnelId;
use crate::time::Instant;

/// Which part we had in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// We sent the initiation: we rekey when the session is old, and may send at once.
    Initiator,
    /// We answered: we may send once the peer has proved that it has the keys.
    Responder,
}

/// What a worker needs to encrypt to a peer. Shared by all workers.
///
/// It is one cache line, since with many peers it is fetched anew for each packet.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Session {
    /// Encrypts our data messages.
    pub key: Key,
    /// The nonces.
    pub counter: SendCounter,
    /// When the handshake ended.
    pub created: Instant,
    /// The peer's index for this session, as it goes on the wire (little-endian there).
    pub remote_index: u32,
    /// Which part we had in the handshake.
    pub role: Role,
    confirmed: AtomicBool,
}

const _: () = assert!(size_of::<Session>() == 64);

impl Session {
    /// A fresh session. A responder's is unconfirmed until [`Session::confirm`].
    pub fn new(key: Key, remote_index: u32, role: Role, created: Instant, counter: SendCounter) -> Self {
        let confirmed = AtomicBool::new(role == Role::Initiator);
        Self { key, remote_index, role, created, counter, confirmed }
    }

    /// Whether we may send with it: the peer has proved that it holds the keys.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Acquire)
    }

    /// Notes that an authentic data message of this session arrived. Returns whether that was news.
    pub fn confirm(&self) -> bool {
        !self.confirmed.load(Ordering::Relaxed) && !self.confirmed.swap(true, Ordering::AcqRel)
    }

    /// Has its memory fetched, for a look at it soon.
    pub fn prefetch(&self) {
        prefetch_read(&self.key);
    }

    /// Whether it is too old to be used at all.
    pub fn is_expired(&self, now: Instant) -> bool {
        is_expired(self.created, now)
    }

    /// Whether sending with it now should start a new handshake.
    pub fn wants_rekey(&self, now: Instant) -> bool {
        self.counter.wants_rekey() || (self.role == Role::Initiator && now.since(self.created) >= REKEY_AFTER_TIME)
    }
}

fn is_expired(created: Instant, now: Instant) -> bool {
    now.since(created) >= REJECT_AFTER_TIME
}

/// What the home worker needs to decrypt from a peer. Owned by that worker alone.
///
/// ```text
///  line 0   key | peer | session | created | local index | tunnel, role, confirmed
///  line 1   allowed source | noted | window: next, newest word, ring
///  line 2   window: the near words
/// ```
/// With many peers every line is fetched anew for each packet, so that what nearly every packet needs is in two. There may be
/// three sessions for each peer: what few of them need, a whole replay window, lies elsewhere.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Receiver {
    /// Decrypts the peer's data messages.
    pub key: Key,
    /// Whose session it is.
    pub peer: Arc<Peer>,
    /// The sending half, which a first authentic message confirms.
    pub session: Arc<Session>,
    created: Instant,
    /// Our index for this session, as it goes on the wire.
    pub local_index: u32,
    /// The peer's tunnel.
    pub tunnel: TunnelId,
    role: Role,
    /// Whether this worker has seen an authentic message.
    confirmed: bool,
    /// The inner source that the peer was last seen to be allowed, and the epoch of the tables that said so.
    pub allowed_source: Option<(u64, IpAddr)>,
    /// The second in which the worker last noted where the peer is, so that it does so once a second.
    pub noted: Option<u32>,
    /// Which counters were seen.
    pub window: ReplayWindow,
}

// The drawing above holds.
const _: () = assert!(std::mem::offset_of!(Receiver, allowed_source) == 64);
const _: () = assert!(std::mem::offset_of!(Receiver, window) == 64 + 40 && size_of::<Receiver>() == 3 * 64);

impl Receiver {
    /// The receiving half of a fresh session.
    pub fn new(key: Key, local_index: u32, peer: Arc<Peer>, session: Arc<Session>) -> Self {
        Self {
            created: session.created,
            role: session.role,
            tunnel: peer.tunnel,
            key,
            peer,
            session,
            local_index,
            confirmed: false,
            allowed_source: None,
            noted: None,
            window: ReplayWindow::default(),
        }
    }

    /// Has its memory fetched that a message in order needs.
    pub fn prefetch(&self) {
        prefetch_read(&self.key);
        prefetch_read(&self.allowed_source);
    }

    /// Has the memory fetched to which it leads: whose session it is, and what a first message confirms.
    pub fn prefetch_beyond(&self) {
        self.peer.prefetch();
        if !self.confirmed {
            self.session.prefetch();
        }
    }

    /// Whether the session is too old to be used at all.
    pub fn is_expired(&self, now: Instant) -> bool {
        is_expired(self.created, now)
    }

    /// Notes that an authentic data message arrived. Returns whether that was news to all.
    pub fn confirm(&mut self) -> bool {
        !std::mem::replace(&mut self.confirmed, true) && self.session.confirm()
    }

    /// Whether receiving with it now should start a new handshake: the initiator's last moment to have the next
    /// session ready before this one ends, if it only receives.
    pub fn wants_rekey(&self, now: Instant) -> bool {
        self.role == Role::Initiator && now.since(self.created) >= REKEY_AFTER_TIME_RECEIVING
    }
}
