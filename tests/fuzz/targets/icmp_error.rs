//! The target `icmp_error` under libFuzzer.
#![no_main]

jetway_fuzz::fuzz!("icmp_error");
