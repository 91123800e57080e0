//! The one-time keys of Poly1305 (RFC 8439, section 2.6) of eight packets, one to each 64-bit lane.

use std::arch::x86_64::*;
use std::ptr;

use arrayvec::ArrayVec;

use super::burst::WINDOW;
use super::chacha20::GROUP;
use super::group::Group;
use super::poly1305::LANES;
use super::{Packet, Vector, wipe_vectors};

/// The one-time keys of a window of packets.
pub(super) type Keys = ArrayVec<OneTimeKeys, { WINDOW / LANES }>;

/// Eight one-time keys.
#[derive(Clone, Copy)]
pub(super) struct OneTimeKeys {
    /// Low and high halves of the multiplier r, clamped, and of s, which is added at the end.
    pub(super) halves: [Vector; 4],
}

impl OneTimeKeys {
    /// Where lane `l` of the ChaCha20 group takes its packet from, so that [`OneTimeKeys::from_words`] need not sort: interleaving
    /// two vectors of words within their 128-bit quarters leaves lanes 0, 1, 4, 5, 8, ... and 2, 3, 6, 7, 10, ...
    pub(super) const ORDER: [usize; GROUP] = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15];

    /// Makes the keys of up to a window of packets.
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    pub(super) fn derive(packets: &[Packet<'_>], groups: &mut [Group; 2]) -> Keys {
        let mut keys = Keys::new();
        let mut rest = packets.chunks(GROUP);
        let [first, second] = groups;
        while let Some(packets) = rest.next() {
            first.take_first_blocks(packets);
            let (words, count) = match rest.next() {
                None => (first.first_words(None), packets.len()),
                Some(more_packets) => {
                    second.take_first_blocks(more_packets);
                    (first.first_words(Some(second)), packets.len() + more_packets.len())
                }
            };
            // Of lanes without a packet, there may be more keys than a window has room for.
            keys.extend(words.iter().flat_map(|words| Self::from_words(words)).take(count.div_ceil(LANES)));
        }
        keys
    }

    /// Of the first blocks of sixteen packets: the keys of the first and of the second eight.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    fn from_words(words: &[Vector; 8]) -> [Self; 2] {
        let clamp = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc].map(|mask| _mm512_set1_epi64(mask));
        let make = |halves: [Vector; 4]| {
            let [r_low, r_high, s_low, s_high] = halves;
            Self { halves: [_mm512_and_si512(r_low, clamp[0]), _mm512_and_si512(r_high, clamp[1]), s_low, s_high] }
        };
        [
            make([0, 2, 4, 6].map(|word| _mm512_unpacklo_epi32(words[word], words[word + 1]))),
            make([0, 2, 4, 6].map(|word| _mm512_unpackhi_epi32(words[word], words[word + 1]))),
        ]
    }

    /// The halves of r and of s of one packet.
    pub(super) fn of(&self, lane: usize) -> [[u64; 2]; 2] {
        assert!(lane < LANES);
        // SAFETY: a vector is eight words of 64 bits, of which this is one.
        let [r_low, r_high, s_low, s_high] =
            self.halves.each_ref().map(|half| unsafe { ptr::from_ref(half).cast::<u64>().add(lane).read() });
        [[r_low, r_high], [s_low, s_high]]
    }

    /// Forgets the keys.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    pub(super) fn wipe(&mut self) {
        wipe_vectors(&mut self.halves);
    }
}
