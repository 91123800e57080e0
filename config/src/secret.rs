//! A 32-byte secret that is wiped when dropped and never printed.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A 32-byte key: a private key, a preshared key or a cluster key.
///
/// `Debug` shows nothing of it and there is no `Display`; equality takes the same time wherever keys differ.
/// The bytes are on the heap, so that moving the owner leaves no copies behind.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Secret(Box<[u8; 32]>);

impl Secret {
    /// Takes a copy of `bytes` and wipes them.
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let mut own = Box::new([0; 32]);
        own.copy_from_slice(bytes);
        bytes.zeroize();
        Self(own)
    }

    /// The bytes, for the one place that computes with them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0.iter()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_nothing_and_wipes_its_source() {
        let mut bytes = [7; 32];
        let secret = Secret::take(&mut bytes);
        assert_eq!(bytes, [0; 32]);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.expose(), &[7; 32]);
    }

    #[test]
    fn secrets_that_differ_in_one_bit_are_not_equal() {
        let one = Secret::take(&mut [7; 32]);
        let mut other = [7; 32];
        other[31] ^= 1;
        assert!(one == one.clone());
        assert!(one != Secret::take(&mut other));
    }
}
