//! The packets of a burst as vectors read them: field by field, sixteen packets at a time, the longest first.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::Vector;
use super::fields::{Fields, Job, at};
use crate::TAG_LENGTH;

/// Packets that are sorted together.
pub(super) const WINDOW: usize = 64;

/// Packets of a [`Row`].
pub(super) const ROW: usize = 16;

/// A packet with a longer text gains nothing here: it fills the vectors of aws-lc by itself.
pub(super) const LONGEST: usize = 16 * 1024;

/// The order of packets that need no sorting.
const AS_THEY_COME: [u8; WINDOW] = {
    let mut places = [0; WINDOW];
    let mut place = 0;
    while place < WINDOW {
        places[place] = place as u8;
        place += 1;
    }
    places
};

/// The length of the text in a buffer of this length. `None` if it is not for the kernel: without room for a tag, or too long.
#[inline(always)]
pub(super) fn text_length(buffer: usize) -> Option<usize> {
    buffer.checked_sub(TAG_LENGTH).filter(|&length| length <= LONGEST)
}

/// Which jobs of a window are for the kernel, in the order in which it works on them.
pub(super) struct Order<'a> {
    pub(super) count: usize,
    /// Their places in the window. What lies behind the last one, up to the next sixteen, repeats it.
    places: [u8; WINDOW],
    /// Whether they are as they come.
    is_usual: bool,
    /// Of the jobs as they come, up to the last of them.
    fields: [MaybeUninit<Fields<'a>>; WINDOW / ROW],
}

/// Up to sixteen packets. What lies behind the last one repeats it: may be read, is never written.
pub(super) struct Row<'a> {
    pub(super) count: usize,
    pub(super) fields: Fields<'a>,
    /// The first word of every nonce, which is zero in WireGuard.
    pub(super) nonce_prefix: u32,
}

impl<'a> Order<'a> {
    /// Of no jobs.
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { count: 0, places: AS_THEY_COME, is_usual: true, fields: [MaybeUninit::uninit(); WINDOW / ROW] }
    }

    /// Takes the jobs of a window, at most [`WINDOW`] of them. Apart from [`Order::new`], as one that is returned would be copied.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) fn read<J: Job<'a>>(&mut self, jobs: &mut [J]) {
        self.count = jobs.len().min(WINDOW);
        let mut is_usual = true;
        let mut longest = _mm512_set1_epi32(LONGEST as i32);
        for (place, jobs) in self.fields.iter_mut().zip(jobs.chunks_mut(ROW)) {
            let fields = match jobs.as_chunks_mut::<ROW>().0 {
                [jobs] => {
                    let jobs = jobs.as_mut_ptr();
                    // SAFETY: elements of the array.
                    place.write(unsafe { Fields::of(|lane| jobs.add(lane)) })
                }
                _ => place.write(Fields::of_few(jobs)),
            };
            let lengths = load(fields.lengths());
            let before = _mm512_alignr_epi32::<15>(lengths, longest);
            is_usual &= _mm512_cmpgt_epu32_mask(lengths, before) == 0;
            longest = lengths;
        }
        // If nothing is longer than what is before it, nothing is too long.
        self.is_usual = is_usual;
        if !is_usual {
            self.sort();
        }
        if !self.count.is_multiple_of(ROW) {
            let last = self.places[self.count - 1];
            let row = &mut self.places.as_chunks_mut::<ROW>().0[self.count / ROW];
            row[self.count % ROW..].fill(last);
        }
    }

    /// How many rows of packets there are.
    pub(super) fn rows(&self) -> usize {
        self.count.div_ceil(ROW)
    }

    /// The places of the packets of a row.
    #[inline(always)]
    pub(super) fn places(&self, row: usize) -> &[u8] {
        &self.places[row * ROW..self.count.min(row * ROW + ROW)]
    }

    /// The jobs of a row, if they are sixteen, and as they come.
    pub(super) fn as_they_come<'j, J>(&self, jobs: &'j mut [J], row: usize) -> Option<&'j mut [J; ROW]> {
        jobs.as_chunks_mut().0.get_mut(row).filter(|_| self.is_usual)
    }

    /// Sorts by counting for each packet how many precede it, which has no branch that could be predicted wrongly.
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn sort(&mut self) {
        const { assert!((LONGEST + 1) * WINDOW <= u32::MAX as usize) };
        // A word that is larger for a longer packet and, among equals, for an earlier one; zero for what is not for the kernel.
        let mut words = [[0; ROW]; WINDOW / ROW];
        let mut earlier = _mm512_setr_epi32(64, 63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49);
        let rows = self.count.div_ceil(ROW);
        let mut count = 0;
        let mut left = u64::MAX >> (WINDOW - self.count);
        for (words, fields) in words.iter_mut().zip(&self.fields).take(rows) {
            // SAFETY: each row with jobs was written.
            let lengths = load(unsafe { fields.assume_init_ref() }.lengths());
            let is_for_us = _mm512_mask_cmple_epu32_mask(left as u16, lengths, _mm512_set1_epi32(LONGEST as i32));
            left >>= ROW;
            let word = _mm512_maskz_add_epi32(is_for_us, _mm512_slli_epi32::<6>(lengths), earlier);
            // SAFETY: 64 bytes.
            unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), word) };
            earlier = _mm512_sub_epi32(earlier, _mm512_set1_epi32(ROW as i32));
        }
        let rows = words.as_slice().split_at(rows).0;
        for (place, &word) in words.as_flattened()[..self.count].iter().enumerate() {
            let this = _mm512_set1_epi32(word as i32);
            let larger = |row| _mm512_cmpgt_epu32_mask(load(row), this).count_ones() as usize;
            let rank: usize = rows.iter().map(larger).sum();
            // What is not for the kernel comes behind the rest.
            self.places[rank % WINDOW] = place as u8;
            count += usize::from(word != 0);
        }
        self.count = count;
    }
}

impl<'a> Row<'a> {
    /// A row of the packets of a window, whose order it is.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) fn take<J: Job<'a>>(jobs: &mut [J], order: &Order<'a>, row: usize) -> Self {
        let count = order.places(row).len();
        assert!(count > 0, "row {row} has no packets");
        if order.is_usual {
            // SAFETY: each row with jobs was written.
            let fields = unsafe { *order.fields[row].assume_init_ref() };
            return Self { count, fields, nonce_prefix: 0 };
        }
        Self::take_sorted(jobs, &order.places.as_chunks().0[row], count)
    }

    /// A row of which so many packets are at these places, and repetitions. Apart, as the compiler would join what is alike in both.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn take_sorted<J: Job<'a>>(jobs: &mut [J], places: &[u8; ROW], count: usize) -> Self {
        assert!(places.iter().all(|&place| usize::from(place) < jobs.len()));
        let jobs = jobs.as_mut_ptr();
        // SAFETY: elements of the slice.
        let fields = unsafe { Fields::of(|lane| jobs.add(usize::from(places[lane]))) };
        Self { count, fields, nonce_prefix: 0 }
    }

    /// Where each packet's text is, and how long it is.
    #[inline(always)]
    pub(super) fn texts(&self) -> impl Iterator<Item = (*mut u8, u32)> {
        let packets = self.fields.texts().iter().zip(self.fields.lengths());
        packets.take(self.count).map(|(&text, &length)| (at(text, 0), length))
    }

    /// Whether there are sixteen packets, each of whole blocks, and of one at least.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) fn has_whole_blocks(&self) -> bool {
        let lengths = self.fields.lengths();
        let behind_blocks = _mm512_test_epi32_mask(load(lengths), _mm512_set1_epi32(63));
        // The last is the shortest.
        self.count == ROW && behind_blocks == 0 && lengths[ROW - 1] > 0
    }

    /// How many of the packets have full blocks of text before their last block, which may be full as well.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) fn with_full_blocks(&self) -> usize {
        let longer = _mm512_cmpgt_epu32_mask(load(self.fields.lengths()), _mm512_set1_epi32(64));
        // They are sorted.
        (longer.count_ones() as usize).min(self.count)
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
