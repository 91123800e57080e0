//! Dispatch of virtual services to the servers behind them.

pub mod backend;
pub mod decapsulation;
pub mod direct_flows;
pub mod encapsulation;
pub mod flow_scan;
pub mod flow_table;
pub mod fragment_table;
pub mod loss;
pub mod maglev;
pub mod nat;
pub mod selection;
pub mod service;

pub use backend::{Administration, Backend, BackendState, Health};
pub use flow_table::{FlowTable, Tick};
pub use maglev::Maglev;
