//! The resources of the packet engine.

/// Cores, memory and limits of the packet engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// The CPUs that run workers, one each, in the order of the file; never empty, no CPU twice.
    pub cores: Vec<usize>,
    /// The CPUs for every other thread; `None`: all CPUs that run no worker.
    pub control_cores: Option<Vec<usize>>,
    /// The pages that packet buffers live in.
    pub memory: Memory,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
    /// The implementation of ChaCha20-Poly1305.
    pub aead: AeadChoice,
    /// How much of what is addressed to the node itself goes to the kernel.
    pub punt: PuntLimit,
    /// Packet buffers for each port.
    pub buffers: u32,
    /// Flows of virtual services that all workers together remember; about 120 bytes each.
    pub flows: u32,
}

/// The pages that packet buffers live in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The kind of pages.
    pub kind: MemoryKind,
    /// The size in MiB that DPDK reserves; `None`: what the buffers need.
    pub size_mib: Option<u32>,
}

/// A kind of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryKind {
    /// Hugepages where enough are free, else ordinary pages.
    Auto,
    /// Hugepages; the node does not start without them.
    Hugepages,
    /// Ordinary pages.
    Ordinary,
}

/// What a worker does when its queues stay empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Idle {
    /// Pauses, then sleeps for short times.
    Backoff,
    /// Polls without ever sleeping: lowest latency, a whole CPU.
    Poll,
}

/// Which ChaCha20-Poly1305 seals and opens packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AeadChoice {
    /// The fastest that the CPU can run.
    Auto,
    /// The burst kernel for AVX-512 with IFMA.
    Avx512,
    /// The burst kernel for AVX2.
    Avx2,
    /// aws-lc-rs, a packet at a time.
    AwsLc,
    /// RustCrypto's portable code, a packet at a time.
    RustCrypto,
}

/// A token bucket over packets to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PuntLimit {
    /// Packets a second over all workers.
    pub rate: u32,
    /// Packets that may pass at once.
    pub burst: u32,
}

impl Engine {
    /// Packet buffers for each port, when the file says nothing.
    pub const DEFAULT_BUFFERS: u32 = 16_384;
    /// Flows that are remembered when the file says nothing: 30 MiB.
    pub const DEFAULT_FLOWS: u32 = 262_144;
}

impl PuntLimit {
    /// The limit when the file says nothing: 10,000 packets a second, 1,000 at once.
    pub const DEFAULT: Self = Self { rate: 10_000, burst: 1_000 };
}
