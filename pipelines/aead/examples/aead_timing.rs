//! Looks for a dependence of the time of sealing and opening on keys, packets and tags.
//!
//! `cargo run --release -p jetway-aead --example aead_timing -- [measurements]`. Below 4.5 there is no evidence of a leak; above 10 there
//! surely is one: see `dudect/mod.rs`.

mod dudect;

use std::time::Instant;

use dudect::{Class, Random, largest_t};
use jetway_aead::{Aead, Backend, Key, OpenJob, SealJob, TAG_LENGTH};

/// Packets of a burst.
const BURST: usize = 16;

/// Lengths of the packets of a burst, again and again: both ways of authentication together, and the way of short ones alone.
const LENGTHS: [&[usize]; 2] = [&[64, 500, 1420, 1000], &[64]];

/// What is done in a measurement.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Seal,
    /// Opens packets whose tags are wrong: in the first byte in one class, in the last in the other.
    OpenForged,
}

fn main() {
    let measurements = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(40_000);
    for backend in Backend::ALL {
        let Ok(aead) = Aead::with_backend(backend) else {
            println!("{backend}: not on this CPU");
            continue;
        };
        for operation in [Operation::Seal, Operation::OpenForged] {
            for lengths in LENGTHS {
                let t = largest_t(&mut measure(aead, operation, lengths, measurements));
                println!("{backend} {operation:?} {lengths:?}: |t| = {t:.2} after {measurements} measurements");
            }
        }
    }
}

/// The time of each measurement, with its class.
fn measure(aead: Aead, operation: Operation, lengths: &[usize], measurements: usize) -> Vec<(Class, f64)> {
    let mut random = Random(1);
    let mut keys: Vec<[u8; 32]> = vec![[0; 32]; BURST];
    let lengths = lengths.iter().cycle().take(BURST);
    let mut buffers: Vec<Vec<u8>> = lengths.map(|length| vec![0; length + TAG_LENGTH]).collect();
    // The same in every measurement, of either class.
    let unrelated_keys: Vec<Key> = (0..BURST as u8).map(|byte| aead.key(&[byte; 32])).collect();
    let mut unrelated = buffers.clone();
    let mut times = Vec::with_capacity(measurements);
    for counter in 0..measurements as u64 {
        let class = Class::choose(&mut random);
        for bytes in keys.iter_mut().map(|key| key.as_mut_slice()).chain(buffers.iter_mut().map(Vec::as_mut_slice)) {
            class.fill(bytes, &mut random);
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
