//! X25519 (RFC 7748): key pairs and shared secrets.

use aws_lc_rs::agreement;

use super::kdf::Secret;
use zeroize::Zeroizing;

/// A public key from which no shared secret comes: its point is of small order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the public key is of small order")]
pub struct SmallOrder;

/// A private key with its public key. The private part is wiped when dropped.
pub struct KeyPair {
    private: agreement::PrivateKey,
    public: [u8; 32],
}

impl KeyPair {
    /// The key pair of a private key's 32 bytes, clamped or not.
    ///
    /// Fails only if the crypto library cannot get memory.
    pub fn new(private: &[u8; 32]) -> Result<Self, SmallOrder> {
        let private = agreement::PrivateKey::from_private_key(&agreement::X25519, private).map_err(|_| SmallOrder)?;
        let public = private.compute_public_key().map_err(|_| SmallOrder)?;
        let public = public.as_ref().try_into().map_err(|_| SmallOrder)?;
        Ok(Self { private, public })
    }

    /// The public key.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The secret shared with the holder of `public`'s private key; an all-zero one is refused (RFC 7748 section 6.1).
    pub fn agree(&self, public: &[u8; 32]) -> Result<Secret, SmallOrder> {
        let public = agreement::UnparsedPublicKey::new(&agreement::X25519, public);
        agreement::agree(&self.private, public, SmallOrder, |shared| {
            let shared: Secret = Zeroizing::new(shared.try_into().map_err(|_| SmallOrder)?);
            if *shared == [0; 32] { Err(SmallOrder) } else { Ok(shared) }
        })
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPair(..)")
    }
}
