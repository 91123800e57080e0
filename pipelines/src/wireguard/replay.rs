//! The replay window: which of the last 8,192 counters were seen (RFC 6479's ring of words).

use super::constants::REJECT_AFTER_MESSAGES;

/// How far behind the highest counter seen a counter may be and still be accepted.
///
/// One word of the ring is being reused at any time, hence 64 less than 8,192.
pub const WINDOW: u64 = 8192 - 64;
const WORDS: usize = 128;
const WORD_BITS: u64 = u64::BITS as u64;

/// Why a counter is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Replay {
    /// The counter was accepted before.
    #[error("the counter was seen before")]
    Repeated,
    /// The counter lies behind the window: whether it was seen is not known any more.
    #[error("the counter lies behind the replay window")]
    TooOld,
    /// The counter is one that no session may use (REJECT_AFTER_MESSAGES).
    #[error("the counter is beyond the session's last")]
    Exhausted,
}

/// Which counters of a session were seen.
///
/// The newest word is kept apart from the ring, so that messages in order, which are nearly all, touch the ring's
/// memory once in 64 times.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct ReplayWindow {
    /// One more than the highest counter seen; 0 before the first.
    next: u64,
    /// The word of the highest counter; what its place in the ring holds does not count.
    newest: u64,
    words: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { next: 0, newest: 0, words: [0; WORDS] }
    }
}

impl ReplayWindow {
    /// Whether `counter` would be accepted now. Changes nothing, so it may be asked about unauthenticated messages.
    pub fn check(&self, counter: u64) -> Result<(), Replay> {
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(Replay::Exhausted);
        }
        if counter >= self.next {
            return Ok(());
        }
        if self.next - 1 - counter > WINDOW {
            return Err(Replay::TooOld);
        }
        let (word, bit) = place(counter);
        let seen = if self.is_newest(counter) { self.newest } else { self.words[word] };
        if seen & bit != 0 { Err(Replay::Repeated) } else { Ok(()) }
    }

    /// Accepts `counter` if it was not seen before. Only for messages that proved authentic.
    pub fn accept(&mut self, counter: u64) -> Result<(), Replay> {
        self.check(counter)?;
        if counter >= self.next {
            self.advance(counter);
        }
        let (word, bit) = place(counter);
        if self.is_newest(counter) {
            self.newest |= bit;
        } else {
            self.words[word] |= bit;
        }
        Ok(())
    }

    /// One more than the highest counter accepted; 0 before the first.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether `counter` lies in the word of the highest, of which there is one.
    fn is_newest(&self, counter: u64) -> bool {
        counter / WORD_BITS == self.next.wrapping_sub(1) / WORD_BITS
    }

    /// Makes `counter` the highest, and empties the words that come into use again.
    fn advance(&mut self, counter: u64) {
        // Before the first counter the words are empty anyway.
        if self.next > 0 && !self.is_newest(counter) {
            let (highest, newest) = ((self.next - 1) / WORD_BITS, counter / WORD_BITS);
            self.words[highest as usize % WORDS] = self.newest;
            self.newest = 0;
            for back in 0..(newest - highest).min(WORDS as u64) {
                self.words[(newest - back) as usize % WORDS] = 0;
            }
        }
        self.next = counter + 1;
    }
}

/// The word of the ring and the bit in it that stand for `counter`. The word is below [`WORDS`].
fn place(counter: u64) -> (usize, u64) {
    ((counter / WORD_BITS) as usize % WORDS, 1 << (counter % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// The specification in a few lines: every counter ever accepted, and the highest of them.
    #[derive(Default)]
    struct Model {
        seen: HashSet<u64>,
        highest: Option<u64>,
    }

    impl Model {
        fn accept(&mut self, counter: u64) -> Result<(), Replay> {
            if counter >= REJECT_AFTER_MESSAGES {
                return Err(Replay::Exhausted);
            }
            if self.highest.is_some_and(|highest| highest > counter && highest - counter > WINDOW) {
                return Err(Replay::TooOld);
            }
            if !self.seen.insert(counter) {
                return Err(Replay::Repeated);
            }
            self.highest = self.highest.max(Some(counter));
            Ok(())
        }
    }

    #[test]
    fn each_counter_in_order_is_accepted_once() {
        let mut window = ReplayWindow::default();
        for counter in 0..20_000 {
            assert_eq!(window.accept(counter), Ok(()));
            assert_eq!(window.accept(counter), Err(Replay::Repeated));
        }
    }

    #[test]
    fn the_window_reaches_back_exactly_as_far_as_it_says() {
        let mut window = ReplayWindow::default();
        window.accept(100_000).unwrap();
        assert_eq!(window.accept(100_000 - WINDOW), Ok(()));
        assert_eq!(window.accept(100_000 - WINDOW), Err(Replay::Repeated));
        assert_eq!(window.accept(100_000 - WINDOW - 1), Err(Replay::TooOld));
    }

    #[test]
    fn the_last_counter_of_a_session_is_the_one_before_reject_after_messages() {
        let mut window = ReplayWindow::default();
        assert_eq!(window.accept(REJECT_AFTER_MESSAGES), Err(Replay::Exhausted));
        assert_eq!(window.accept(u64::MAX), Err(Replay::Exhausted));
        assert_eq!(window.accept(REJECT_AFTER_MESSAGES - 1), Ok(()));
        assert_eq!(window.accept(REJECT_AFTER_MESSAGES - 1), Err(Replay::Repeated));
    }

    #[test]
    fn a_look_changes_nothing() {
        let mut window = ReplayWindow::default();
        window.accept(5).unwrap();
        assert_eq!(window.check(1 << 40), Ok(()));
        assert_eq!(window.accept(4), Ok(()));
    }

    /// Steps around the highest counter: small, at the window's edge, and far jumps over the whole ring.
    fn step() -> impl Strategy<Value = i64> {
        let edge = WINDOW as i64;
        prop_oneof![-4i64..4, -200i64..200, (-edge - 70)..(-edge + 70), 8_100i64..8_300, 0i64..100_000]
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set_of_all_counters(
            start in prop_oneof![0u64..10_000, any::<u64>(), REJECT_AFTER_MESSAGES - 20_000..REJECT_AFTER_MESSAGES],
            steps in prop::collection::vec(step(), 1..400),
        ) {
            let (mut window, mut model) = (ReplayWindow::default(), Model::default());
            let mut highest = start;
            for step in steps {
                let counter = highest.saturating_add_signed(step);
                prop_assert_eq!(window.check(counter), window.clone().accept(counter));
                prop_assert_eq!(window.accept(counter), model.accept(counter), "counter {}", counter);
                highest = model.highest.unwrap_or(start);
            }
        }
    }
}
