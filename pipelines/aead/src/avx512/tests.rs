//! The kernel's parts with nonces and AAD of any kind, which the packet path has no use for, under published vectors.

use super::burst::apply_keystream;
use super::group::{Cursor, Group};
use super::horner::Queue;
use super::one_time_key::OneTimeKeys;
use super::{Packet, poly1305};
use crate::vectors::{Vector, all};
use crate::{Backend, Key};

/// Seals with the kernel's parts. Returns the ciphertext, and the tag as the vector and as the scalar code makes it.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn seal(vector: &Vector) -> (Vec<u8>, u128, u128) {
    let key = Key::new(&vector.key);
    let (prefix, counter) = vector.nonce.split_first_chunk::<4>().expect("twelve bytes");
    let counter = u64::from_le_bytes(counter.try_into().expect("eight bytes"));
    let mut groups = [Group::new(), Group::new()];
    groups.iter_mut().for_each(|group| group.set_nonce_prefix(u32::from_le_bytes(*prefix)));

    let mut text = vector.plaintext.clone();
    let length = text.len();
    text.extend([0; 16]);
    let packet = Packet { key: &key, counter, text: text.as_mut_ptr(), length };
    let keys = OneTimeKeys::derive(&[packet], &mut groups);
    // SAFETY: there are no texts.
    let mut idle = unsafe { Queue::new(&[], &[], 0) };
    let mut cursor = Cursor::default();
    while length > 0 && cursor.packet == 0 {
        // SAFETY: the text is a vector of its own, with 16 bytes of room.
        unsafe { apply_keystream(&[packet], &mut cursor, &mut groups, &mut idle) };
    }
    text.truncate(length);

    // What Poly1305 reads, but for the last block.
    let mut input = vector.aad.clone();
    input.resize(input.len().next_multiple_of(16), 0);
    input.extend(&text);
    input.resize(input.len().next_multiple_of(16), 0);
    let length = input.len();
    input.extend([0; 16]);
    let packet = Packet { text: input.as_mut_ptr(), length, ..packet };
    let lengths = [vector.aad.len() as u64, text.len() as u64];
    // SAFETY: the input has 16 bytes of room, and lives longer than the queue.
    let (vector_tag, mut queue) = unsafe {
        let tags = poly1305::tags_ending(&[packet], &keys, |_| lengths.map(|length| [length; poly1305::LANES]));
        (tags.of(0), Queue::new(&[packet], &keys, 1))
    };
    if length >= 64 {
        queue.run()
    } else {
        queue.skip_strides()
    }
    let (_, scalar_tag) = queue.pop_ending(lengths).expect("one packet");
    (text, vector_tag, scalar_tag)
}

#[test]
fn the_kernel_seals_all_vectors_with_a_nonce_of_96_bits() {
    if !Backend::Avx512.is_supported() {
        println!("SKIPPED: this CPU lacks {:?}", Backend::Avx512.missing_features().collect::<Vec<_>>());
        return;
    }
    for vector in all() {
        // SAFETY: the CPU has the features.
        let (text, vector_tag, scalar_tag) = unsafe { seal(&vector) };
        let tag = u128::from_le_bytes(vector.tag);
        assert_eq!(vector_tag, scalar_tag, "{}", vector.name);
        assert_eq!(tag == vector_tag, vector.is_valid, "{}", vector.name);
        if vector.is_valid {
            assert_eq!(text, vector.ciphertext, "{}", vector.name);
        }
    }
}
