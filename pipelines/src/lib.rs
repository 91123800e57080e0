//! Jetway's packet logic: what happens to a packet, without knowing where it runs.
//!
//! Nothing here touches DPDK, a clock, a thread, a socket or the environment: bytes, the time and
//! randomness come in as arguments, decisions go out as values. The engine runs this code on pinned
//! workers; tests, fuzzers and the performance harness run the very same code on plain memory.
#![forbid(unsafe_code)]

pub mod buffer;
pub mod counters;
pub mod dispatch;
pub mod drop_reason;
pub mod ids;
pub mod lpm;
pub mod meter;
pub mod packet;
pub mod path;
pub mod tables;
pub mod time;
pub mod wireguard;
