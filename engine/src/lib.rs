//! Jetway's engine: ports, buffers, workers, rings and the host path. It owns cores and memory.

pub mod clock;
pub mod dpdk;
pub mod exits;
pub mod flow_spread;
pub mod handshake;
pub mod heap;
pub mod heap_pool;
pub mod host;
pub mod idle;
pub mod links;
pub mod memory_port;
pub mod pcap;
pub mod pcap_port;
pub mod port;
#[cfg(test)]
mod test_frames;
pub mod thread;
pub mod virtual_clock;
pub mod worker;
