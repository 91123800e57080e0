//! The backend over aws-lc: one packet at a time through its EVP interface.
//!
//! `aws-lc-rs` keeps a context of 584 bytes on the heap for each key, and making one allocates. A million peers with two sessions
//! of two keys each have no room for that, so this calls `aws-lc-sys` underneath with a context on the stack, which is set up
//! once for each run of packets that share a key.

use std::mem::{MaybeUninit, size_of};
use std::ptr;

use aws_lc_sys::{
    EVP_AEAD_CTX, EVP_AEAD_CTX_init, EVP_AEAD_CTX_open_gather, EVP_AEAD_CTX_seal_scatter, EVP_aead_chacha20_poly1305,
    OPENSSL_cleanse,
};

use crate::{Key, OpenJob, SealJob, TAG_LENGTH, nonce};

/// The bytes at the start of a context that hold the key: a pointer, then the state, which for this algorithm is the key alone. A
/// test watches that; wiping all 584 bytes would show in the time of a short packet.
const SECRET_BYTES: usize = size_of::<*const ()>() + 64;

/// `EVP_AEAD` functions return 1 for success.
const SUCCESS: i32 = 1;

pub(crate) fn seal_burst(jobs: &mut [SealJob<'_>]) {
    let mut context = Context::empty();
    for job in jobs {
        if !context.seal(job.key, &nonce(job.counter), &[], job.buffer) {
            job.buffer.fill(0);
        }
    }
}

pub(crate) fn open_burst(jobs: &mut [OpenJob<'_>]) {
    let mut context = Context::empty();
    for job in jobs {
        job.authentic = context.open(job.key, &nonce(job.counter), &[], job.buffer);
    }
}

/// A context on the stack, prepared for one key at a time, and wiped when dropped.
pub(crate) struct Context<'a> {
    prepared: MaybeUninit<EVP_AEAD_CTX>,
    /// The key that `prepared` holds; it is initialised when there is one.
    key: Option<&'a Key>,
}

impl<'a> Context<'a> {
    pub(crate) fn empty() -> Self {
        Self { prepared: MaybeUninit::uninit(), key: None }
    }

    /// Encrypts one packet. Returns whether it was done: not when the buffer lacks the room of a tag, or is longer than the
    /// 256 GiB of RFC 8439.
    #[inline]
    pub(crate) fn seal(&mut self, key: &'a Key, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> bool {
        let Some((text, tag)) = buffer.split_last_chunk_mut::<TAG_LENGTH>() else { return false };
        let Some(context) = self.prepare(key) else { return false };
        let mut tag_length = 0;
        // SAFETY: `context` is initialised. Each pointer comes with the length of the slice that it was taken from. Output and input
        // are the same bytes, which aws-lc allows ("in and out may alias exactly"); `tag` is disjoint from them. No extra
        // input: null with length zero.
        let result = unsafe {
            EVP_AEAD_CTX_seal_scatter(
                context,
                text.as_mut_ptr(),
                tag.as_mut_ptr(),
                &raw mut tag_length,
                TAG_LENGTH,
                nonce.as_ptr(),
                nonce.len(),
                text.as_ptr(),
                text.len(),
                ptr::null(),
                0,
                aad.as_ptr(),
                aad.len(),
            )
        };
        result == SUCCESS && tag_length == TAG_LENGTH
    }

    /// Decrypts one packet and returns whether it is authentic. When it is not, aws-lc has zeroed the ciphertext.
    #[inline]
    pub(crate) fn open(&mut self, key: &'a Key, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> bool {
        let Some((text, tag)) = buffer.split_last_chunk_mut::<TAG_LENGTH>() else { return false };
        let Some(context) = self.prepare(key) else { return false };
        // SAFETY: as for `seal`; `tag` is only read.
        let result = unsafe {
            EVP_AEAD_CTX_open_gather(
                context,
                text.as_mut_ptr(),
                nonce.as_ptr(),
                nonce.len(),
                text.as_ptr(),
                text.len(),
                tag.as_ptr(),
                tag.len(),
                aad.as_ptr(),
                aad.len(),
            )
        };
        result == SUCCESS
    }

    /// The context, holding `key`. `None` only if aws-lc refused a key of the right length, which it has no reason to do.
    #[inline]
    fn prepare(&mut self, key: &'a Key) -> Option<*const EVP_AEAD_CTX> {
        if !self.key.is_some_and(|held| ptr::eq(held, key)) {
            self.key = None;
            // SAFETY: the function returns a static description of the algorithm, or sets the context up entirely from the key,
            // whose length is given. It reads nothing of the old content, and for this algorithm a context owns no memory.
            let result = unsafe {
                EVP_AEAD_CTX_init(
                    self.prepared.as_mut_ptr(),
                    EVP_aead_chacha20_poly1305(),
                    key.bytes().as_ptr(),
                    key.bytes().len(),
                    TAG_LENGTH,
                    ptr::null_mut(),
                )
            };
            if result != SUCCESS {
                return None;
            }
            self.key = Some(key);
        }
        Some(self.prepared.as_ptr())
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        if self.key.is_none() {
            return;
        }
        const { assert!(SECRET_BYTES <= size_of::<EVP_AEAD_CTX>()) };
        // SAFETY: overwrites bytes of the context alone, which nothing reads afterwards.
        unsafe { OPENSSL_cleanse(self.prepared.as_mut_ptr().cast(), SECRET_BYTES) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_holds_the_key_where_it_is_wiped_and_nowhere_else() {
        let bytes: [u8; 32] = std::array::from_fn(|number| 0xa0 ^ number as u8);
        let key = Key::new(&bytes);
        let mut context = Context { prepared: MaybeUninit::zeroed(), key: None };
        assert!(context.prepare(&key).is_some());
        // SAFETY: all bytes were set to zero before some of them were set by aws-lc.
        let held = unsafe { *context.prepared.as_ptr().cast::<[u8; size_of::<EVP_AEAD_CTX>()]>() };
        assert!(held[..SECRET_BYTES].windows(bytes.len()).any(|window| window == bytes));
        // A single byte of a pointer may be like one of the key.
        let holds_four = |part: &[u8]| part.windows(4).any(|held| bytes.windows(4).any(|key| held == key));
        assert!(!holds_four(&held[SECRET_BYTES..]));
    }
}
