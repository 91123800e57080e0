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
    transpose_pairs,
};
use self::strides::strides;
use super::Vector;
use super::fields::at;
use super::packets::{ROW, Row};
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
    /// Exposed addresses.
    texts: [usize; LANES],
    lengths: [u32; LANES],
    longest: u32,
    shortest: u32,
    r: Power,
    state: Number,
}

/// What is left to do of sixteen packets, less than [`WORTH_POWERS`] of each.
struct Rest<'a> {
    /// Exposed addresses.
    texts: &'a [usize; ROW],
    lengths: &'a [u32; ROW],
    longest: u32,
    shortest: u32,
    states: [Number; 2],
}

/// The tags of the packets of a row, over their texts as they are now, followed by the two words of a last block each.
///
/// # Safety
/// The texts must be valid for reads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub(super) unsafe fn tags(row: &Row<'_>, keys: &[OneTimeKeys; 2], last_blocks: &[[Vector; 2]; 2]) -> [Tags; 2] {
    // They are sorted.
    let (texts, lengths) = (row.fields.texts(), row.fields.lengths());
    let (longest, shortest) = (lengths[0], lengths[ROW - 1]);
    if longest as usize >= WORTH_POWERS {
        // SAFETY: the caller's promise.
        return unsafe { tags_of_long(row, keys, last_blocks) };
    }
    let states = [[_mm512_setzero_si512(); 3]; 2];
    let rest = Rest { texts, lengths, longest, shortest, states };
    // SAFETY: the caller's promise.
    unsafe { rest.tags(keys, last_blocks) }
}

/// The same where some texts are long.
///
/// # Safety
/// The texts must be valid for reads.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
unsafe fn tags_of_long(row: &Row<'_>, keys: &[OneTimeKeys; 2], last_blocks: &[[Vector; 2]; 2]) -> [Tags; 2] {
    let (mut texts, mut lengths) = (*row.fields.texts(), *row.fields.lengths());
    let (mut longest, mut shortest) = (0, u32::MAX);
    let mut states = [[_mm512_setzero_si512(); 3]; 2];
    for (half, key) in keys.iter().enumerate() {
        let (texts, lengths) = (&mut texts.as_chunks_mut().0[half], &mut lengths.as_chunks_mut().0[half]);
        if half * LANES >= row.count {
            // Repetitions of the last packet.
            *lengths = [0; LANES];
            continue;
        }
        let mut batch = Batch::new(*texts, *lengths, key);
        if batch.longest as usize >= WORTH_POWERS {
            // SAFETY: the caller's promise.
            unsafe { strides(&mut batch) };
        }
        (*texts, *lengths) = (batch.texts, batch.lengths);
        longest = longest.max(batch.longest);
        shortest = shortest.min(batch.shortest);
        states[half] = batch.state;
    }
    let rest = Rest { texts: &texts, lengths: &lengths, longest, shortest, states };
    // SAFETY: the caller's promise.
    unsafe { rest.tags(keys, last_blocks) }
}

impl Batch {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn new(texts: [usize; LANES], lengths: [u32; LANES], keys: &OneTimeKeys) -> Self {
        Self {
            texts,
            lengths,
            // They are sorted.
            longest: lengths[0],
            shortest: lengths[LANES - 1],
            r: multiplier(keys),
            state: [_mm512_setzero_si512(); 3],
        }
    }

    /// Leaves of each packet what is behind its whole strides.
    fn skip_strides(&mut self) {
        (self.longest, self.shortest) = (0, u32::MAX);
        for (text, length) in self.texts.iter_mut().zip(&mut self.lengths) {
            *text += *length as usize / STRIDE * STRIDE;
            *length %= STRIDE as u32;
            self.longest = self.longest.max(*length);
            self.shortest = self.shortest.min(*length);
        }
    }
}

impl Rest<'_> {
    /// The tags. Horner's rule is a chain, and so is what comes before and after: two of them in turn, step by step and in one function,
    /// are so near to each other that the CPU does both at a time.
    ///
    /// # Safety
    /// The texts must be valid for reads.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    unsafe fn tags(&self, keys: &[OneTimeKeys; 2], last_blocks: &[[Vector; 2]; 2]) -> [Tags; 2] {
        const { assert!(WORTH_POWERS <= 256) };
        let (longest, shortest) = (self.longest as usize, self.shortest as usize);
        let [lower_r, upper_r] = [multiplier(&keys[0]), multiplier(&keys[1])];
        let [mut lower, mut upper] = self.states;
        let step = |state: Number, low: Vector, high: Vector, r: &Power| {
            reduce_loosely(multiply(sum(state, split(low, high)), r))
        };
        let mut offset = 0;
        while offset + STRIDE <= shortest {
            // SAFETY: every text has as many bytes.
            let load = |half: usize| unsafe { self.whole_words(half, offset) };
            let words = load(0);
            lower = step(lower, words[0], words[1], &lower_r);
            let upper_words = load(1);
            upper = step(upper, upper_words[0], upper_words[1], &upper_r);
            // Written out, so that the states stay in registers.
            macro_rules! steps {
                ($($word:literal)*) => { $(
                    lower = step(lower, words[$word], words[$word + 1], &lower_r);
                    upper = step(upper, upper_words[$word], upper_words[$word + 1], &upper_r);
                )* };
            }
            steps!(2 4 6);
            offset += STRIDE;
        }
        while offset < longest {
            // SAFETY: the caller's promise.
            let words = unsafe { [self.words(0, offset), self.words(1, offset)] };
            for pair in 0..4 {
                let step = |half: usize, state: Number, r: &Power| {
                    let [h0, h1, h2] = step(state, words[half][2 * pair], words[half][2 * pair + 1], r);
                    let has_block = self.longer_than(half, offset);
                    [
                        _mm512_mask_mov_epi64(state[0], has_block, h0),
                        _mm512_mask_mov_epi64(state[1], has_block, h1),
                        _mm512_mask_mov_epi64(state[2], has_block, h2),
                    ]
                };
                lower = step(0, lower, &lower_r);
                upper = step(1, upper, &upper_r);
                offset += 16;
                if offset >= longest {
                    break;
                }
            }
        }
        let last_step = |half: usize, state: Number, r: &Power| {
            let [low, high] = last_blocks[half];
            reduce(multiply(sum(state, split(low, high)), r))
        };
        let (lower, upper) = (last_step(0, lower, &lower_r), last_step(1, upper, &upper_r));
        let s = |half: usize| [keys[half].halves[2], keys[half].halves[3]];
        [finish(lower, s(0)), finish(upper, s(1))]
    }

    /// Eight words of each of eight texts, word by word.
    ///
    /// # Safety
    /// The texts must be valid for reads, and have 64 bytes from `offset` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    unsafe fn whole_words(&self, half: usize, offset: usize) -> [Vector; LANES] {
        // Loads do the first of the three steps: only one of the CPU's ports can do the others.
        let pair = |number: usize| {
            let lane = half * LANES + 2 * number;
            let [a, b] = [lane, lane + 1].map(|lane| at(self.texts[lane], offset).cast::<i64>());
            // SAFETY: the caller's promise. With the masks, the shifted addresses lead to nothing before or behind.
            unsafe {
                let even = _mm512_mask_loadu_epi64(_mm512_loadu_epi64(a), 0xaa, b.wrapping_sub(1));
                let odd = _mm512_mask_loadu_epi64(_mm512_loadu_epi64(b), 0x55, a.wrapping_add(1));
                (even, odd)
            }
        };
        transpose_pairs([pair(0), pair(1), pair(2), pair(3)])
    }

    /// The same of texts of any length; zeros behind their ends.
    ///
    /// # Safety
    /// The texts must be valid for reads.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    unsafe fn words(&self, half: usize, offset: usize) -> [Vector; LANES] {
        let packets = half * LANES..(half + 1) * LANES;
        let texts = self.texts[packets.clone()].iter().zip(&self.lengths[packets]);
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (row, (&text, &length)) in rows.iter_mut().zip(texts) {
            // The instruction looks at eight bits of the number, and 64 or more of them mean all.
            let mask = _bzhi_u64(u64::MAX, length.saturating_sub(offset as u32));
            // SAFETY: the bytes of the mask alone lie before the end of the text.
            *row = unsafe { _mm512_maskz_loadu_epi8(mask, at(text, offset).cast()) };
        }
        transpose(rows)
    }

    /// Which of eight texts are longer than so many bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn longer_than(&self, half: usize, bytes: usize) -> __mmask8 {
        // SAFETY: eight words of 32 bits are 32 bytes.
        let lengths = unsafe { _mm256_loadu_si256(self.lengths.as_chunks::<LANES>().0[half].as_ptr().cast()) };
        _mm512_cmpgt_epu64_mask(_mm512_cvtepu32_epi64(lengths), _mm512_set1_epi64(bytes as i64))
    }
}

/// r, whose upper limb is without the bit that a block has.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn multiplier(keys: &OneTimeKeys) -> Power {
    let [r_low, r_high, ..] = keys.halves;
    let [r0, r1, r2] = split(r_low, r_high);
    power([r0, r1, _mm512_xor_si512(r2, _mm512_set1_epi64(BLOCK_BIT))])
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
