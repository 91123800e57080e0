//! Looks for a dependence of time on secrets, as dudect does (Reparaz, Balasch and Verbauwhede, 2017): Welch's t-test between the times
//! of two classes of input that differ in their secrets alone.
//!
//! `cargo run --release -p jetway-x25519 --example x25519_timing -- [measurements]`. Below 4.5 there is no evidence of a leak; above 10
//! there surely is one. Times above a percentile are cropped, at several percentiles, because a machine's noise is all at the
//! top; the largest t is printed.

use std::hint::black_box;
use std::time::Instant;

use jetway_x25519::{Agreement, agree, agree_burst, public_key};

/// Agreements that the kernel works on together.
const LANES: usize = 8;

/// What is done in a measurement.
#[derive(Clone, Copy, Debug)]
enum Operation {
    /// Eight agreements in one call: the vector kernel, where the CPU can run it.
    Burst,
    /// One agreement: aws-lc.
    Single,
    /// One public key: aws-lc.
    PublicKey,
}

/// The classes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Private keys whose bits are all zero but for the highest, which has to be set.
    Fixed,
    /// Private keys whose bits are random.
    Random,
}

/// A small generator with good enough statistics (splitmix64), so that a run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

fn main() {
    let measurements = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(40_000);
    for operation in [Operation::Burst, Operation::Single, Operation::PublicKey] {
        let t = largest_t(&mut measure(operation, measurements));
        println!("{operation:?}: |t| = {t:.2} after {measurements} measurements");
    }
}

/// The time of each measurement, with its class.
fn measure(operation: Operation, measurements: usize) -> Vec<(Class, f64)> {
    let mut random = Random(1);
    let mut private = [[0; 32]; LANES];
    // The same in every measurement, of either class.
    let unrelated: [[u8; 32]; LANES] = std::array::from_fn(|index| [index as u8 + 1; 32]);
    let public = unrelated.map(|key| public_key(&key));
    let mut times = Vec::with_capacity(measurements);
    for _ in 0..measurements {
        let class = if random.next() & 1 == 0 { Class::Fixed } else { Class::Random };
        // Both classes write the same bytes at the same places, and draw as many random numbers.
        for bytes in &mut private {
            random.fill(bytes);
            let mask = if class == Class::Fixed { 0 } else { 0xff };
            bytes.iter_mut().for_each(|byte| *byte &= mask);
        }
        // What the preparation of a class leaves in the CPU is no secret of the operation: something else comes in between.
        let _ = time(operation, &unrelated, &public);
        times.push((class, time(operation, &private, &public)));
    }
    times
}

fn time(operation: Operation, private: &[[u8; 32]; LANES], public: &[[u8; 32]; LANES]) -> f64 {
    let mut agreements: [Agreement<'_>; LANES] =
        std::array::from_fn(|index| Agreement::of(&private[index], &public[index]));
    let start = Instant::now();
    match operation {
        Operation::Burst => agree_burst(&mut agreements),
        Operation::Single => agreements[0].shared = agree(&private[0], &public[0]),
        Operation::PublicKey => {
            black_box(public_key(&private[0]));
        }
    }
    let elapsed = start.elapsed().as_nanos() as f64;
    black_box(&agreements);
    elapsed
}

/// The largest |t| over the croppings.
fn largest_t(times: &mut [(Class, f64)]) -> f64 {
    times.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    [50, 70, 80, 90, 95].into_iter().map(|percent| welch_t(&times[..times.len() * percent / 100])).fold(0.0, f64::max)
}

/// Welch's t statistic between the classes, without its sign.
fn welch_t(times: &[(Class, f64)]) -> f64 {
    let moments = |class: Class| {
        let of_class = || times.iter().filter(|(of, _)| *of == class).map(|(_, time)| time);
        let count = of_class().count() as f64;
        let mean = of_class().sum::<f64>() / count;
        let variance = of_class().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((fixed, fixed_error), (random, random_error)) = (moments(Class::Fixed), moments(Class::Random));
    ((fixed - random) / (fixed_error + random_error).sqrt()).abs()
}
