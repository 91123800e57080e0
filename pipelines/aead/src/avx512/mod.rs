//! The multi-buffer kernel for AVX-512 with IFMA: the blocks of all packets of a burst go through ChaCha20 sixteen or thirty-two at a
//! time, and their texts through Poly1305 eight packets at a time.
//!
//! What may differ from packet to packet is data (keys, counters, lengths, addresses); branches and addresses depend on lengths
//! and on whether a packet is authentic, all of which an observer of the wire knows, and on nothing secret.
//!
//! ```text
//! blocks of a packet    0            1   2   3   ...    the last one, 1 to 64 bytes
//! what it is for        Poly1305     full blocks of     the end of
//!                       key          text               text
//! who makes it          [sixteen]    [stream]           [sixteen]
//! ```
//! Every packet has the first and the last, so those are made for sixteen packets at once, one packet to a lane. The full blocks in
//! between are one stream through all packets, so that no lane is empty but at its end, and nothing of it needs a mask.

mod burst;
mod chacha20;
mod fields;
mod packets;
mod poly1305;
mod sixteen;
mod stream;
mod tag;

use std::arch::x86_64::{__m512i, _mm512_setzero_si512};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{Ordering, compiler_fence};

pub(crate) use burst::{open_burst, seal_burst};

/// 64 bytes of any meaning.
type Vector = __m512i;

/// Overwrites secrets with zero bytes, whatever the compiler thinks of that.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn wipe(secrets: &mut [MaybeUninit<Vector>]) {
    for secret in secrets {
        // SAFETY: a reference is valid and aligned.
        unsafe { ptr::write_volatile(secret, MaybeUninit::new(_mm512_setzero_si512())) }
    }
    compiler_fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests;
