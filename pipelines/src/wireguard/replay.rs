//! The replay window: which of the last 8,192 counters were seen (RFC 6479's ring of words).

/// Counters that the window looks back over.
pub const WINDOW: u64 = 8192 - 64;
const WORDS: usize = 128;

/// Which counters of a session were seen. Asked only about authentic messages.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// One more than the highest counter seen; 0 before the first.
    next: u64,
    words: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { next: 0, words: [0; WORDS] }
    }
}
