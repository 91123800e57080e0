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
    end: AtomicU64,
}

impl SendCounter {
    /// A counter at the start of `generation`; `None` if there is no such generation.
    pub fn new(generation: u16) -> Option<Self> {
        if generation >= GENERATIONS {
            return None;
        }
        let start = u64::from(generation) << SEQUENCE_BITS;
        let end = (start + (1 << SEQUENCE_BITS)).min(REJECT_AFTER_MESSAGES);
        Some(Self { next: AtomicU64::new(start), end: AtomicU64::new(end) })
    }

    /// A counter that has nothing to give.
    pub const fn ended() -> Self {
        Self { next: AtomicU64::new(0), end: AtomicU64::new(0) }
    }

    /// Goes on where `other` is. Whoever reserves at the same time must find out by itself of which of the two that was.
    pub fn restart(&self, other: &Self) {
        self.next.store(other.next.load(Ordering::Relaxed), Ordering::Relaxed);
        self.end.store(other.end.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Reserves `count` nonces in a row and gives the first; `None` once this generation is used up.
    ///
    /// Any thread may call it: no nonce is given twice.
    #[inline]
    pub fn reserve(&self, count: u64) -> Option<u64> {
        // The first look keeps a counter near its end, so that it cannot wrap however often it is asked.
        let has_room = |first| self.end.load(Ordering::Relaxed).checked_sub(first).is_some_and(|left| count <= left);
        if !has_room(self.next.load(Ordering::Relaxed)) {
            return None;
        }
        Some(self.next.fetch_add(count, Ordering::Relaxed)).filter(|first| has_room(*first))
    }

    /// How many messages this node sent with the session.
    pub fn sent(&self) -> u64 {
        let next = self.next.load(Ordering::Relaxed).min(self.end.load(Ordering::Relaxed));
        next & ((1 << SEQUENCE_BITS) - 1)
    }

    /// Whether so many messages were sent that the initiator should rekey.
    pub fn wants_rekey(&self) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        // A generation ends before REKEY_AFTER_MESSAGES: rekey in its last sixteenth.
        next >= REKEY_AFTER_MESSAGES.min(self.end.load(Ordering::Relaxed).saturating_sub(1 << (SEQUENCE_BITS - 4)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn a_generation_gives_its_own_nonces_and_no_others() {
        assert!(SendCounter::new(GENERATIONS).is_none());
        let counter = SendCounter::new(5).expect("there is such a generation");
        assert_eq!((counter.reserve(2), counter.sent()), (Some(5 << SEQUENCE_BITS), 2));
        assert_eq!(counter.reserve((1 << SEQUENCE_BITS) - 2), Some((5 << SEQUENCE_BITS) + 2));
        for _ in 0..3 {
            assert_eq!([u64::MAX, u64::MAX, 1].map(|count| counter.reserve(count)), [None; 3]);
        }
        assert!(counter.wants_rekey());
        counter.restart(&SendCounter::new(4).expect("there is such a generation"));
        assert_eq!((counter.reserve(1), counter.wants_rekey()), (Some(4 << SEQUENCE_BITS), false));
        assert_eq!(SendCounter::ended().reserve(1), None);
    }

    #[test]
    fn threads_that_ask_for_the_last_nonces_at_once_get_none_that_are_not_there() {
        const ROUNDS: usize = 100;
        const LEFT: u64 = 30_000;
        const COUNT: u64 = 3;
        let end = 1 << SEQUENCE_BITS;
        for _ in 0..ROUNDS {
            let counter = SendCounter::new(0).expect("there is a generation 0");
            assert!(counter.reserve(end - LEFT).is_some());
            let together = Barrier::new(2);
            let ask = || {
                together.wait();
                std::iter::from_fn(|| counter.reserve(COUNT)).collect::<Vec<_>>()
            };
            let mut all = thread::scope(|scope| {
                let other = scope.spawn(ask);
                [ask(), other.join().expect("a thread")].concat()
            });
            all.sort_unstable();
            let expected: Vec<_> = (0..LEFT / COUNT).map(|turn| end - LEFT + turn * COUNT).collect();
            assert_eq!(all, expected);
        }
    }
}
