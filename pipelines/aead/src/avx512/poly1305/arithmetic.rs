//! Numbers modulo 2^130 - 5, one in each 64-bit lane, in three limbs of 44, 44 and 42 bits.

use std::arch::x86_64::*;

use super::LANES;
use crate::avx512::Vector;

pub const MASK_44: i64 = (1 << 44) - 1;
pub const MASK_42: i64 = (1 << 42) - 1;

/// A number in three limbs, for each lane.
pub type Number = [Vector; 3];

/// A multiplier: its limbs, and 20 times the upper two. A product at 2^132 is worth 4 * 5 at 2^0.
#[derive(Clone, Copy)]
pub struct Power {
    pub limbs: Number,
    pub times_20: [Vector; 2],
}

/// Sums of halves of products: of limb i, `low[i]` at 2^(44 i) and `high[i]` at 2^(44 i + 52).
#[derive(Clone, Copy)]
pub struct Products {
    pub low: Number,
    pub high: Number,
}

/// The limbs of a block of 128 bits, with the bit above it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub fn split(low: Vector, high: Vector) -> Number {
    let mask_44 = _mm512_set1_epi64(MASK_44);
    let middle = _mm512_shrdi_epi64::<44>(low, high);
    // The bit comes in from above: bit 0 of the other word.
    let upper = _mm512_shrdi_epi64::<24>(high, _mm512_set1_epi64(1));
    [_mm512_and_si512(low, mask_44), _mm512_and_si512(middle, mask_44), upper]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub fn sum(a: Number, b: Number) -> Number {
    [_mm512_add_epi64(a[0], b[0]), _mm512_add_epi64(a[1], b[1]), _mm512_add_epi64(a[2], b[2])]
}

/// Prepares a multiplier.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub fn power(limbs: Number) -> Power {
    let times_20 = |limb| add_times(_mm512_setzero_si512(), limb, 20);
    Power { limbs, times_20: [times_20(limbs[1]), times_20(limbs[2])] }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub fn multiply(a: Number, by: &Power) -> Products {
    let zero = [_mm512_setzero_si512(); 3];
    multiply_add(Products { low: zero, high: zero }, a, by)
}

/// `products + a * by`. Limbs of `a` may have up to 45 bits and a bit; twelve such sums fit. Its lowest limb comes in last, because that is
/// what a reduction has ready last.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub fn multiply_add(products: Products, a: Number, by: &Power) -> Products {
    let ([r0, r1, r2], [t1, t2]) = (by.limbs, by.times_20);
    let Products { mut low, mut high } = products;
    for (limb, [by_0, by_1, by_2]) in [[r0, t2, t1], [r1, r0, t2], [r2, r1, r0]].into_iter().enumerate() {
        for (a, by) in [(a[2], by_2), (a[1], by_1), (a[0], by_0)] {
            low[limb] = _mm512_madd52lo_epu64(low[limb], a, by);
            high[limb] = _mm512_madd52hi_epu64(high[limb], a, by);
        }
    }
    Products { low, high }
}

/// Carries, until the limbs have 44, 44 and a bit, and 42 bits. The multiply-add shifts and adds at once: with limbs of up to 45 bits
/// in four products, the high halves have up to 42 bits, and what is multiplied here stays below 2^52.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub fn reduce(products: Products) -> Number {
    let [h0, h1, h2] = reduce_loosely(products);
    [_mm512_and_si512(h0, _mm512_set1_epi64(MASK_44)), _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(h0)), h2]
}

/// The same, but for the last carry: the lowest limb keeps up to 50 bits. For what is multiplied by r itself next, whose upper limb has 36
/// bits: of h + m with limbs of up to 51, 45 and 43 bits, the high halves of the product have up to 43, 43 and 38 bits, so what becomes
/// the lowest limb is below 2^50 again.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub fn reduce_loosely(products: Products) -> Number {
    let (mask_44, mask_42) = (_mm512_set1_epi64(MASK_44), _mm512_set1_epi64(MASK_42));
    let [l0, l1, l2, carry] = carry_up(products);
    let h0 = add_times(_mm512_and_si512(l0, mask_44), carry, 5);
    [h0, _mm512_and_si512(l1, mask_44), _mm512_and_si512(l2, mask_42)]
}

/// Adds to each limb what the one below has too much, without taking it away there. Returns the limbs, and what the last one has too much.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn carry_up(products: Products) -> [Vector; 4] {
    let Products { low: [l0, l1, l2], high: [g0, g1, g2] } = products;
    // A high half lies 8 bits above the next limb, and 10 above 2^130, which is worth 5, for the last.
    let l1 = _mm512_add_epi64(add_times(l1, g0, 1 << 8), _mm512_srli_epi64::<44>(l0));
    let l2 = _mm512_add_epi64(add_times(l2, g1, 1 << 8), _mm512_srli_epi64::<44>(l1));
    [l0, l1, l2, add_times(_mm512_srli_epi64::<42>(l2), g2, 1 << 10)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub fn add_times(sum: Vector, a: Vector, factor: i64) -> Vector {
    _mm512_madd52lo_epu64(sum, a, _mm512_set1_epi64(factor))
}

/// Turns rows of eight words into vectors of the rows' first, second, ... words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub fn transpose(rows: [Vector; LANES]) -> [Vector; LANES] {
    let [a, b, c, d, e, f, g, h] = rows;
    let pair = |a, b| (_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    transpose_pairs([pair(a, b), pair(c, d), pair(e, f), pair(g, h)])
}

/// The same of what has the even and the odd words of two rows in turn.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub fn transpose_pairs([ab, cd, ef, gh]: [(Vector, Vector); 4]) -> [Vector; LANES] {
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
    let even = quarter([ab.0, cd.0, ef.0, gh.0]);
    let odd = quarter([ab.1, cd.1, ef.1, gh.1]);
    [even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3]]
}
