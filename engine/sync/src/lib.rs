//! How Jetway's threads speak to each other without locks: rings, acknowledged commands, the table swap.
//!
//! Everything here runs on plain memory, so `cargo miri test -p jetway-sync` sees all of it, and
//! `RUSTFLAGS="--cfg loom" cargo test -p jetway-sync --release` walks through every interleaving of its tests.

pub mod command;
mod primitive;
pub mod published;
pub mod spsc;
