//! What a server last said of its load, from the health thread to the node.

use std::sync::atomic::{AtomicU64, Ordering};

/// The last word of a server on its load, for who follows it.
#[derive(Debug, Default)]
pub struct LoadCell(AtomicU64);

/// Set when there is a word that was not taken.
const FRESH: u64 = 1 << 63;

impl LoadCell {
    /// Puts a load from 0 to 1 there, in place of what was not taken.
    pub fn put(&self, load: f64) {
        self.0.store(FRESH | load.clamp(0.0, 1.0).to_bits(), Ordering::Relaxed);
    }

    /// Takes what is there; `None` if nothing came since the last time.
    pub fn take(&self) -> Option<f64> {
        let word = self.0.swap(0, Ordering::Relaxed);
        // The sign bit of a float, which no load has.
        (word & FRESH != 0).then(|| f64::from_bits(word & !FRESH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_taken_once_and_the_last_counts() {
        let cell = LoadCell::default();
        assert_eq!(cell.take(), None);
        cell.put(0.0);
        assert_eq!((cell.take(), cell.take()), (Some(0.0), None));
        cell.put(0.25);
        cell.put(1.5);
        assert_eq!(cell.take(), Some(1.0));
    }
}
