//! Jetway on DPDK: the environment, buffers, pools and ports. The only files of the engine that call it.

pub mod device;
pub mod eal;
mod interface;
mod log;
pub mod mbuf;
pub mod pool;
pub mod port;
mod queue;
mod setup;

pub use log::LogLevel;
