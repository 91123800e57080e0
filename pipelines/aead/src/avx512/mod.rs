//! The multi-buffer kernel for AVX-512 with IFMA: the blocks of all packets of a burst go through ChaCha20 as one stream, and
//! through Poly1305 eight packets at a time.
//!
//! What may differ from packet to packet is data (keys, counters, lengths, addresses); branches and addresses depend on lengths
//! and on whether a packet is authentic, all of which an observer of the wire knows, and on nothing secret.

mod burst;
mod chacha20;
mod group;
mod horner;
mod one_time_key;
mod poly1305;

use std::arch::x86_64::{__m512i, _mm512_setzero_si512};
use std::ptr;
use std::sync::atomic::{Ordering, compiler_fence};

pub(crate) use burst::{open_burst, seal_burst};

use crate::Key;

/// 64 bytes of any meaning.
type Vector = __m512i;

/// Overwrites a secret with zero bytes, whatever the compiler thinks of that. For plain words and addresses.
fn wipe<T: Copy>(secret: &mut T) {
    // SAFETY: a reference is valid and aligned, and the types that this is used for (integers, vectors, addresses and structures
    // of them) may be all zeros.
    unsafe { ptr::write_volatile(secret, std::mem::zeroed()) }
    compiler_fence(Ordering::SeqCst);
}

/// The same for many vectors at once.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn wipe_vectors(secrets: &mut [Vector]) {
    for secret in secrets {
        // SAFETY: a reference is valid and aligned.
        unsafe { ptr::write_volatile(secret, _mm512_setzero_si512()) }
    }
    compiler_fence(Ordering::SeqCst);
}

/// A packet in work: `text` is followed by 16 bytes for the tag.
#[derive(Clone, Copy)]
struct Packet<'a> {
    key: &'a Key,
    counter: u64,
    text: *mut u8,
    length: usize,
}

impl Packet<'_> {
    /// Blocks of ChaCha20 that hide the text.
    fn blocks(&self) -> usize {
        self.length.div_ceil(group::BLOCK)
    }

    /// # Safety
    /// `text` must be valid for reads of `length + 16` bytes.
    unsafe fn tag(&self) -> u128 {
        // SAFETY: the tag follows the text.
        u128::from_le(unsafe { self.text.add(self.length).cast::<u128>().read_unaligned() })
    }

    /// # Safety
    /// `text` must be valid for writes of `length + 16` bytes.
    unsafe fn set_tag(&self, tag: u128) {
        // SAFETY: the tag follows the text.
        unsafe { self.text.add(self.length).cast::<u128>().write_unaligned(tag.to_le()) }
    }
}

#[cfg(test)]
mod tests;
