//! The target `uapi` under libFuzzer.
#![no_main]

jetway_fuzz::fuzz!("uapi");
