//! The process `jetway`: its command line, its services, and the tables it publishes to the engine.
#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod health;
pub mod intent;
pub mod kernel;
pub mod local_socket;
pub mod logging;
pub mod node;
pub mod run;
pub mod single_instance;
#[cfg(test)]
mod test_config;
pub mod uapi;
