//! The blocks of many packets as one stream through ChaCha20, so that no lane runs empty but at its end.

use std::arch::x86_64::*;

use super::chacha20::{self, CONSTANTS, GROUP, State};
use super::{Block, Packet, Vector};

/// Bytes of a ChaCha20 block.
const BLOCK: usize = 64;

/// Which blocks of each packet pass through the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// Block 0, which makes the one-time key of Poly1305.
    MacKey,
    /// Block 1 and on, which hide the text.
    Text,
    /// All of them.
    All,
}

impl Part {
    fn start(self) -> usize {
        match self {
            Self::MacKey | Self::All => 0,
            Self::Text => 1,
        }
    }

    /// One past the last block.
    fn end(self, packet: &Packet<'_>) -> usize {
        match self {
            Self::MacKey => 1,
            Self::Text | Self::All => 1 + packet.length.div_ceil(BLOCK),
        }
    }
}

/// Combines the given part of each packet with its keystream, in place. A packet's one-time key appears in its row of `mac_keys`,
/// which must be zero before. [`Part::Text`] alone needs no rows.
///
/// # Safety
/// Each packet's `text` must be valid for reads and writes of `length` bytes, and no two of them may overlap.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn apply(packets: &[Packet<'_>], mac_keys: &mut [Block], part: Part) {
    debug_assert!(part == Part::Text || packets.len() == mac_keys.len());
    let mut cursor = Cursor::new(packets, mac_keys, part);
    let mut spare = Block::ZERO;
    let unused = spare.as_mut_ptr();
    while cursor.blocks_left > GROUP {
        let (first, second) = (cursor.next_lanes(unused), cursor.next_lanes(unused));
        let [first_stream, second_stream] = chacha20::two_groups(&first.state, &second.state);
        // SAFETY: the cursor points lanes at distinct blocks of rows and texts, which the caller promises to be valid, and at `spare`.
        unsafe {
            first.exclusive_or(&first_stream);
            second.exclusive_or(&second_stream);
        }
    }
    if cursor.blocks_left > 0 {
        let lanes = cursor.next_lanes(unused);
        // SAFETY: as above.
        unsafe { lanes.exclusive_or(&chacha20::one_group(&lanes.state)) }
    }
    spare.wipe();
}

/// 16 blocks of the stream: where each lies, and the states that make its keystream.
struct Lanes {
    state: State,
    /// Where each lane's block begins. Lanes without a block have the spare one.
    address: [*mut u8; GROUP],
    /// The lanes whose block is the last of a packet, and shorter than 64 bytes.
    short: u16,
    /// Of those: which bytes there are.
    bytes: [__mmask64; GROUP],
}

impl Lanes {
    /// Combines each lane's bytes with its block of keystream.
    ///
    /// # Safety
    /// Every address must be valid for reads and writes of 64 bytes, or of those of `bytes` if the lane is in `short`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn exclusive_or(&self, keystream: &[Vector; GROUP]) {
        for lane in 0..GROUP {
            let address = self.address[lane];
            if self.short & (1 << lane) == 0 {
                // SAFETY: 64 bytes are valid there, by the caller's promise; the instructions need no alignment.
                unsafe {
                    let text = _mm512_loadu_si512(address.cast());
                    _mm512_storeu_si512(address.cast(), _mm512_xor_si512(text, keystream[lane]));
                }
            } else {
                let bytes = self.bytes[lane];
                // SAFETY: the bytes of the mask are valid, by the caller's promise; the others are neither read nor written.
                unsafe {
                    let text = _mm512_maskz_loadu_epi8(bytes, address.cast());
                    _mm512_mask_storeu_epi8(address.cast(), bytes, _mm512_xor_si512(text, keystream[lane]));
                }
            }
        }
    }
}

/// Walks over the blocks of the packets.
struct Cursor<'a, 'k> {
    packets: &'a [Packet<'k>],
    mac_keys: &'a mut [Block],
    part: Part,
    packet: usize,
    block: usize,
    blocks_left: usize,
}

impl<'a, 'k> Cursor<'a, 'k> {
    fn new(packets: &'a [Packet<'k>], mac_keys: &'a mut [Block], part: Part) -> Self {
        let blocks_left = packets.iter().map(|packet| part.end(packet) - part.start()).sum();
        Self { packets, mac_keys, part, packet: 0, block: part.start(), blocks_left }
    }

    /// The next 16 blocks, or as many as are left.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn next_lanes(&mut self, unused: *mut u8) -> Lanes {
        let zero = _mm512_setzero_si512();
        let mut key = [zero; 8];
        let (mut block_counter, mut nonce_low, mut nonce_high) = (zero, zero, zero);
        let mut address = [unused; GROUP];
        let mut short = 0;
        let mut bytes = [0; GROUP];

        let mut lane = 0;
        while lane < GROUP {
            let Some(packet) = self.packets.get(self.packet) else { break };
            let end = self.part.end(packet);
            if self.block == end {
                self.packet += 1;
                self.block = self.part.start();
                continue;
            }
            let count = (end - self.block).min(GROUP - lane);
            let mask = (((1u32 << count) - 1) << lane) as __mmask16;
            for (words, word) in key.iter_mut().zip(packet.key.words()) {
                *words = _mm512_mask_set1_epi32(*words, mask, word as i32);
            }
            // Block numbers rise with the lanes: the lane's own number is added below.
            block_counter = _mm512_mask_set1_epi32(block_counter, mask, self.block as i32 - lane as i32);
            nonce_low = _mm512_mask_set1_epi32(nonce_low, mask, packet.counter as i32);
            nonce_high = _mm512_mask_set1_epi32(nonce_high, mask, (packet.counter >> 32) as i32);

            for (index, address) in (self.block..).zip(&mut address[lane..lane + count]) {
                *address = match index {
                    0 => self.mac_keys[self.packet].as_mut_ptr(),
                    // Within the text: block `index` begins before its end.
                    _ => packet.text.wrapping_add((index - 1) * BLOCK),
                };
            }
            self.block += count;
            lane += count;
            let tail = packet.length % BLOCK;
            if self.block == end && end > 1 && tail != 0 {
                short |= 1 << (lane - 1);
                bytes[lane - 1] = (1 << tail) - 1;
            }
        }
        self.blocks_left -= lane;

        let number = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let [c0, c1, c2, c3] = CONSTANTS.map(|word| _mm512_set1_epi32(word));
        let [k0, k1, k2, k3, k4, k5, k6, k7] = key;
        let counter = _mm512_add_epi32(block_counter, number);
        let state = [c0, c1, c2, c3, k0, k1, k2, k3, k4, k5, k6, k7, counter, zero, nonce_low, nonce_high];
        Lanes { state, address, short, bytes }
    }
}
