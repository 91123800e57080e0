//! The target `frame` under libFuzzer.
#![no_main]

jetway_fuzz::fuzz!("frame");
