//! Health checks: asks every server in turn, and writes what it finds into the word that workers read.
//!
//! [`machine`] says when a server is asked and what its answers mean, [`schedule`] whose turn it is, [`probe`] asks, and
//! [`thread`](HealthThread) brings them together on a thread of its own, so that neither workers nor the node's task wait.

mod load;
pub mod machine;
pub mod probe;
mod record;
mod schedule;
mod thread;

pub use load::LoadCell;
pub use machine::Policy;
pub use probe::{Answer, Target};
pub use record::{Latencies, Record};
pub use thread::{Check, Findings, HealthThread, ServerFinding};
