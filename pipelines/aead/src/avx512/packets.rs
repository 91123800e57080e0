//! The packets of a burst as vectors read them: field by field, the longest first.

use std::arch::x86_64::*;

use super::Vector;
use crate::{Key, TAG_LENGTH};

/// Packets that are worked on together.
pub(super) const WINDOW: usize = 64;

/// A packet with a longer text gains nothing here: it fills the vectors of aws-lc by itself.
pub(super) const LONGEST: usize = 16 * 1024;

/// The length of the text in a buffer. `None` for one that is not for the kernel: without room for a tag, or too long.
pub(super) fn text_length(buffer: &[u8]) -> Option<usize> {
    buffer.len().checked_sub(TAG_LENGTH).filter(|&length| length <= LONGEST)
}

/// Packets by length.
pub(super) struct Order {
    /// A length and an index of each, in one word that is larger for the longer and, among equals, for the earlier.
    words: [u32; WINDOW],
    count: usize,
    is_sorted: bool,
}

impl Order {
    pub(super) fn new() -> Self {
        const { assert!(LONGEST <= u32::MAX as usize / WINDOW) };
        Self { words: [0; WINDOW], count: 0, is_sorted: true }
    }

    /// Adds a packet; at most a window of them, with increasing indices.
    #[inline(always)]
    pub(super) fn push(&mut self, index: usize, length: usize) {
        let word = (length * WINDOW + (WINDOW - 1 - index)) as u32;
        self.is_sorted &= self.count == 0 || word < self.words[self.count - 1];
        self.words[self.count] = word;
        self.count += 1;
    }

    /// The indices, the longest packet's first. Sorts by counting for each packet how many precede it, which has no branch that
    /// could be predicted wrongly.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) fn longest_first(&self) -> impl Iterator<Item = usize> {
        let mut sorted = self.words;
        if !self.is_sorted {
            let rows = self.words.as_chunks::<16>().0;
            for &word in &self.words[..self.count] {
                let these = _mm512_set1_epi32(word as i32);
                let count_larger = |row| _mm512_cmpgt_epu32_mask(load(row), these).count_ones() as usize;
                let larger = if self.count <= 2 * 16 {
                    count_larger(&rows[0]) + count_larger(&rows[1])
                } else {
                    rows.iter().map(count_larger).sum()
                };
                sorted[larger % WINDOW] = word;
            }
        }
        sorted.into_iter().take(self.count).map(|word| WINDOW - 1 - word as usize % WINDOW)
    }
}

/// Up to a window of packets. What lies behind the last one, up to the next sixteen, repeats it: may be read, is never written.
pub(super) struct Packets<'a> {
    pub(super) count: usize,
    pub(super) keys: [&'a Key; WINDOW],
    pub(super) counters: [u64; WINDOW],
    /// Each text is followed by 16 bytes for the tag.
    pub(super) texts: [*mut u8; WINDOW],
    pub(super) lengths: [u32; WINDOW],
    /// The first word of every nonce, which is zero in WireGuard.
    pub(super) nonce_prefix: u32,
}

impl<'a> Packets<'a> {
    /// None yet. The key is any.
    #[inline(always)]
    pub(super) fn new(key: &'a Key) -> Self {
        Self {
            count: 0,
            keys: [key; WINDOW],
            counters: [0; WINDOW],
            texts: [std::ptr::null_mut(); WINDOW],
            lengths: [0; WINDOW],
            nonce_prefix: 0,
        }
    }

    /// Adds a packet, which must not be longer than those before, nor the window full. The tag follows the text.
    #[inline(always)]
    pub(super) fn push(&mut self, key: &'a Key, counter: u64, text: *mut u8, length: usize) {
        self.set(self.count, key, counter, text, length as u32);
        self.count += 1;
    }

    #[inline(always)]
    fn set(&mut self, place: usize, key: &'a Key, counter: u64, text: *mut u8, length: u32) {
        self.keys[place] = key;
        self.counters[place] = counter;
        self.texts[place] = text;
        self.lengths[place] = length;
    }

    /// Repeats the last packet up to the next sixteen.
    #[inline(always)]
    pub(super) fn pad(&mut self) {
        let Some(last) = self.count.checked_sub(1) else { return };
        let (key, counter, text, length) = (self.keys[last], self.counters[last], self.texts[last], self.lengths[last]);
        for place in self.count..self.count.next_multiple_of(16) {
            self.set(place, key, counter, text, length);
        }
    }

    /// How many of the packets have full blocks of text before their last block, which may be full as well.
    pub(super) fn with_full_blocks(&self) -> usize {
        self.lengths[..self.count].partition_point(|&length| full_blocks(length) > 0)
    }
}

/// How many blocks of 64 bytes lie before the last block of a text.
#[inline(always)]
pub(super) fn full_blocks(length: u32) -> u32 {
    length.saturating_sub(1) / 64
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub(super) fn load(words: &[u32; 16]) -> Vector {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}
