//! The kernel's parts with nonces and AAD of any kind, which the packet path has no use for, under published vectors.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::packets::{Order, Row};
use super::sixteen::{OneTimeKeys, Sixteen};
use super::{poly1305, stream};
use crate::vectors::{Vector, all};
use crate::{Backend, Key, SealJob};

/// Seals `copies` packets like the vector with the kernel's parts. Returns the ciphertext of the last, and its tag.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn seal(vector: &Vector, copies: usize) -> (Vec<u8>, u128) {
    let key = Key::new(&vector.key);
    let (prefix, counter) = vector.nonce.split_first_chunk::<4>().expect("twelve bytes");
    let counter = u64::from_le_bytes(counter.try_into().expect("eight bytes"));
    let length = vector.plaintext.len();
    let mut texts = vec![[&vector.plaintext[..], &[0; 16]].concat(); copies];
    let mut place = MaybeUninit::uninit();
    let mut one_time_keys = None;
    for row in rows(&key, counter, &mut texts) {
        let row = Row { nonce_prefix: u32::from_le_bytes(*prefix), ..row };
        let sixteen = Sixteen::make(&mut place, &row);
        // SAFETY: the texts are vectors of their own, with 16 bytes of room.
        unsafe {
            sixteen.apply_last_blocks(&row, u16::MAX);
            stream::apply(&row, sixteen, 0..row.with_full_blocks());
        }
        one_time_keys = Some(sixteen.one_time_keys);
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
    let last = rows(&key, counter, &mut inputs).pop().expect("one copy at least");
    let block = [vector.aad.len(), text.len()].map(|length| _mm512_set1_epi64(length as i64));
    // SAFETY: the inputs are read alone.
    let tags = unsafe { poly1305::tags(&last, &one_time_keys.expect("a copy"), &[block; 2]) };
    // SAFETY: four vectors are two times two times eight words.
    let words: [[[u64; 8]; 2]; 2] = unsafe { std::mem::transmute(tags) };
    let [low, high] = words[(copies - 1) % 16 / 8].map(|half| u128::from(half[(copies - 1) % 8]));
    (text, low | high << 64)
}

/// Packets with room for a tag, as the kernel takes them.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn rows<'a>(key: &'a Key, counter: u64, buffers: &'a mut [Vec<u8>]) -> Vec<Row<'a>> {
    let mut jobs: Vec<SealJob<'a>> = buffers.iter_mut().map(|buffer| SealJob { key, counter, buffer }).collect();
    let mut order = Order::new();
    order.read(&mut jobs);
    (0..order.rows()).map(|row| Row::take(&mut jobs, &order, row)).collect()
}

/// A block, or what has its size, as two words.
type Block = [u64; 2];

/// Vectors 7 to 11 of RFC 8439, appendix A.3, whose sums lie around 2^130 - 5: r, s, the message and the tag.
const AROUND_THE_PRIME: [(Block, Block, &[Block], Block); 5] = [
    ([2, 0], [0, 0], &[[u64::MAX; 2]], [3, 0]),
    ([2, 0], [u64::MAX; 2], &[[2, 0]], [3, 0]),
    ([1, 0], [0, 0], &[[u64::MAX; 2], [0xffff_ffff_ffff_fff0, u64::MAX], [0x11, 0]], [5, 0]),
    (
        [1, 0],
        [0, 0],
        &[[u64::MAX; 2], [0xfefe_fefe_fefe_fefb, 0xfefe_fefe_fefe_fefe], [0x0101_0101_0101_0101; 2]],
        [0, 0],
    ),
    ([2, 0], [0, 0], &[[0xffff_ffff_ffff_fffd, u64::MAX]], [0xffff_ffff_ffff_fffa, u64::MAX]),
];

#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn tag_of(r: Block, s: Block, message: &[Block]) -> Block {
    let everywhere = |word: u64| _mm512_set1_epi64(word as i64);
    let keys = [OneTimeKeys { halves: [r[0], r[1], s[0], s[1]].map(everywhere) }; 2];
    let (last, before) = message.split_last().expect("a block");
    let mut text: Vec<u8> = before.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
    text.extend([0; 16]);
    let key = Key::new(&[0; 32]);
    let mut texts = [text];
    let row = rows(&key, 0, &mut texts).pop().expect("a row");
    // SAFETY: the text is read alone.
    let [[low, high], _] = unsafe { poly1305::tags(&row, &keys, &[last.map(everywhere); 2]) };
    [low, high].map(|half| _mm_cvtsi128_si64(_mm512_castsi512_si128(half)) as u64)
}

#[test]
fn a_sum_around_the_prime_is_reduced() {
    if !Backend::Avx512.is_supported() {
        println!("SKIPPED: this CPU lacks {:?}", Backend::Avx512.missing_features().collect::<Vec<_>>());
        return;
    }
    for (r, s, message, tag) in AROUND_THE_PRIME {
        // SAFETY: the CPU has the features.
        assert_eq!(unsafe { tag_of(r, s, message) }, tag, "r {r:x?} s {s:x?} message {message:x?}");
    }
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
