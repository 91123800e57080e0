//! The handshaker in a small world: nodes, a network and a clock on plain memory.

mod handshakes;
mod world;
