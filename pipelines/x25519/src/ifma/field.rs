//! Arithmetic modulo p = 2^255 - 19 on eight numbers at once, by the 52-bit multiply-adds of AVX-512 IFMA.
//!
//! A number is five limbs of weight 2^51; limb `i` of all eight numbers lies in one vector. Two kinds of bounds hold:
//!
//! - *carried*: every limb is below 2^51 + 2^14. All functions here return such numbers.
//! - The multiplier reads the low 52 bits of a limb alone, so what goes into a product must be below 2^52. Carried limbs are.
//!   A sum or a difference of two of them need not be, which is why [`add`] and [`subtract`] carry.

use std::arch::x86_64::*;

/// Limbs of a number.
pub(super) const LIMBS: usize = 5;
/// Bits of a limb.
pub(super) const BITS: u32 = 51;
/// The bits of a limb of a reduced number.
pub(super) const MASK: u64 = (1 << BITS) - 1;

/// Eight numbers.
pub(super) type Element = [__m512i; LIMBS];

/// Eight times the number whose lowest limb is `value` and whose others are zero.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn small(value: u64) -> Element {
    let zero = _mm512_setzero_si512();
    [_mm512_set1_epi64(value as i64), zero, zero, zero, zero]
}

/// Takes what each limb has above 51 bits to the next one, and what the last has to the first, 19 times (2^255 is 19).
///
/// With limbs below 2^60.3 the carries are below 601, which leaves every limb below 2^51 + 19 * 601.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn carry(limbs: Element) -> Element {
    let mask = _mm512_set1_epi64(MASK as i64);
    let high = limbs.map(|limb| _mm512_srli_epi64::<BITS>(limb));
    let low = limbs.map(|limb| _mm512_and_si512(limb, mask));
    [
        _mm512_madd52lo_epu64(low[0], high[4], _mm512_set1_epi64(19)),
        _mm512_add_epi64(low[1], high[0]),
        _mm512_add_epi64(low[2], high[1]),
        _mm512_add_epi64(low[3], high[2]),
        _mm512_add_epi64(low[4], high[3]),
    ]
}

/// `a + b`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn add(a: &Element, b: &Element) -> Element {
    carry(std::array::from_fn(|i| _mm512_add_epi64(a[i], b[i])))
}

/// `a - b`: 2p is added, whose limbs are greater than carried ones.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn subtract(a: &Element, b: &Element) -> Element {
    const TWICE_P: [u64; LIMBS] = [2 * (MASK - 18), 2 * MASK, 2 * MASK, 2 * MASK, 2 * MASK];
    carry(std::array::from_fn(|i| _mm512_sub_epi64(_mm512_add_epi64(a[i], _mm512_set1_epi64(TWICE_P[i] as i64)), b[i])))
}

/// Reduces a product of ten limbs, of which each is below 15 * 2^52: limb `i + 5` is worth 19 times limb `i`.
///
/// A sum stays below 20 * 15 * 2^52 < 2^60.3.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn fold(product: [__m512i; 2 * LIMBS]) -> Element {
    carry(std::array::from_fn(|i| {
        let high = product[i + LIMBS];
        // 19 = 1 + 2 * (1 + 8)
        let nine = _mm512_add_epi64(high, _mm512_slli_epi64::<3>(high));
        let (low, eighteen) = (_mm512_add_epi64(product[i], high), _mm512_add_epi64(nine, nine));
        _mm512_add_epi64(low, eighteen)
    }))
}

/// `a * b`.
///
/// The multiplier gives bits 0 to 51 of a product of limbs, and bits 52 to 103. The latter are worth twice a limb of the next
/// weight, and are added up first, so that one doubling does for all of them.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn multiply(a: &Element, b: &Element) -> Element {
    let mut product = [_mm512_setzero_si512(); 2 * LIMBS];
    for i in 0..LIMBS {
        for j in 0..LIMBS {
            product[i + j + 1] = _mm512_madd52hi_epu64(product[i + j + 1], a[i], b[j]);
        }
    }
    for limb in &mut product[1..] {
        *limb = _mm512_add_epi64(*limb, *limb);
    }
    for i in 0..LIMBS {
        for j in 0..LIMBS {
            product[i + j] = _mm512_madd52lo_epu64(product[i + j], a[i], b[j]);
        }
    }
    fold(product)
}

/// `a * a`: as [`multiply`], with each product of two different limbs made once and counted twice.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn square(a: &Element) -> Element {
    let mut product = [_mm512_setzero_si512(); 2 * LIMBS];
    for i in 0..LIMBS {
        for j in i + 1..LIMBS {
            product[i + j + 1] = _mm512_madd52hi_epu64(product[i + j + 1], a[i], a[j]);
        }
    }
    // Of the doublings, the upper halves of mixed products need two, the lower halves of squares none, the others one.
    for limb in &mut product[2..2 * LIMBS - 1] {
        *limb = _mm512_add_epi64(*limb, *limb);
    }
    for i in 0..LIMBS {
        product[2 * i + 1] = _mm512_madd52hi_epu64(product[2 * i + 1], a[i], a[i]);
        for j in i + 1..LIMBS {
            product[i + j] = _mm512_madd52lo_epu64(product[i + j], a[i], a[j]);
        }
    }
    for limb in &mut product[1..] {
        *limb = _mm512_add_epi64(*limb, *limb);
    }
    for i in 0..LIMBS {
        product[2 * i] = _mm512_madd52lo_epu64(product[2 * i], a[i], a[i]);
    }
    fold(product)
}

/// `a` squared `count` times.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn square_times(a: &Element, count: usize) -> Element {
    (0..count).fold(*a, |power, _| square(&power))
}

/// `a + FACTOR * b`, for a factor below 2^17.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn add_multiple<const FACTOR: u64>(a: &Element, b: &Element) -> Element {
    const { assert!(FACTOR < 1 << 17) };
    let factor = _mm512_set1_epi64(FACTOR as i64);
    let zero = _mm512_setzero_si512();
    let high = b.map(|limb| _mm512_madd52hi_epu64(zero, limb, factor));
    let low: Element = std::array::from_fn(|i| _mm512_madd52lo_epu64(a[i], b[i], factor));
    // Each upper half is below 2^17 and worth twice a limb of the next weight.
    carry([
        _mm512_madd52lo_epu64(low[0], high[4], _mm512_set1_epi64(38)),
        _mm512_add_epi64(low[1], _mm512_add_epi64(high[0], high[0])),
        _mm512_add_epi64(low[2], _mm512_add_epi64(high[1], high[1])),
        _mm512_add_epi64(low[3], _mm512_add_epi64(high[2], high[2])),
        _mm512_add_epi64(low[4], _mm512_add_epi64(high[3], high[3])),
    ])
}

/// `1 / a`, and 0 for 0: `a` to the power of p - 2.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn invert(a: &Element) -> Element {
    // Names say the exponent; `ones_n` is 2^n - 1.
    let two = square(a);
    let nine = multiply(a, &square_times(&two, 2));
    let eleven = multiply(&two, &nine);
    let ones_5 = multiply(&nine, &square(&eleven));
    let ones_10 = multiply(&square_times(&ones_5, 5), &ones_5);
    let ones_20 = multiply(&square_times(&ones_10, 10), &ones_10);
    let ones_40 = multiply(&square_times(&ones_20, 20), &ones_20);
    let ones_50 = multiply(&square_times(&ones_40, 10), &ones_10);
    let ones_100 = multiply(&square_times(&ones_50, 50), &ones_50);
    let ones_200 = multiply(&square_times(&ones_100, 100), &ones_100);
    let ones_250 = multiply(&square_times(&ones_200, 50), &ones_50);
    multiply(&square_times(&ones_250, 5), &eleven)
}
