//! The target `maglev` under libFuzzer.
#![no_main]

jetway_fuzz::fuzz!("maglev");
