//! The target `fragment_table` under libFuzzer.
#![no_main]

jetway_fuzz::fuzz!("fragment_table");
