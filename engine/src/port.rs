//! What a worker asks of a port: bursts in, bursts out.

use arrayvec::ArrayVec;
use jetway_pipelines::buffer::PacketBuf;
use jetway_pipelines::ids::QueueId;

/// Packets that one call moves at most.
pub const BURST: usize = 64;

/// A burst of packets on its way.
pub type Burst<B> = ArrayVec<B, BURST>;

/// One receive queue and the transmit queue of the same number, owned by one worker.
pub trait PortQueue<B: PacketBuf>: Send {
    /// Which queue of its port it is.
    fn id(&self) -> QueueId;
    /// Appends received packets to `burst` as far as it has room. Returns how many.
    fn receive(&mut self, burst: &mut Burst<B>) -> usize;
    /// Hands packets to the port from the front of `burst`, and takes those out of it that the port accepted.
    /// What remains in `burst` found the queue full. Returns how many were accepted.
    fn transmit(&mut self, burst: &mut Burst<B>) -> usize;
}

/// A port with its queues.
pub trait Port<B: PacketBuf>: Send {
    /// What the port is and can do.
    fn info(&self) -> PortInfo;
    /// Its queues; they can be taken once, later calls give none.
    fn take_queues(&mut self) -> Vec<Box<dyn PortQueue<B>>>;
    /// What the driver counted.
    fn statistics(&self) -> PortStatistics;
    /// Whether the link is up.
    fn link_up(&self) -> bool;
}

/// What a port is and can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortInfo {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// The driver's name, such as `net_af_packet`.
    pub driver: String,
    /// How many queue pairs it runs.
    pub queues: u16,
    /// Whether the NIC fills in UDP and TCP checksums on transmit.
    pub transmit_l4_checksum: bool,
    /// Whether the NIC verifies checksums on receive.
    pub receive_checksum: bool,
    /// Whether the NIC spreads flows over its receive queues.
    pub receive_side_scaling: bool,
    /// The NUMA node its memory should be on.
    pub numa_node: Option<u32>,
}

/// What a port's driver counted since it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortStatistics {
    /// Packets received.
    pub received_packets: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets transmitted.
    pub transmitted_packets: u64,
    /// Bytes transmitted.
    pub transmitted_bytes: u64,
    /// Packets that arrived and found no room (`imissed`).
    pub missed: u64,
    /// Packets that arrived damaged.
    pub receive_errors: u64,
    /// Packets that could not be transmitted.
    pub transmit_errors: u64,
    /// Receive buffers that could not be had.
    pub no_buffer: u64,
}
