//! A session key in the one form that every backend reads.

use std::sync::atomic::{Ordering, compiler_fence};
use std::{fmt, ptr};

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A prepared key: 32 bytes, no heap. Each copy is zeroised on drop; `Debug` shows nothing of it.
///
/// No backend gains from more than the raw key. ChaCha20 has no key schedule, and the context that aws-lc wants is a copy of the
/// key (584 bytes, most of them unused) that is made anew for each run of packets in a few nanoseconds.
// Aligned so that the kernel loads a key from one cache line.
#[repr(align(32))]
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// Takes a copy of the key. The caller wipes its own.
    pub const fn new(key: &[u8; 32]) -> Self {
        Self(*key)
    }

    /// The key whose bytes, read as little-endian words, are these.
    #[inline]
    pub fn from_words(words: [u64; 4]) -> Self {
        let mut key = Self([0; 32]);
        for (bytes, word) in key.0.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        key
    }

    /// Its bytes, read as little-endian words: for keepers of keys that are made of atomics, which wipe them by themselves.
    #[inline]
    pub fn to_words(&self) -> [u64; 4] {
        let (words, _) = self.0.as_chunks();
        std::array::from_fn(|index| u64::from_le_bytes(words[index]))
    }

    /// As ChaCha20 reads it: eight little-endian words.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn words(&self) -> [u32; 8] {
        let (words, _) = self.0.as_chunks::<4>();
        std::array::from_fn(|index| u32::from_le_bytes(words[index]))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Zeroize for Key {
    /// Word by word: workers wipe copies all the time, and the crate would do it byte by byte.
    #[inline]
    fn zeroize(&mut self) {
        let words: *mut u64 = self.0.as_mut_ptr().cast();
        for word in 0..4 {
            // SAFETY: the key is four words, aligned to more than one, and borrowed for writing.
            unsafe { ptr::write_volatile(words.add(word), 0) };
        }
        compiler_fence(Ordering::SeqCst);
    }
}

impl Drop for Key {
    #[inline]
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for Key {}

impl From<[u8; 32]> for Key {
    /// Takes the key, and wipes what it was made from.
    fn from(mut key: [u8; 32]) -> Self {
        let prepared = Self(key);
        key.zeroize();
        prepared
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}
