//! The target `ip_packet` under libFuzzer.
#![no_main]

jetway_fuzz::fuzz!("ip_packet");
