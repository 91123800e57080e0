//! The host path: what is for the kernel goes to its twin interfaces, what the kernel sends comes back to workers.
//!
//! ```text
//!   worker 0 --punts--> \                          / --write--> TAP "jw-wan"  (twin of a port: whole frames)
//!   worker 1 --punts-->  +-- the host thread -----+
//!            <-injects-- /                          \ <--read-- TUN "jw0"     (twin of a tunnel: bare IP packets)
//! ```
//!
//! Workers make no system calls: each has a ring to the host thread and one back, and the thread does the rest.

mod counters;
mod kernel_guard;
mod thread;
mod twin;
mod twin_error;

#[cfg(test)]
mod tests;

pub use self::counters::HostCounters;
pub use self::kernel_guard::{GuardError, KernelGuard};
pub use self::thread::{HostOptions, HostThread};
pub use self::twin::TwinDevice;
pub use self::twin_error::TwinError;
