//! Poly1305 (RFC 8439, section 2.5) of eight packets at a time, one to each 64-bit lane, by IFMA.
//!
//! A number modulo 2^130 - 5 is three limbs of 44, 44 and 42 bits. The 52-bit multiply-add gives low and high halves of products,
//! so sums of a dozen of them fit a lane, and carries are needed once for each 64 bytes: with h the state, m the message's blocks,
//! `h = (h + m1)*r^4 + m2*r^3 + m3*r^2 + m4*r`.

use std::arch::x86_64::*;

use super::one_time_key::OneTimeKeys;
use super::{Packet, Vector};

/// Packets that are worked on together: one to each 64-bit lane of a vector.
pub(super) const LANES: usize = 8;

/// Packets that are taken at once.
pub(super) const BATCH: usize = 2 * LANES;

/// Bytes that a step of the bulk loop takes from each packet.
const STRIDE: usize = 64;

/// From this many bytes on (of the shortest packet), the powers of r pay for themselves.
const WORTH_POWERS: usize = 4 * STRIDE;

const MASK_44: i64 = (1 << 44) - 1;
const MASK_42: i64 = (1 << 42) - 1;

/// A 16-byte block has an implicit bit at 2^128: in the third limb, bit 40.
const BLOCK_BIT: i64 = 1 << 40;

/// A number in three limbs, for each lane.
type Number = [Vector; 3];

/// A multiplier: its limbs, and 20 times the upper two. A product at 2^132 is worth 4 * 5 at 2^0.
#[derive(Clone, Copy)]
struct Power {
    limbs: Number,
    times_20: [Vector; 2],
}

/// Sums of halves of products: of limb i, `low[i]` at 2^(44 i) and `high[i]` at 2^(44 i + 52).
#[derive(Clone, Copy)]
struct Products {
    low: Number,
    high: Number,
}

/// The tags of up to sixteen packets over their texts as they are now: low and high halves.
pub(super) struct Tags {
    low: [[u64; LANES]; 2],
    high: [[u64; LANES]; 2],
}

impl Tags {
    /// The tag of one packet.
    pub(super) fn of(&self, packet: usize) -> u128 {
        let (batch, lane) = (packet / LANES, packet % LANES);
        u128::from(self.low[batch][lane]) | u128::from(self.high[batch][lane]) << 64
    }
}

/// Eight packets on their way.
struct Batch {
    texts: [*const u8; LANES],
    lengths: [u64; LANES],
    shortest: usize,
    longest: usize,
    r: Power,
    s: [Vector; 2],
    state: Number,
}

/// Computes the tags of up to sixteen packets under their one-time keys, eight to an element of `keys`.
///
/// # Safety
/// Each packet's `text` must be valid for reads of `length` bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
pub(super) unsafe fn tags(packets: &[Packet<'_>], keys: &[OneTimeKeys]) -> Tags {
    // The block of lengths: the AAD is empty.
    // SAFETY: the caller's promise.
    unsafe { tags_ending(packets, keys, |lengths| [[0; LANES], *lengths]) }
}

/// The same, where `last_block` makes the two words of the last block from the lengths of the texts.
///
/// # Safety
/// As for [`tags`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
pub(super) unsafe fn tags_ending(
    packets: &[Packet<'_>],
    keys: &[OneTimeKeys],
    last_block: impl Fn(&[u64; LANES]) -> [[u64; LANES]; 2],
) -> Tags {
    let mut tags = Tags { low: [[0; LANES]; 2], high: [[0; LANES]; 2] };
    let mut batches = packets.chunks(LANES).zip(keys);
    // SAFETY: the texts are valid for their lengths, by the caller's promise.
    unsafe {
        match (batches.next(), batches.next()) {
            (Some(first), Some(second)) => {
                let mut both = [Batch::new(first.0, first.1), Batch::new(second.0, second.1)];
                let [longest, other_longest] = both.each_ref().map(|batch| batch.longest);
                if longest.max(other_longest) < WORTH_POWERS && longest.abs_diff(other_longest) <= STRIDE {
                    // Horner's rule is a chain: two of them in step hide each other's latency.
                    tail(&mut both, 0);
                } else {
                    let [first, second] = &mut both;
                    one(first);
                    one(second);
                }
                let [first, second] = &both;
                first.finish(last_block(&first.lengths), &mut tags.low[0], &mut tags.high[0]);
                second.finish(last_block(&second.lengths), &mut tags.low[1], &mut tags.high[1]);
            }
            (Some((packets, keys)), None) => {
                let mut batch = Batch::new(packets, keys);
                one(&mut batch);
                batch.finish(last_block(&batch.lengths), &mut tags.low[0], &mut tags.high[0]);
            }
            (None, _) => {}
        }
    }
    tags
}

/// All of the texts of one batch.
///
/// # Safety
/// The batch's texts must be valid for reads of their lengths.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
unsafe fn one(batch: &mut Batch) {
    let mut offset = 0;
    // SAFETY: the caller's promise.
    unsafe {
        if batch.shortest >= WORTH_POWERS {
            (batch.state, offset) = bulk(&batch.texts, batch.shortest, batch.r);
        }
        tail(std::array::from_mut(batch), offset);
    }
}

impl Batch {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    fn new(packets: &[Packet<'_>], keys: &OneTimeKeys) -> Self {
        let [r_low, r_high, s_low, s_high] = keys.halves;
        // A lane without a packet repeats the first one; nobody reads its result.
        let lane = |lane: usize| packets.get(lane).unwrap_or(&packets[0]);
        let lengths = std::array::from_fn(|index| lane(index).length as u64);
        Self {
            texts: std::array::from_fn(|index| lane(index).text.cast_const()),
            lengths,
            shortest: lengths.iter().fold(lengths[0], |a, &b| a.min(b)) as usize,
            longest: lengths.iter().fold(lengths[0], |a, &b| a.max(b)) as usize,
            r: power(split(r_low, r_high, 0)),
            s: [s_low, s_high],
            state: [_mm512_setzero_si512(); 3],
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    fn finish(&self, last_block: [[u64; LANES]; 2], low: &mut [u64; LANES], high: &mut [u64; LANES]) {
        let [last_low, last_high] = last_block.each_ref().map(|words| load(words));
        let state = reduce(multiply(sum(self.state, split(last_low, last_high, BLOCK_BIT)), &self.r));
        let [tag_low, tag_high] = finish(state, self.s);
        // SAFETY: each array is 64 bytes.
        unsafe {
            _mm512_storeu_si512(low.as_mut_ptr().cast(), tag_low);
            _mm512_storeu_si512(high.as_mut_ptr().cast(), tag_high);
        }
    }
}

/// All whole strides that every packet has. Returns the state and how many bytes are done.
///
/// # Safety
/// The texts must be valid for reads of `shortest` bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
unsafe fn bulk(texts: &[*const u8; LANES], shortest: usize, r: Power) -> (Number, usize) {
    let r2 = power(reduce(multiply(r.limbs, &r)));
    let r3 = power(reduce(multiply(r2.limbs, &r)));
    let r4 = power(reduce(multiply(r2.limbs, &r2)));
    let mut state = [_mm512_setzero_si512(); 3];
    let mut offset = 0;
    while offset + STRIDE <= shortest {
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (row, text) in rows.iter_mut().zip(texts) {
            // SAFETY: `offset + 64 <= shortest`, up to which the text is valid.
            *row = unsafe { _mm512_loadu_si512(text.add(offset).cast()) };
        }
        let [a_low, a_high, b_low, b_high, c_low, c_high, d_low, d_high] = transpose(rows);
        let first = sum(state, split(a_low, a_high, BLOCK_BIT));
        let products = multiply(split(d_low, d_high, BLOCK_BIT), &r);
        let products = multiply_add(products, split(c_low, c_high, BLOCK_BIT), &r2);
        let products = multiply_add(products, split(b_low, b_high, BLOCK_BIT), &r3);
        state = reduce(multiply_add(products, first, &r4));
        offset += STRIDE;
    }
    (state, offset)
}

/// What is left of each packet from `offset` on, for one or two batches in step.
///
/// # Safety
/// Each text must be valid for reads of its length.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
unsafe fn tail<const BATCHES: usize>(batches: &mut [Batch; BATCHES], mut offset: usize) {
    let longest = batches.iter().map(|batch| batch.longest).max().unwrap_or(0);
    let zero = _mm512_setzero_si512();
    let length = batches.each_ref().map(|batch| load(&batch.lengths));
    let mut states = batches.each_ref().map(|batch| batch.state);
    while offset < longest {
        let mut words = [[zero; LANES]; BATCHES];
        for (words, batch) in words.iter_mut().zip(batches.iter()) {
            let mut rows = [zero; LANES];
            for (lane, row) in rows.iter_mut().enumerate() {
                let bytes = (batch.lengths[lane] as usize).saturating_sub(offset).min(STRIDE) as u32;
                let mask = u64::MAX.checked_shr(STRIDE as u32 - bytes).unwrap_or(0);
                // Not beyond the end, even where nothing is read: the CPU takes its time over masked access to memory that is
                // not there.
                let start = if bytes == 0 { 0 } else { offset };
                // SAFETY: reads the bytes of the mask alone, which lie before the end of the text.
                *row = unsafe { _mm512_maskz_loadu_epi8(mask, batch.texts[lane].wrapping_add(start).cast()) };
            }
            *words = transpose(rows);
        }
        for pair in 0..4 {
            for batch in 0..BATCHES {
                let block = split(words[batch][2 * pair], words[batch][2 * pair + 1], BLOCK_BIT);
                let next = reduce(multiply(sum(states[batch], block), &batches[batch].r));
                let has_block = _mm512_cmpgt_epu64_mask(length[batch], _mm512_set1_epi64(offset as i64));
                for (limb, next) in states[batch].iter_mut().zip(next) {
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
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn finish(state: Number, [s_low, s_high]: [Vector; 2]) -> [Vector; 2] {
    let (mask_44, mask_42) = (_mm512_set1_epi64(MASK_44), _mm512_set1_epi64(MASK_42));
    let [mut h0, mut h1, mut h2] = state;
    for _ in 0..3 {
        h1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(h0));
        h0 = _mm512_and_si512(h0, mask_44);
        h2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(h1));
        h1 = _mm512_and_si512(h1, mask_44);
        let carry = _mm512_srli_epi64::<42>(h2);
        h2 = _mm512_and_si512(h2, mask_42);
        h0 = _mm512_add_epi64(h0, times_5(carry));
    }
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

/// A word for each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn load(words: &[u64; LANES]) -> Vector {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// The limbs of a 128-bit number and what lies above it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn split(low: Vector, high: Vector, above: i64) -> Number {
    let mask_44 = _mm512_set1_epi64(MASK_44);
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    [
        _mm512_and_si512(low, mask_44),
        _mm512_and_si512(middle, mask_44),
        _mm512_or_si512(_mm512_srli_epi64::<24>(high), _mm512_set1_epi64(above)),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn sum(a: Number, b: Number) -> Number {
    [_mm512_add_epi64(a[0], b[0]), _mm512_add_epi64(a[1], b[1]), _mm512_add_epi64(a[2], b[2])]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn times_5(a: Vector) -> Vector {
    _mm512_add_epi64(a, _mm512_slli_epi64::<2>(a))
}

/// Prepares a multiplier.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn power(limbs: Number) -> Power {
    let times_20 = |limb| _mm512_slli_epi64::<2>(times_5(limb));
    Power { limbs, times_20: [times_20(limbs[1]), times_20(limbs[2])] }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn multiply(a: Number, by: &Power) -> Products {
    let zero = [_mm512_setzero_si512(); 3];
    multiply_add(Products { low: zero, high: zero }, a, by)
}

/// `products + a * by`. Limbs of `a` may have up to 46 bits; twelve such sums fit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn multiply_add(products: Products, a: Number, by: &Power) -> Products {
    let ([r0, r1, r2], [t1, t2]) = (by.limbs, by.times_20);
    let Products { mut low, mut high } = products;
    for (limb, factors) in [[r0, t2, t1], [r1, r0, t2], [r2, r1, r0]].into_iter().enumerate() {
        for (a, factor) in a.into_iter().zip(factors) {
            low[limb] = _mm512_madd52lo_epu64(low[limb], a, factor);
            high[limb] = _mm512_madd52hi_epu64(high[limb], a, factor);
        }
    }
    Products { low, high }
}

/// Carries, until the limbs have 44, 44 and a bit, and 42 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn reduce(products: Products) -> Number {
    let (mask_44, mask_42) = (_mm512_set1_epi64(MASK_44), _mm512_set1_epi64(MASK_42));
    let Products { low: [l0, l1, l2], high: [g0, g1, g2] } = products;
    // A high half lies 8 bits above the next limb, and 10 above 2^130 for the last.
    let l1 = _mm512_add_epi64(l1, _mm512_add_epi64(_mm512_slli_epi64::<8>(g0), _mm512_srli_epi64::<44>(l0)));
    let l2 = _mm512_add_epi64(l2, _mm512_add_epi64(_mm512_slli_epi64::<8>(g1), _mm512_srli_epi64::<44>(l1)));
    let carry = _mm512_add_epi64(_mm512_slli_epi64::<10>(g2), _mm512_srli_epi64::<42>(l2));
    let h0 = _mm512_add_epi64(_mm512_and_si512(l0, mask_44), times_5(carry));
    let h1 = _mm512_add_epi64(_mm512_and_si512(l1, mask_44), _mm512_srli_epi64::<44>(h0));
    [_mm512_and_si512(h0, mask_44), h1, _mm512_and_si512(l2, mask_42)]
}

/// Turns rows of eight words into vectors of the rows' first, second, ... words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn transpose(rows: [Vector; LANES]) -> [Vector; LANES] {
    let [a, b, c, d, e, f, g, h] = rows;
    let quarter = |even: [Vector; 4]| {
        let [p, q, r, s] = even;
        let (low_pq, high_pq) = (_mm512_shuffle_i64x2::<0x88>(p, q), _mm512_shuffle_i64x2::<0xdd>(p, q));
        let (low_rs, high_rs) = (_mm512_shuffle_i64x2::<0x88>(r, s), _mm512_shuffle_i64x2::<0xdd>(r, s));
        [
            _mm512_shuffle_i64x2::<0x88>(low_pq, low_rs),
            _mm512_shuffle_i64x2::<0x88>(high_pq, high_rs),
            _mm512_shuffle_i64x2::<0xdd>(low_pq, low_rs),
            _mm512_shuffle_i64x2::<0xdd>(high_pq, high_rs),
        ]
    };
    let even = quarter([
        _mm512_unpacklo_epi64(a, b),
        _mm512_unpacklo_epi64(c, d),
        _mm512_unpacklo_epi64(e, f),
        _mm512_unpacklo_epi64(g, h),
    ]);
    let odd = quarter([
        _mm512_unpackhi_epi64(a, b),
        _mm512_unpackhi_epi64(c, d),
        _mm512_unpackhi_epi64(e, f),
        _mm512_unpackhi_epi64(g, h),
    ]);
    [even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3]]
}
