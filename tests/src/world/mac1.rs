//! The first MAC of a handshake message, which everybody who knows the node's public key can make (paper, section 5.4.4).

use super::KeyPair;
use blake2::digest::consts::U16;
use blake2::digest::{Digest, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac};

/// Bytes of both MACs at the end of an initiation or a response.
const MACS_SIZE: usize = 32;
const MAC_SIZE: usize = 16;

/// The key of the first MAC of messages to the node.
pub fn key(node: &KeyPair) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    Digest::update(&mut hash, b"mac1----");
    Digest::update(&mut hash, node.public_key().as_bytes());
    hash.finalize().into()
}

/// Puts the right first MAC into an initiation or a response.
pub fn sign(key: &[u8; 32], message: &mut [u8]) {
    let (body, macs) = message.split_at_mut(message.len() - MACS_SIZE);
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("a key of 32 bytes");
    Mac::update(&mut mac, body);
    macs[..MAC_SIZE].copy_from_slice(&mac.finalize().into_bytes());
}
