//! Jetway's engine: ports, buffers, workers, rings and the host path. It owns cores and memory.

pub mod dpdk;
pub mod flow_spread;
pub mod heap_pool;
pub mod memory_port;
pub mod pcap;
pub mod pcap_port;
pub mod port;
#[cfg(test)]
mod test_frames;
pub mod virtual_clock;
