//! ChaCha20 (RFC 8439, section 2.3) on 16 or 32 blocks at a time, each with its own key, counter and nonce.
//!
//! A vector holds one word of the state of 16 blocks. The rounds are inline assembly, because all 32 vector registers hold state
//! when two groups run together, and a compiler that spills even one of them gives away what the second group wins: it fills the
//! gaps that the latency of the first leaves in the vector pipes.

use super::Vector;

/// Blocks of a group: one per 32-bit lane of a vector.
pub(super) const GROUP: usize = 16;

/// The words of 16 states: `state[word]` has that word of each.
pub(super) type State = [Vector; 16];

/// The first row of every state: "expand 32-byte k".
pub(super) const CONSTANTS: [i32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// `$a += $b; $d ^= $a; $d <<<= $by`, in place, on vector registers by number.
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

/// One of the four lines of the quarter rounds of one half, on the state in registers 0 to 15.
#[rustfmt::skip]
macro_rules! first_group {
    (columns, 1) => { concat!(line!(0, 4, 12, 16), line!(1, 5, 13, 16), line!(2, 6, 14, 16), line!(3, 7, 15, 16)) };
    (columns, 2) => { concat!(line!(8, 12, 4, 12), line!(9, 13, 5, 12), line!(10, 14, 6, 12), line!(11, 15, 7, 12)) };
    (columns, 3) => { concat!(line!(0, 4, 12, 8), line!(1, 5, 13, 8), line!(2, 6, 14, 8), line!(3, 7, 15, 8)) };
    (columns, 4) => { concat!(line!(8, 12, 4, 7), line!(9, 13, 5, 7), line!(10, 14, 6, 7), line!(11, 15, 7, 7)) };
    (diagonals, 1) => { concat!(line!(0, 5, 15, 16), line!(1, 6, 12, 16), line!(2, 7, 13, 16), line!(3, 4, 14, 16)) };
    (diagonals, 2) => { concat!(line!(10, 15, 5, 12), line!(11, 12, 6, 12), line!(8, 13, 7, 12), line!(9, 14, 4, 12)) };
    (diagonals, 3) => { concat!(line!(0, 5, 15, 8), line!(1, 6, 12, 8), line!(2, 7, 13, 8), line!(3, 4, 14, 8)) };
    (diagonals, 4) => { concat!(line!(10, 15, 5, 7), line!(11, 12, 6, 7), line!(8, 13, 7, 7), line!(9, 14, 4, 7)) };
}

/// The same on the state in registers 16 to 31.
#[rustfmt::skip]
macro_rules! second_group {
    (columns, 1) => { concat!(line!(16, 20, 28, 16), line!(17, 21, 29, 16), line!(18, 22, 30, 16), line!(19, 23, 31, 16)) };
    (columns, 2) => { concat!(line!(24, 28, 20, 12), line!(25, 29, 21, 12), line!(26, 30, 22, 12), line!(27, 31, 23, 12)) };
    (columns, 3) => { concat!(line!(16, 20, 28, 8), line!(17, 21, 29, 8), line!(18, 22, 30, 8), line!(19, 23, 31, 8)) };
    (columns, 4) => { concat!(line!(24, 28, 20, 7), line!(25, 29, 21, 7), line!(26, 30, 22, 7), line!(27, 31, 23, 7)) };
    (diagonals, 1) => { concat!(line!(16, 21, 31, 16), line!(17, 22, 28, 16), line!(18, 23, 29, 16), line!(19, 20, 30, 16)) };
    (diagonals, 2) => { concat!(line!(26, 31, 21, 12), line!(27, 28, 22, 12), line!(24, 29, 23, 12), line!(25, 30, 20, 12)) };
    (diagonals, 3) => { concat!(line!(16, 21, 31, 8), line!(17, 22, 28, 8), line!(18, 23, 29, 8), line!(19, 20, 30, 8)) };
    (diagonals, 4) => { concat!(line!(26, 31, 21, 7), line!(27, 28, 22, 7), line!(24, 29, 23, 7), line!(25, 30, 20, 7)) };
}

/// Runs assembly on one state, in registers 0 to 15.
#[rustfmt::skip]
macro_rules! on_one {
    ($x:ident, $($code:expr),*) => {
        // SAFETY: the instructions touch no memory, no flags and no register but those named, and need AVX-512F, which the
        // functions here have.
        unsafe {
            ::std::arch::asm!(
                $($code,)*
                inout("zmm0") $x[0], inout("zmm1") $x[1], inout("zmm2") $x[2], inout("zmm3") $x[3],
                inout("zmm4") $x[4], inout("zmm5") $x[5], inout("zmm6") $x[6], inout("zmm7") $x[7],
                inout("zmm8") $x[8], inout("zmm9") $x[9], inout("zmm10") $x[10], inout("zmm11") $x[11],
                inout("zmm12") $x[12], inout("zmm13") $x[13], inout("zmm14") $x[14], inout("zmm15") $x[15],
                options(pure, nomem, nostack, preserves_flags),
            )
        }
    };
}

/// Runs assembly on two states, in registers 0 to 15 and 16 to 31.
#[rustfmt::skip]
macro_rules! on_two {
    ($x:ident, $y:ident, $($code:expr),*) => {
        // SAFETY: as for one state.
        unsafe {
            ::std::arch::asm!(
                $($code,)*
                inout("zmm0") $x[0], inout("zmm1") $x[1], inout("zmm2") $x[2], inout("zmm3") $x[3],
                inout("zmm4") $x[4], inout("zmm5") $x[5], inout("zmm6") $x[6], inout("zmm7") $x[7],
                inout("zmm8") $x[8], inout("zmm9") $x[9], inout("zmm10") $x[10], inout("zmm11") $x[11],
                inout("zmm12") $x[12], inout("zmm13") $x[13], inout("zmm14") $x[14], inout("zmm15") $x[15],
                inout("zmm16") $y[0], inout("zmm17") $y[1], inout("zmm18") $y[2], inout("zmm19") $y[3],
                inout("zmm20") $y[4], inout("zmm21") $y[5], inout("zmm22") $y[6], inout("zmm23") $y[7],
                inout("zmm24") $y[8], inout("zmm25") $y[9], inout("zmm26") $y[10], inout("zmm27") $y[11],
                inout("zmm28") $y[12], inout("zmm29") $y[13], inout("zmm30") $y[14], inout("zmm31") $y[15],
                options(pure, nomem, nostack, preserves_flags),
            )
        }
    };
}

/// Ten double rounds on 16 blocks: the keystream's words, but for the initial state that is added at the end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub(super) fn one_group(initial: &State) -> State {
    let mut x = *initial;
    for _ in 0..10 {
        on_one!(
            x,
            first_group!(columns, 1),
            first_group!(columns, 2),
            first_group!(columns, 3),
            first_group!(columns, 4),
            first_group!(diagonals, 1),
            first_group!(diagonals, 2),
            first_group!(diagonals, 3),
            first_group!(diagonals, 4)
        );
    }
    x
}

/// The same on 32 blocks, in less time than two groups one after the other. A macro, because a call would pass 2 KiB of vectors
/// through memory, and a function with target features cannot be made to be inlined.
macro_rules! two_groups {
    ($first:expr, $second:expr) => {{
        let (mut x, mut y): (State, State) = (*$first, *$second);
        $crate::avx512::chacha20::double_rounds!(x, y, 10);
        [x, y]
    }};
}

/// The same on 32 blocks that differ in their block counter alone, which enters the first round in one of four columns: the others are done
/// once for both.
#[rustfmt::skip]
macro_rules! two_alike {
    ($first:expr, $second:expr) => {{
        use $crate::avx512::chacha20::{first_group, line, on_two, second_group};
        let (mut x, mut y): (State, State) = (*$first, *$second);
        on_two!(
            x, y,
            first_group!(columns, 1), line!(16, 20, 28, 16),
            first_group!(columns, 2), line!(24, 28, 20, 12),
            first_group!(columns, 3), line!(16, 20, 28, 8),
            first_group!(columns, 4), line!(24, 28, 20, 7),
            "vmovdqa64 zmm17, zmm1", "vmovdqa64 zmm18, zmm2", "vmovdqa64 zmm19, zmm3",
            "vmovdqa64 zmm21, zmm5", "vmovdqa64 zmm22, zmm6", "vmovdqa64 zmm23, zmm7",
            "vmovdqa64 zmm25, zmm9", "vmovdqa64 zmm26, zmm10", "vmovdqa64 zmm27, zmm11",
            "vmovdqa64 zmm29, zmm13", "vmovdqa64 zmm30, zmm14", "vmovdqa64 zmm31, zmm15",
            first_group!(diagonals, 1), second_group!(diagonals, 1),
            first_group!(diagonals, 2), second_group!(diagonals, 2),
            first_group!(diagonals, 3), second_group!(diagonals, 3),
            first_group!(diagonals, 4), second_group!(diagonals, 4)
        );
        $crate::avx512::chacha20::double_rounds!(x, y, 9);
        [x, y]
    }};
}

/// So many double rounds on two states, in place.
#[rustfmt::skip]
macro_rules! double_rounds {
    ($x:ident, $y:ident, $count:literal) => {{
        use $crate::avx512::chacha20::{first_group, line, on_two, second_group};
        for _ in 0..$count {
            on_two!(
                $x, $y,
                first_group!(columns, 1), second_group!(columns, 1),
                first_group!(columns, 2), second_group!(columns, 2),
                first_group!(columns, 3), second_group!(columns, 3),
                first_group!(columns, 4), second_group!(columns, 4),
                first_group!(diagonals, 1), second_group!(diagonals, 1),
                first_group!(diagonals, 2), second_group!(diagonals, 2),
                first_group!(diagonals, 3), second_group!(diagonals, 3),
                first_group!(diagonals, 4), second_group!(diagonals, 4)
            );
        }
    }};
}

/// Adds the initial state to what the rounds made of it.
macro_rules! add_initial {
    ($words:expr, $initial:expr) => {{
        let mut words: State = $words;
        for (word, initial) in words.iter_mut().zip($initial) {
            *word = _mm512_add_epi32(*word, *initial);
        }
        words
    }};
}

/// Turns words of 16 blocks into 16 blocks of words: what is to be the words of the blocks 0 to 15, given the words 0 to 15. A
/// macro for the same reason.
macro_rules! transpose {
    ($x:expr) => {{
        let x: State = $x;
        let zero = _mm512_setzero_si512();
        // rows[g][k]: words 4g..4g+4 of the blocks k, k+4, k+8, k+12, one block to each 128 bits.
        let mut rows = [[zero; 4]; 4];
        for (group, row) in rows.iter_mut().enumerate() {
            let [a, b, c, d] = [x[4 * group], x[4 * group + 1], x[4 * group + 2], x[4 * group + 3]];
            // By rotations and blends, which leave the shuffles' port to the other steps.
            let even = |a, b| _mm512_mask_mov_epi32(a, 0xaaaa, _mm512_rol_epi64::<32>(b));
            let odd = |a, b| _mm512_mask_mov_epi32(_mm512_rol_epi64::<32>(a), 0xaaaa, b);
            let (even_ab, odd_ab, even_cd, odd_cd) = (even(a, b), odd(a, b), even(c, d), odd(c, d));
            *row = [
                _mm512_unpacklo_epi64(even_ab, even_cd),
                _mm512_unpacklo_epi64(odd_ab, odd_cd),
                _mm512_unpackhi_epi64(even_ab, even_cd),
                _mm512_unpackhi_epi64(odd_ab, odd_cd),
            ];
        }
        let mut blocks = [zero; 16];
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
    }};
}

pub(super) use {
    add_initial, double_rounds, first_group, line, on_two, second_group, transpose, two_alike, two_groups,
};
