//! The nonce counter of a session's sending direction, partitioned so that no two nodes can use one nonce.

use std::sync::atomic::{AtomicU64, Ordering};

use super::constants::{REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES};

/// Bits of the sequence under the generation.
pub const SEQUENCE_BITS: u32 = 48;
/// Generations stay below this, so that a counter stays below [`REJECT_AFTER_MESSAGES`] and [`REKEY_AFTER_MESSAGES`].
pub const GENERATIONS: u16 = 4096;

/// `generation << 48 | sequence`: a node that takes a session over goes on in the next generation.
///
/// Generation 0 belongs to the node that made the session, so a session that was never handed over counts
/// 0, 1, 2, ... as the protocol asks.
#[derive(Debug)]
pub struct SendCounter {
    next: AtomicU64,
    end: u64,
}

impl SendCounter {
    /// A counter at the start of `generation`; `None` if there is no such generation.
    pub fn new(generation: u16) -> Option<Self> {
        if generation >= GENERATIONS {
            return None;
        }
        let start = u64::from(generation) << SEQUENCE_BITS;
        let end = (start + (1 << SEQUENCE_BITS)).min(REJECT_AFTER_MESSAGES);
        Some(Self { next: AtomicU64::new(start), end })
    }

    /// Reserves `count` nonces in a row and gives the first; `None` once this generation is used up.
    ///
    /// Any thread may call it: no nonce is given twice.
    pub fn reserve(&self, count: u64) -> Option<u64> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        if first >= self.end || self.end - first < count {
            // Put the counter back near its end so that it cannot wrap, however often we are asked.
            self.next.fetch_max(self.end, Ordering::Relaxed);
            self.next.fetch_min(self.end, Ordering::Relaxed);
            return None;
        }
        Some(first)
    }

    /// How many messages this node sent with the session.
    pub fn sent(&self) -> u64 {
        let next = self.next.load(Ordering::Relaxed).min(self.end);
        next & ((1 << SEQUENCE_BITS) - 1)
    }

    /// Whether so many messages were sent that the initiator should rekey.
    pub fn wants_rekey(&self) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        // A generation ends before REKEY_AFTER_MESSAGES: rekey in its last sixteenth.
        next >= REKEY_AFTER_MESSAGES.min(self.end - (1 << (SEQUENCE_BITS - 4)))
    }
}
