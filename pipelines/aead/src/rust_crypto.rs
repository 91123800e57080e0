//! The backend over RustCrypto's `chacha20poly1305`: one packet at a time, Rust alone.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Tag};

use crate::{Key, OpenJob, SealJob, TAG_LENGTH, nonce};

pub(crate) fn seal_burst(jobs: &mut [SealJob<'_>]) {
    for job in jobs {
        if !seal(job.key, &nonce(job.counter), &[], job.buffer) {
            job.buffer.fill(0);
        }
    }
}

pub(crate) fn open_burst(jobs: &mut [OpenJob<'_>]) {
    for job in jobs {
        job.authentic = open(job.key, &nonce(job.counter), &[], job.buffer);
    }
}

/// Returns whether it was done: not when the buffer lacks the room of a tag, or is longer than the 256 GiB of RFC 8439.
pub(crate) fn seal(key: &Key, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> bool {
    let Some((text, room)) = buffer.split_last_chunk_mut::<TAG_LENGTH>() else { return false };
    let cipher = ChaCha20Poly1305::new(key.bytes().into());
    let Ok(tag) = cipher.encrypt_inout_detached(&(*nonce).into(), aad, InOutBuf::from(text)) else {
        return false;
    };
    *room = tag.into();
    true
}

/// Returns whether the packet is authentic. One that is not stays as it was: the library checks the tag before it decrypts.
pub(crate) fn open(key: &Key, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> bool {
    let Some((text, tag)) = buffer.split_last_chunk_mut::<TAG_LENGTH>() else { return false };
    let cipher = ChaCha20Poly1305::new(key.bytes().into());
    cipher.decrypt_inout_detached(&(*nonce).into(), aad, InOutBuf::from(text), &Tag::from(*tag)).is_ok()
}
