//! DPDK in this process: its start, its ports, and queues that the harness shares with a worker.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jetway_engine::dpdk::device::Device;
use jetway_engine::dpdk::eal::{Eal, EalOptions, LogLevel, Memory, RegisteredThread};
use jetway_engine::dpdk::mbuf::Mbuf;
use jetway_engine::dpdk::pool::{Allocator, PoolOptions, Pools};
use jetway_engine::dpdk::port::{DpdkPort, PortOptions, Reception};
use jetway_engine::port::{Burst, Port, PortQueue};
use jetway_pipelines::buffer::{BufferPool, PacketBuf};
use jetway_pipelines::ids::QueueId;
use jetway_pipelines::packet::MacAddress;

use crate::floors::Driver;

/// Buffers of the pool: more than all rings of a measurement hold.
const BUFFERS: u32 = 65_535;
const MTU: u16 = 1500;

/// DPDK with memory for ports; this thread is one of its own.
pub struct Devices {
    pools: Pools,
    eal: Eal,
    /// The number of the next device in memory.
    opened: usize,
    _thread: RegisteredThread,
}

/// A device that was opened: its port, and its only queue.
pub struct Opened {
    /// The port, which runs as long as it or its queue is there.
    pub port: DpdkPort,
    /// Its queue pair.
    pub queue: Box<dyn PortQueue<Mbuf>>,
}

impl Devices {
    /// Starts DPDK on `core` for `devices`: on hugepages where there are any. No PCI device is touched unless it is one of them.
    pub fn start(core: usize, devices: &[Device]) -> io::Result<Self> {
        let size = PoolOptions { buffers: BUFFERS, max_mtu: MTU };
        let options = EalOptions {
            node: format!("perf-{}", std::process::id()),
            memory: Memory::Automatic,
            memory_mib: size.memory_mib(1),
            control_cores: vec![core],
            devices: devices.to_vec(),
            log: LogLevel::Error,
        };
        let eal = Eal::start(&options).map_err(io::Error::other)?;
        let thread = eal.register_thread().map_err(io::Error::other)?;
        Ok(Self { pools: Pools::new(&eal, size), eal, opened: 0, _thread: thread })
    }

    /// What its memory is on.
    pub fn pages(&self) -> &'static str {
        if self.eal.huge_pages() { "hugepages" } else { "ordinary pages" }
    }

    /// Opens a device with one queue pair. A real NIC gets the Ethernet address `mac`; virtual devices filter none.
    pub fn open(&mut self, device: Device, mac: Option<MacAddress>, reception: Reception) -> io::Result<Opened> {
        // The most that net_memif takes; other drivers take what is theirs.
        const DESCRIPTORS: u16 = 8192;
        let (name, is_nic) = (device.to_string(), matches!(device, Device::Pci { .. }));
        let options = PortOptions {
            receive_descriptors: DESCRIPTORS,
            transmit_descriptors: DESCRIPTORS,
            mac: mac.filter(|_| is_nic).map(|mac| mac.0),
            reception,
            ..PortOptions::new(device, 1, MTU)
        };
        let mut port = DpdkPort::open(&mut self.pools, &options).map_err(io::Error::other)?;
        let queue = port.take_queues().pop().ok_or_else(|| io::Error::other(format!("{name} has no queue")))?;
        Ok(Opened { port, queue })
    }

    /// Opens a device of net_ring by which packets come, and one of `driver` by which they leave.
    pub fn open_in_memory(&mut self, driver: Driver) -> io::Result<[Opened; 2]> {
        let number = self.opened;
        self.opened += 2;
        let out = match driver {
            Driver::Ring => format!("net_ring{}", number + 1),
            Driver::Null => format!("net_null{},no-rx=1", number + 1),
        };
        let mut open =
            |name: String| self.open(name.parse().map_err(io::Error::other)?, None, Reception::OwnAndMulticast);
        Ok([open(format!("net_ring{number}"))?, open(out)?])
    }

    /// Fresh buffers for this thread.
    pub fn allocator(&mut self) -> io::Result<Allocator> {
        Ok(self.pools.on_node(None).map_err(io::Error::other)?.allocator())
    }
}

/// A buffer that holds `frame`; `None` when the pool is empty.
pub fn filled(allocator: &mut Allocator, frame: &[u8]) -> Option<Mbuf> {
    let mut buffer = allocator.allocate()?;
    buffer.grow_back(frame.len()).ok()?;
    buffer.data_mut().copy_from_slice(frame);
    Some(buffer)
}

/// A queue that the harness and a worker use in turns. Its lock is free whenever it is asked for, and taken once a burst.
#[derive(Clone)]
pub struct SharedQueue(Arc<Mutex<Box<dyn PortQueue<Mbuf>>>>);

impl SharedQueue {
    /// One end; the other is its clone.
    pub fn new(queue: Box<dyn PortQueue<Mbuf>>) -> Self {
        Self(Arc::new(Mutex::new(queue)))
    }

    fn queue(&self) -> MutexGuard<'_, Box<dyn PortQueue<Mbuf>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PortQueue<Mbuf> for SharedQueue {
    fn id(&self) -> QueueId {
        self.queue().id()
    }

    fn receive(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        self.queue().receive(burst)
    }

    fn transmit(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        self.queue().transmit(burst)
    }
}
