//! The packets of a burst as vectors read them: field by field, sixteen packets at a time, the longest first.

use std::arch::x86_64::*;
use std::array;

use super::Vector;
use crate::{Key, OpenJob, SealJob, TAG_LENGTH};

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

/// A packet as the caller gives it.
pub(super) trait Job<'a> {
    fn key(&self) -> &'a Key;
    fn counter(&self) -> u64;
    /// The text with the room for the tag. May be asked for again and again: what was returned before stays valid.
    fn buffer(&mut self) -> *mut [u8];
}

impl<'a> Job<'a> for SealJob<'a> {
    #[inline(always)]
    fn key(&self) -> &'a Key {
        self.key
    }

    #[inline(always)]
    fn counter(&self) -> u64 {
        self.counter
    }

    #[inline(always)]
    fn buffer(&mut self) -> *mut [u8] {
        &raw mut *self.buffer
    }
}

impl<'a> Job<'a> for OpenJob<'a> {
    #[inline(always)]
    fn key(&self) -> &'a Key {
        self.key
    }

    #[inline(always)]
    fn counter(&self) -> u64 {
        self.counter
    }

    #[inline(always)]
    fn buffer(&mut self) -> *mut [u8] {
        &raw mut *self.buffer
    }
}

/// Which jobs of a window are for the kernel, in the order in which it works on them.
pub(super) struct Order {
    pub(super) count: usize,
    /// Their places in the window. What lies behind the last one, up to the next sixteen, repeats it.
    places: [u8; WINDOW],
    /// The lengths of their texts, if they are as they come.
    lengths: Option<[Vector; WINDOW / ROW]>,
}

/// Up to sixteen packets. What lies behind the last one repeats it: may be read, is never written.
pub(super) struct Row<'a> {
    pub(super) count: usize,
    pub(super) keys: [&'a Key; ROW],
    pub(super) counters: [Vector; 2],
    /// Each text is followed by 16 bytes for the tag.
    pub(super) texts: [*mut u8; ROW],
    pub(super) lengths: [u32; ROW],
    /// The first word of every nonce, which is zero in WireGuard.
    pub(super) nonce_prefix: u32,
}

impl Order {
    /// Of the jobs of a window, at most [`WINDOW`] of them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) fn of<'a, J: Job<'a>>(jobs: &mut [J]) -> Self {
        let count = jobs.len().min(WINDOW);
        let mut rows = [_mm512_setzero_si512(); WINDOW / ROW];
        let mut is_usual = true;
        let mut longest = _mm512_set1_epi32(LONGEST as i32);
        for (row, jobs) in rows.iter_mut().zip(jobs.chunks_mut(ROW)) {
            let last = jobs.len() - 1;
            *row = match jobs.as_chunks_mut::<ROW>().0 {
                [jobs] => lengths(|lane| jobs[lane].buffer().len()),
                _ => lengths(|lane| jobs[lane.min(last)].buffer().len()),
            };
            let before = _mm512_alignr_epi32::<15>(*row, longest);
            is_usual &= _mm512_cmpgt_epu32_mask(*row, before) == 0;
            longest = *row;
        }
        // If nothing is longer than what is before it, nothing is too long.
        let mut order = Self { count, places: AS_THEY_COME, lengths: is_usual.then_some(rows) };
        if !is_usual {
            order.sort(&rows);
        }
        if !order.count.is_multiple_of(ROW) {
            let last = order.places[order.count - 1];
            let row = &mut order.places.as_chunks_mut::<ROW>().0[order.count / ROW];
            row[order.count % ROW..].fill(last);
        }
        order
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

    /// Sorts by counting for each packet how many precede it, which has no branch that could be predicted wrongly.
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn sort(&mut self, lengths: &[Vector; WINDOW / ROW]) {
        const { assert!((LONGEST + 1) * WINDOW <= u32::MAX as usize) };
        // A word that is larger for a longer packet and, among equals, for an earlier one; zero for what is not for the kernel.
        let mut words = [[0; ROW]; WINDOW / ROW];
        let mut earlier = _mm512_setr_epi32(64, 63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49);
        let rows = self.count.div_ceil(ROW);
        let mut count = 0;
        let mut left = u64::MAX >> (WINDOW - self.count);
        for (words, &lengths) in words.iter_mut().zip(lengths).take(rows) {
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
    pub(super) fn take<J: Job<'a>>(jobs: &mut [J], order: &Order, row: usize) -> Self {
        let count = order.places(row).len();
        if let (Some(lengths), Some(jobs)) = (&order.lengths, jobs.as_chunks_mut::<ROW>().0.get_mut(row)) {
            let jobs = jobs.as_mut_ptr();
            // SAFETY: an element of the array, which is borrowed, and nothing else refers to it meanwhile.
            return Self::of(count, lengths[row], |lane| unsafe { &mut *jobs.add(lane % ROW) });
        }
        Self::take_sorted(jobs, &order.places.as_chunks().0[row], count)
    }

    /// A row of which so many packets are at these places, and repetitions. Apart, as the compiler would join what is alike in both.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn take_sorted<J: Job<'a>>(jobs: &mut [J], places: &[u8; ROW], count: usize) -> Self {
        assert!(places.iter().all(|&place| usize::from(place) < jobs.len()));
        let jobs = jobs.as_mut_ptr();
        // SAFETY: an element of the slice, which is borrowed, and nothing else refers to it meanwhile.
        let job = |lane: usize| unsafe { &mut *jobs.add(usize::from(places[lane])) };
        let lengths = lengths(|lane| job(lane).buffer().len());
        Self::of(count, lengths, job)
    }

    /// The packets of so many jobs, and repetitions. Vectors are made in registers: one that is read soon after its parts were written
    /// waits until all of them are in the cache.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn of<'j, J: Job<'a> + 'j>(count: usize, lengths: Vector, job: impl Fn(usize) -> &'j mut J) -> Self {
        let counters = |from: usize| {
            let [a, b, c, d, e, f, g, h] = array::from_fn(|lane| job(from + lane).counter() as i64);
            _mm512_setr_epi64(a, b, c, d, e, f, g, h)
        };
        Self {
            count,
            keys: array::from_fn(|lane| job(lane).key()),
            counters: [counters(0), counters(8)],
            texts: array::from_fn(|lane| job(lane).buffer().cast()),
            // SAFETY: as many bytes, of which every value is allowed.
            lengths: unsafe { std::mem::transmute::<Vector, [u32; ROW]>(lengths) },
            nonce_prefix: 0,
        }
    }

    /// How many of the packets have full blocks of text before their last block, which may be full as well.
    pub(super) fn with_full_blocks(&self) -> usize {
        self.lengths[..self.count].partition_point(|&length| full_blocks(length) > 0)
    }
}

/// The lengths of the texts in sixteen buffers, given theirs; longer than [`LONGEST`] where there is no room for a tag.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn lengths(mut buffer: impl FnMut(usize) -> usize) -> Vector {
    let mut eight = |from: usize| {
        let [a, b, c, d, e, f, g, h] = array::from_fn(|lane| buffer(from + lane) as i64);
        let lengths = _mm512_sub_epi64(_mm512_setr_epi64(a, b, c, d, e, f, g, h), _mm512_set1_epi64(TAG_LENGTH as i64));
        // What has no room, or does not fit a word, becomes the largest.
        _mm512_cvtusepi64_epi32(lengths)
    };
    let (low, high) = (eight(0), eight(8));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
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
