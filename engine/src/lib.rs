//! Jetway's engine: ports, buffers, workers, rings and the host path. It owns cores and memory.

pub mod port;
