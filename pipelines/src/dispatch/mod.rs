//! Dispatch of virtual services to the servers behind them.

pub mod backend;

pub use backend::{Administration, Backend, BackendState, Health};
