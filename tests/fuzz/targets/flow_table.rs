//! The target `flow_table` under libFuzzer.
#![no_main]

jetway_fuzz::fuzz!("flow_table");
