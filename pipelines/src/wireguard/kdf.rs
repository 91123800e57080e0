//! WireGuard's hash functions (paper, section 5.4): BLAKE2s, its keyed MAC, HMAC (RFC 2104), and the KDF over it.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, Mac, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use zeroize::Zeroizing;

/// 32 secret bytes, wiped when dropped.
pub type Secret = Zeroizing<[u8; 32]>;

const BLOCK: usize = 64;

/// `HASH`: BLAKE2s-256 (RFC 7693) over the parts, one behind the other.
pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    for part in parts {
        Update::update(&mut state, part);
    }
    state.finalize_fixed().into()
}

/// `MAC`: keyed BLAKE2s with an output of 16 bytes. The key has 1 to 32 bytes, as every key here has by its type.
pub fn mac<const N: usize>(key: &[u8; N], message: &[&[u8]]) -> [u8; 16] {
    const { assert!(N >= 1 && N <= 32) };
    // A key of this length is never refused; a MAC that nothing matches is what is left to say otherwise.
    let Ok(mut state) = Blake2sMac::<U16>::new_with_salt_and_personal(Some(key), &[], &[]) else {
        return [0; 16];
    };
    for part in message {
        Mac::update(&mut state, part);
    }
    state.finalize_fixed().into()
}

/// HMAC-BLAKE2s under one key, with the key's two blocks hashed in advance.
pub struct Hmac {
    inner: Blake2s256,
    outer: Blake2s256,
}

impl Hmac {
    /// HMAC under `key`.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { inner: keyed(key, 0x36), outer: keyed(key, 0x5c) }
    }

    /// The code of the parts, one behind the other.
    pub fn code(&self, parts: &[&[u8]]) -> Secret {
        let mut inner = self.inner.clone();
        for part in parts {
            Update::update(&mut inner, part);
        }
        let digest: Secret = Zeroizing::new(inner.finalize_fixed().into());
        let mut outer = self.outer.clone();
        Update::update(&mut outer, digest.as_slice());
        Zeroizing::new(outer.finalize_fixed().into())
    }
}

fn keyed(key: &[u8; 32], pad: u8) -> Blake2s256 {
    let mut block = Zeroizing::new([pad; BLOCK]);
    for (byte, key) in block.iter_mut().zip(key) {
        *byte ^= key;
    }
    let mut state = Blake2s256::new();
    Update::update(&mut state, block.as_slice());
    state
}

/// `KDF_N`: `N` keys (at most 255) from a chaining key and input.
pub fn kdf<const N: usize>(key: &[u8; 32], input: &[u8]) -> [Secret; N] {
    let root = Hmac::new(&Hmac::new(key).code(&[input]));
    let mut number = 0;
    let mut previous: Option<Secret> = None;
    std::array::from_fn(|_| {
        number += 1;
        let code = match &previous {
            None => root.code(&[&[number]]),
            Some(previous) => root.code(&[previous.as_slice(), &[number]]),
        };
        previous = Some(code.clone());
        code
    })
}
