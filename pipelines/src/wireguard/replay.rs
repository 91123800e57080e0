//! The replay window: which of the last 8,192 counters were seen (RFC 6479's ring of words).

mod spare;
#[cfg(test)]
mod tests;

pub use spare::{Crate, READY, SpareWindows};

use super::constants::REJECT_AFTER_MESSAGES;

/// How far behind the highest counter seen a counter may be and still be accepted.
///
/// One word of the ring is being reused at any time, hence 64 less than 8,192.
pub const WINDOW: u64 = 8192 - 64;
const WORDS: u64 = 128;
/// Words that every session has: the newest ones.
const NEAR_WORDS: u64 = 8;
const WORD_BITS: u64 = u64::BITS as u64;
/// The word of 64 counters that all count as seen.
const COMPLETE: u64 = u64::MAX;

/// Why a counter is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Replay {
    /// The counter was accepted before, or counts as if it was.
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
/// ```text
///   0 ..................... newest word - 7 ........ newest word
///   all seen: not stored  |  near: 7 words of 64   |  apart        without a ring
///   ..... a ring of 128 words ..................   |  apart        with one
/// ```
/// Most sessions lose nothing, or end before they have had 448 messages. Behind the near words all their counters were
/// seen, which takes no memory to remember. Only when a word leaves the near ones while a counter in it is still missing,
/// the session takes a [`Ring`] from those that its worker keeps ready. Should there be none, the missing counters count as
/// seen: the window is narrower then, and never accepts a counter twice.
///
/// The newest word is kept apart from both, so that messages in order, which are nearly all, touch other memory once in 64
/// times.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct ReplayWindow {
    /// One more than the highest counter seen; 0 before the first.
    next: u64,
    /// The word of the highest counter; what its place in the ring or among the near words holds does not count.
    newest: u64,
    ring: Option<Box<Ring>>,
    /// Without a ring, the word of each number from the newest less 7 on, at its number's remainder. Words before these are
    /// complete.
    near: [u64; NEAR_WORDS as usize],
}

/// The words of a whole window, each at its number's remainder.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Ring([u64; WORDS as usize]);

impl Ring {
    /// Memory for a window.
    pub fn new() -> Box<Self> {
        Box::new(Self([0; WORDS as usize]))
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { next: 0, newest: 0, ring: None, near: [0; NEAR_WORDS as usize] }
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
        if self.word(counter / WORD_BITS) & bit(counter) != 0 { Err(Replay::Repeated) } else { Ok(()) }
    }

    /// Accepts `counter` if it was not seen before. Only for messages that proved authentic.
    #[inline]
    pub fn accept(&mut self, counter: u64, spare: &mut SpareWindows) -> Result<(), Replay> {
        // Messages in order are nearly all, and all but one in 64 of them begin no word.
        if counter == self.next && counter < REJECT_AFTER_MESSAGES && !counter.is_multiple_of(WORD_BITS) {
            self.newest |= bit(counter);
            self.next = counter + 1;
            return Ok(());
        }
        self.accept_anywhere(counter, spare)
    }

    /// [`ReplayWindow::accept`] for counters that may come in any order.
    #[inline(never)]
    fn accept_anywhere(&mut self, counter: u64, spare: &mut SpareWindows) -> Result<(), Replay> {
        self.check(counter)?;
        if counter >= self.next {
            self.advance(counter, spare);
        }
        let word = counter / WORD_BITS;
        if Some(word) == self.newest_word() {
            self.newest |= bit(counter);
        } else {
            // It is no complete word, since the counter was not seen: so it is among the near ones if there is no ring.
            let reach = self.reach();
            self.words()[place(word, reach)] |= bit(counter);
        }
        Ok(())
    }

    /// One more than the highest counter accepted; 0 before the first.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Ends the session: nothing is accepted any more, and its memory is for others.
    pub fn end(&mut self, spare: &mut SpareWindows) {
        // Every counter that a session may use lies behind this window.
        self.next = u64::MAX;
        self.ring = self.ring.take().and_then(|ring| spare.put_back(ring));
    }

    /// The number of the word of the highest counter; `None` before the first.
    fn newest_word(&self) -> Option<u64> {
        self.next.checked_sub(1).map(|highest| highest / WORD_BITS)
    }

    /// How many words are stored, the newest among them.
    fn reach(&self) -> u64 {
        if self.ring.is_some() { WORDS } else { NEAR_WORDS }
    }

    /// The words that are stored; their number is a power of two.
    fn words(&mut self) -> &mut [u64] {
        match &mut self.ring {
            Some(ring) => &mut ring.0,
            None => &mut self.near,
        }
    }

    /// The word of this number, which is not behind the window.
    fn word(&self, number: u64) -> u64 {
        match (self.newest_word(), &self.ring) {
            (Some(newest), _) if number == newest => self.newest,
            (_, Some(ring)) => ring.0[place(number, WORDS)],
            (Some(newest), None) if number + NEAR_WORDS <= newest => COMPLETE,
            (_, None) => self.near[place(number, NEAR_WORDS)],
        }
    }

    /// Makes `counter` the highest, and empties the words that come into use again.
    fn advance(&mut self, counter: u64, spare: &mut SpareWindows) {
        let newest = counter / WORD_BITS;
        if self.newest_word() != Some(newest) {
            if self.ring.is_none() && self.loses_missing(newest) {
                self.widen(spare);
            }
            self.begin_word(newest);
        }
        self.next = counter + 1;
    }

    /// Whether a counter is missing in a word that is no longer near once the newest is `newest`.
    fn loses_missing(&self, newest: u64) -> bool {
        let Some(leaving) = newest.checked_sub(NEAR_WORDS) else { return false };
        let Some(before) = self.newest_word() else { return true };
        leaving > before
            || (before.saturating_sub(NEAR_WORDS - 1)..=leaving).any(|number| self.word(number) != COMPLETE)
    }

    /// Goes over to a ring, if there is one left, with all that is known.
    fn widen(&mut self, spare: &mut SpareWindows) {
        let Some(mut ring) = spare.take() else { return };
        match self.newest_word() {
            // Before the first counter nothing was seen.
            None => ring.0.fill(0),
            Some(newest) => {
                ring.0.fill(COMPLETE);
                for number in newest.saturating_sub(NEAR_WORDS - 1)..newest {
                    ring.0[place(number, WORDS)] = self.near[place(number, NEAR_WORDS)];
                }
            }
        }
        self.ring = Some(ring);
    }

    /// Puts the newest word to the others and begins the word of number `newest`.
    fn begin_word(&mut self, newest: u64) {
        // Before the first counter the words are empty.
        if let Some(before) = self.newest_word() {
            let (reach, last) = (self.reach(), self.newest);
            let words = self.words();
            words[place(before, reach)] = last;
            for back in 0..(newest - before).min(reach) {
                words[place(newest - back, reach)] = 0;
            }
        }
        self.newest = 0;
    }
}

/// Where the word of this number stands among `words` words: below `words`.
fn place(number: u64, words: u64) -> usize {
    (number % words) as usize
}

/// The bit of `counter` in its word.
fn bit(counter: u64) -> u64 {
    1 << (counter % WORD_BITS)
}
