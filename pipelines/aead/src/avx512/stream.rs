//! The full blocks of text, of all packets one after the other, through ChaCha20.
//!
//! Which packet a lane's block belongs to is found without a branch: a bit marks each block that is the first of a packet, so the number
//! of marks up to a lane tells how many packets further it is. Sixteen blocks come from sixteen packets at most, which lie in two
//! neighbouring sixteens, so one permutation of two vectors fetches what a lane needs of its packet.

use std::arch::x86_64::*;
use std::ops::Range;
use std::ptr;

use super::chacha20::{self, CONSTANTS, GROUP, State, add_initial, transpose, two_groups};
use super::packets::{LONGEST, Packets, WINDOW, full_blocks, load};
use super::sixteen::{BLOCK, BLOCK_COUNTER, KEY, NONCE, Sixteens};
use super::{Vector, wipe};
use crate::prefetch::prefetch_line;

/// Words of marks for as many blocks as there may be, and the mark behind the last.
const MARKS: usize = WINDOW * LONGEST / BLOCK / GROUP + 1;

/// The blocks of a range of packets.
struct Stream {
    /// Bit by bit: whether a packet's blocks begin here, not counting the first packet.
    marks: [u16; MARKS],
    /// Of each packet: how many blocks are before it.
    starts: [u32; WINDOW],
    total: usize,
}

/// Sixteen blocks of it.
struct Group {
    initial: State,
    /// Where each lane's block lies, as an exposed address.
    addresses: [Vector; 2],
}

/// Encrypts or decrypts the full blocks of these packets, each of which must have some.
///
/// # Safety
/// The texts of the packets must be valid for reads and writes.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub(super) unsafe fn apply(packets: &Packets<'_>, sixteens: &Sixteens, range: Range<usize>) {
    if range.is_empty() {
        return;
    }
    // A lane without a block works on this one.
    let mut idle = [_mm512_setzero_si512()];
    let idle_text = idle.as_mut_ptr().expose_provenance();
    let mut groups = [Group::new(packets), Group::new(packets)];
    let [first, second] = &mut groups;
    let stream = Stream::new(packets, range.clone());
    let mut packet = range.start;
    let mut block = 0;
    while block < stream.total {
        packet = first.take(&stream, packets, sixteens, packet, block, idle_text);
        block += GROUP;
        // SAFETY: the addresses are of blocks of text that the caller vouches for, or of `idle`.
        unsafe {
            if block < stream.total {
                packet = second.take(&stream, packets, sixteens, packet, block, idle_text);
                block += GROUP;
                apply_two(first, second);
            } else {
                first.apply();
            }
        }
    }
    wipe(&mut idle);
    first.wipe();
    second.wipe();
}

impl Stream {
    #[inline(always)]
    fn new(packets: &Packets<'_>, range: Range<usize>) -> Self {
        let mut stream = Self { marks: [0; MARKS], starts: [0; WINDOW], total: 0 };
        for packet in range {
            stream.starts[packet] = stream.total as u32;
            stream.total += full_blocks(packets.lengths[packet]) as usize;
            stream.marks[stream.total / GROUP] |= 1 << (stream.total % GROUP);
        }
        stream
    }
}

impl Group {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn new(packets: &Packets<'_>) -> Self {
        let zero = _mm512_setzero_si512();
        let mut initial = [zero; 16];
        for (words, word) in initial.iter_mut().zip(CONSTANTS) {
            *words = _mm512_set1_epi32(word);
        }
        initial[NONCE - 1] = _mm512_set1_epi32(packets.nonce_prefix as i32);
        Self { initial, addresses: [zero; 2] }
    }

    /// Takes the blocks from `block` on, a multiple of sixteen. Those before belong to packets up to `packet`, exclusive if it begins with
    /// them. Returns the same for the next blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn take(
        &mut self,
        stream: &Stream,
        packets: &Packets<'_>,
        sixteens: &Sixteens,
        packet: usize,
        block: usize,
        idle_text: usize,
    ) -> usize {
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let up_to_lane = _mm512_sub_epi32(_mm512_sllv_epi32(_mm512_set1_epi32(2), lanes), _mm512_set1_epi32(1));
        let marks = stream.marks[block / GROUP];
        let beginnings = _mm512_popcnt_epi32(_mm512_and_si512(_mm512_set1_epi32(i32::from(marks)), up_to_lane));
        let base = packet / GROUP;
        let index = _mm512_add_epi32(_mm512_set1_epi32((packet % GROUP) as i32), beginnings);
        let [low, high] = neighbours(sixteens.all(), base);
        let fetch = |low: Vector, high: Vector| _mm512_permutex2var_epi32(low, index, high);

        for word in 0..8 {
            self.initial[KEY + word] = fetch(low.key[word], high.key[word]);
        }
        for word in 0..2 {
            self.initial[NONCE + word] = fetch(low.nonce[word], high.nonce[word]);
        }
        let [low, high] = neighbours(stream.starts.as_chunks::<GROUP>().0, base);
        let start = fetch(load(low), load(high));
        let of_text = _mm512_sub_epi32(_mm512_add_epi32(_mm512_set1_epi32(block as i32), lanes), start);
        // The text begins with block 1.
        self.initial[BLOCK_COUNTER] = _mm512_add_epi32(of_text, _mm512_set1_epi32(1));

        let offset = _mm512_slli_epi32::<6>(of_text);
        let index = _mm512_add_epi32(index, _mm512_set1_epi32((base * GROUP) as i32));
        // Behind the last block a lane may count one packet too many.
        let index = _mm512_min_epu32(index, _mm512_set1_epi32(WINDOW as i32 - 1));
        let has_block = u16::MAX.checked_shr(GROUP.saturating_sub(stream.total - block) as u32).unwrap_or(0);
        let idle_text = _mm512_set1_epi64(idle_text as i64);
        let address = |index: __m256i, offset: __m256i, has_block: __mmask8| {
            // SAFETY: the index is below the length of the array.
            let text = unsafe { _mm512_i32gather_epi64::<8>(index, packets.texts.as_ptr().cast()) };
            let text = _mm512_add_epi64(text, _mm512_cvtepu32_epi64(offset));
            _mm512_mask_mov_epi64(idle_text, has_block, text)
        };
        self.addresses = [
            address(_mm512_castsi512_si256(index), _mm512_castsi512_si256(offset), has_block as __mmask8),
            address(
                _mm512_extracti64x4_epi64::<1>(index),
                _mm512_extracti64x4_epi64::<1>(offset),
                (has_block >> 8) as __mmask8,
            ),
        ];
        for address in self.texts() {
            // The rounds, which touch no memory, leave time to fetch the text.
            prefetch_line(ptr::without_provenance(*address));
        }
        packet + marks.count_ones() as usize
    }

    #[inline(always)]
    fn texts(&self) -> &[usize; GROUP] {
        // SAFETY: two vectors are sixteen words of 64 bits, as addresses are where this runs.
        unsafe { &*self.addresses.as_ptr().cast() }
    }

    /// # Safety
    /// The blocks must be valid for reads and writes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    unsafe fn apply(&self) {
        let words = chacha20::one_group(&self.initial);
        exclusive_or!(self, words);
    }

    /// Forgets the keys.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn wipe(&mut self) {
        wipe(&mut self.initial[KEY..KEY + 8]);
    }
}

/// # Safety
/// The blocks of both must be valid for reads and writes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
unsafe fn apply_two(first: &Group, second: &Group) {
    let [words, other_words] = two_groups!(&first.initial, &second.initial);
    exclusive_or!(first, words);
    exclusive_or!(second, other_words);
}

/// The element at `index` and the one behind it, where there are any.
#[inline(always)]
fn neighbours<T>(all: &[T], index: usize) -> [&T; 2] {
    let last = all.len() - 1;
    [&all[index.min(last)], &all[(index + 1).min(last)]]
}

/// Adds the initial state to a group's words, and combines each block of text with what comes of it. A macro for the same reason
/// as [`two_groups`].
macro_rules! exclusive_or {
    ($group:expr, $words:expr) => {{
        let group: &Group = $group;
        let keystream = transpose!(add_initial!($words, &group.initial));
        for (address, keystream) in group.texts().iter().zip(keystream) {
            let text = ptr::with_exposed_provenance_mut::<u8>(*address);
            // SAFETY: a block of a packet's text, which was exposed, and which the caller vouches for. The instructions need no
            // alignment.
            unsafe {
                let block = _mm512_loadu_si512(text.cast());
                _mm512_storeu_si512(text.cast(), _mm512_xor_si512(block, keystream));
            }
        }
    }};
}
use exclusive_or;
