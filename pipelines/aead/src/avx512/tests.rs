//! The kernel's parts with nonces and AAD of any kind, which the packet path has no use for, under published vectors.

use std::arch::x86_64::*;

use super::packets::Packets;
use super::sixteen::Sixteens;
use super::{poly1305, stream};
use crate::vectors::{Vector, all};
use crate::{Backend, Key};

/// Seals `copies` packets like the vector with the kernel's parts. Returns the ciphertext of the last, and its tag.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn seal(vector: &Vector, copies: usize) -> (Vec<u8>, u128) {
    let key = Key::new(&vector.key);
    let (prefix, counter) = vector.nonce.split_first_chunk::<4>().expect("twelve bytes");
    let counter = u64::from_le_bytes(counter.try_into().expect("eight bytes"));
    let length = vector.plaintext.len();
    let mut texts = vec![[&vector.plaintext[..], &[0; 16]].concat(); copies];
    let packets_of = |texts: &mut [Vec<u8>]| {
        let buffers = texts.iter_mut().map(|text| (&key, counter, text.as_mut_ptr(), text.len()));
        Packets { nonce_prefix: u32::from_le_bytes(*prefix), ..Packets::of(buffers, &key) }
    };
    let packets = packets_of(&mut texts);
    let mut sixteens = Sixteens::new();
    sixteens.fill(&packets);
    // SAFETY: the texts are vectors of their own, with 16 bytes of room.
    unsafe {
        sixteens.apply_last_blocks(&packets, u64::MAX);
        stream::apply(&packets, &sixteens, 0..packets.with_full_blocks());
    }
    let mut text = texts.pop().expect("one copy at least");
    text.truncate(length);

    // What Poly1305 reads, but for the last block.
    let mut input = vector.aad.clone();
    input.resize(input.len().next_multiple_of(16), 0);
    input.extend(&text);
    input.resize(input.len().next_multiple_of(16), 0);
    input.extend([0; 16]);
    let mut inputs = vec![input; copies];
    let packets = packets_of(&mut inputs);
    let last_block = |_| [vector.aad.len(), text.len()].map(|length| _mm512_set1_epi64(length as i64));
    let (sixteen, first) = (&sixteens.all()[(copies - 1) / 16], (copies - 1) / 16 * 16);
    // SAFETY: the inputs are read alone.
    let tags = unsafe { poly1305::tags(&packets, first, &sixteen.one_time_keys, last_block) };
    // SAFETY: four vectors are two times two times eight words.
    let words: [[[u64; 8]; 2]; 2] = unsafe { std::mem::transmute(tags) };
    let [low, high] = words[(copies - 1) % 16 / 8].map(|half| u128::from(half[(copies - 1) % 8]));
    (text, low | high << 64)
}

#[test]
fn the_kernel_seals_all_vectors_with_a_nonce_of_96_bits() {
    if !Backend::Avx512.is_supported() {
        println!("SKIPPED: this CPU lacks {:?}", Backend::Avx512.missing_features().collect::<Vec<_>>());
        return;
    }
    for vector in all() {
        for copies in [1, 8, 9, 16, 17, 64] {
            // SAFETY: the CPU has the features.
            let (text, tag) = unsafe { seal(&vector, copies) };
            assert_eq!(tag == u128::from_le_bytes(vector.tag), vector.is_valid, "{} by {copies}", vector.name);
            if vector.is_valid {
                assert_eq!(text, vector.ciphertext, "{} by {copies}", vector.name);
            }
        }
    }
}
