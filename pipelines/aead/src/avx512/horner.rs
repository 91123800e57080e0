//! Poly1305 of whole packets by scalar arithmetic, two packets at a time, made to run alongside the rounds of ChaCha20.
//!
//! A number modulo 2^130 - 5 is two words of 64 bits and a few bits above. Horner's rule is one long chain of dependent
//! multiplications; two packets make two chains, and the vector code between their links hides the rest of the latency.

use arrayvec::ArrayVec;

use super::burst::WINDOW;
use super::chacha20::{Alongside, Half};
use super::one_time_key::OneTimeKeys;
use super::poly1305::LANES;
use super::{Packet, wipe};

/// Bytes of a block.
const BLOCK: usize = 16;

/// Bytes that half a double round takes from one packet.
const STRIDE: usize = 4 * BLOCK;

/// What a stream without a packet reads.
static IDLE: [u8; STRIDE] = [0; STRIDE];

/// Packets that are authenticated one after the other by two streams.
pub(super) struct Queue {
    works: ArrayVec<Work, WINDOW>,
    /// The packet that a free stream takes next.
    next: usize,
    /// Packets from here on must not be read yet.
    available: usize,
    streams: [Stream; 2],
    /// The packets whose strides are done, in the order in which that happened.
    finished: ArrayVec<u8, WINDOW>,
    /// So many of those were handed out.
    handed_out: usize,
}

/// A packet to be authenticated, and how far that is.
#[derive(Clone, Copy)]
struct Work {
    text: *const u8,
    length: usize,
    r: [u64; 2],
    s: [u64; 2],
    sum: Sum,
}

/// A packet in work.
#[derive(Clone, Copy)]
pub(super) struct Stream {
    /// Which one, if any.
    packet: Option<u8>,
    text: *const u8,
    strides: usize,
    multiplier: Multiplier,
    sum: Sum,
}

#[derive(Clone, Copy)]
struct Multiplier {
    r: [u64; 2],
    /// The upper half of r times 5/4: what a product at 2^130 is worth at 2^0. Exact, because clamping clears its low bits.
    folded: u64,
}

impl Multiplier {
    #[inline(always)]
    fn new(r: [u64; 2]) -> Self {
        Self { r, folded: r[1] + (r[1] >> 2) }
    }
}

impl Queue {
    /// A queue of these packets, with their one-time keys. Each must be as long as a stride, 64 bytes, at least.
    ///
    /// # Safety
    /// The texts of the packets, and 16 bytes behind each, must stay valid for reads as long as the queue is used.
    pub(super) unsafe fn new(packets: &[Packet<'_>], keys: &[OneTimeKeys], available: usize) -> Self {
        let mut queue = Self {
            works: ArrayVec::new_const(),
            next: 0,
            available,
            streams: [Stream::idle(), Stream::idle()],
            finished: ArrayVec::new_const(),
            handed_out: 0,
        };
        for (index, packet) in packets.iter().enumerate() {
            let [r, s] = keys[index / LANES].of(index % LANES);
            queue.works.push(Work { text: packet.text, length: packet.length, r, s, sum: Sum::ZERO });
        }
        queue
    }

    /// Allows packets before this one to be read.
    pub(super) fn release(&mut self, available: usize) {
        self.available = available.min(self.works.len());
    }

    /// Whether no packet is left to hand out.
    pub(super) fn is_done(&self) -> bool {
        self.handed_out == self.works.len()
    }

    /// Whether some packet that may be read is not authenticated yet.
    pub(super) fn has_work(&self) -> bool {
        self.finished.len() < self.available
    }

    /// The next packet that is done, and its tag.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<(usize, u128)> {
        let packet = usize::from(*self.finished.get(self.handed_out)?);
        // Of the two lengths at the end, that of the AAD is zero.
        self.pop_ending([0, self.works[packet].length as u64])
    }

    /// The same, with the two words of the last block.
    #[inline]
    pub(super) fn pop_ending(&mut self, last_block: [u64; 2]) -> Option<(usize, u128)> {
        let packet = usize::from(*self.finished.get(self.handed_out)?);
        self.handed_out += 1;
        // SAFETY: the text is valid, as `new` was promised.
        Some((packet, unsafe { self.works[packet].finish(last_block) }))
    }

    /// Declares the packets, shorter than a stride, ready for their last blocks.
    #[cfg(test)]
    pub(super) fn skip_strides(&mut self) {
        self.finished.extend((0..).take(self.works.len()));
    }

    /// Goes on without ChaCha20 beside it, until a packet is done. Some available packet must not be.
    pub(super) fn run(&mut self) {
        let mut hand = self.begin();
        while self.finished.len() == self.handed_out {
            for half in [Half::Columns, Half::Diagonals] {
                self.turn(&mut hand, half);
                for _ in 0..STRIDE / BLOCK {
                    Self::step(&mut hand, half);
                }
            }
        }
        self.end(hand);
    }

    /// Puts the stream's packet away, if its strides are done, and takes another.
    #[inline(always)]
    fn change(&mut self, stream: &mut Stream) {
        if stream.strides > 0 {
            return;
        }
        if let Some(packet) = stream.packet.take() {
            self.works[usize::from(packet)].sum = stream.sum;
            self.finished.push(packet);
        }
        *stream = Stream::idle();
        if self.next < self.available {
            let work = &self.works[self.next];
            *stream = Stream {
                packet: Some(self.next as u8),
                text: work.text,
                strides: work.length / STRIDE,
                multiplier: Multiplier::new(work.r),
                sum: Sum::ZERO,
            };
            self.next += 1;
        }
    }

    /// Forgets the keys.
    pub(super) fn wipe(&mut self) {
        self.works.iter_mut().for_each(wipe);
        self.streams.iter_mut().for_each(|stream| wipe(&mut stream.multiplier));
    }
}

impl Alongside for Queue {
    type Hand = [Stream; 2];

    #[inline(always)]
    fn begin(&mut self) -> [Stream; 2] {
        self.streams
    }

    #[inline(always)]
    fn turn(&mut self, streams: &mut [Stream; 2], half: Half) {
        let stream = half.of(streams);
        self.change(stream);
        stream.strides -= 1;
    }

    #[inline(always)]
    fn step(streams: &mut [Stream; 2], half: Half) {
        let stream = half.of(streams);
        // SAFETY: `turn` saw that there was a stride left, of which this is one of four blocks; the text is valid, as `new` was
        // promised, and the read needs no alignment.
        let block = unsafe { stream.text.cast::<[u64; 2]>().read_unaligned() };
        stream.text = stream.text.wrapping_add(BLOCK);
        stream.sum = stream.sum.with(block.map(u64::from_le)).times(&stream.multiplier);
    }

    #[inline(always)]
    fn end(&mut self, mut streams: [Stream; 2]) {
        streams.iter_mut().for_each(|stream| self.change(stream));
        self.streams = streams;
    }
}

impl Half {
    #[inline(always)]
    fn of(self, streams: &mut [Stream; 2]) -> &mut Stream {
        let [columns, diagonals] = streams;
        match self {
            Self::Columns => columns,
            Self::Diagonals => diagonals,
        }
    }
}

impl Stream {
    /// One that has nothing to do for a stride.
    #[inline(always)]
    fn idle() -> Self {
        let multiplier = Multiplier { r: [0; 2], folded: 0 };
        Self { packet: None, text: IDLE.as_ptr(), strides: 1, multiplier, sum: Sum::ZERO }
    }
}

impl Work {
    /// The tag, when the strides are done, with the two words of the last block.
    ///
    /// # Safety
    /// The text and 16 bytes behind it must be valid for reads.
    unsafe fn finish(&self, last_block: [u64; 2]) -> u128 {
        let multiplier = Multiplier::new(self.r);
        let mut sum = self.sum;
        let mut offset = self.length - self.length % STRIDE;
        while offset < self.length {
            // SAFETY: less than 16 bytes past the end of the text, where its tag has room.
            let block = u128::from_le(unsafe { self.text.add(offset).cast::<u128>().read_unaligned() });
            let missing = BLOCK - (self.length - offset).min(BLOCK);
            let block = block & (u128::MAX >> (8 * missing));
            sum = sum.with([block as u64, (block >> 64) as u64]).times(&multiplier);
            offset += BLOCK;
        }
        let sum = sum.with(last_block).times(&multiplier);
        let [low, high] = self.s.map(u128::from);
        sum.reduced().wrapping_add(low | high << 64)
    }
}

/// A number below 2^131 or so: 128 bits, and what lies above.
#[derive(Clone, Copy)]
struct Sum {
    h: [u64; 2],
    above: u64,
}

impl Sum {
    const ZERO: Self = Self { h: [0; 2], above: 0 };

    /// Adds a block and its implicit bit at 2^128.
    #[inline(always)]
    fn with(self, block: [u64; 2]) -> Self {
        let (low, carry) = self.h[0].overflowing_add(block[0]);
        let (high, carry) = self.h[1].carrying_add(block[1], carry);
        Self { h: [low, high], above: self.above + 1 + u64::from(carry) }
    }

    /// The product, reduced to little more than 130 bits. `above` may be up to 5, and is so at most afterwards.
    #[inline(always)]
    fn times(self, by: &Multiplier) -> Self {
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let ([h0, h1], [r0, r1]) = (self.h, by.r);
        // The halves of r are below 2^60, so these sums do not overflow.
        let low = product(h0, r0) + product(h1, by.folded);
        let high = product(h0, r1) + product(h1, r0) + u128::from(self.above * by.folded) + (low >> 64);
        let top = self.above * r0 + (high >> 64) as u64;
        let (low, carry) = (low as u64).overflowing_add((top >> 2) * 5);
        let (high, carry) = (high as u64).overflowing_add(u64::from(carry));
        Self { h: [low, high], above: (top & 3) + u64::from(carry) }
    }

    /// The lower 128 bits of the number modulo 2^130 - 5.
    #[inline(always)]
    fn reduced(self) -> u128 {
        let number = u128::from(self.h[0]) | u128::from(self.h[1]) << 64;
        // number - p = number + 5 - 2^130: take it where number + 5 reaches 2^130. The number is below 2 p.
        let (less, carry) = number.overflowing_add(5);
        let reaches = (self.above + u64::from(carry)) >> 2;
        let mask = u128::from(reaches != 0).wrapping_neg();
        (number & !mask) | (less & mask)
    }
}
