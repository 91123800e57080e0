//! The tags of sixteen packets: written behind their texts, or compared with what is there.

use std::arch::x86_64::*;
use std::ptr;

use super::packets::{Row, load};
use super::poly1305::{LANES, Tags, tags};
use super::sixteen::Sixteen;
use crate::TAG_LENGTH;

/// The tags of a row: of the texts, and the lengths of the AAD, which is empty, and of the text.
///
/// # Safety
/// The texts must be valid for reads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
unsafe fn tags_without_aad(row: &Row<'_>, sixteen: &Sixteen) -> [Tags; 2] {
    let lengths = load(row.fields.lengths());
    let halves = [_mm512_castsi512_si256(lengths), _mm512_extracti64x4_epi64::<1>(lengths)];
    let last = halves.map(|lengths| [_mm512_setzero_si512(), _mm512_cvtepu32_epi64(lengths)]);
    // SAFETY: the caller's promise.
    unsafe { tags(row, &sixteen.one_time_keys, &last) }
}

/// Writes behind each text of a row its tag.
///
/// # Safety
/// The texts must be valid for reads, and 16 bytes behind them for writes.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub(super) unsafe fn write(row: &Row<'_>, sixteen: &Sixteen) {
    // SAFETY: the caller's promise.
    let halves = unsafe { tags_without_aad(row, sixteen) };
    let tags = halves.map(|tags| in_bytes(tags));
    for ((text, length), tag) in row.texts().zip(tags.as_flattened()) {
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
    let [lower, upper] = unsafe { tags_without_aad(row, sixteen) };
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
    let (texts, lengths) = (row.fields.texts(), row.fields.lengths());
    // SAFETY: the eight addresses and lengths from `first` on are 64 and 32 bytes. The gathers read the 16 bytes behind each text.
    unsafe {
        let texts = _mm512_loadu_si512(texts[first..first + LANES].as_ptr().cast());
        let lengths = _mm256_loadu_si256(lengths[first..first + LANES].as_ptr().cast());
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
