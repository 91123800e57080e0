//! The target `worker` under libFuzzer.
#![no_main]

jetway_fuzz::fuzz!("worker");
