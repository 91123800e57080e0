//! Poly1305 (RFC 8439, section 2.5) of eight packets at a time, one to each 64-bit lane, by IFMA.
//!
//! A number modulo 2^130 - 5 is three limbs of 44, 44 and 42 bits. The 52-bit multiply-add gives low and high halves of products,
//! so sums of a dozen of them fit a lane, and carries are needed once for each 64 bytes: with h the state, m the message's blocks,
//! `h = (h + m1)*r^4 + m2*r^3 + m3*r^2 + m4*r`.

mod arithmetic;
mod strides;

use std::arch::x86_64::*;

use self::arithmetic::{
    MASK_42, MASK_44, Number, Power, add_times, multiply, power, reduce, reduce_loosely, split, sum, transpose,
};
use self::strides::strides;
use super::Vector;
use super::packets::Row;
use super::sixteen::OneTimeKeys;

/// Packets that are worked on together: one to each 64-bit lane of a vector.
pub(super) const LANES: usize = 8;

/// Bytes that a step of the bulk loop takes from each packet.
const STRIDE: usize = 64;

/// From this many bytes on (of the shortest packet), the powers of r pay for themselves.
const WORTH_POWERS: usize = 4 * STRIDE;

/// A 16-byte block has an implicit bit at 2^128: in the third limb, bit 40.
const BLOCK_BIT: i64 = 1 << 40;

/// Low and high halves of eight tags.
pub(super) type Tags = [Vector; 2];

/// What is left to do of eight packets.
struct Batch {
    texts: [*const u8; LANES],
    lengths: [u32; LANES],
    longest: u32,
    shortest: u32,
    r: Power,
    state: Number,
}

/// The tags of the packets of a row, over their texts as they are now. `last_block` makes the two words of the last
/// block from the lengths of the texts.
///
/// # Safety
/// The texts must be valid for reads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub(super) unsafe fn tags(
    row: &Row<'_>,
    keys: &[OneTimeKeys; 2],
    last_block: impl Fn(Vector) -> [Vector; 2],
) -> [Tags; 2] {
    let make = |half: usize| Batch::new(row, half, &keys[half]);
    let finish = |half: usize, batch: &Batch| {
        // SAFETY: eight words of 32 bits are 32 bytes.
        let lengths = unsafe { _mm256_loadu_si256(row.lengths[half * LANES..][..LANES].as_ptr().cast()) };
        let [low, high] = last_block(_mm512_cvtepu32_epi64(lengths));
        let state = reduce(multiply(sum(batch.state, split(low, high)), &batch.r));
        finish(state, [keys[half].halves[2], keys[half].halves[3]])
    };
    if row.count <= LANES {
        let mut batches = [make(0)];
        // SAFETY: the caller's promise.
        unsafe { run(&mut batches) };
        [finish(0, &batches[0]); 2]
    } else {
        let mut batches = [make(0), make(1)];
        // SAFETY: the caller's promise.
        unsafe { run(&mut batches) };
        [finish(0, &batches[0]), finish(1, &batches[1])]
    }
}

impl Batch {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn new(row: &Row<'_>, half: usize, keys: &OneTimeKeys) -> Self {
        let [r_low, r_high, ..] = keys.halves;
        let r = split(r_low, r_high);
        let r = [r[0], r[1], _mm512_xor_si512(r[2], _mm512_set1_epi64(BLOCK_BIT))];
        let lengths: [u32; LANES] = row.lengths.as_chunks().0[half];
        Self {
            texts: row.texts.as_chunks().0[half].map(<*mut u8>::cast_const),
            lengths,
            // They are sorted.
            longest: lengths[0],
            shortest: lengths[LANES - 1],
            r: power(r),
            state: [_mm512_setzero_si512(); 3],
        }
    }

    /// Leaves of each packet what is behind its whole strides.
    fn skip_strides(&mut self) {
        (self.longest, self.shortest) = (0, u32::MAX);
        for (text, length) in self.texts.iter_mut().zip(&mut self.lengths) {
            *text = text.wrapping_add(*length as usize / STRIDE * STRIDE);
            *length %= STRIDE as u32;
            self.longest = self.longest.max(*length);
            self.shortest = self.shortest.min(*length);
        }
    }
}

/// All of the texts.
///
/// # Safety
/// The texts must be valid for reads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
unsafe fn run<const BATCHES: usize>(batches: &mut [Batch; BATCHES]) {
    // SAFETY: the caller's promise.
    unsafe {
        for batch in batches.iter_mut() {
            if batch.longest as usize >= WORTH_POWERS {
                strides(batch);
            }
        }
        // Horner's rule is a chain: two of them in step hide each other's latency.
        rest(batches);
    }
}

/// What is left of each packet, less than [`WORTH_POWERS`], for one or two batches in step.
///
/// # Safety
/// The texts must be valid for reads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
unsafe fn rest<const BATCHES: usize>(batches: &mut [Batch; BATCHES]) {
    const { assert!(WORTH_POWERS <= 256) };
    let longest = batches.iter().map(|batch| batch.longest as usize).max().unwrap_or(0);
    let shortest = batches.iter().map(|batch| batch.shortest as usize).min().unwrap_or(0);
    let mut states = batches.each_ref().map(|batch| batch.state);
    let mut offset = 0;
    while offset < longest {
        let is_whole = offset + STRIDE <= shortest;
        let mut words = [[_mm512_setzero_si512(); LANES]; BATCHES];
        for (words, batch) in words.iter_mut().zip(batches.iter()) {
            let mut rows = [_mm512_setzero_si512(); LANES];
            for (lane, row) in rows.iter_mut().enumerate() {
                if is_whole {
                    // SAFETY: every text has as many bytes.
                    *row = unsafe { _mm512_loadu_si512(batch.texts[lane].wrapping_add(offset).cast()) };
                    continue;
                }
                // The instruction looks at eight bits of the number, and 64 or more of them mean all.
                let mask = _bzhi_u64(u64::MAX, batch.lengths[lane].saturating_sub(offset as u32));
                // SAFETY: reads the bytes of the mask alone, which lie before the end of the text.
                *row = unsafe { _mm512_maskz_loadu_epi8(mask, batch.texts[lane].wrapping_add(offset).cast()) };
            }
            *words = transpose(rows);
        }
        let next = |batch: usize, pair: usize, state: Number| {
            let block = split(words[batch][2 * pair], words[batch][2 * pair + 1]);
            reduce_loosely(multiply(sum(state, block), &batches[batch].r))
        };
        if is_whole {
            // Written out, so that the states stay in registers.
            macro_rules! steps {
                ($($pair:literal)*) => { $(
                    for (batch, state) in states.iter_mut().enumerate() {
                        *state = next(batch, $pair, *state);
                    }
                )* };
            }
            steps!(0 1 2 3);
            offset += STRIDE;
            continue;
        }
        for pair in 0..4 {
            for (batch, state) in states.iter_mut().enumerate() {
                let next = next(batch, pair, *state);
                // SAFETY: eight words of 32 bits are 32 bytes.
                let lengths = unsafe { _mm256_loadu_si256(batches[batch].lengths.as_ptr().cast()) };
                let offset = _mm512_set1_epi64(offset as i64);
                let has_block = _mm512_cmpgt_epu64_mask(_mm512_cvtepu32_epi64(lengths), offset);
                for (limb, next) in state.iter_mut().zip(next) {
                    *limb = _mm512_mask_mov_epi64(*limb, has_block, next);
                }
            }
            offset += 16;
            if offset >= longest {
                break;
            }
        }
    }
    for (batch, state) in batches.iter_mut().zip(states) {
        batch.state = state;
    }
}

/// Reduces fully, and adds the second half of the one-time key.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn finish(state: Number, [s_low, s_high]: [Vector; 2]) -> [Vector; 2] {
    let (mask_44, mask_42) = (_mm512_set1_epi64(MASK_44), _mm512_set1_epi64(MASK_42));
    // Of a reduced number the middle limb alone may be a little too large. When its carry runs over 2^130, what is left is small, so the
    // last carry goes no further.
    let [h0, h1, h2] = state;
    let h2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(h1));
    let h0 = add_times(h0, _mm512_srli_epi64::<42>(h2), 5);
    let h1 = _mm512_add_epi64(_mm512_and_si512(h1, mask_44), _mm512_srli_epi64::<44>(h0));
    let (h0, h2) = (_mm512_and_si512(h0, mask_44), _mm512_and_si512(h2, mask_42));
    // h - p = h + 5 - 2^130: take it where h + 5 reaches 2^130.
    let g0 = _mm512_add_epi64(h0, _mm512_set1_epi64(5));
    let g1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(g0));
    let g2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(g1));
    let too_large = _mm512_cmpgt_epu64_mask(g2, mask_42);
    let h0 = _mm512_mask_mov_epi64(h0, too_large, _mm512_and_si512(g0, mask_44));
    let h1 = _mm512_mask_mov_epi64(h1, too_large, _mm512_and_si512(g1, mask_44));
    let h2 = _mm512_mask_mov_epi64(h2, too_large, _mm512_and_si512(g2, mask_42));

    let low = _mm512_or_si512(h0, _mm512_slli_epi64::<44>(h1));
    let high = _mm512_or_si512(_mm512_srli_epi64::<20>(h1), _mm512_slli_epi64::<24>(h2));
    let low = _mm512_add_epi64(low, s_low);
    let carry = _mm512_cmplt_epu64_mask(low, s_low);
    let high = _mm512_add_epi64(high, s_high);
    let high = _mm512_mask_add_epi64(high, carry, high, _mm512_set1_epi64(1));
    [low, high]
}
