//! X25519 (RFC 7748): key pairs and shared secrets.

use jetway_x25519 as x25519;

use super::kdf::Secret;

pub use jetway_x25519::{Agreement, agree_burst};

/// A public key from which no shared secret comes: its point is of small order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the public key is of small order")]
pub struct SmallOrder;

/// A private key with its public key. The private part is wiped when dropped.
pub struct KeyPair {
    private: Secret,
    public: [u8; 32],
}

impl KeyPair {
    /// The key pair of a private key's 32 bytes, clamped or not.
    pub fn new(private: &[u8; 32]) -> Self {
        Self { private: Secret::new(*private), public: x25519::public_key(private) }
    }

    /// The public key.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The secret shared with the holder of `public`'s private key; an all-zero one is refused (RFC 7748 section 6.1).
    pub fn agree(&self, public: &[u8; 32]) -> Result<Secret, SmallOrder> {
        x25519::agree(&self.private, public).ok_or(SmallOrder)
    }

    /// The same to be worked out with others by [`agree_burst`].
    pub fn agreement<'a>(&'a self, public: &'a [u8; 32]) -> Agreement<'a> {
        Agreement::of(&self.private, public)
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPair(..)")
    }
}

// The vectors of RFC 7748 and Wycheproof are with `jetway-x25519`.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pairs_agree_alone_and_in_a_burst() {
        let [alice, bob] = [[1; 32], [2; 32]].map(|private| KeyPair::new(&private));
        let shared = alice.agree(bob.public()).unwrap();
        assert_eq!(bob.agree(alice.public()).unwrap(), shared);
        let mut burst = [alice.agreement(bob.public()), bob.agreement(alice.public())];
        agree_burst(&mut burst);
        assert!(burst.iter().all(|agreement| agreement.shared.as_ref() == Some(&shared)));
    }

    #[test]
    fn a_public_key_of_small_order_is_refused() {
        let keys = KeyPair::new(&[1; 32]);
        let one = std::array::from_fn(|byte| u8::from(byte == 0));
        for public in [[0; 32], one] {
            assert_eq!(keys.agree(&public), Err(SmallOrder));
        }
    }
}
