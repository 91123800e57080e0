//! Looks for a dependence of time on secrets, as dudect does (Reparaz, Balasch and Verbauwhede, 2017): Welch's t-test between the times
//! of two classes of input that differ in their secrets alone.
//!
//! `cargo run --release -p jetway-aead --example aead_timing -- [measurements]`. Below 4.5 there is no evidence of a leak; above 10 there
//! surely is one. Times above a percentile are cropped, at several percentiles, because a machine's noise is all at the top;
//! the largest t is printed.

use std::time::Instant;

use jetway_aead::{Aead, Backend, Key, OpenJob, SealJob, TAG_LENGTH};

/// Packets of a burst.
const BURST: usize = 16;

/// Lengths that use both ways of authentication, and none.
const LENGTHS: [usize; 4] = [64, 500, 1420, 1000];

/// What is done in a measurement.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Seal,
    /// Opens packets whose tags are wrong: in the first byte in one class, in the last in the other.
    OpenForged,
}

/// The classes: all secrets zero, or random.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Fixed,
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
    for backend in Backend::ALL {
        let Ok(aead) = Aead::with_backend(backend) else {
            println!("{backend}: not on this CPU");
            continue;
        };
        for operation in [Operation::Seal, Operation::OpenForged] {
            let t = largest_t(&mut measure(aead, operation, measurements));
            println!("{backend} {operation:?}: |t| = {t:.2} after {measurements} measurements");
        }
    }
}

/// The time of each measurement, with its class.
fn measure(aead: Aead, operation: Operation, measurements: usize) -> Vec<(Class, f64)> {
    let mut random = Random(1);
    let mut keys: Vec<[u8; 32]> = vec![[0; 32]; BURST];
    let mut buffers: Vec<Vec<u8>> =
        (0..BURST).map(|index| vec![0; LENGTHS[index % LENGTHS.len()] + TAG_LENGTH]).collect();
    // The same in every measurement, of either class.
    let unrelated_keys: Vec<Key> = (0..BURST as u8).map(|byte| aead.key(&[byte; 32])).collect();
    let mut unrelated = buffers.clone();
    let mut times = Vec::with_capacity(measurements);
    for counter in 0..measurements as u64 {
        let class = if random.next() & 1 == 0 { Class::Fixed } else { Class::Random };
        // Both classes write the same bytes at the same places, and draw as many random numbers.
        for bytes in keys.iter_mut().map(|key| key.as_mut_slice()).chain(buffers.iter_mut().map(Vec::as_mut_slice)) {
            random.fill(bytes);
            let mask = if class == Class::Fixed { 0 } else { 0xff };
            bytes.iter_mut().for_each(|byte| *byte &= mask);
        }
        let keys: Vec<Key> = keys.iter().map(|key| aead.key(key)).collect();
        let elapsed = match operation {
            Operation::Seal => {
                // What the preparation of a class leaves in the CPU is no secret of the operation: something else comes in between, as
                // sealing does below.
                let _ = time_seal(aead, &unrelated_keys, &mut unrelated, counter);
                time_seal(aead, &keys, &mut buffers, counter)
            }
            Operation::OpenForged => {
                let _ = time_seal(aead, &keys, &mut buffers, counter);
                time_open_forged(aead, &keys, &mut buffers, counter, class)
            }
        };
        times.push((class, elapsed));
    }
    times
}

fn time_seal(aead: Aead, keys: &[Key], buffers: &mut [Vec<u8>], counter: u64) -> f64 {
    let mut jobs: Vec<SealJob<'_>> =
        keys.iter().zip(buffers).map(|(key, buffer)| SealJob { key, counter, buffer }).collect();
    let start = Instant::now();
    aead.seal_burst(&mut jobs);
    start.elapsed().as_nanos() as f64
}

fn time_open_forged(aead: Aead, keys: &[Key], buffers: &mut [Vec<u8>], counter: u64, class: Class) -> f64 {
    for buffer in buffers.iter_mut() {
        let tag = buffer.len() - TAG_LENGTH;
        buffer[if class == Class::Fixed { tag } else { tag + TAG_LENGTH - 1 }] ^= 1;
    }
    let mut jobs: Vec<OpenJob<'_>> =
        (keys.iter().zip(buffers)).map(|(key, buffer)| OpenJob { key, counter, buffer, authentic: false }).collect();
    let start = Instant::now();
    aead.open_burst(&mut jobs);
    let elapsed = start.elapsed().as_nanos() as f64;
    assert!(jobs.iter().all(|job| !job.authentic));
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
