//! The process `jetway`: its command line, its services, and the tables it publishes to the engine.
#![forbid(unsafe_code)]

pub mod kernel;
