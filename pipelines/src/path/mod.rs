//! The way of a packet through a worker, stage by stage; the file names are the stages.
//!
//! ```text
//! frame -> classify -> open -> dispatch -> route -> seal -> emit -> sweep -> port, kernel or other worker
//!              |          |        |         |       |       |
//!              |          |        |         |       +-------+--> held until a session or a neighbour is there
//!              |          |        +---------+--> icmp, fragment: packets made on the way
//!              |          +--> admission: handshake messages, to the handshaker
//!              +--> the kernel: what is addressed to the node itself
//! ```
//!
//! What packets mostly are takes a shorter way and sees none of these stages: those of services `dispatch/express.rs`, data messages of
//! tunnels `open/express.rs`, packets into tunnels `seal/express.rs`.
//!
//! A burst goes through one stage at a time. A stage writes a verdict beside the packet; only the sweep acts.

pub mod classify;
pub mod decapsulate;
pub mod dispatch;
pub mod emit;
pub mod event;
pub mod explain;
pub mod fragment;
pub mod held;
pub mod icmp;
pub mod open;
pub mod order;
pub mod outer;
pub mod outputs;
pub mod packet;
pub mod pipeline;
pub mod route;
pub mod seal;
pub mod slots;
pub mod sweep;

mod admission;
mod simple;

pub use admission::Admission;
pub use dispatch::PathMtu;
pub use event::{Answer, Command, ControlEvent, HandshakeEvent};
pub use order::{HandshakeQuestion, Order};
pub use outputs::{Outputs, RingFull};
pub use packet::{BURST, Packet, Packets, Verdict};
pub use pipeline::{Pipeline, Scene, Settings};
