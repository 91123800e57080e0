//! ChaCha20 (RFC 8439, section 2.3) on 16 or 32 blocks at a time, each with its own key, counter and nonce.
//!
//! A vector holds one word of the state of 16 blocks. The rounds are inline assembly, because all 32 vector registers hold state
//! when two groups run together, and a compiler that spills even one of them gives away what the second group wins: it fills the
//! gaps that the latency of the first leaves in the vector pipes.

use std::arch::asm;
use std::arch::x86_64::*;

use super::Vector;

/// Blocks of a group: one per 32-bit lane of a vector.
pub(super) const GROUP: usize = 16;

/// The words of 16 states: `state[word]` has that word of each.
pub(super) type State = [Vector; 16];

/// The first row of every state: "expand 32-byte k".
pub(super) const CONSTANTS: [i32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// One line of a quarter round: `$a += $b; $d ^= $a; $d <<<= $by`, in place.
macro_rules! line {
    ($a:literal, $b:literal, $d:literal, $by:literal) => {
        concat!(
            "vpaddd zmm",
            $a,
            ", zmm",
            $a,
            ", zmm",
            $b,
            "\n",
            "vpxord zmm",
            $d,
            ", zmm",
            $d,
            ", zmm",
            $a,
            "\n",
            "vprold zmm",
            $d,
            ", zmm",
            $d,
            ", ",
            $by,
            "\n",
        )
    };
}

/// Quarter rounds that do not depend on each other, line by line, so that each line's latency passes while the others run.
macro_rules! quarter_rounds {
    ($(($a:literal, $b:literal, $c:literal, $d:literal)),*) => {
        concat!(
            $(line!($a, $b, $d, 16),)*
            $(line!($c, $d, $b, 12),)*
            $(line!($a, $b, $d, 8),)*
            $(line!($c, $d, $b, 7),)*
        )
    };
}

/// The keystream of 16 blocks: `result[lane]` is the block of that lane.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn one_group(initial: &State) -> [Vector; GROUP] {
    let mut x = *initial;
    // SAFETY: the instructions touch no memory and no register but those named, and need AVX-512F, which this function has.
    unsafe {
        asm!(
            "2:",
            quarter_rounds!((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),
            quarter_rounds!((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),
            "dec {count:e}",
            "jnz 2b",
            count = inout(reg) 10 => _,
            inout("zmm0") x[0], inout("zmm1") x[1], inout("zmm2") x[2], inout("zmm3") x[3],
            inout("zmm4") x[4], inout("zmm5") x[5], inout("zmm6") x[6], inout("zmm7") x[7],
            inout("zmm8") x[8], inout("zmm9") x[9], inout("zmm10") x[10], inout("zmm11") x[11],
            inout("zmm12") x[12], inout("zmm13") x[13], inout("zmm14") x[14], inout("zmm15") x[15],
            options(pure, nomem, nostack),
        );
    }
    transpose(add(x, initial))
}

/// The keystream of 32 blocks, in less time than two groups one after the other.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn two_groups(first: &State, second: &State) -> [[Vector; GROUP]; 2] {
    let (mut x, mut y) = (*first, *second);
    // SAFETY: as in `one_group`.
    unsafe {
        asm!(
            "2:",
            quarter_rounds!(
                (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                (16, 20, 24, 28), (17, 21, 25, 29), (18, 22, 26, 30), (19, 23, 27, 31)
            ),
            quarter_rounds!(
                (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
                (16, 21, 26, 31), (17, 22, 27, 28), (18, 23, 24, 29), (19, 20, 25, 30)
            ),
            "dec {count:e}",
            "jnz 2b",
            count = inout(reg) 10 => _,
            inout("zmm0") x[0], inout("zmm1") x[1], inout("zmm2") x[2], inout("zmm3") x[3],
            inout("zmm4") x[4], inout("zmm5") x[5], inout("zmm6") x[6], inout("zmm7") x[7],
            inout("zmm8") x[8], inout("zmm9") x[9], inout("zmm10") x[10], inout("zmm11") x[11],
            inout("zmm12") x[12], inout("zmm13") x[13], inout("zmm14") x[14], inout("zmm15") x[15],
            inout("zmm16") y[0], inout("zmm17") y[1], inout("zmm18") y[2], inout("zmm19") y[3],
            inout("zmm20") y[4], inout("zmm21") y[5], inout("zmm22") y[6], inout("zmm23") y[7],
            inout("zmm24") y[8], inout("zmm25") y[9], inout("zmm26") y[10], inout("zmm27") y[11],
            inout("zmm28") y[12], inout("zmm29") y[13], inout("zmm30") y[14], inout("zmm31") y[15],
            options(pure, nomem, nostack),
        );
    }
    [transpose(add(x, first)), transpose(add(y, second))]
}

/// The sum of two states, word by word.
#[inline]
#[target_feature(enable = "avx512f")]
fn add(mut x: State, initial: &State) -> State {
    for (word, start) in x.iter_mut().zip(initial) {
        *word = _mm512_add_epi32(*word, *start);
    }
    x
}

/// Turns words of 16 blocks into 16 blocks of words.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(x: State) -> [Vector; GROUP] {
    let zero = _mm512_setzero_si512();
    // rows[g][k]: words 4g..4g+4 of the blocks k, k+4, k+8, k+12, one block to each 128 bits.
    let mut rows = [[zero; 4]; 4];
    for (group, row) in rows.iter_mut().enumerate() {
        let [a, b, c, d] = [x[4 * group], x[4 * group + 1], x[4 * group + 2], x[4 * group + 3]];
        let (low_ab, high_ab) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low_cd, high_cd) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        *row = [
            _mm512_unpacklo_epi64(low_ab, low_cd),
            _mm512_unpackhi_epi64(low_ab, low_cd),
            _mm512_unpacklo_epi64(high_ab, high_cd),
            _mm512_unpackhi_epi64(high_ab, high_cd),
        ];
    }
    let mut blocks = [zero; GROUP];
    for k in 0..4 {
        let low_01 = _mm512_shuffle_i32x4::<0x44>(rows[0][k], rows[1][k]);
        let low_23 = _mm512_shuffle_i32x4::<0x44>(rows[2][k], rows[3][k]);
        let high_01 = _mm512_shuffle_i32x4::<0xee>(rows[0][k], rows[1][k]);
        let high_23 = _mm512_shuffle_i32x4::<0xee>(rows[2][k], rows[3][k]);
        blocks[k] = _mm512_shuffle_i32x4::<0x88>(low_01, low_23);
        blocks[4 + k] = _mm512_shuffle_i32x4::<0xdd>(low_01, low_23);
        blocks[8 + k] = _mm512_shuffle_i32x4::<0x88>(high_01, high_23);
        blocks[12 + k] = _mm512_shuffle_i32x4::<0xdd>(high_01, high_23);
    }
    blocks
}
