//! ChaCha20-Poly1305 (RFC 8439) by the burst, as WireGuard uses it: many packets with different keys, counters and lengths in one call.
//!
//! The AAD is always empty, and the nonce is four zero bytes followed by a 64-bit little-endian counter (WireGuard paper,
//! section 5.4.6). Packets are worked on in place: `ciphertext ++ tag` takes the room of `plaintext ++ 16 bytes`.
//!
//! ```
//! use jetway_aead::{Aead, OpenJob, SealJob};
//!
//! let aead = Aead::best();
//! let key = aead.key(&[7; 32]);
//! let mut packet = *b"hello................";
//! aead.seal_burst(&mut [SealJob { key: &key, counter: 1, buffer: &mut packet }]);
//! let mut jobs = [OpenJob { key: &key, counter: 1, buffer: &mut packet, authentic: false }];
//! aead.open_burst(&mut jobs);
//! assert!(jobs[0].authentic);
//! assert_eq!(&packet[..5], b"hello");
//! ```

#[cfg(target_arch = "x86_64")]
mod avx512;
mod aws_lc;
mod backend;
mod key;
mod prefetch;
mod rust_crypto;

pub use backend::{Backend, UnknownBackend, Unsupported};
pub use key::Key;
pub use prefetch::{prefetch_bytes, prefetch_read};

/// Bytes of an authentication tag, which follows the ciphertext.
pub const TAG_LENGTH: usize = 16;

/// A packet to encrypt.
// The kernel reads the fields of many at once, where they are.
#[repr(C)]
#[derive(Debug)]
pub struct SealJob<'a> {
    /// The key of the session.
    pub key: &'a Key,
    /// The counter that makes the nonce. The caller never uses one twice with the same key: that would give away both packets.
    pub counter: u64,
    /// Plaintext followed by [`TAG_LENGTH`] bytes of room, whose content does not matter. Becomes ciphertext and tag.
    ///
    /// A buffer without that room is the caller's mistake; it is filled with zeros, so that none of it can leave in the clear.
    pub buffer: &'a mut [u8],
}

/// A packet to decrypt.
// As above.
#[repr(C)]
#[derive(Debug)]
pub struct OpenJob<'a> {
    /// The key of the session.
    pub key: &'a Key,
    /// The counter that the packet carries.
    pub counter: u64,
    /// Ciphertext followed by the tag. When authentic, the ciphertext becomes plaintext and the tag stays.
    ///
    /// Otherwise nothing of the plaintext is in it: the ciphertext is as it was, or zeroed, by the choice of the backend.
    pub buffer: &'a mut [u8],
    /// The result; its value before the call does not matter. A buffer shorter than a tag is never authentic.
    pub authentic: bool,
}

/// A chosen implementation. Every call goes through it.
#[derive(Clone, Copy, Debug)]
pub struct Aead {
    /// One that this CPU can run: [`Aead::with_backend`] saw to it.
    backend: Backend,
}

impl Aead {
    /// The fastest that this CPU can run.
    pub fn best() -> Self {
        let backend = Backend::ALL.into_iter().find(|backend| backend.is_supported());
        // aws-lc needs nothing of the CPU, so one is always found.
        Self { backend: backend.unwrap_or(Backend::AwsLc) }
    }

    /// The one that is asked for.
    ///
    /// # Errors
    /// When this CPU lacks an instruction that it needs. The error names what is missing.
    pub fn with_backend(backend: Backend) -> Result<Self, Unsupported> {
        if backend.is_supported() { Ok(Self { backend }) } else { Err(Unsupported { backend }) }
    }

    /// Which one it is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Prepares a key. A key works with every backend, also with another than the one that prepared it.
    pub fn key(&self, bytes: &[u8; 32]) -> Key {
        Key::new(bytes)
    }

    /// Encrypts every packet of the burst in place. The burst may have any length; nothing is allocated.
    pub fn seal_burst(&self, jobs: &mut [SealJob<'_>]) {
        match self.backend {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Aead` with this backend exists only where the CPU has its features.
            Backend::Avx512 => unsafe { avx512::seal_burst(jobs) },
            // Nowhere supported, so never chosen.
            #[cfg(not(target_arch = "x86_64"))]
            Backend::Avx512 => aws_lc::seal_burst(jobs),
            Backend::AwsLc => aws_lc::seal_burst(jobs),
            Backend::RustCrypto => rust_crypto::seal_burst(jobs),
        }
    }

    /// Decrypts every authentic packet of the burst in place, and says in [`OpenJob::authentic`] which those are.
    ///
    /// The burst may have any length. A packet that is not authentic has no effect on the others. Replays are for the caller to
    /// find. Nothing is allocated, but for a small record of its own that aws-lc makes at a thread's first forged packet.
    pub fn open_burst(&self, jobs: &mut [OpenJob<'_>]) {
        match self.backend {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Aead` with this backend exists only where the CPU has its features.
            Backend::Avx512 => unsafe { avx512::open_burst(jobs) },
            // Nowhere supported, so never chosen.
            #[cfg(not(target_arch = "x86_64"))]
            Backend::Avx512 => aws_lc::open_burst(jobs),
            Backend::AwsLc => aws_lc::open_burst(jobs),
            Backend::RustCrypto => rust_crypto::open_burst(jobs),
        }
    }
}

/// The 96-bit nonce that WireGuard makes of a counter.
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
