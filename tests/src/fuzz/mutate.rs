//! Makes inputs out of other inputs.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

/// The longest input that is made.
pub const MAX_LENGTH: usize = 4096;

/// Numbers at which lengths, counters and offsets go wrong.
const INTERESTING: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    15,
    16,
    0x1f,
    0x3f,
    0x40,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX,
];

/// Changes `input` in one to eight places, sometimes with pieces of `other`.
pub fn mutate(input: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut data = input.to_vec();
    // Few changes keep most of what makes an input valid; many reach far.
    let changes = 1 << random.random_range(0..4u32);
    for _ in 0..random.random_range(1..=changes) {
        change(&mut data, other, random);
    }
    data.truncate(MAX_LENGTH);
    data
}

fn change(data: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    let at = if data.is_empty() { 0 } else { random.random_range(0..data.len()) };
    match random.random_range(0..10u32) {
        0 => flip(data, at, random),
        1 => set_byte(data, at, random.random()),
        2 | 3 => set_number(data, at, random),
        4 => data.truncate(at),
        5 => drop(data.drain(at..(at + random.random_range(1..=16)).min(data.len()))),
        6 => insert(data, at, random),
        7 => repeat(data, at, random),
        8 => splice(data, at, other, random),
        _ => nudge(data, at, random),
    }
}

fn flip(data: &mut [u8], at: usize, random: &mut StdRng) {
    if let Some(byte) = data.get_mut(at) {
        *byte ^= 1 << random.random_range(0..8u32);
    }
}

fn set_byte(data: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = data.get_mut(at) {
        *byte = value;
    }
}

/// Writes an interesting number of one to eight bytes, in either byte order.
fn set_number(data: &mut [u8], at: usize, random: &mut StdRng) {
    let width = 1 << random.random_range(0..4u32);
    let number = INTERESTING[random.random_range(0..INTERESTING.len())];
    let mut bytes = number.to_le_bytes()[..width].to_vec();
    if random.random() {
        bytes.reverse();
    }
    for (to, from) in data.iter_mut().skip(at).zip(bytes) {
        *to = from;
    }
}

/// Adds a little to a byte: lengths and counts that are off by one.
fn nudge(data: &mut [u8], at: usize, random: &mut StdRng) {
    if let Some(byte) = data.get_mut(at) {
        *byte = byte.wrapping_add([1, 2, 4, 0xff, 0xfe, 0xfc][random.random_range(0..6usize)]);
    }
}

fn insert(data: &mut Vec<u8>, at: usize, random: &mut StdRng) {
    let mut bytes = vec![0; random.random_range(1..=16)];
    if random.random() {
        random.fill_bytes(&mut bytes);
    }
    data.splice(at..at, bytes);
}

/// Repeats a piece of the input.
fn repeat(data: &mut Vec<u8>, at: usize, random: &mut StdRng) {
    let piece = data[at..(at + random.random_range(1..=64)).min(data.len())].to_vec();
    data.splice(at..at, piece);
}

/// Replaces the input's end, or a piece of its middle, by a piece of another.
fn splice(data: &mut Vec<u8>, at: usize, other: &[u8], random: &mut StdRng) {
    if other.is_empty() {
        return;
    }
    let from = random.random_range(0..other.len());
    let to = random.random_range(from..=other.len());
    let end = if random.random() { data.len() } else { (at + to - from).min(data.len()) };
    data.splice(at..end, other[from..to].iter().copied());
}
