//! The full blocks of text, of sixteen packets one after the other, through ChaCha20.
//!
//! Which packet a lane's block belongs to is found without a branch: a bit marks each block that is the first of a packet, so the number
//! of marks up to a lane tells how many packets further it is. One permutation fetches what the lanes need of their packets.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::{ptr, slice};

use super::chacha20::{self, CONSTANTS, GROUP, State, add_initial, transpose, two_groups};
use super::packets::{LONGEST, Row, full_blocks, load};
use super::sixteen::{BLOCK, BLOCK_COUNTER, KEY, NONCE, Sixteen};
use super::{Vector, wipe};
use crate::prefetch::prefetch_line;

/// Words of marks for as many blocks as there may be, and the mark behind the last.
const MARKS: usize = LONGEST / BLOCK + 1;

/// The blocks of a range of a row's packets.
struct Stream<'a> {
    sixteen: &'a Sixteen,
    texts: &'a [usize; GROUP],
    /// Bit by bit: whether a packet's blocks begin here, not counting the first packet.
    marks: [u16; MARKS],
    /// Of each packet: how many blocks are before it.
    starts: [u32; GROUP],
    total: usize,
    /// What a lane without a block works on, as an exposed address.
    idle_text: usize,
}

/// Sixteen blocks of it.
struct Group {
    initial: State,
    /// Where each lane's block lies, as an exposed address.
    addresses: [Vector; 2],
}

/// Encrypts or decrypts the full blocks of a range of a row's packets, each of which must have some.
///
/// # Safety
/// The texts of the packets must be valid for reads and writes.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub(super) unsafe fn apply(row: &Row<'_>, sixteen: &Sixteen, range: Range<usize>) {
    if range.is_empty() {
        return;
    }
    let mut idle = [MaybeUninit::new(_mm512_setzero_si512())];
    let idle_text = idle.as_mut_ptr().expose_provenance();
    let mut groups = [Group::new(row), Group::new(row)];
    let [one, other] = &mut groups;
    let stream = Stream::new(row, sixteen, range.clone(), idle_text);
    let mut packet = range.start;
    let mut block = 0;
    while block < stream.total {
        packet = one.take(&stream, packet, block);
        block += GROUP;
        // SAFETY: the addresses are of blocks of text that the caller vouches for, or of `idle`.
        unsafe {
            if block < stream.total {
                packet = other.take(&stream, packet, block);
                block += GROUP;
                apply_two(one, other);
            } else {
                one.apply();
            }
        }
    }
    wipe(&mut idle);
    one.wipe();
    other.wipe();
}

impl<'a> Stream<'a> {
    #[inline(always)]
    fn new(row: &'a Row<'_>, sixteen: &'a Sixteen, range: Range<usize>, idle_text: usize) -> Self {
        let mut stream =
            Self { sixteen, texts: row.fields.texts(), marks: [0; MARKS], starts: [0; GROUP], total: 0, idle_text };
        for packet in range {
            stream.starts[packet] = stream.total as u32;
            stream.total += full_blocks(row.fields.lengths()[packet]) as usize;
            stream.marks[stream.total / GROUP] |= 1 << (stream.total % GROUP);
        }
        stream
    }
}

impl Group {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn new(row: &Row<'_>) -> Self {
        let zero = _mm512_setzero_si512();
        let mut initial = [zero; 16];
        for (words, word) in initial.iter_mut().zip(CONSTANTS) {
            *words = _mm512_set1_epi32(word);
        }
        initial[NONCE - 1] = _mm512_set1_epi32(row.nonce_prefix as i32);
        Self { initial, addresses: [zero; 2] }
    }

    /// Takes the blocks from `block` on, a multiple of sixteen. Those before belong to packets up to `packet`, exclusive if it begins with
    /// them. Returns the same for the next blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn take(&mut self, stream: &Stream<'_>, packet: usize, block: usize) -> usize {
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let up_to_lane = _mm512_sub_epi32(_mm512_sllv_epi32(_mm512_set1_epi32(2), lanes), _mm512_set1_epi32(1));
        let marks = stream.marks[block / GROUP];
        let beginnings = _mm512_popcnt_epi32(_mm512_and_si512(_mm512_set1_epi32(i32::from(marks)), up_to_lane));
        // Behind the last block a lane may count one packet too many. The permutations take that for the first.
        let index = _mm512_add_epi32(_mm512_set1_epi32(packet as i32), beginnings);

        for (word, words) in self.initial[KEY..].iter_mut().zip(&stream.sixteen.key) {
            *word = _mm512_permutexvar_epi32(index, *words);
        }
        for (word, words) in self.initial[NONCE..].iter_mut().zip(&stream.sixteen.nonce) {
            *word = _mm512_permutexvar_epi32(index, *words);
        }
        let start = _mm512_permutexvar_epi32(index, load(&stream.starts));
        let of_text = _mm512_sub_epi32(_mm512_add_epi32(_mm512_set1_epi32(block as i32), lanes), start);
        // The text begins with block 1.
        self.initial[BLOCK_COUNTER] = _mm512_add_epi32(of_text, _mm512_set1_epi32(1));

        let offset = _mm512_slli_epi32::<6>(of_text);
        let has_block = u16::MAX.checked_shr(GROUP.saturating_sub(stream.total - block) as u32).unwrap_or(0);
        let idle_text = _mm512_set1_epi64(stream.idle_text as i64);
        let texts = stream.texts.as_ptr().cast::<Vector>();
        // SAFETY: sixteen addresses of 64 bits are two vectors.
        let [low, high] = unsafe { [_mm512_loadu_si512(texts.cast()), _mm512_loadu_si512(texts.add(1).cast())] };
        let address = |index: __m256i, offset: __m256i, has_block: __mmask8| {
            let text = _mm512_permutex2var_epi64(low, _mm512_cvtepu32_epi64(index), high);
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
        let key = self.initial[KEY..KEY + 8].as_mut_ptr().cast::<MaybeUninit<Vector>>();
        // SAFETY: the eight vectors, which may as well be uninitialised.
        wipe(unsafe { slice::from_raw_parts_mut(key, 8) });
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
