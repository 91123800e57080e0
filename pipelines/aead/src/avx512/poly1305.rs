//! Poly1305 (RFC 8439, section 2.5) of eight packets at a time, one to each 64-bit lane, by IFMA.
//!
//! A number modulo 2^130 - 5 is three limbs of 44, 44 and 42 bits. The 52-bit multiply-add gives low and high halves of products,
//! so sums of a dozen of them fit a lane, and carries are needed once for each 64 bytes: with h the state, m the message's blocks,
//! `h = (h + m1)*r^4 + m2*r^3 + m3*r^2 + m4*r`.

use std::arch::x86_64::*;

use super::one_time_key::OneTimeKeys;
use super::{Packet, Vector};

/// Packets that are worked on together.
pub(super) const LANES: usize = 8;

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

/// The tags of eight packets over their texts as they are now: low and high halves.
pub(super) struct Tags {
    low: [u64; LANES],
    high: [u64; LANES],
}

impl Tags {
    /// The tag of one packet.
    pub(super) fn of(&self, lane: usize) -> u128 {
        u128::from(self.low[lane]) | u128::from(self.high[lane]) << 64
    }
}

/// Computes the tags of up to eight packets under their one-time keys.
///
/// # Safety
/// Each packet's `text` must be valid for reads of `length` bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
pub(super) unsafe fn tags(packets: &[Packet<'_>], keys: &OneTimeKeys) -> Tags {
    // The block of lengths: the AAD is empty.
    // SAFETY: the caller's promise.
    unsafe { tags_ending(packets, keys, |lengths| [[0; LANES], *lengths]) }
}

/// The same, where `last_block` makes the two words of the last block from the lengths of the texts.
///
/// # Safety
/// As for [`tags`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
pub(super) unsafe fn tags_ending(
    packets: &[Packet<'_>],
    keys: &OneTimeKeys,
    last_block: impl Fn(&[u64; LANES]) -> [[u64; LANES]; 2],
) -> Tags {
    let [r_low, r_high, s_low, s_high] = keys.halves;
    let r = power(split(r_low, r_high, 0));
    let mut state = [_mm512_setzero_si512(); 3];
    let Some(first) = packets.first() else { return finish(state, s_low, s_high) };

    // A lane without a packet repeats the first one; nobody reads its result.
    let mut texts = [first.text.cast_const(); LANES];
    let mut lengths = [first.length as u64; LANES];
    for ((text, length), packet) in texts.iter_mut().zip(&mut lengths).zip(packets) {
        *text = packet.text.cast_const();
        *length = packet.length as u64;
    }
    let shortest = packets.iter().map(|packet| packet.length).min().unwrap_or(0);
    let longest = packets.iter().map(|packet| packet.length).max().unwrap_or(0);
    let mut offset = 0;
    // SAFETY: the texts are valid for their lengths, by the caller's promise.
    unsafe {
        if shortest >= WORTH_POWERS {
            (state, offset) = bulk(&texts, shortest, r);
        }
        state = tail(&texts, &lengths, longest, offset, state, r);
    }
    let [aad_lengths, text_lengths] = last_block(&lengths);
    let block = split(load(&aad_lengths), load(&text_lengths), BLOCK_BIT);
    finish(reduce(multiply(sum(state, block), &r)), s_low, s_high)
}

/// All whole strides that every packet has. Returns the state and how many bytes are done.
///
/// # Safety
/// The texts must be valid for reads of `shortest` bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
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

/// What is left of each packet from `offset` on.
///
/// # Safety
/// Each text must be valid for reads of its length.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
unsafe fn tail(
    texts: &[*const u8; LANES],
    lengths: &[u64; LANES],
    longest: usize,
    mut offset: usize,
    mut state: Number,
    r: Power,
) -> Number {
    let length = load(lengths);
    while offset < longest {
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (lane, row) in rows.iter_mut().enumerate() {
            let bytes = (lengths[lane] as usize).saturating_sub(offset).min(STRIDE) as u32;
            let mask = u64::MAX.checked_shr(STRIDE as u32 - bytes).unwrap_or(0);
            // Not beyond the end, even where nothing is read: the CPU takes its time over masked access to memory that is not there.
            let start = if bytes == 0 { 0 } else { offset };
            // SAFETY: reads the bytes of the mask alone, which lie before the end of the text.
            *row = unsafe { _mm512_maskz_loadu_epi8(mask, texts[lane].wrapping_add(start).cast()) };
        }
        let words = transpose(rows);
        for (low, high) in [(words[0], words[1]), (words[2], words[3]), (words[4], words[5]), (words[6], words[7])] {
            let next = reduce(multiply(sum(state, split(low, high, BLOCK_BIT)), &r));
            let has_block = _mm512_cmpgt_epu64_mask(length, _mm512_set1_epi64(offset as i64));
            for (limb, next) in state.iter_mut().zip(next) {
                *limb = _mm512_mask_mov_epi64(*limb, has_block, next);
            }
            offset += 16;
            if offset >= longest {
                break;
            }
        }
    }
    state
}

/// Reduces fully, and adds the second half of the one-time key.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
fn finish(state: Number, s_low: Vector, s_high: Vector) -> Tags {
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
    let mut tags = Tags { low: [0; LANES], high: [0; LANES] };
    // SAFETY: each array is 64 bytes.
    unsafe {
        _mm512_storeu_si512(tags.low.as_mut_ptr().cast(), low);
        _mm512_storeu_si512(tags.high.as_mut_ptr().cast(), high);
    }
    tags
}

/// A word for each lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(words: &[u64; LANES]) -> Vector {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// The limbs of a 128-bit number and what lies above it.
#[inline]
#[target_feature(enable = "avx512f")]
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
#[target_feature(enable = "avx512f")]
fn sum(a: Number, b: Number) -> Number {
    [_mm512_add_epi64(a[0], b[0]), _mm512_add_epi64(a[1], b[1]), _mm512_add_epi64(a[2], b[2])]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn times_5(a: Vector) -> Vector {
    _mm512_add_epi64(a, _mm512_slli_epi64::<2>(a))
}

/// Prepares a multiplier.
#[inline]
#[target_feature(enable = "avx512f")]
fn power(limbs: Number) -> Power {
    let times_20 = |limb| _mm512_slli_epi64::<2>(times_5(limb));
    Power { limbs, times_20: [times_20(limbs[1]), times_20(limbs[2])] }
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply(a: Number, by: &Power) -> Products {
    let zero = [_mm512_setzero_si512(); 3];
    multiply_add(Products { low: zero, high: zero }, a, by)
}

/// `products + a * by`. Limbs of `a` may have up to 46 bits; twelve such sums fit.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
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
#[target_feature(enable = "avx512f")]
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
#[target_feature(enable = "avx512f")]
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
