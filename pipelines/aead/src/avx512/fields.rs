//! The fields of sixteen jobs as vectors, read where the jobs are.

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of, transmute};
use std::ptr;

use super::Vector;
use super::packets::ROW;
use crate::{Key, OpenJob, SealJob, TAG_LENGTH};

/// Words of 64 bits of the fields that a job begins with: key, counter, and address and length of the buffer.
const WORDS: usize = 4;

const _: () = {
    assert!(size_of::<SealJob<'_>>() == 8 * WORDS);
    assert!(offset_of!(SealJob<'_>, key) == 0 && offset_of!(OpenJob<'_>, key) == 0);
    assert!(offset_of!(SealJob<'_>, counter) == 8 && offset_of!(OpenJob<'_>, counter) == 8);
    assert!(offset_of!(SealJob<'_>, buffer) == 16 && offset_of!(OpenJob<'_>, buffer) == 16);
    // A reference to a slice is its address and then its length, although nothing promises that.
    let bytes: &[u8] = &[0; 3];
    // SAFETY: as many bytes, of which nothing is assumed.
    let [_, length] = unsafe { transmute::<&[u8], [MaybeUninit<usize>; 2]>(bytes) };
    // SAFETY: initialised; were it the address, it would not be a number, and this would not compile.
    assert!(unsafe { length.assume_init() } == 3);
};

/// A packet as the caller gives it.
///
/// # Safety
/// It begins with the fields of a [`SealJob`].
pub(super) unsafe trait Job<'a> {}

// SAFETY: it is one.
unsafe impl<'a> Job<'a> for SealJob<'a> {}

// SAFETY: seen to above.
unsafe impl<'a> Job<'a> for OpenJob<'a> {}

/// The fields of sixteen jobs, job by job.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    /// Exposed addresses.
    keys: [Vector; 2],
    pub(super) counters: [Vector; 2],
    /// Exposed addresses.
    texts: [Vector; 2],
    /// Of the texts, in 32 bits. The largest number where there is no room for a tag.
    lengths: Vector,
    borrowed: PhantomData<&'a Key>,
}

impl<'a> Fields<'a> {
    /// Of sixteen jobs, some of which may be the same.
    ///
    /// # Safety
    /// They must be valid for reads and writes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) unsafe fn of<J: Job<'a>>(job: impl Fn(usize) -> *mut J) -> Self {
        let pair = |low: usize, high: usize| {
            let [low, high] = [low, high].map(|lane| {
                let job = job(lane).cast::<SealJob<'a>>();
                // SAFETY: the caller's promise, and each job begins with these fields.
                unsafe {
                    ptr::from_ref((*job).key).expose_provenance();
                    (*(*job).buffer).as_mut_ptr().expose_provenance();
                }
                job.cast::<i64>()
            });
            // SAFETY: a job begins with four words of fields. Those of the second come to lie behind those of the first. Others are not read.
            // With masks, as the compiler makes two loads of one of 32 bytes.
            unsafe {
                let first = _mm512_maskz_loadu_epi64(0x0f, low);
                _mm512_mask_loadu_epi64(first, 0xf0, high.wrapping_sub(WORDS))
            }
        };
        let eight = |from: usize| {
            let [a, b] = [pair(from, from + 2), pair(from + 1, from + 3)];
            let [c, d] = [pair(from + 4, from + 6), pair(from + 5, from + 7)];
            let (even_ab, odd_ab) = (_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
            let (even_cd, odd_cd) = (_mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d));
            [
                _mm512_shuffle_i64x2::<0x88>(even_ab, even_cd),
                _mm512_shuffle_i64x2::<0x88>(odd_ab, odd_cd),
                _mm512_shuffle_i64x2::<0xdd>(even_ab, even_cd),
                _mm512_shuffle_i64x2::<0xdd>(odd_ab, odd_cd),
            ]
        };
        let ([low_keys, low_counters, low_texts, low], [high_keys, high_counters, high_texts, high]) =
            (eight(0), eight(8));
        let tag = _mm512_set1_epi64(TAG_LENGTH as i64);
        // What has no room, or does not fit a word, becomes the largest.
        let [low, high] = [low, high].map(|buffers| _mm512_cvtusepi64_epi32(_mm512_sub_epi64(buffers, tag)));
        Self {
            keys: [low_keys, high_keys],
            counters: [low_counters, high_counters],
            texts: [low_texts, high_texts],
            lengths: _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high),
            borrowed: PhantomData,
        }
    }

    /// Of fewer than sixteen jobs, and repetitions of the last. Apart, as most of the work is in the addresses.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) fn of_few<J: Job<'a>>(jobs: &mut [J]) -> Self {
        let last = jobs.len() - 1;
        let jobs = jobs.as_mut_ptr();
        // SAFETY: elements of the slice.
        unsafe { Self::of(|lane| jobs.add(lane.min(last))) }
    }

    #[inline(always)]
    pub(super) fn key(&self, lane: usize) -> &'a Key {
        // SAFETY: two vectors are sixteen words of 64 bits, as addresses are where this runs.
        let addresses: &[usize; ROW] = unsafe { &*self.keys.as_ptr().cast() };
        // SAFETY: the address of a key, borrowed for that long.
        unsafe { &*ptr::with_exposed_provenance(addresses[lane]) }
    }

    /// Whether the first half of the jobs, or all, have the same key: one and the same, not an equal one.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) fn has_one_key(&self, is_half: bool) -> bool {
        let common = _mm512_broadcastq_epi64(_mm512_castsi512_si128(self.keys[0]));
        let [low, high] = self.keys.map(|keys| _mm512_cmpneq_epi64_mask(keys, common));
        low == 0 && (is_half || high == 0)
    }

    /// Where the texts are, as exposed addresses; behind each is the room for the tag.
    #[inline(always)]
    pub(super) fn texts(&self) -> &[usize; ROW] {
        // SAFETY: two vectors are sixteen words of 64 bits, as addresses are where this runs.
        unsafe { &*self.texts.as_ptr().cast() }
    }

    #[inline(always)]
    pub(super) fn lengths(&self) -> &[u32; ROW] {
        // SAFETY: a vector is sixteen words of 32 bits.
        unsafe { &*(&raw const self.lengths).cast() }
    }
}

/// What is at an exposed address, a bit further on.
#[inline(always)]
pub(super) fn at(address: usize, offset: usize) -> *mut u8 {
    ptr::with_exposed_provenance_mut(address.wrapping_add(offset))
}
