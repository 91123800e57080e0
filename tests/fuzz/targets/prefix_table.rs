//! The target `prefix_table` under libFuzzer.
#![no_main]

jetway_fuzz::fuzz!("prefix_table");
