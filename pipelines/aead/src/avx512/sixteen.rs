//! What sixteen packets need one of each: their keys and nonces as vectors, the one-time keys of Poly1305 (RFC 8439, section 2.6), and the
//! keystream of their last blocks.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::chacha20::{self, CONSTANTS, GROUP, State, add_initial, transpose, two_alike};
use super::packets::{Row, full_blocks, load};
use super::poly1305::LANES;
use super::{Vector, wipe};

/// Encrypts or decrypts the last blocks of a row of which each is whole. A macro, because a call would pass the blocks through memory.
macro_rules! apply_whole_blocks {
    ($blocks:expr, $row:expr) => {
        for (keystream, (text, length)) in $blocks.iter().zip($row.texts()) {
            let text = text.wrapping_add(length as usize - BLOCK).cast();
            // SAFETY: the last 64 bytes of a text that is not empty, and that the caller vouches for.
            unsafe { _mm512_storeu_si512(text, _mm512_xor_si512(_mm512_loadu_si512(text), *keystream)) };
        }
    };
}

/// Bytes of a ChaCha20 block.
pub(super) const BLOCK: usize = 64;

/// The words of the state, from which on there is...
pub(super) const KEY: usize = 4;
pub(super) const BLOCK_COUNTER: usize = 12;
pub(super) const NONCE: usize = 14;

/// Eight one-time keys, one to each 64-bit lane.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct OneTimeKeys {
    /// Low and high halves of the multiplier r, clamped, and of s, which is added at the end.
    pub(super) halves: [Vector; 4],
}

/// One packet to a lane. All of it is secret.
#[repr(C)]
pub(super) struct Sixteen {
    /// The words of the keys.
    pub(super) key: [Vector; 8],
    /// The words of the counters.
    pub(super) nonce: [Vector; 2],
    /// Of the first and of the second eight.
    pub(super) one_time_keys: [OneTimeKeys; 2],
    /// By packet. Not there if they were used up at once.
    last_blocks: MaybeUninit<[Vector; GROUP]>,
}

impl Sixteen {
    /// Of the packets of a row. In place, as a copy would take its time.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) fn make<'a>(place: &'a mut MaybeUninit<Self>, row: &Row<'_>) -> &'a Self {
        // SAFETY: no text is touched.
        unsafe { Self::make_and::<false>(place, row) }
    }

    /// The same, and encrypts the last block of each packet. They may not be asked for again.
    ///
    /// # Safety
    /// The texts must be valid for reads and writes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) unsafe fn make_and_apply<'a>(place: &'a mut MaybeUninit<Self>, row: &Row<'_>) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { Self::make_and::<true>(place, row) }
    }

    /// Apart from what calls it, so that the rounds have all registers.
    ///
    /// # Safety
    /// If they are applied at once, the texts must be valid for reads and writes.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    unsafe fn make_and<'a, const APPLY: bool>(place: &'a mut MaybeUninit<Self>, row: &Row<'_>) -> &'a Self {
        // With eight packets or fewer, one half of the lanes makes the first blocks, the other the last.
        let is_half = row.count <= LANES;

        let key = keys(row, is_half);
        let nonce = nonces(row, is_half);
        let zero = _mm512_setzero_si512();
        let mut initial = [zero; 16];
        for (words, word) in initial.iter_mut().zip(CONSTANTS) {
            *words = _mm512_set1_epi32(word);
        }
        initial[KEY..KEY + 8].copy_from_slice(&key);
        initial[NONCE - 1] = _mm512_set1_epi32(row.nonce_prefix as i32);
        initial[NONCE..].copy_from_slice(&nonce);
        let last = last_counters(row, is_half);

        let (one_time_keys, last_blocks) = if is_half {
            initial[BLOCK_COUNTER] = _mm512_mask_mov_epi32(zero, 0xff00, last);
            let words = add_initial!(chacha20::one_group(&initial), &initial);
            let mut blocks = transpose!(words);
            blocks.rotate_left(LANES);
            (OneTimeKeys::from_words(&words), blocks)
        } else {
            let mut initial_last = initial;
            initial_last[BLOCK_COUNTER] = last;
            let [first_blocks, last_blocks] = two_alike!(&initial, &initial_last);
            let one_time_keys = OneTimeKeys::from_words(&add_initial!(first_blocks, &initial));
            (one_time_keys, transpose!(add_initial!(last_blocks, &initial_last)))
        };
        let fields = place.as_mut_ptr();
        let is_applied = APPLY && row.has_whole_blocks();
        // SAFETY: the place is borrowed for writing. This writes all of it, but for what may be left out.
        let sixteen = unsafe {
            (&raw mut (*fields).key).write(key);
            (&raw mut (*fields).nonce).write(nonce);
            (&raw mut (*fields).one_time_keys).write(one_time_keys);
            if !is_applied {
                (&raw mut (*fields).last_blocks).write(MaybeUninit::new(last_blocks));
            }
            place.assume_init_ref()
        };
        if is_applied {
            apply_whole_blocks!(last_blocks, row);
        } else if APPLY {
            // SAFETY: the caller's promise, and they were not applied.
            unsafe { sixteen.apply_last_blocks(row, u16::MAX) };
        }
        sixteen
    }

    /// Encrypts or decrypts the last block of each packet of the row whose bit is set.
    ///
    /// # Safety
    /// The texts of those must be valid for reads and writes, and the blocks not have been applied when they were made.
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) unsafe fn apply_last_blocks(&self, row: &Row<'_>, chosen: u16) {
        // SAFETY: the caller's promise.
        let last_blocks = unsafe { self.last_blocks.assume_init_ref() };
        // A store with a mask takes twice as long as one without.
        if chosen == u16::MAX && row.has_whole_blocks() {
            apply_whole_blocks!(last_blocks, row);
            return;
        }
        let mut chosen = u64::from(chosen);
        for (keystream, (text, length)) in last_blocks.iter().zip(row.texts()) {
            let start = full_blocks(length) * BLOCK as u32;
            // Without a branch on whether the packet is chosen. The mask for 64 bytes is all ones.
            let mask = _bzhi_u64((chosen & 1).wrapping_neg(), length - start);
            chosen >>= 1;
            let text = text.wrapping_add(start as usize).cast();
            // SAFETY: the bytes of the mask are the end of the text. Others are neither read nor written.
            unsafe {
                let block = _mm512_maskz_loadu_epi8(mask, text);
                _mm512_mask_storeu_epi8(text, mask, _mm512_xor_si512(block, *keystream));
            }
        }
    }

    /// Forgets what was made in a place, if anything was.
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    pub(super) fn wipe(place: &mut MaybeUninit<Self>) {
        const VECTORS: usize = size_of::<Sixteen>() / size_of::<Vector>();
        // SAFETY: a `Sixteen` is vectors and nothing else, and the places of vectors that may be uninitialised are written alone.
        wipe(unsafe { &mut *place.as_mut_ptr().cast::<[MaybeUninit<Vector>; VECTORS]>() });
    }
}

impl OneTimeKeys {
    /// Of the first blocks of sixteen packets: the keys of the first and of the second eight.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
    fn from_words(words: &State) -> [Self; 2] {
        let clamp = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc].map(|mask| _mm512_set1_epi64(mask));
        let make = |order: Vector| {
            let [r_low, r_high, s_low, s_high] =
                [0, 2, 4, 6].map(|word| _mm512_permutex2var_epi32(words[word], order, words[word + 1]));
            Self { halves: [_mm512_and_si512(r_low, clamp[0]), _mm512_and_si512(r_high, clamp[1]), s_low, s_high] }
        };
        [
            make(_mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)),
            make(_mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)),
        ]
    }
}

/// The words of the keys of the packets of a row, or of its first half twice.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn keys(row: &Row<'_>, is_half: bool) -> [Vector; 8] {
    if row.fields.has_one_key(is_half) {
        return row.fields.key(0).words().map(|word| _mm512_set1_epi32(word as i32));
    }
    let pair = |low: usize| {
        let key = |lane: usize| row.fields.key(if is_half { lane % LANES } else { lane });
        // SAFETY: a key is 32 bytes, aligned to as many.
        let [low, high] = [low, low + 4].map(|lane| unsafe { _mm256_load_si256(key(lane).bytes().as_ptr().cast()) });
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
    let mut words = [_mm512_setzero_si512(); 8];
    for k in 0..4 {
        words[k] = _mm512_shuffle_i32x4::<0x88>(lower[k], upper[k]);
        words[4 + k] = _mm512_shuffle_i32x4::<0xdd>(lower[k], upper[k]);
    }
    words
}

/// The low and high words of their counters.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn nonces(row: &Row<'_>, is_half: bool) -> [Vector; 2] {
    let [lower, upper] = row.fields.counters;
    let upper = if is_half { lower } else { upper };
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
    [_mm512_permutex2var_epi32(lower, even, upper), _mm512_permutex2var_epi32(lower, odd, upper)]
}

/// The numbers of their last blocks: text begins with block 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn last_counters(row: &Row<'_>, is_half: bool) -> Vector {
    let mut lengths = load(row.fields.lengths());
    if is_half {
        lengths = _mm512_inserti64x4::<1>(lengths, _mm512_castsi512_si256(lengths));
    }
    let one = _mm512_set1_epi32(1);
    let full_blocks = _mm512_srli_epi32::<6>(_mm512_sub_epi32(_mm512_max_epu32(lengths, one), one));
    _mm512_add_epi32(full_blocks, one)
}
