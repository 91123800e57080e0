//! What a burst through a port costs before any driver or wire: run in release, on a quiet core, when wanted.
//!
//! `cargo test --release -p jetway-engine --test dpdk -- --ignored --nocapture measure`

use std::hint::black_box;
use std::time::Instant;

use jetway_engine::dpdk::mbuf::free_burst;
use jetway_engine::port::{BURST, Burst};
use jetway_pipelines::buffer::{BufferPool, PacketBuf};

use crate::world::{Rig, frame, in_own_process};

const TURNS: usize = 200_000;
const ROUNDS: usize = 7;

/// Prints least, middle and most of a few rounds, in nanoseconds a packet.
fn report(what: &str, mut turn: impl FnMut() -> usize) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let packets: usize = (0..TURNS).map(|_| turn()).sum();
            start.elapsed().as_nanos() as f64 / packets as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{what}: {:.2} ns/packet ({:.2} to {:.2})", rounds[ROUNDS / 2], rounds[0], rounds[ROUNDS - 1]);
}

#[test]
#[ignore = "a measurement, not a test"]
fn a_burst_through_a_ring() {
    in_own_process("measure::a_burst_through_a_ring", || {
        let mut rig = Rig::open("net_ring0", 1, 1500);
        let mut burst: Burst<_> = (0..BURST as u32).map(|number| rig.packet(&frame(number, 64))).collect();
        report("net_ring transmit + receive", || {
            let sent = rig.queues[0].transmit(&mut burst);
            rig.queues[0].receive(&mut burst);
            sent
        });
    });
}

#[test]
#[ignore = "a measurement, not a test"]
fn a_burst_through_null() {
    in_own_process("measure::a_burst_through_null", || {
        let mut rig = Rig::open("net_null0,size=64", 1, 1500);
        let mut burst = Burst::new();
        report("net_null receive (allocates) + transmit (frees)", || {
            rig.queues[0].receive(&mut burst);
            rig.queues[0].transmit(&mut burst)
        });
        report("net_null receive + free_burst", || {
            let count = rig.queues[0].receive(&mut burst);
            free_burst(&mut burst);
            count
        });
        report("net_null receive + drop one by one", || {
            let count = rig.queues[0].receive(&mut burst);
            burst.clear();
            count
        });
    });
}

#[test]
#[ignore = "a measurement, not a test"]
fn allocation_and_headers() {
    in_own_process("measure::allocation_and_headers", || {
        let mut rig = Rig::open("net_null0,size=64", 1, 1500);
        let mut burst = Burst::new();
        report("allocate + grow_back + grow_front + trim_front, then free_burst", || {
            while let Some(mut packet) = (!burst.is_full()).then(|| rig.allocator.allocate()).flatten() {
                let grown = packet.grow_back(64).and(packet.grow_front(42));
                packet.trim_front(black_box(14));
                assert!(grown.is_ok() && packet.data().len() == 92);
                burst.push(packet);
            }
            let count = burst.len();
            free_burst(&mut burst);
            count
        });
    });
}
