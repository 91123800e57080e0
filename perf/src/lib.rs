//! The harness: what the parts and the whole of the engine cost, beside other implementations, in one run.
//!
//! Every figure is a median over rounds in which all contestants took turns, with its spread; see `perf/README.md`.

pub mod acceptance;
pub mod aead;
pub mod budgets;
pub mod compare;
pub mod devices;
pub mod dispatch;
pub mod dpdk;
pub mod engine;
pub mod floors;
pub mod generator;
pub mod gotatun;
pub mod handshakes;
pub mod interleave;
pub mod line;
pub mod micro;
pub mod order_process;
pub mod plot;
pub mod probes;
pub mod process;
pub mod publish;
pub mod result;
pub mod rfc2544;
pub mod sample;
pub mod scale;
pub mod search;
pub mod sink;
pub mod stock;
pub mod subject;
pub mod suite;
pub mod system;
pub mod testpmd;
pub mod traffic;
pub mod txonly;
pub mod under_test;
pub mod watch;
pub mod workers;
pub mod world;
