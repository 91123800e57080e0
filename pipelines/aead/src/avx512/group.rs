//! Sixteen blocks of ChaCha20 from any packets: the states that make their keystream, and where the blocks lie.

use std::arch::x86_64::*;
use std::ptr;

use super::chacha20::{self, Alongside, CONSTANTS, GROUP, Nothing, State, transpose, two_groups};
use super::one_time_key::OneTimeKeys;
use super::{Packet, Vector, wipe_vectors};
use crate::Key;
use crate::prefetch::prefetch_line;

/// Bytes of a ChaCha20 block.
pub(super) const BLOCK: usize = 64;

/// Packets with more blocks than this fill a group with few different keys, which are then cheaper to set key by key.
const FEW_BLOCKS: usize = 3;

/// The words of the state, from which on there is...
const KEY: usize = 4;
const BLOCK_COUNTER: usize = 12;
const NONCE: usize = 14;

/// How far the text of a list of packets has gone through ChaCha20.
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor {
    /// So many packets are done.
    pub(super) packet: usize,
    /// And so many blocks of the next.
    block: usize,
}

impl Cursor {
    /// Notes that `count` of the `left` blocks of the packet are done.
    #[inline(always)]
    fn advance(&mut self, count: usize, left: usize) {
        let is_end = count == left;
        self.packet += usize::from(is_end);
        self.block = if is_end { 0 } else { self.block + count };
    }
}

/// Sixteen blocks.
#[repr(C, align(64))]
pub(super) struct Group {
    state: State,
    /// Where each lane's block of text begins, as an exposed address.
    address: [u64; GROUP],
    /// Which bytes of it there are: fewer than 64 at the end of a packet, none in a lane without a block.
    bytes: [__mmask64; GROUP],
    /// The key of all lanes, if they have the same: many bursts are one peer's. Compared by address alone, as a group does not
    /// outlive the borrow of the keys it is given.
    common_key: *const Key,
}

impl Group {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    pub(super) fn new() -> Self {
        let mut state = [_mm512_setzero_si512(); 16];
        for (words, word) in state.iter_mut().zip(CONSTANTS) {
            *words = _mm512_set1_epi32(word);
        }
        Self { state, address: [0; GROUP], bytes: [0; GROUP], common_key: ptr::null() }
    }

    /// Sets the first word of every nonce, which is zero in WireGuard.
    #[cfg(test)]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    pub(super) fn set_nonce_prefix(&mut self, prefix: u32) {
        self.state[NONCE - 1] = _mm512_set1_epi32(prefix as i32);
    }

    /// Takes block 0 of up to sixteen packets, for [`OneTimeKeys::from_words`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    pub(super) fn take_first_blocks(&mut self, packets: &[Packet<'_>]) {
        let packet = OneTimeKeys::ORDER.map(|index| packets.get(index).unwrap_or(&packets[0]));
        self.set_keys(packet.map(|packet| packet.key));
        self.state[BLOCK_COUNTER] = _mm512_setzero_si512();
        self.state[NONCE] = load(&packet.map(|packet| packet.counter as u32));
        self.state[NONCE + 1] = load(&packet.map(|packet| (packet.counter >> 32) as u32));
    }

    /// Takes the next blocks of text, and returns how many lanes got one. Every packet must have a text.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    pub(super) fn take_text(&mut self, packets: &[Packet<'_>], cursor: &mut Cursor) -> usize {
        self.bytes = [u64::MAX; GROUP];
        let lanes = match packets.get(cursor.packet) {
            None => 0,
            Some(packet) if packet.blocks() > FEW_BLOCKS => self.take_runs(packets, cursor),
            Some(_) => self.take_singly(packets, cursor),
        };
        if lanes < GROUP {
            self.bytes[lanes..].fill(0);
        }
        for address in self.address {
            // The rounds, which touch no memory, leave time to fetch the text.
            prefetch_line(ptr::without_provenance(address as usize));
        }
        lanes
    }

    /// For long packets: sets the state run by run of one packet's blocks. All branches are on how many runs there are, because one
    /// that goes now this way and now that costs more than all that it could save.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    fn take_runs(&mut self, packets: &[Packet<'_>], cursor: &mut Cursor) -> usize {
        let zero = _mm512_setzero_si512();
        let mut key = [zero; 8];
        let (mut number, mut nonce_low, mut nonce_high) = (zero, zero, zero);
        let mut address = [zero; 2];
        let mut lane = 0;
        while lane < GROUP {
            let Some(packet) = packets.get(cursor.packet) else { break };
            // The lanes from here on: the next run overwrites what is too much.
            let mask = (0xffff << lane) as __mmask16;
            if !ptr::eq(packet.key, self.common_key) {
                if lane > 0 {
                    key = std::array::from_fn(|word| self.state[KEY + word]);
                    self.common_key = ptr::null();
                } else {
                    self.common_key = packet.key;
                }
                for (words, word) in key.iter_mut().zip(packet.key.words()) {
                    *words = _mm512_mask_set1_epi32(*words, mask, word as i32);
                }
                self.state[KEY..KEY + 8].copy_from_slice(&key);
            }
            // Block numbers and addresses rise with the lanes, which are added below. The text begins with block 1.
            let start = cursor.block as i64 - lane as i64;
            number = _mm512_mask_set1_epi32(number, mask, 1 + start as i32);
            nonce_low = _mm512_mask_set1_epi32(nonce_low, mask, packet.counter as i32);
            nonce_high = _mm512_mask_set1_epi32(nonce_high, mask, (packet.counter >> 32) as i32);
            let text = (packet.text.expose_provenance() as i64).wrapping_add(start * BLOCK as i64);
            address[0] = _mm512_mask_set1_epi64(address[0], mask as __mmask8, text);
            address[1] = _mm512_mask_set1_epi64(address[1], (mask >> 8) as __mmask8, text);

            let left = packet.blocks() - cursor.block;
            let count = left.min(GROUP - lane);
            lane += count;
            self.set_bytes(lane - 1, packet, cursor.block + count);
            cursor.advance(count, left);
        }
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        self.state[BLOCK_COUNTER] = _mm512_add_epi32(number, lanes);
        self.state[NONCE] = nonce_low;
        self.state[NONCE + 1] = nonce_high;
        let offsets = _mm512_setr_epi64(0, 64, 128, 192, 256, 320, 384, 448);
        let upper_offsets = _mm512_add_epi64(offsets, _mm512_set1_epi64(512));
        // SAFETY: sixteen words of 64 bits are two vectors.
        unsafe {
            let addresses = self.address.as_mut_ptr().cast::<Vector>();
            addresses.write_unaligned(_mm512_add_epi64(address[0], offsets));
            addresses.add(1).write_unaligned(_mm512_add_epi64(address[1], upper_offsets));
        }
        lane
    }

    /// For short packets: sets each lane's key.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    fn take_singly(&mut self, packets: &[Packet<'_>], cursor: &mut Cursor) -> usize {
        let Some(first) = packets.get(cursor.packet) else { return 0 };
        let mut key = [first.key; GROUP];
        let (mut number, mut nonce_low, mut nonce_high) = ([0; GROUP], [0; GROUP], [0; GROUP]);
        let mut lane = 0;
        while lane < GROUP {
            let Some(packet) = packets.get(cursor.packet) else { break };
            key[lane] = packet.key;
            number[lane] = 1 + cursor.block as u32;
            nonce_low[lane] = packet.counter as u32;
            nonce_high[lane] = (packet.counter >> 32) as u32;
            self.address[lane] = packet.text.wrapping_add(cursor.block * BLOCK).expose_provenance() as u64;
            self.set_bytes(lane, packet, cursor.block + 1);
            cursor.advance(1, packet.blocks() - cursor.block);
            lane += 1;
        }
        self.set_keys(key);
        self.state[BLOCK_COUNTER] = load(&number);
        self.state[NONCE] = load(&nonce_low);
        self.state[NONCE + 1] = load(&nonce_high);
        lane
    }

    /// Sets which bytes there are of the lane's block, behind which `end` blocks of the packet are taken.
    #[inline(always)]
    fn set_bytes(&mut self, lane: usize, packet: &Packet<'_>, end: usize) {
        let missing = (end * BLOCK).saturating_sub(packet.length);
        self.bytes[lane] = u64::MAX >> missing;
    }

    /// Sets the key of each lane: sixteen rows of eight words become eight vectors of sixteen words.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    fn set_keys(&mut self, key: [&Key; GROUP]) {
        if key.iter().all(|&other| ptr::eq(other, key[0])) {
            if !ptr::eq(key[0], self.common_key) {
                self.common_key = key[0];
                for (words, word) in self.state[KEY..KEY + 8].iter_mut().zip(key[0].words()) {
                    *words = _mm512_set1_epi32(word as i32);
                }
            }
            return;
        }
        self.common_key = ptr::null();
        let pair = |low: usize| {
            // SAFETY: a key is 32 bytes, aligned to as many.
            let [low, high] =
                [low, low + 4].map(|lane| unsafe { _mm256_load_si256(key[lane].bytes().as_ptr().cast()) });
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        };
        // Words k and k + 4 of the lanes of four rows: of lanes 0, 1, 2, 3 (and of those 4 further on) in each 128 bits.
        let quads = |rows: [Vector; 4]| {
            let [a, b, c, d] = rows;
            let (low_ab, high_ab) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (low_cd, high_cd) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(low_ab, low_cd),
                _mm512_unpackhi_epi64(low_ab, low_cd),
                _mm512_unpacklo_epi64(high_ab, high_cd),
                _mm512_unpackhi_epi64(high_ab, high_cd),
            ]
        };
        let lower = quads([pair(0), pair(1), pair(2), pair(3)]);
        let upper = quads([pair(8), pair(9), pair(10), pair(11)]);
        for k in 0..4 {
            self.state[KEY + k] = _mm512_shuffle_i32x4::<0x88>(lower[k], upper[k]);
            self.state[KEY + 4 + k] = _mm512_shuffle_i32x4::<0xdd>(lower[k], upper[k]);
        }
    }

    /// Takes the blocks of text through ChaCha20.
    ///
    /// # Safety
    /// The packets that the blocks were taken from must still be valid for reads and writes.
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    pub(super) unsafe fn apply(&self) {
        let words = chacha20::one_group(&self.state);
        exclusive_or!(self, words);
    }

    /// Takes the blocks of two groups through ChaCha20, with work alongside.
    ///
    /// # Safety
    /// As for [`Group::apply`].
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    pub(super) unsafe fn apply_two<W: Alongside>(&self, other: &Self, work: &mut W) {
        let mut hand = work.begin();
        let [words, other_words] = two_groups!(&self.state, &other.state, work, W, hand);
        exclusive_or!(self, words);
        exclusive_or!(other, other_words);
        // Not earlier: its branches would make the compiler spill the words.
        work.end(hand);
    }

    /// The first words of the blocks of two groups.
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    pub(super) fn first_words(&self, other: Option<&Self>) -> [[Vector; 8]; 2] {
        let first =
            |words: State, group: &Self| std::array::from_fn(|word| _mm512_add_epi32(words[word], group.state[word]));
        match other {
            None => [first(chacha20::one_group(&self.state), self), [_mm512_setzero_si512(); 8]],
            Some(other) => {
                let mut hand = ();
                let [words, other_words] = two_groups!(&self.state, &other.state, Nothing, Nothing, hand);
                [first(words, self), first(other_words, other)]
            }
        }
    }

    /// Forgets the keys.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
    pub(super) fn wipe(&mut self) {
        wipe_vectors(&mut self.state[KEY..KEY + 8]);
    }
}

/// Adds the initial state to a group's words, and combines each block of text with what comes of it. A macro for the same reason
/// as [`two_groups`].
macro_rules! exclusive_or {
    ($group:expr, $words:expr) => {{
        let group: &Group = $group;
        let mut words: State = $words;
        for (word, start) in words.iter_mut().zip(&group.state) {
            *word = _mm512_add_epi32(*word, *start);
        }
        let keystream = transpose!(words);
        for ((address, bytes), keystream) in group.address.iter().zip(group.bytes).zip(keystream) {
            let text = ptr::with_exposed_provenance_mut::<u8>(*address as usize);
            // SAFETY: the bytes of the mask are a packet's text, which was exposed. Others are neither read nor written. The
            // instructions need no alignment.
            unsafe {
                if bytes == u64::MAX {
                    let plain = _mm512_loadu_si512(text.cast());
                    _mm512_storeu_si512(text.cast(), _mm512_xor_si512(plain, keystream));
                } else if bytes != 0 {
                    let plain = _mm512_maskz_loadu_epi8(bytes, text.cast());
                    _mm512_mask_storeu_epi8(text.cast(), bytes, _mm512_xor_si512(plain, keystream));
                }
            }
        }
    }};
}
use exclusive_or;

/// A word for each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn load(words: &[u32; GROUP]) -> Vector {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}
