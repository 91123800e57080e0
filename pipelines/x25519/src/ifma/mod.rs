//! Eight agreements at once on a CPU with AVX-512 IFMA: the Montgomery ladder of RFC 7748, one agreement in each lane.
//!
//! Keys differ from lane to lane as data alone. No branch and no address depends on them: a bit of a private key becomes a bit
//! of a mask register that blends two vectors. The generated code was read for that: its branches count lanes, bits and squarings,
//! and ask whether a secret is all zero, which the other side sees anyway when it gets no answer.

mod field;

use std::arch::x86_64::*;
use std::sync::atomic::{Ordering, compiler_fence};

use zeroize::Zeroize;

use self::field::{BITS, Element, LIMBS, MASK, add, add_multiple, invert, multiply, small, square, subtract};
use crate::{Agreement, Secret};

/// Agreements of one pass.
pub(crate) const LANES: usize = 8;
/// From so many agreements on a pass takes less time than aws-lc takes for them one by one.
pub(crate) const WORTH_IT: usize = 3;

/// 64-bit words of a key.
const WORDS: usize = 4;
/// The number of a clamped private key's highest bit.
const HIGHEST: usize = 254;
/// (486662 - 2) / 4, of the curve's equation.
const A24: u64 = 121_665;

/// Whether this CPU can run [`agree`].
pub(crate) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma")
}

/// A word or limb of each lane, as it is loaded.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Lanes([u64; LANES]);

impl Zeroize for Lanes {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

/// Works out up to eight agreements. Lanes beyond those repeat none: they work on zeros.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn agree(agreements: &mut [Agreement<'_>]) {
    let mut scalars = [Lanes::default(); WORDS];
    let mut points = [Lanes::default(); LIMBS];
    for (lane, agreement) in agreements.iter().take(LANES).enumerate() {
        let mut scalar = clamped(agreement.private);
        for (lanes, word) in scalars.iter_mut().zip(scalar) {
            lanes.0[lane] = word;
        }
        scalar.zeroize();
        for (lanes, limb) in points.iter_mut().zip(limbs(agreement.public)) {
            lanes.0[lane] = limb;
        }
    }
    let mut product =
        scalar_multiply(&scalars.each_ref().map(|lanes| load(lanes)), &points.each_ref().map(|lanes| load(lanes)));
    scalars.zeroize();
    let mut limbs = product.map(|vector| store(vector));
    for vector in &mut product {
        wipe(vector);
    }
    for (lane, agreement) in agreements.iter_mut().take(LANES).enumerate() {
        let shared = bytes(limbs.each_ref().map(|lanes| lanes.0[lane]));
        let any = shared.iter().fold(0, |any, byte| any | byte);
        agreement.shared = (any != 0).then_some(shared);
    }
    limbs.zeroize();
}

/// The ladder: `scalars` times the points with these u-coordinates.
///
/// Before each step, the two points are exchanged if the scalar's bit differs from the one before. Their sum is the same in either
/// order, so it is enough to choose which of them is doubled.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn scalar_multiply(scalars: &[__m512i; WORDS], u: &Element) -> Element {
    let (mut x2, mut z2) = (small(1), small(0));
    let (mut x3, mut z3) = (*u, small(1));
    let mut last: __mmask8 = 0;
    for bit in (0..=HIGHEST).rev() {
        let is_set = _mm512_test_epi64_mask(scalars[bit / 64], _mm512_set1_epi64(1 << (bit % 64)));
        let exchange = is_set ^ last;
        last = is_set;
        let (a, b) = (add(&x2, &z2), subtract(&x2, &z2));
        let (c, d) = (add(&x3, &z3), subtract(&x3, &z3));
        let (da, cb) = (multiply(&d, &a), multiply(&c, &b));
        let aa = square(&select(exchange, &a, &c));
        let bb = square(&select(exchange, &b, &d));
        let e = subtract(&aa, &bb);
        x3 = square(&add(&da, &cb));
        z3 = multiply(u, &square(&subtract(&da, &cb)));
        x2 = multiply(&aa, &bb);
        z2 = multiply(&e, &add_multiple::<A24>(&aa, &e));
    }
    // The lowest three bits of a clamped key are 0: nothing is left to exchange.
    multiply(&x2, &invert(&z2))
}

/// `a`, or `b` in the lanes of the mask.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn select(mask: __mmask8, a: &Element, b: &Element) -> Element {
    std::array::from_fn(|i| _mm512_mask_blend_epi64(mask, a[i], b[i]))
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn load(lanes: &Lanes) -> __m512i {
    // SAFETY: the array has the size and the alignment of a vector.
    unsafe { _mm512_load_si512(lanes.0.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn store(vector: __m512i) -> Lanes {
    let mut lanes = Lanes::default();
    // SAFETY: the array has the size and the alignment of a vector.
    unsafe { _mm512_store_si512(lanes.0.as_mut_ptr().cast(), vector) };
    lanes
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn wipe(vector: &mut __m512i) {
    // SAFETY: a reference is valid and aligned.
    unsafe { std::ptr::write_volatile(vector, _mm512_setzero_si512()) };
    compiler_fence(Ordering::SeqCst);
}

fn words(bytes: &[u8; 32]) -> [u64; WORDS] {
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|i| u64::from_le_bytes(words[i]))
}

/// A private key as RFC 7748 has it decoded: a multiple of 8 between 2^254 and 2^255.
fn clamped(private: &[u8; 32]) -> [u64; WORDS] {
    let [a, b, c, d] = words(private);
    [a & !7, b, c, (d & !(1 << 63)) | (1 << 62)]
}

/// A public key's limbs, without its highest bit, which does not count.
fn limbs(public: &[u8; 32]) -> [u64; LIMBS] {
    let [a, b, c, d] = words(public);
    [a, (a >> 51) | (b << 13), (b >> 38) | (c << 26), (c >> 25) | (d << 39), d >> 12].map(|limb| limb & MASK)
}

/// The bytes of a carried number, modulo p.
fn bytes(mut limbs: [u64; LIMBS]) -> Secret {
    let mut carry_all = |mut carry: u64| {
        for limb in &mut limbs {
            *limb += carry;
            carry = *limb >> BITS;
            *limb &= MASK;
        }
        carry
    };
    // Twice, as 19 times the last carry may overflow the first limb again. Now the number is below 2^255.
    let carry = carry_all(0);
    let carry = carry_all(19 * carry);
    carry_all(19 * carry);
    // It is p or more exactly if 19 more reach 2^255.
    let quotient = limbs.iter().fold(19, |carry, limb| (limb + carry) >> BITS);
    let mut carry = 19 * quotient;
    for limb in &mut limbs {
        *limb += carry;
        carry = *limb >> BITS;
        *limb &= MASK;
    }
    let [a, b, c, d, e] = limbs;
    let mut words = [a | (b << 51), (b >> 13) | (c << 38), (c >> 26) | (d << 25), (d >> 39) | (e << 12)];
    let mut bytes = Secret::default();
    let (chunks, _) = bytes.as_chunks_mut::<8>();
    for (chunk, word) in chunks.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    limbs.zeroize();
    words.zeroize();
    bytes
}
