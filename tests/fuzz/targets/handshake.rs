//! The target `handshake` under libFuzzer.
#![no_main]

jetway_fuzz::fuzz!("handshake");
