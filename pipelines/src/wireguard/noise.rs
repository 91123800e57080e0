//! The handshake: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as WireGuard uses it (paper, sections 5.4.2 to 5.4.5).
//!
//! ```text
//! initiator  e, es, s, ss, timestamp   ------------>                            responder
//!            Initiator::start                        Opened -> Authentic::respond
//!                                      <------------  e, ee, se, psk, nothing
//!            Initiator::finish
//! ```

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::kdf::{Secret, hash, kdf};
use super::message::{Initiation, InitiationBody, Response, ResponseBody};
use super::timestamp::Tai64n;
use super::x25519::{KeyPair, SmallOrder};

/// Why a handshake message was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoiseError {
    /// A field does not decrypt: the sender lacks a key, or the message was changed on its way.
    #[error("the handshake message is not authentic")]
    Forged,
    /// A public key gives no shared secret.
    #[error("a public key of the handshake is of small order")]
    SmallOrder,
    /// The crypto library failed us.
    #[error("the crypto library could not get memory")]
    OutOfMemory,
}

impl From<SmallOrder> for NoiseError {
    fn from(_: SmallOrder) -> Self {
        Self::SmallOrder
    }
}

/// The two keys of a session.
pub struct SessionSecrets {
    /// Encrypts what we send.
    pub send: Secret,
    /// Decrypts what we receive.
    pub receive: Secret,
}

/// `HASH("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")`.
const CHAINING_KEY: [u8; 32] = [
    0x60, 0xe2, 0x6d, 0xae, 0xf3, 0x27, 0xef, 0xc0, 0x2e, 0xc3, 0x35, 0xe2, 0xa0, 0x25, 0xd2, 0xd0, 0x16, 0xeb, 0x42,
    0x06, 0xf8, 0x72, 0x77, 0xf5, 0x2d, 0x38, 0xd1, 0x98, 0x8b, 0x78, 0xcd, 0x36,
];
/// `HASH(CHAINING_KEY || "WireGuard v1 zx2c4 Jason@zx2c4.com")`.
const HASH: [u8; 32] = [
    0x22, 0x11, 0xb3, 0x61, 0x08, 0x1a, 0xc5, 0x66, 0x69, 0x12, 0x43, 0xdb, 0x45, 0x8a, 0xd5, 0x32, 0x2d, 0x9c, 0x6c,
    0x66, 0x22, 0x93, 0xe8, 0xb7, 0x0e, 0xe1, 0x9c, 0x65, 0xba, 0x07, 0x9e, 0xf3,
];

/// A handshake that we began and that waits for its response.
pub struct Initiator {
    symmetric: Symmetric,
    ephemeral: KeyPair,
}

impl Initiator {
    /// Begins a handshake with the holder of `remote`. `static_static` is the secret that the two static keys share,
    /// `ephemeral` 32 random bytes.
    pub fn start(
        local: &KeyPair,
        remote: &[u8; 32],
        static_static: &Secret,
        sender: u32,
        timestamp: Tai64n,
        ephemeral: &Secret,
    ) -> Result<(Self, InitiationBody), NoiseError> {
        let ephemeral = KeyPair::new(ephemeral);
        let mut symmetric = Symmetric::with_responder(remote);
        symmetric.mix_ephemeral(ephemeral.public());
        let key = symmetric.mix_key(&*ephemeral.agree(remote)?);
        let encrypted_static = symmetric.seal(&key, local.public())?;
        let key = symmetric.mix_key(static_static);
        let encrypted_timestamp = symmetric.seal(&key, timestamp.as_bytes())?;
        let body = Initiation::body(sender, ephemeral.public(), &encrypted_static, &encrypted_timestamp);
        Ok((Self { symmetric, ephemeral }, body))
    }

    /// Ends the handshake with a response. A forged response leaves it as it was.
    pub fn finish(
        &self,
        local: &KeyPair,
        preshared_key: &[u8; 32],
        response: &Response<'_>,
    ) -> Result<SessionSecrets, NoiseError> {
        let mut symmetric = self.symmetric.clone();
        symmetric.mix_ephemeral(response.ephemeral);
        symmetric.mix_secret(&*self.ephemeral.agree(response.ephemeral)?);
        symmetric.mix_secret(&*local.agree(response.ephemeral)?);
        let key = symmetric.mix_preshared_key(preshared_key);
        let [] = symmetric.open(&key, response.encrypted_nothing)?;
        let [send, receive] = symmetric.split();
        Ok(SessionSecrets { send, receive })
    }
}

/// An initiation whose sender is named, but not yet proved.
pub struct Opened {
    symmetric: Symmetric,
    ephemeral: [u8; 32],
    /// The static public key that the sender claims.
    pub remote: [u8; 32],
    sender: u32,
    encrypted_timestamp: [u8; 28],
}

impl Opened {
    /// Decrypts who claims to have sent `initiation` to `local`.
    pub fn open(local: &KeyPair, initiation: &Initiation<'_>) -> Result<Self, NoiseError> {
        Self::open_with(local.public(), initiation, &local.agree(initiation.ephemeral)?)
    }

    /// The same to the holder of `local`, given the secret that its private key and the initiation's ephemeral key share.
    pub fn open_with(
        local: &[u8; 32],
        initiation: &Initiation<'_>,
        static_ephemeral: &Secret,
    ) -> Result<Self, NoiseError> {
        let mut symmetric = Symmetric::with_responder(local);
        symmetric.mix_ephemeral(initiation.ephemeral);
        let key = symmetric.mix_key(static_ephemeral);
        let remote = symmetric.open(&key, initiation.encrypted_static)?;
        Ok(Self {
            symmetric,
            ephemeral: *initiation.ephemeral,
            remote,
            sender: initiation.sender,
            encrypted_timestamp: *initiation.encrypted_timestamp,
        })
    }

    /// Proves the sender by the secret that the two static keys share.
    pub fn authenticate(mut self, static_static: &Secret) -> Result<Authentic, NoiseError> {
        let key = self.symmetric.mix_key(static_static);
        let timestamp = Tai64n::from_bytes(self.symmetric.open(&key, &self.encrypted_timestamp)?);
        let Self { symmetric, ephemeral, remote, sender, .. } = self;
        Ok(Authentic { symmetric, ephemeral, remote, sender, timestamp })
    }
}

/// An initiation that its sender's static key made, though maybe long ago.
pub struct Authentic {
    symmetric: Symmetric,
    /// The initiator's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The initiator's static public key.
    pub remote: [u8; 32],
    /// The initiator's index.
    pub sender: u32,
    /// When the initiation was made; a replay's is not greater than the greatest seen.
    pub timestamp: Tai64n,
}

impl Authentic {
    /// Makes the response and the session's keys. `sender` is our index, `ephemeral` 32 random bytes.
    pub fn respond(
        self,
        preshared_key: &[u8; 32],
        sender: u32,
        ephemeral: &Secret,
    ) -> Result<(SessionSecrets, ResponseBody), NoiseError> {
        let ephemeral = KeyPair::new(ephemeral);
        let shared = [ephemeral.agree(&self.ephemeral)?, ephemeral.agree(&self.remote)?];
        self.respond_with(preshared_key, sender, ephemeral.public(), &shared)
    }

    /// The same, given our ephemeral public key and the secrets that its private key shares with the initiator's ephemeral
    /// and static keys.
    pub fn respond_with(
        mut self,
        preshared_key: &[u8; 32],
        sender: u32,
        ephemeral: &[u8; 32],
        [ephemeral_ephemeral, ephemeral_static]: &[Secret; 2],
    ) -> Result<(SessionSecrets, ResponseBody), NoiseError> {
        let symmetric = &mut self.symmetric;
        symmetric.mix_ephemeral(ephemeral);
        symmetric.mix_secret(ephemeral_ephemeral);
        symmetric.mix_secret(ephemeral_static);
        let key = symmetric.mix_preshared_key(preshared_key);
        let nothing = symmetric.seal(&key, &[])?;
        let body = Response::body(sender, self.sender, ephemeral, &nothing);
        let [receive, send] = symmetric.split();
        Ok((SessionSecrets { send, receive }, body))
    }
}

/// Noise's symmetric state: what both sides have agreed on so far.
#[derive(Clone)]
struct Symmetric {
    chaining_key: Secret,
    hash: [u8; 32],
}

impl Symmetric {
    fn with_responder(public: &[u8; 32]) -> Self {
        Self { chaining_key: Secret::new(CHAINING_KEY), hash: hash(&[&HASH, public]) }
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    fn mix_secret(&mut self, input: &[u8; 32]) {
        let [chaining_key] = kdf(&self.chaining_key, input);
        self.chaining_key = chaining_key;
    }

    fn mix_ephemeral(&mut self, public: &[u8; 32]) {
        self.mix_secret(public);
        self.mix_hash(public);
    }

    fn mix_key(&mut self, input: &[u8; 32]) -> Secret {
        let [chaining_key, key] = kdf(&self.chaining_key, input);
        self.chaining_key = chaining_key;
        key
    }

    fn mix_preshared_key(&mut self, preshared_key: &[u8; 32]) -> Secret {
        let [chaining_key, tau, key] = kdf(&self.chaining_key, preshared_key);
        self.chaining_key = chaining_key;
        self.mix_hash(tau.as_slice());
        key
    }

    /// Encrypts `plain`; `M` is `N + 16`.
    fn seal<const N: usize, const M: usize>(&mut self, key: &Secret, plain: &[u8; N]) -> Result<[u8; M], NoiseError> {
        const { assert!(M == N + 16) };
        let mut sealed = [0; M];
        let (text, tag) = sealed.split_at_mut(N);
        text.copy_from_slice(plain);
        let made = cipher(key)
            .and_then(|key| key.seal_in_place_separate_tag(nonce(), Aad::from(&self.hash), text))
            .map_err(|_| NoiseError::OutOfMemory)?;
        tag.copy_from_slice(made.as_ref());
        self.mix_hash(&sealed);
        Ok(sealed)
    }

    /// Decrypts `sealed`; `N` is `M - 16`.
    fn open<const N: usize, const M: usize>(&mut self, key: &Secret, sealed: &[u8; M]) -> Result<[u8; N], NoiseError> {
        const { assert!(M == N + 16) };
        let mut text = *sealed;
        let plain = cipher(key)
            .and_then(|key| key.open_in_place(nonce(), Aad::from(&self.hash), &mut text))
            .map_err(|_| NoiseError::Forged)?;
        let plain = (&*plain).try_into().map_err(|_| NoiseError::Forged)?;
        self.mix_hash(sealed);
        Ok(plain)
    }

    /// The keys of the two directions, the initiator's first.
    fn split(&self) -> [Secret; 2] {
        kdf(&self.chaining_key, &[])
    }
}

fn cipher(key: &Secret) -> Result<LessSafeKey, aws_lc_rs::error::Unspecified> {
    UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).map(LessSafeKey::new)
}

/// Every key of a handshake encrypts once, under the nonce 0.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests;
