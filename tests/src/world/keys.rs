//! WireGuard keys as the base64 text that every tool takes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use x25519_dalek::{PublicKey, StaticSecret};

/// A static key pair of a peer.
#[derive(Clone)]
pub struct KeyPair {
    /// The private key, base64.
    pub private: String,
    /// The public key, base64.
    pub public: String,
}

impl KeyPair {
    /// A new key pair.
    pub fn generate() -> Self {
        let secret = StaticSecret::from(rand::random::<[u8; 32]>());
        KeyPair {
            private: STANDARD.encode(secret.to_bytes()),
            public: STANDARD.encode(PublicKey::from(&secret).as_bytes()),
        }
    }

    /// The private key for protocol cores that take bytes.
    pub fn secret(&self) -> StaticSecret {
        StaticSecret::from(decode(&self.private))
    }

    /// The public key for protocol cores that take bytes.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from(decode(&self.public))
    }
}

/// A new preshared key, base64.
pub fn preshared_key() -> String {
    STANDARD.encode(rand::random::<[u8; 32]>())
}

fn decode(text: &str) -> [u8; 32] {
    let bytes = STANDARD.decode(text).expect("a key is base64");
    bytes.try_into().expect("a key has 32 bytes")
}
