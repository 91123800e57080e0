//! The tags of sixteen packets: written behind their texts, or compared with what is there.

use std::arch::x86_64::*;
use std::ptr;

use super::Vector;
use super::packets::Row;
use super::poly1305::{LANES, Tags, tags};
use super::sixteen::Sixteen;
use crate::TAG_LENGTH;

/// The last block: the lengths of the AAD and of the text.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn without_aad(lengths: Vector) -> [Vector; 2] {
    [_mm512_setzero_si512(), lengths]
}

/// Writes behind each text of a row its tag.
///
/// # Safety
/// The texts must be valid for reads, and 16 bytes behind them for writes.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub(super) unsafe fn write(row: &Row<'_>, sixteen: &Sixteen) {
    // SAFETY: the caller's promise.
    let halves = unsafe { tags(row, &sixteen.one_time_keys, |lengths| without_aad(lengths)) };
    let tags = halves.map(|tags| in_bytes(tags));
    let tags = tags.as_flattened().iter();
    let places = row.texts[..row.count].iter().zip(&row.lengths[..row.count]);
    for ((text, &length), tag) in places.zip(tags) {
        // SAFETY: the caller's promise.
        unsafe { text.add(length as usize).cast::<[u8; TAG_LENGTH]>().write(*tag) };
    }
}

/// Compares what is behind each text of a row with its tag. Returns a bit for each packet, set where they are equal.
///
/// # Safety
/// The texts, and 16 bytes behind them, must be valid for reads.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub(super) unsafe fn compare(row: &Row<'_>, sixteen: &Sixteen) -> u16 {
    // SAFETY: the caller's promise.
    let [lower, upper] = unsafe { tags(row, &sixteen.one_time_keys, |lengths| without_aad(lengths)) };
    // SAFETY: the caller's promise.
    let equal = unsafe {
        let lower = u16::from(compare_eight(row, 0, lower));
        let upper = if row.count > LANES { u16::from(compare_eight(row, LANES, upper)) } else { 0 };
        lower | upper << LANES
    };
    // The lanes behind the last packet repeat it.
    equal & u16::MAX.checked_shr(16_u32.saturating_sub(row.count as u32)).unwrap_or(0)
}

/// # Safety
/// As for [`compare`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
unsafe fn compare_eight(row: &Row<'_>, first: usize, [low, high]: Tags) -> __mmask8 {
    // SAFETY: the eight addresses and lengths from `first` on are 64 and 32 bytes. The gathers read the 16 bytes behind each text.
    unsafe {
        let texts = _mm512_loadu_si512(row.texts[first..first + LANES].as_ptr().cast());
        let lengths = _mm256_loadu_si256(row.lengths[first..first + LANES].as_ptr().cast());
        let ends = _mm512_add_epi64(texts, _mm512_cvtepu32_epi64(lengths));
        let given_low = _mm512_i64gather_epi64::<1>(ends, ptr::null());
        let given_high = _mm512_i64gather_epi64::<1>(ends, ptr::without_provenance(8));
        // All bits count alike, and no branch depends on a single one.
        let difference = _mm512_or_si512(_mm512_xor_si512(given_low, low), _mm512_xor_si512(given_high, high));
        _mm512_testn_epi64_mask(difference, difference)
    }
}

/// One tag after the other.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn in_bytes([low, high]: Tags) -> [[u8; TAG_LENGTH]; LANES] {
    let low_then_high = |order| _mm512_permutex2var_epi64(low, order, high);
    let lower = low_then_high(_mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11));
    let upper = low_then_high(_mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15));
    // SAFETY: two vectors are as many bytes, and bytes may have any value.
    unsafe { std::mem::transmute([lower, upper]) }
}
