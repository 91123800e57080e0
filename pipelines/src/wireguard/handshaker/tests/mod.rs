//! The handshaker in a small world: nodes, a network and a clock on plain memory.

mod burst;
mod chaos;
mod forged;
mod handshakes;
mod node;
mod peers;
mod speed;
mod stock;
mod timers;
mod world;
