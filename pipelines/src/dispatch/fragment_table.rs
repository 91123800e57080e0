//! A worker's memory of fragmented datagrams: later fragments go where the first one went, and overlapping ones nowhere.
//!
//! Only first fragments have ports, so they alone are decided on. What comes before its first fragment is not remembered here:
//! a flood of later fragments takes no place. All memory is taken when the table is made; a datagram for which no place
//! is left takes that of the oldest.

mod range;

use range::{Arrival, Received};
pub use range::{FragmentRange, MAX_FRAGMENTS, Rest};

use crate::packet::Protocol;
use crate::time::Instant;
use std::time::Duration;

/// How long a datagram is remembered after its first fragment: as Linux does. RFC 8200 section 4.5 lets receivers wait
/// 60 s; a sender's identifications come round sooner than that (RFC 4963).
pub const LIFETIME: Duration = Duration::from_secs(30);

/// A first fragment that is there already is a copy that the network made if it comes within this time, and else a new
/// datagram whose sender's identifications came round (RFC 4963: at 64,000 datagrams a second for IPv4).
pub const COPY_WITHIN: Duration = Duration::from_secs(1);

/// Where a list ends.
const NONE: u32 = u32::MAX;

/// Most datagrams of a table.
const MAX_DATAGRAMS: usize = 1 << 24;

/// What tells a datagram from others under way (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DatagramKey {
    /// The sender, of IPv4 as an IPv4-mapped address.
    pub source: [u8; 16],
    /// The receiver, likewise.
    pub destination: [u8; 16],
    /// The identification, 16 bits in IPv4.
    pub identification: u32,
    /// What the datagram carries. IPv6 does not tell datagrams apart by it; one that changes is then another's.
    pub protocol: Protocol,
    /// Where the fragments come from, if that matters.
    pub origin: u16,
}

/// Why a fragment must be dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// It, or an earlier fragment of its datagram, overlaps another or contradicts the datagram's end (RFC 5722,
    /// RFC 8200 section 4.5).
    Overlap,
    /// Its datagram has more than [`MAX_FRAGMENTS`] fragments.
    TooMany,
    /// It could write over a TCP header's flags, or keep them out of the first fragment (RFC 1858 section 3.2).
    Tiny,
}

/// What becomes of a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict<T> {
    /// It goes where this says.
    Known(T),
    /// It came before its first fragment, or late.
    Unknown,
    /// It has come before. It is to be dropped, and the rest of the datagram is not affected: RFC 8200 section 4.5
    /// allows this, as networks do duplicate packets.
    Duplicate,
    /// It must be dropped.
    Refused(Refusal),
}

/// Whether a datagram goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State<T> {
    Follow(T),
    Refused(Refusal),
}

/// A datagram of which a fragment may come.
#[derive(Clone, Copy, Debug)]
struct Datagram<T> {
    key: DatagramKey,
    state: State<T>,
    began: Instant,
    received: Received,
    /// The next of its chain, or of the free ones.
    next: u32,
    /// The neighbours by age.
    older: u32,
    newer: u32,
}

/// A table of datagrams whose first fragment came, each with what was decided for it.
#[derive(Debug)]
pub struct FragmentTable<T> {
    hasher: ahash::RandomState,
    /// The first datagram of each hash.
    chains: Box<[u32]>,
    /// Never longer than its capacity at the start.
    datagrams: Vec<Datagram<T>>,
    capacity: usize,
    free: u32,
    oldest: u32,
    newest: u32,
    live: usize,
}

impl<T: Copy> FragmentTable<T> {
    /// A table for `capacity` datagrams at once that hashes under `key`, so that nobody outside can make chains long.
    pub fn new(capacity: usize, key: [u64; 4]) -> Self {
        let [k0, k1, k2, k3] = key;
        let capacity = capacity.clamp(1, MAX_DATAGRAMS);
        Self {
            hasher: ahash::RandomState::with_seeds(k0, k1, k2, k3),
            chains: vec![NONE; capacity.next_power_of_two()].into_boxed_slice(),
            datagrams: Vec::with_capacity(capacity),
            capacity,
            free: NONE,
            oldest: NONE,
            newest: NONE,
            live: 0,
        }
    }

    /// Takes note of a first fragment, for which `decision` was made. The verdict says what becomes of it: `Known` of
    /// the same decision, unless it is refused or a copy. `range` begins at 0.
    pub fn first(&mut self, key: &DatagramKey, range: FragmentRange, decision: T, now: Instant) -> Verdict<T> {
        self.expire(now);
        if let Some(index) = self.find(key, now) {
            match self.arrive(index, range) {
                Verdict::Duplicate if self.age(index, now) > COPY_WITHIN => self.forget(index),
                verdict => return verdict,
            }
        }
        // Until RFC 1858's attack is possible, the header with all flags has to be in the first fragment.
        let tiny = key.protocol == Protocol::TCP && range.end() < TCP_HEADER;
        let state = if tiny { State::Refused(Refusal::Tiny) } else { State::Follow(decision) };
        let mut received = Received::new();
        received.arrive(range);
        if received.is_complete() && !tiny {
            // Nothing follows an atomic fragment (RFC 6946).
            return Verdict::Known(decision);
        }
        self.remember(Datagram { key: *key, state, began: now, received, next: NONE, older: NONE, newer: NONE });
        if tiny { Verdict::Refused(Refusal::Tiny) } else { Verdict::Known(decision) }
    }

    /// What becomes of a fragment that is not the first.
    pub fn later(&mut self, key: &DatagramKey, range: FragmentRange, now: Instant) -> Verdict<T> {
        self.expire(now);
        let Some(index) = self.find(key, now) else { return Verdict::Unknown };
        self.arrive(index, range)
    }

    /// Whether the first fragment of this datagram came, and others may come.
    pub fn knows(&self, key: &DatagramKey, now: Instant) -> bool {
        self.find(key, now).is_some()
    }

    /// Datagrams that are remembered.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no datagram is remembered.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Most datagrams that are remembered at once.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// A fragment of a datagram that is there; a datagram that it completes is forgotten.
    fn arrive(&mut self, index: u32, range: FragmentRange) -> Verdict<T> {
        let Some(datagram) = self.datagrams.get_mut(index as usize) else { return Verdict::Unknown };
        let decision = match datagram.state {
            State::Refused(refusal) => return Verdict::Refused(refusal),
            State::Follow(decision) => decision,
        };
        let tiny = datagram.key.protocol == Protocol::TCP && (1..TCP_HEADER).contains(&range.start());
        let arrival = if tiny { Arrival::Refused(Refusal::Tiny) } else { datagram.received.arrive(range) };
        match arrival {
            Arrival::New => {
                if datagram.received.is_complete() {
                    self.forget(index);
                }
                Verdict::Known(decision)
            }
            Arrival::Copy => Verdict::Duplicate,
            Arrival::Refused(refusal) => {
                datagram.state = State::Refused(refusal);
                Verdict::Refused(refusal)
            }
        }
    }

    fn age(&self, index: u32, now: Instant) -> Duration {
        self.datagrams.get(index as usize).map_or(Duration::ZERO, |datagram| now.since(datagram.began))
    }

    /// Takes back the places of datagrams whose time is over: of two at most, so that a fragment's work is bounded.
    /// That is more than one fragment can take.
    fn expire(&mut self, now: Instant) {
        for _ in 0..2 {
            if self.oldest == NONE || self.age(self.oldest, now) <= LIFETIME {
                return;
            }
            self.forget(self.oldest);
        }
    }

    fn chain(&self, key: &DatagramKey) -> usize {
        // A power of two of them.
        self.hasher.hash_one(key) as usize & (self.chains.len() - 1)
    }

    /// The datagram of this key, if its time is not over.
    fn find(&self, key: &DatagramKey, now: Instant) -> Option<u32> {
        let mut index = *self.chains.get(self.chain(key))?;
        while let Some(datagram) = self.datagrams.get(index as usize) {
            // One whose time is over may be in front of or behind a new one of its key.
            if datagram.key == *key && now.since(datagram.began) <= LIFETIME {
                return Some(index);
            }
            index = datagram.next;
        }
        None
    }

    /// Gives a datagram a place: a free one, or that of the oldest.
    fn remember(&mut self, mut datagram: Datagram<T>) {
        if self.free == NONE && self.datagrams.len() == self.capacity {
            self.forget(self.oldest);
        }
        let chain = self.chain(&datagram.key);
        let Some(head) = self.chains.get_mut(chain) else { return };
        datagram.next = *head;
        datagram.older = self.newest;
        let index = match self.datagrams.get_mut(self.free as usize) {
            Some(place) => {
                let index = self.free;
                self.free = place.next;
                *place = datagram;
                index
            }
            None => {
                // Within the capacity that was taken at the start: nothing is allocated.
                self.datagrams.push(datagram);
                (self.datagrams.len() - 1) as u32
            }
        };
        *head = index;
        match self.datagrams.get_mut(self.newest as usize) {
            Some(newest) => newest.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
        self.live += 1;
    }

    /// Takes a datagram out of its chain and of the order by age, and its place back.
    fn forget(&mut self, index: u32) {
        let Some(&Datagram { key, next, older, newer, .. }) = self.datagrams.get(index as usize) else { return };
        let chain = self.chain(&key);
        let mut before = self.chains.get(chain).copied().unwrap_or(NONE);
        if before == index {
            if let Some(head) = self.chains.get_mut(chain) {
                *head = next;
            }
        } else {
            while let Some(datagram) = self.datagrams.get_mut(before as usize) {
                if datagram.next == index {
                    datagram.next = next;
                    break;
                }
                before = datagram.next;
            }
        }
        match self.datagrams.get_mut(older as usize) {
            Some(datagram) => datagram.newer = newer,
            None => self.oldest = newer,
        }
        match self.datagrams.get_mut(newer as usize) {
            Some(datagram) => datagram.older = older,
            None => self.newest = older,
        }
        if let Some(datagram) = self.datagrams.get_mut(index as usize) {
            datagram.next = self.free;
            self.free = index;
        }
        self.live -= 1;
    }
}

/// Bytes of a TCP header up to its checksum, with all flags: rounded to where fragments may be cut.
const TCP_HEADER: u32 = 16;

#[cfg(test)]
mod tests;
