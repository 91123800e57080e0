//! The bulk of eight packets, 64 bytes of each at a time.
//!
//! Packets of a batch may differ in length. When at most half of the lanes have some left, each of those packets takes two lanes, one for
//! every other 64 bytes: of what remains, `h = (h + m1)*r^8 + m2*r^7 + m3*r^6 + m4*r^5` in both, but in the second lane's last step the
//! powers are r^4 to r; the sum of both lanes is what one lane would have come to in twice as many steps.

use std::arch::x86_64::*;
use std::array;

use super::arithmetic::{Number, Power, Products, multiply, multiply_add, power, reduce, split, sum, transpose};
use super::{Batch, LANES, STRIDE};
use crate::avx512::Vector;
use crate::avx512::fields::at;

/// Packets that take two lanes each.
const PAIRS: usize = LANES / 2;

/// From so many double strides on, two lanes for each packet pay for themselves.
const WORTH_PAIRING: usize = 3;

/// What lanes read that have nothing to do.
static IDLE: [u8; STRIDE] = [0; STRIDE];

/// Powers of r, for the blocks of a stride: the first is multiplied by the highest.
type Powers = [Power; 4];

/// All whole strides of a batch.
///
/// # Safety
/// The texts must be valid for reads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub unsafe fn strides(batch: &mut Batch) {
    let r = batch.r;
    let r2 = power(reduce(multiply(r.limbs, &r)));
    let r3 = power(reduce(multiply(r2.limbs, &r)));
    let r4 = power(reduce(multiply(r2.limbs, &r2)));
    let powers = [r4, r3, r2, r];
    let (shortest, longest) = (batch.shortest as usize, batch.longest as usize);
    let (mut state, mut offset) = (batch.state, 0);
    while offset + STRIDE <= shortest {
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (row, &text) in rows.iter_mut().zip(&batch.texts) {
            // SAFETY: `offset + 64 <= shortest`, up to which the text is valid.
            *row = unsafe { _mm512_loadu_si512(at(text, offset).cast()) };
        }
        state = after(state, rows, &powers);
        offset += STRIDE;
    }
    batch.state = state;
    while offset + STRIDE <= longest {
        // Some packets are done. They are sorted, the longest first.
        let left = batch.lengths.partition_point(|&length| offset + STRIDE <= length as usize);
        let pairs = (batch.lengths[left - 1] as usize - offset) / (2 * STRIDE);
        // SAFETY: the first packets have so many strides left, the others none.
        unsafe {
            if left <= PAIRS && pairs >= WORTH_PAIRING {
                by_pairs(batch, left, offset, pairs, &powers);
                offset += pairs * 2 * STRIDE;
            } else {
                one_of_some(batch, left, offset, &powers);
                offset += STRIDE;
            }
        }
    }
    batch.skip_strides();
}

/// The state after a stride.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn after(state: Number, rows: [Vector; LANES], [first, second, third, fourth]: &Powers) -> Number {
    let [a_low, a_high, b_low, b_high, c_low, c_high, d_low, d_high] = transpose(rows);
    // Two sums, because one alone is too long a chain of additions to fill the pipes.
    let lower = multiply_add(multiply(split(d_low, d_high), fourth), split(c_low, c_high), third);
    let upper = multiply_add(multiply(split(b_low, b_high), second), sum(state, split(a_low, a_high)), first);
    reduce(Products { low: sum(lower.low, upper.low), high: sum(lower.high, upper.high) })
}

/// A stride of the first packets; the lanes of the others run idle.
///
/// # Safety
/// The texts of the first `left` packets must be valid for reads of a stride from `offset` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
unsafe fn one_of_some(batch: &mut Batch, left: usize, offset: usize, powers: &Powers) {
    let mut rows = [_mm512_setzero_si512(); LANES];
    for (lane, row) in rows.iter_mut().enumerate() {
        let text = if lane < left { at(batch.texts[lane], offset).cast_const() } else { IDLE.as_ptr() };
        // SAFETY: the caller's promise, or else it is `IDLE`, which has as many bytes.
        *row = unsafe { _mm512_loadu_si512(text.cast()) };
    }
    let next = after(batch.state, rows, powers);
    take_first(batch, left, next);
}

/// `pairs` times two strides of the first packets, at most [`PAIRS`] of them, each of which takes two lanes.
///
/// # Safety
/// The texts of the first `left` packets must be valid for reads of so many strides from `offset` on.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
unsafe fn by_pairs(batch: &mut Batch, left: usize, offset: usize, pairs: usize, powers: &Powers) {
    const FIRST: __mmask8 = (1 << PAIRS) - 1;
    // Loops, as the compiler calls the closures of an array's `map`, which are not for the same CPU as `map` itself.
    let mut powers = *powers;
    for by in &mut powers {
        for limb in &mut by.limbs {
            *limb = _mm512_shuffle_i64x2::<0x44>(*limb, *limb);
        }
        for limb in &mut by.times_20 {
            *limb = _mm512_shuffle_i64x2::<0x44>(*limb, *limb);
        }
    }
    let mut higher = powers;
    for by in &mut higher {
        *by = power(reduce(multiply(powers[0].limbs, by)));
    }
    let mut last = powers;
    for (last, higher) in last.iter_mut().zip(&higher) {
        for (limb, higher) in last.limbs.iter_mut().zip(higher.limbs) {
            *limb = _mm512_mask_mov_epi64(*limb, FIRST, higher);
        }
        for (limb, higher) in last.times_20.iter_mut().zip(higher.times_20) {
            *limb = _mm512_mask_mov_epi64(*limb, FIRST, higher);
        }
    }
    let mut texts: [*const u8; LANES] = array::from_fn(|lane| match lane % PAIRS {
        packet if packet < left => at(batch.texts[packet], offset + lane / PAIRS * STRIDE),
        _ => IDLE.as_ptr(),
    });
    let advances: [usize; PAIRS] = array::from_fn(|packet| if packet < left { 2 * STRIDE } else { 0 });
    let mut state = batch.state;
    for limb in &mut state {
        *limb = _mm512_maskz_mov_epi64(FIRST, *limb);
    }
    for pair in 1..=pairs {
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (lane, (row, text)) in rows.iter_mut().zip(&mut texts).enumerate() {
            // SAFETY: the caller's promise, or else it is `IDLE`, which has as many bytes.
            *row = unsafe { _mm512_loadu_si512(text.cast()) };
            *text = text.wrapping_add(advances[lane % PAIRS]);
        }
        state = after(state, rows, if pair == pairs { &last } else { &higher });
    }
    for limb in &mut state {
        *limb = _mm512_add_epi64(*limb, _mm512_shuffle_i64x2::<0xee>(*limb, *limb));
    }
    let zero = [_mm512_setzero_si512(); 3];
    take_first(batch, left, reduce(Products { low: state, high: zero }));
}

/// Takes a new state for the first packets.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn take_first(batch: &mut Batch, count: usize, next: Number) {
    let first = (1_u16 << count).wrapping_sub(1) as __mmask8;
    for (limb, next) in batch.state.iter_mut().zip(next) {
        *limb = _mm512_mask_mov_epi64(*limb, first, next);
    }
}
