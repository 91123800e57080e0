//! What the stages ask of a packet buffer, and a buffer on plain memory that gives it.

/// A buffer had too little room before or behind its packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the buffer has no room for {0} more bytes")]
pub struct NoRoom(pub usize);

/// What the NIC said of a checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChecksumState {
    /// Nobody checked it: software has to.
    #[default]
    Unknown,
    /// The NIC checked it and it is right.
    Good,
    /// The NIC checked it and it is wrong.
    Bad,
}

/// Where the headers of a packet lie whose checksum the NIC is to fill in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct L4Offload {
    /// Bytes of the Ethernet header with its VLAN tags.
    pub l2_length: u8,
    /// Bytes of the IP header with its options or extension headers.
    pub l3_length: u16,
    /// The network protocol.
    pub network: Network,
    /// The transport protocol.
    pub transport: Transport,
}

/// A network protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A transport protocol with a checksum that NICs know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// One packet in one contiguous piece of memory, with room before and behind it.
///
/// An implementation owns its memory; dropping it returns the memory to wherever it came from.
pub trait PacketBuf: Send {
    /// The packet.
    fn data(&self) -> &[u8];
    /// The packet, to be changed in place.
    fn data_mut(&mut self) -> &mut [u8];
    /// Bytes free before the packet.
    fn headroom(&self) -> usize;
    /// Bytes free behind the packet.
    fn tailroom(&self) -> usize;
    /// Adds `count` bytes before the packet; what they hold is unspecified.
    fn grow_front(&mut self, count: usize) -> Result<(), NoRoom>;
    /// Adds `count` bytes behind the packet; what they hold is unspecified.
    fn grow_back(&mut self, count: usize) -> Result<(), NoRoom>;
    /// Takes `count` bytes off the front (at most all).
    fn trim_front(&mut self, count: usize);
    /// Shortens the packet to `length` bytes (no effect if it is not longer).
    fn truncate(&mut self, length: usize);
    /// Leaves `length` bytes from `start` on, or what there is of them.
    #[inline]
    fn narrow(&mut self, start: usize, length: usize) {
        self.trim_front(start);
        self.truncate(length);
    }
    /// Asks the NIC to fill in the UDP or TCP checksum on transmit; the field already holds the sum of the
    /// pseudo-header. Only called for ports whose driver said that it can.
    fn offload_l4_checksum(&mut self, layout: L4Offload);
    /// What the NIC said of the IPv4 header checksum.
    fn ip_checksum(&self) -> ChecksumState {
        ChecksumState::Unknown
    }
    /// What the NIC said of the TCP or UDP checksum.
    fn l4_checksum(&self) -> ChecksumState {
        ChecksumState::Unknown
    }
    /// Forgets what the NIC said of checksums: the packet is another one from now on.
    fn forget_checksums(&mut self) {}
}

/// Where a worker gets empty buffers for packets that it makes itself.
pub trait BufferPool<B: PacketBuf>: Send {
    /// An empty buffer with at least [`HEADROOM`] bytes before it, or `None` when the pool is empty.
    fn allocate(&mut self) -> Option<B>;
}

/// The room before a fresh packet: outer Ethernet (with two VLAN tags), IPv6, UDP and WireGuard headers fit twice.
pub const HEADROOM: usize = 128;

/// A packet buffer on the heap: the plain-memory twin of an mbuf, for tests, fuzzers and memory ports.
///
/// The default has no memory, and so no room either.
#[derive(Clone, Debug, Default)]
pub struct HeapBuf {
    memory: Box<[u8]>,
    /// At most the memory's length, as is the sum of both: `u32`s so that adding them cannot overflow, and to be small.
    start: u32,
    length: u32,
}

impl HeapBuf {
    /// An empty buffer with [`HEADROOM`] bytes before and `room` bytes (below 4 GiB) behind it.
    pub fn with_room(room: usize) -> Self {
        let room = room.min(u32::MAX as usize - HEADROOM);
        Self { memory: vec![0; HEADROOM + room].into(), start: HEADROOM as u32, length: 0 }
    }

    /// A buffer that holds `packet`, with room for a tag and headers behind and before it.
    pub fn from_packet(packet: &[u8]) -> Self {
        let mut buffer = Self::with_room(packet.len().max(2048) + 64);
        buffer.length = packet.len() as u32;
        buffer.data_mut().copy_from_slice(packet);
        buffer
    }
}

impl PacketBuf for HeapBuf {
    /// Plain memory has no NIC: ports on it never announce the capability.
    fn offload_l4_checksum(&mut self, _layout: L4Offload) {}

    #[inline]
    fn data(&self) -> &[u8] {
        let (start, length) = (self.start as usize, self.length as usize);
        self.memory.get(start..start + length).unwrap_or_default()
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        let (start, length) = (self.start as usize, self.length as usize);
        self.memory.get_mut(start..start + length).unwrap_or_default()
    }

    #[inline]
    fn headroom(&self) -> usize {
        self.start as usize
    }

    #[inline]
    fn tailroom(&self) -> usize {
        self.memory.len() - self.start as usize - self.length as usize
    }

    #[inline]
    fn grow_front(&mut self, count: usize) -> Result<(), NoRoom> {
        if count > self.headroom() {
            return Err(NoRoom(count));
        }
        self.start -= count as u32;
        self.length += count as u32;
        Ok(())
    }

    #[inline]
    fn grow_back(&mut self, count: usize) -> Result<(), NoRoom> {
        if count > self.tailroom() {
            return Err(NoRoom(count));
        }
        self.length += count as u32;
        Ok(())
    }

    #[inline]
    fn trim_front(&mut self, count: usize) {
        let count = count.min(self.length as usize) as u32;
        self.start += count;
        self.length -= count;
    }

    #[inline]
    fn narrow(&mut self, start: usize, length: usize) {
        let start = start.min(self.length as usize);
        self.start += start as u32;
        self.length = length.min(self.length as usize - start) as u32;
    }

    #[inline]
    fn truncate(&mut self, length: usize) {
        self.length = length.min(self.length as usize) as u32;
    }
}
