//! DPDK ports, pools and buffers against what is on their other end: loops in memory, and the kernel.

mod frames;
mod kernel;
mod measure;
mod memory;
mod world;
