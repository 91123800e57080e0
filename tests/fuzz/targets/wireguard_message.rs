//! The target `wireguard_message` under libFuzzer.
#![no_main]

jetway_fuzz::fuzz!("wireguard_message");
