//! The process `jetway`: its command line, its services, and the tables it publishes to the engine.
#![forbid(unsafe_code)]

pub mod intent;
pub mod kernel;
pub mod local_socket;
#[cfg(test)]
mod test_config;
pub mod uapi;
