//! Looks for a dependence of the time of X25519 on private keys.
//!
//! `cargo run --release -p jetway-x25519 --example x25519_timing -- [measurements]`. Below 4.5 there is no evidence of a leak; above 10
//! there surely is one: see `dudect/mod.rs`.

#[path = "../../aead/examples/dudect/mod.rs"]
mod dudect;

use std::hint::black_box;
use std::time::Instant;

use dudect::{Class, Random, largest_t};
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
        let class = Class::choose(&mut random);
        // A private key of zeros is one whose highest bit alone is set when it is used.
        for bytes in &mut private {
            class.fill(bytes, &mut random);
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
