//! A peer: what all threads share about it. Every field that changes is an atomic.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};

use jetway_aead::prefetch_read;

use super::endpoint::EndpointCell;
use super::session::{SendingHalf, Session, SessionCell, SessionRef};
use crate::ids::{PeerIndex, TunnelId};
use crate::time::Instant;

/// A peer of a tunnel.
///
/// Workers update it once for a run of its packets; the handshaker reads its activity to run the timers.
///
/// ```text
///  line 0   endpoint | tunnel, number | persistent keepalive, removed, handshake wanted, order of sessions
///  line 1   activity | traffic
///  line 2   what packets do not need
///  line 3   a session
///  line 4   another session
/// ```
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Peer {
    /// Where to send to.
    pub endpoint: EndpointCell,
    /// The tunnel it belongs to.
    pub tunnel: TunnelId,
    /// Its number in this process.
    pub index: PeerIndex,
    /// Seconds between persistent keepalives; 0 for none.
    pub persistent_keepalive: AtomicU16,
    removed: AtomicBool,
    handshake_wanted: AtomicBool,
    /// Which sessions there are: [`SECOND_IS_CURRENT`], [`HAS_CURRENT`] and [`HAS_NEXT`].
    order: AtomicU8,
    line_1: NextLine,
    /// When it was last heard and spoken to.
    pub activity: Activity,
    /// What went to and came from it.
    pub traffic: Traffic,
    line_2: NextLine,
    /// Its static public key.
    pub public_key: [u8; 32],
    /// The current and the next session, as `order` says.
    sessions: [SessionCell; 2],
}

/// Has the field that follows begin a cache line.
#[derive(Debug)]
#[repr(align(64))]
struct NextLine;

/// Set in the order of sessions if the current one is in the second cell, or will be when there is one.
const SECOND_IS_CURRENT: u8 = 1;
/// Set in the order of sessions if there is a current one.
const HAS_CURRENT: u8 = 1 << 1;
/// Set in the order of sessions if there is a next one, confirmed or not.
const HAS_NEXT: u8 = 1 << 2;

// The drawing above holds.
const _: () = assert!(std::mem::offset_of!(Peer, activity) == 64 && std::mem::offset_of!(Peer, public_key) == 128);
const _: () = assert!(size_of::<Peer>() == 5 * 64);

impl Peer {
    /// A peer without session or endpoint.
    pub fn new(index: PeerIndex, tunnel: TunnelId, public_key: [u8; 32]) -> Self {
        Self {
            endpoint: EndpointCell::default(),
            tunnel,
            index,
            persistent_keepalive: AtomicU16::new(0),
            removed: AtomicBool::new(false),
            handshake_wanted: AtomicBool::new(false),
            order: AtomicU8::new(0),
            line_1: NextLine,
            activity: Activity::default(),
            traffic: Traffic::default(),
            line_2: NextLine,
            public_key,
            sessions: [SessionCell::empty(), SessionCell::empty()],
        }
    }

    /// Has its memory fetched, for a look at it soon.
    pub fn prefetch(&self) {
        prefetch_read(&self.endpoint);
        prefetch_read(&self.activity);
    }

    /// Has the session fetched that is likely to be the one to send with.
    pub fn prefetch_session(&self) {
        let (current, _) = self.cells(self.order.load(Ordering::Relaxed));
        current.prefetch();
    }

    /// Has the session fetched that [`Peer::confirm`] will look at.
    pub fn prefetch_unconfirmed(&self, session: SessionRef) {
        self.cell(session).prefetch();
    }

    /// The session to send with now, if any: the next one as soon as it is confirmed, else the current one.
    ///
    /// The caller still checks its age ([`Session::is_expired`]).
    #[inline]
    pub fn sending_session(&self) -> Option<Session<'_>> {
        /// The current session's cell changes only after another was made the current one: a second look nearly always finds it.
        const ATTEMPTS: usize = 8;
        for _ in 0..ATTEMPTS {
            let order = self.order.load(Ordering::Acquire);
            let (current, next) = self.cells(order);
            // With many peers a look at a cell is a wait for memory: at most times there is one session.
            if order & HAS_NEXT != 0
                && let Some(confirmed) = next.load()
            {
                return Some(confirmed);
            }
            if order & HAS_CURRENT == 0 {
                return None;
            }
            if let Some(session) = current.load() {
                return Some(session);
            }
        }
        None
    }

    /// Makes `session` the one to send with at once, and wipes the others.
    ///
    /// Sessions are the handshaker's to change: one thread alone calls this and the three that follow.
    pub fn set_current(&self, session: &SendingHalf) -> SessionRef {
        let order = self.order.load(Ordering::Relaxed);
        // What workers may be sending with stays while the new one is written; the current one if there are two.
        let number = if order & HAS_CURRENT == 0 { order & SECOND_IS_CURRENT } else { !order & SECOND_IS_CURRENT };
        let (cell, other) = self.cells(number);
        let state = cell.store(session, true);
        self.order.store(number | HAS_CURRENT, Ordering::Release);
        other.clear();
        SessionRef { cell: number, state }
    }

    /// Makes `session` the one to send with once it is confirmed, in place of another that waited for that.
    pub fn set_next(&self, session: &SendingHalf) -> SessionRef {
        let order = self.order.load(Ordering::Relaxed);
        let (_, cell) = self.cells(order);
        let state = cell.store(session, false);
        self.order.store(order | HAS_NEXT, Ordering::Release);
        SessionRef { cell: !order & SECOND_IS_CURRENT, state }
    }

    /// Makes the next session, which was confirmed, the current one, and wipes the one before.
    pub fn promote_next(&self) {
        let order = self.order.load(Ordering::Relaxed);
        let (before, _) = self.cells(order);
        self.order.store(!order & SECOND_IS_CURRENT | HAS_CURRENT, Ordering::Release);
        before.clear();
    }

    /// Wipes all sessions.
    pub fn clear_sessions(&self) {
        self.order.store(0, Ordering::Release);
        self.sessions.iter().for_each(SessionCell::clear);
    }

    /// Whether there is a next session and it is confirmed.
    pub fn has_confirmed_next(&self) -> bool {
        let order = self.order.load(Ordering::Acquire);
        order & HAS_NEXT != 0 && self.cells(order).1.is_confirmed()
    }

    /// Notes that an authentic data message of `session` arrived. Returns whether that was news.
    pub fn confirm(&self, session: SessionRef) -> bool {
        self.cell(session).confirm(session.state)
    }

    /// The cells of the current and of the next session.
    fn cells(&self, order: u8) -> (&SessionCell, &SessionCell) {
        let [first, second] = &self.sessions;
        if order & SECOND_IS_CURRENT == 0 { (first, second) } else { (second, first) }
    }

    fn cell(&self, session: SessionRef) -> &SessionCell {
        self.cells(session.cell).0
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

#[cfg(test)]
mod tests;
