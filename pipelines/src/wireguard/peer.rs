//! A peer: what all threads share about it. Every field that changes is an atomic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use jetway_aead::{prefetch_address, prefetch_read};

use super::endpoint::EndpointCell;
use super::session::Session;
use crate::ids::{PeerIndex, TunnelId};
use crate::time::Instant;

/// A peer of a tunnel.
///
/// Workers update it once for a run of its packets; the handshaker reads its activity to run the timers.
///
/// ```text
///  line 0   endpoint | next session | address of the current one | tunnel | removed, has next, handshake wanted
///  line 1   activity | traffic | current session
///  line 2   what packets do not need
/// ```
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Peer {
    /// Where to send to.
    pub endpoint: EndpointCell,
    next: ArcSwapOption<Session>,
    /// Where the current session is, or was a moment ago: only good for a prefetch, but cheaper than a look at the session.
    current_address: AtomicUsize,
    /// The tunnel it belongs to.
    pub tunnel: TunnelId,
    removed: AtomicBool,
    /// Whether there is a next session: cheaper than a look at it.
    has_next: AtomicBool,
    handshake_wanted: AtomicBool,
    /// When it was last heard and spoken to.
    pub activity: Activity,
    /// What went to and came from it.
    pub traffic: Traffic,
    current: ArcSwapOption<Session>,
    /// Its static public key.
    pub public_key: [u8; 32],
    /// Its number in this process.
    pub index: PeerIndex,
    /// Seconds between persistent keepalives; 0 for none.
    pub persistent_keepalive: AtomicU16,
}

// The drawing above holds.
const _: () = assert!(std::mem::offset_of!(Peer, activity) == 64 && std::mem::offset_of!(Peer, public_key) == 128);

impl Peer {
    /// A peer without session or endpoint.
    pub fn new(index: PeerIndex, tunnel: TunnelId, public_key: [u8; 32]) -> Self {
        Self {
            endpoint: EndpointCell::default(),
            next: ArcSwapOption::empty(),
            current_address: AtomicUsize::new(0),
            tunnel,
            removed: AtomicBool::new(false),
            has_next: AtomicBool::new(false),
            handshake_wanted: AtomicBool::new(false),
            activity: Activity::default(),
            traffic: Traffic::default(),
            current: ArcSwapOption::empty(),
            public_key,
            index,
            persistent_keepalive: AtomicU16::new(0),
        }
    }

    /// Has its memory fetched, for a look at it soon.
    pub fn prefetch(&self) {
        prefetch_read(&self.endpoint);
        prefetch_read(&self.activity);
    }

    /// Has the session fetched that is likely to be the one to send with.
    pub fn prefetch_session(&self) {
        prefetch_address(self.current_address.load(Ordering::Relaxed));
    }

    /// The session to send with now, if any: the next one as soon as it is confirmed, else the current one.
    ///
    /// The caller still checks its age ([`Session::is_expired`]).
    pub fn sending_session(&self) -> Guard<Option<Arc<Session>>> {
        if self.has_next.load(Ordering::Acquire) {
            let next = self.next.load();
            if next.as_ref().is_some_and(|session| session.is_confirmed()) {
                return next;
            }
        }
        self.current.load()
    }

    /// Makes `session` the one to send with, and returns what it replaces.
    ///
    /// The handshaker's call; what comes back must be kept until every worker has passed a quiescent point,
    /// so that no worker frees it.
    pub fn set_current(&self, session: Option<Arc<Session>>) -> Option<Arc<Session>> {
        let address = session.as_ref().map_or(0, |session| Arc::as_ptr(session).addr());
        self.current_address.store(address, Ordering::Relaxed);
        self.current.swap(session)
    }

    /// Makes `session` the one to send with once it is confirmed. As for [`Peer::set_current`], keep what comes back.
    pub fn set_next(&self, session: Option<Arc<Session>>) -> Option<Arc<Session>> {
        let has_next = session.is_some();
        let before = self.next.swap(session);
        self.has_next.store(has_next, Ordering::Release);
        before
    }

    /// Stops all traffic of this peer at once; there is no way back.
    pub fn remove(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// Whether the peer was removed: nothing may be sent to or accepted from it.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Asks for a handshake. Returns whether the caller is the first to ask since
    /// [`Peer::handshake_answered`], and so has to tell the handshaker.
    pub fn want_handshake(&self) -> bool {
        !self.handshake_wanted.load(Ordering::Relaxed) && !self.handshake_wanted.swap(true, Ordering::AcqRel)
    }

    /// Opens the way for the next [`Peer::want_handshake`].
    pub fn handshake_answered(&self) {
        self.handshake_wanted.store(false, Ordering::Release);
    }
}

/// When a peer was heard and spoken to; [`Instant::ZERO`] stands for "not".
#[derive(Debug, Default)]
pub struct Activity {
    unanswered_sent: AtomicU64,
    unanswered_received: AtomicU64,
    last_sent: AtomicU64,
    last_received: AtomicU64,
}

impl Activity {
    /// Notes authentic messages from the peer, `with_data` if one of them was more than a keepalive.
    pub fn received(&self, now: Instant, content: Content) {
        self.last_received.store(now.as_nanos(), Ordering::Relaxed);
        clear(&self.unanswered_sent);
        if content == Content::Data {
            set_if_clear(&self.unanswered_received, now);
        }
    }

    /// Notes authenticated messages sent to the peer.
    pub fn sent(&self, now: Instant, content: Content) {
        self.last_sent.store(now.as_nanos(), Ordering::Relaxed);
        clear(&self.unanswered_received);
        if content == Content::Data {
            set_if_clear(&self.unanswered_sent, now);
        }
    }

    /// Ends the wait for an answer to what we sent: the next data that is sent begins a new one.
    pub fn forget_unanswered_sent(&self) {
        clear(&self.unanswered_sent);
    }

    /// Ends the wait for something to send in answer: the next data that comes begins a new one.
    pub fn forget_unanswered_received(&self) {
        clear(&self.unanswered_received);
    }

    /// Since when we have sent data and heard nothing at all.
    pub fn unanswered_sent(&self) -> Option<Instant> {
        get(&self.unanswered_sent)
    }

    /// Since when we have received data and sent nothing at all.
    pub fn unanswered_received(&self) -> Option<Instant> {
        get(&self.unanswered_received)
    }

    /// When anything authenticated was last sent.
    pub fn last_sent(&self) -> Option<Instant> {
        get(&self.last_sent)
    }

    /// When anything authentic was last received.
    pub fn last_received(&self) -> Option<Instant> {
        get(&self.last_received)
    }
}

/// Whether a message carried a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// A packet.
    Data,
    /// Nothing: a keepalive or a handshake message.
    Empty,
}

fn get(cell: &AtomicU64) -> Option<Instant> {
    match cell.load(Ordering::Relaxed) {
        0 => None,
        nanos => Some(Instant::from_nanos(nanos)),
    }
}

/// Writes only on a change, so that the line stays shared between workers.
fn clear(cell: &AtomicU64) {
    if cell.load(Ordering::Relaxed) != 0 {
        cell.store(0, Ordering::Relaxed);
    }
}

fn set_if_clear(cell: &AtomicU64, now: Instant) {
    if cell.load(Ordering::Relaxed) == 0 {
        cell.store(now.as_nanos().max(1), Ordering::Relaxed);
    }
}

/// A peer's traffic, counted in WireGuard's messages: what `wg show` gives as transfer.
///
/// Several workers may send to one peer, so these are added to atomically, once for a run of packets.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of data messages received.
    pub received_bytes: AtomicU64,
    /// Bytes of data messages sent.
    pub sent_bytes: AtomicU64,
    /// Wall clock of the last completed handshake, in nanoseconds since 1970; 0 for never.
    pub last_handshake: AtomicU64,
}

impl Traffic {
    /// Adds bytes that came from the peer.
    pub fn received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes that went to the peer.
    pub fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
