//! The packets of a burst as vectors read them: field by field, the longest first.

use std::arch::x86_64::*;

use super::Vector;
use crate::{Key, TAG_LENGTH};

/// Packets that are worked on together.
pub(super) const WINDOW: usize = 64;

/// A packet with a longer text gains nothing here: it fills the vectors of aws-lc by itself.
pub(super) const LONGEST: usize = 16 * 1024;

/// The length of the text in a buffer of this length. `None` if it is not for the kernel: without room for a tag, or too long.
#[inline(always)]
pub(super) fn text_length(buffer: usize) -> Option<usize> {
    buffer.checked_sub(TAG_LENGTH).filter(|&length| length <= LONGEST)
}

/// Up to a window of packets. What lies behind the last one, up to the next sixteen, repeats it: may be read, is never written.
pub(super) struct Packets<'a> {
    pub(super) count: usize,
    pub(super) keys: [&'a Key; WINDOW],
    pub(super) counters: [u64; WINDOW],
    /// Each text is followed by 16 bytes for the tag.
    pub(super) texts: [*mut u8; WINDOW],
    pub(super) lengths: [u32; WINDOW],
    /// Where in the burst each one is.
    pub(super) jobs: [u8; WINDOW],
    /// The first word of every nonce, which is zero in WireGuard.
    pub(super) nonce_prefix: u32,
}

impl<'a> Packets<'a> {
    /// None yet. [`Packets::take`] fills it where it is, as a copy would take its time.
    #[inline(always)]
    pub(super) fn new(any_key: &'a Key) -> Self {
        Self {
            count: 0,
            keys: [any_key; WINDOW],
            counters: [0; WINDOW],
            texts: [std::ptr::null_mut(); WINDOW],
            lengths: [0; WINDOW],
            jobs: [0; WINDOW],
            nonce_prefix: 0,
        }
    }

    /// Takes those that are for the kernel, which [`text_length`] tells, of at most a window: key, counter, buffer and its length. Once.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) fn take(&mut self, jobs: impl Iterator<Item = (&'a Key, u64, *mut u8, usize)>) {
        // Local, as a sum in memory would be waited for again and again. For the same reason the loop has few variables.
        let mut count = 0;
        for (job, (key, counter, buffer, length)) in (0..WINDOW).zip(jobs) {
            let Some(length) = text_length(length) else { continue };
            self.set(count % WINDOW, (key, counter, buffer, length as u32, job as u8));
            count += 1;
        }
        self.count = count;
        if !self.is_sorted() {
            self.sort();
        }
        if let Some(last) = count.checked_sub(1) {
            for place in count..count.next_multiple_of(16) {
                self.set(place, self.get(last));
            }
        }
    }

    /// Whether none is longer than the one before. What is not there has length zero.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn is_sorted(&self) -> bool {
        let [a, b, c, d] = [0, 1, 2, 3].map(|row| load(&self.lengths.as_chunks::<16>().0[row]));
        let longer_next = |row, next_row| _mm512_cmplt_epu32_mask(row, _mm512_alignr_epi32::<1>(next_row, row));
        let none = _mm512_setzero_si512();
        (longer_next(a, b) | longer_next(b, c) | longer_next(c, d) | longer_next(d, none)) == 0
    }

    #[inline(always)]
    fn get(&self, place: usize) -> (&'a Key, u64, *mut u8, u32, u8) {
        (self.keys[place], self.counters[place], self.texts[place], self.lengths[place], self.jobs[place])
    }

    #[inline(always)]
    fn set(&mut self, place: usize, packet: (&'a Key, u64, *mut u8, u32, u8)) {
        (self.keys[place], self.counters[place], self.texts[place], self.lengths[place], self.jobs[place]) = packet;
    }

    /// Sorts by counting for each packet how many precede it, which has no branch that could be predicted wrongly.
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn sort(&mut self) {
        const { assert!(LONGEST <= u32::MAX as usize / WINDOW) };
        // A word that is larger for a longer packet and, among equals, for an earlier one. What is not there has length zero.
        let words: [u32; WINDOW] =
            std::array::from_fn(|place| self.lengths[place] * WINDOW as u32 + (WINDOW - 1 - place) as u32);
        let rows = words.as_chunks::<16>().0;
        let unsorted = Self { ..*self };
        for (place, &word) in words[..self.count].iter().enumerate() {
            let this = _mm512_set1_epi32(word as i32);
            let count_larger = |row| _mm512_cmpgt_epu32_mask(load(row), this).count_ones() as usize;
            let mut larger = count_larger(&rows[0]) + count_larger(&rows[1]);
            if self.count > 2 * 16 {
                larger += count_larger(&rows[2]) + count_larger(&rows[3]);
            }
            self.set(larger % WINDOW, unsorted.get(place));
        }
    }

    /// How many of the sixteen packets from `first` on have full blocks of text before their last block, which may be full as well.
    pub(super) fn with_full_blocks(&self, first: usize) -> usize {
        let end = self.count.min(first + 16);
        self.lengths[first..end].partition_point(|&length| full_blocks(length) > 0)
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
