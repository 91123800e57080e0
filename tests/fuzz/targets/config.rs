//! The target `config` under libFuzzer.
#![no_main]

jetway_fuzz::fuzz!("config");
