//! X25519 by aws-lc, without the objects that its EVP interface allocates for each key.

use aws_lc_sys::{X25519, X25519_public_from_private};

use crate::Secret;

pub(crate) fn public_key(private: &[u8; 32]) -> [u8; 32] {
    let mut public = [0; 32];
    // SAFETY: both pointers are to 32 bytes, the first of them writable; neither is kept.
    unsafe { X25519_public_from_private(public.as_mut_ptr(), private.as_ptr()) };
    public
}

pub(crate) fn agree(private: &[u8; 32], public: &[u8; 32]) -> Option<Secret> {
    let mut shared = Secret::default();
    // SAFETY: all pointers are to 32 bytes, the first of them writable; none is kept.
    let result = unsafe { X25519(shared.as_mut_ptr(), private.as_ptr(), public.as_ptr()) };
    // 0 says that the secret is all zero.
    (result == 1).then_some(shared)
}
