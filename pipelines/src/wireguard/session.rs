//! The sending half of a session: what any worker needs to encrypt to a peer.
//!
//! It lies in its peer, in a cell of plain atomics that one thread fills and empties and all may read: a sequence lock, as of
//! the peer's endpoint. A reader works without a lock and then looks whether the cell still holds the session that it began with;
//! only then does it use what it read. So no worker keeps a session from being wiped, and none frees one.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use jetway_aead::{Key, prefetch_read};
use zeroize::Zeroize;

use super::constants::{REJECT_AFTER_TIME, REKEY_AFTER_TIME};
use super::send_counter::SendCounter;
use crate::time::Instant;

/// Which part we had in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// We sent the initiation: we rekey when the session is old, and may send at once.
    Initiator,
    /// We answered: we may send once the peer has proved that it has the keys.
    Responder,
}

/// What a handshake agreed on for the way to the peer.
#[derive(Debug)]
pub struct SendingHalf {
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
}

/// Set in a cell's state while it is changed.
const CHANGING: u32 = 1;
/// Set in a cell's state if it holds a session.
const PRESENT: u32 = 1 << 1;
/// Set in a cell's state if the peer has proved that it holds the session's keys, so that we may send with it.
const CONFIRMED: u32 = 1 << 2;
/// Set in a cell's state if we sent the initiation.
const INITIATOR: u32 = 1 << 3;
/// Counts changes in a cell's state, above the other bits: no reader is held up for 2^28 handshakes with one peer.
const CHANGE: u32 = 1 << 4;

/// Holds one session of a peer after another. It is one cache line, since with many peers it is fetched anew for each packet.
#[repr(C, align(64))]
pub(super) struct SessionCell {
    key: [AtomicU64; 4],
    counter: SendCounter,
    created: AtomicU64,
    remote_index: AtomicU32,
    /// [`CHANGING`], [`PRESENT`], [`CONFIRMED`], [`INITIATOR`] and the count of changes.
    state: AtomicU32,
}

const _: () = assert!(size_of::<SessionCell>() == 64);

impl SessionCell {
    /// A cell without a session.
    pub const fn empty() -> Self {
        Self {
            key: [const { AtomicU64::new(0) }; 4],
            counter: SendCounter::ended(),
            created: AtomicU64::new(0),
            remote_index: AtomicU32::new(0),
            state: AtomicU32::new(0),
        }
    }

    /// Has its memory fetched, for a look at it soon.
    pub fn prefetch(&self) {
        prefetch_read(&self.key);
    }

    /// The session in it, if there is one to send with.
    #[inline]
    pub fn load(&self) -> Option<Session<'_>> {
        let state = self.state.load(Ordering::Acquire);
        let created = Instant::from_nanos(self.created.load(Ordering::Relaxed));
        let remote_index = self.remote_index.load(Ordering::Relaxed);
        let is_usable = state & (CHANGING | PRESENT | CONFIRMED) == PRESENT | CONFIRMED;
        (is_usable && self.still_holds(state)).then_some(Session { cell: self, state, created, remote_index })
    }

    /// Whether all that was read from the cell since it had `state` is of one session.
    #[inline(always)]
    fn still_holds(&self, state: u32) -> bool {
        // Pairs with the fence in `change`: who has read anything that was written after that sees at least `CHANGING` now.
        fence(Ordering::Acquire);
        self.state.load(Ordering::Relaxed) == state
    }

    /// Puts a session in place of what is there. Returns its state, unconfirmed.
    ///
    /// One thread alone may call this and [`SessionCell::clear`].
    pub fn store(&self, half: &SendingHalf, is_confirmed: bool) -> u32 {
        let role = if half.role == Role::Initiator { INITIATOR } else { 0 };
        let confirmed = if is_confirmed { CONFIRMED } else { 0 };
        self.change(half, PRESENT | role | confirmed)
    }

    /// Wipes the session that is there, if any.
    pub fn clear(&self) {
        if self.state.load(Ordering::Relaxed) & PRESENT != 0 {
            let nothing = SendingHalf {
                key: Key::new(&[0; 32]),
                counter: SendCounter::ended(),
                created: Instant::ZERO,
                remote_index: 0,
                role: Role::Responder,
            };
            self.change(&nothing, 0);
        }
    }

    fn change(&self, half: &SendingHalf, flags: u32) -> u32 {
        let before = self.state.load(Ordering::Relaxed);
        debug_assert!(before & CHANGING == 0, "two threads change one peer's sessions");
        self.state.store(before | CHANGING, Ordering::Relaxed);
        // Whoever sees one of the stores below sees that of `CHANGING` too.
        fence(Ordering::Release);
        for (cell, word) in self.key.iter().zip(half.key.to_words()) {
            cell.store(word, Ordering::Relaxed);
        }
        self.counter.restart(&half.counter);
        self.created.store(half.created.as_nanos(), Ordering::Relaxed);
        self.remote_index.store(half.remote_index, Ordering::Relaxed);
        let state = (before & !(CHANGE - 1)).wrapping_add(CHANGE) | flags;
        self.state.store(state, Ordering::Release);
        state & !CONFIRMED
    }

    /// Notes that the peer has proved to hold the keys of the session that was stored with `state`. Returns whether that was news.
    pub fn confirm(&self, state: u32) -> bool {
        // Anything else in the cell is either confirmed or another session.
        self.state.compare_exchange(state, state | CONFIRMED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether there is a session with which we may send.
    pub fn is_confirmed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CONFIRMED != 0
    }
}

impl Drop for SessionCell {
    fn drop(&mut self) {
        self.key.iter_mut().for_each(|word| word.get_mut().zeroize());
    }
}

impl fmt::Debug for SessionCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCell").field("session", &self.load()).finish_non_exhaustive()
    }
}

/// The session to send with, as it was found in its peer: it may be replaced at any time.
#[derive(Clone, Copy)]
pub struct Session<'p> {
    cell: &'p SessionCell,
    state: u32,
    /// When the handshake ended.
    pub created: Instant,
    /// The peer's index for this session, as it goes on the wire (little-endian there).
    pub remote_index: u32,
}

/// Why a session gives no nonces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoNonces {
    /// It has used up its own.
    UsedUp,
    /// Another one took its place since it was found. Look again.
    Replaced,
}

impl Session<'_> {
    /// Which part we had in the handshake.
    pub fn role(&self) -> Role {
        role(self.state)
    }

    /// Whether it is too old to be used at all.
    pub fn is_expired(&self, now: Instant) -> bool {
        is_expired(self.created, now)
    }

    /// Whether sending with it now should start a new handshake.
    pub fn wants_rekey(&self, now: Instant) -> bool {
        self.cell.counter.wants_rekey()
            || (self.role() == Role::Initiator && now.since(self.created) >= REKEY_AFTER_TIME)
    }

    /// How many messages this node sent with it.
    pub fn sent(&self) -> u64 {
        self.cell.counter.sent()
    }

    /// Reserves `count` nonces in a row and gives the first, with a copy of the key in `key`.
    ///
    /// Any thread may call it: no nonce is given twice. All that are given together with a key are of that key's session: the
    /// cell had it before and after the counter was raised. If it did not, `key` is left without meaning, and the nonces
    /// that were taken from the session which came instead are never used.
    #[inline]
    pub fn reserve(&self, count: u64, key: &mut Key) -> Result<u64, NoNonces> {
        let first = self.cell.counter.reserve(count);
        *key = Key::from_words(std::array::from_fn(|index| self.cell.key[index].load(Ordering::Relaxed)));
        if !self.cell.still_holds(self.state) {
            return Err(NoNonces::Replaced);
        }
        first.ok_or(NoNonces::UsedUp)
    }
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (role, sent) = (self.role(), self.sent());
        let mut f = f.debug_struct("Session");
        f.field("remote_index", &self.remote_index).field("role", &role).field("created", &self.created);
        f.field("sent", &sent).finish()
    }
}

/// Stands for one session among all that its peer will have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionRef {
    /// The number of the cell into which it was put.
    pub(super) cell: u8,
    /// The cell's state then.
    pub(super) state: u32,
}

impl SessionRef {
    /// Which part we had in the handshake.
    pub(super) fn role(self) -> Role {
        role(self.state)
    }
}

fn role(state: u32) -> Role {
    if state & INITIATOR == 0 { Role::Responder } else { Role::Initiator }
}

/// Whether a session of this age is too old to be used at all.
pub(super) fn is_expired(created: Instant, now: Instant) -> bool {
    now.since(created) >= REJECT_AFTER_TIME
}
