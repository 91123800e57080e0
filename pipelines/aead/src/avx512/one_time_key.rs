//! The one-time keys of Poly1305 (RFC 8439, section 2.6) of eight packets, one to each 64-bit lane.

use std::arch::x86_64::*;

use super::chacha20::GROUP;
use super::group::Group;
use super::poly1305::LANES;
use super::{Packet, Vector, wipe};

/// Eight one-time keys.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct OneTimeKeys {
    /// The multiplier, clamped: low and high halves.
    pub(super) r: [[u64; LANES]; 2],
    /// What is added at the end: low and high halves.
    pub(super) s: [[u64; LANES]; 2],
}

impl OneTimeKeys {
    /// Where lane `l` of the ChaCha20 group takes its packet from, so that [`OneTimeKeys::from_words`] need not sort: interleaving
    /// two vectors of words within their 128-bit quarters leaves lanes 0, 1, 4, 5, 8, ... and 2, 3, 6, 7, 10, ...
    pub(super) const ORDER: [usize; GROUP] = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15];

    pub(super) const ZERO: Self = Self { r: [[0; LANES]; 2], s: [[0; LANES]; 2] };

    /// Makes the keys of the packets, eight to an element of `keys`.
    #[target_feature(enable = "avx512f,bmi2")]
    pub(super) fn derive(packets: &[Packet<'_>], keys: &mut [Self], groups: &mut [Group; 2]) {
        let mut keys = keys.chunks_mut(GROUP / LANES);
        let mut rest = packets.chunks(GROUP);
        let [first, second] = groups;
        while let Some(packets) = rest.next() {
            first.take_first_blocks(packets);
            let words = match rest.next() {
                None => first.first_words(None),
                Some(packets) => {
                    second.take_first_blocks(packets);
                    first.first_words(Some(second))
                }
            };
            for (words, keys) in words.iter().zip(&mut keys) {
                for (key, made) in keys.iter_mut().zip(Self::from_words(words)) {
                    *key = made;
                }
            }
        }
    }

    /// Of the first blocks of sixteen packets: the keys of the first and of the second eight.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn from_words(words: &[Vector; 8]) -> [Self; 2] {
        let clamp = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc].map(|mask| _mm512_set1_epi64(mask));
        let make = |halves: [Vector; 4]| {
            let mut keys = Self::ZERO;
            let [r_low, r_high, s_low, s_high] = halves;
            store(&mut keys.r[0], _mm512_and_si512(r_low, clamp[0]));
            store(&mut keys.r[1], _mm512_and_si512(r_high, clamp[1]));
            store(&mut keys.s[0], s_low);
            store(&mut keys.s[1], s_high);
            keys
        };
        [
            make([0, 2, 4, 6].map(|word| _mm512_unpacklo_epi32(words[word], words[word + 1]))),
            make([0, 2, 4, 6].map(|word| _mm512_unpackhi_epi32(words[word], words[word + 1]))),
        ]
    }

    /// Forgets the keys.
    pub(super) fn wipe(&mut self) {
        wipe(self);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(halves: &mut [u64; LANES], vector: Vector) {
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_si512(halves.as_mut_ptr().cast(), vector) }
}
