//! A port on a DPDK device: from its opening to its close.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dpdk_sys as sys;
use jetway_pipelines::ids::QueueId;

use super::device::{Device, DeviceError};
use super::eal::{Eal, error_text};
use super::log;
use super::mbuf::Mbuf;
use super::pool::{Pool, PoolError, Pools};
use super::queue::DpdkQueue;
use super::setup;
use crate::port::{BURST, Port, PortInfo, PortQueue, PortStatistics};

/// What a port should be.
#[derive(Clone, Debug)]
pub struct PortOptions {
    /// The device.
    pub device: Device,
    /// Queue pairs wanted, one for each worker. The device may have fewer.
    pub queues: u16,
    /// The largest IP packet.
    pub mtu: u16,
    /// An Ethernet address other than the device's own.
    pub mac: Option<[u8; 6]>,
    /// Which frames it takes in.
    pub reception: Reception,
    /// Receive descriptors of each queue; the driver's limits apply.
    pub receive_descriptors: u16,
    /// Transmit descriptors of each queue; the driver's limits apply.
    pub transmit_descriptors: u16,
    /// How flows are hashed.
    pub hash_key: HashKey,
}

impl PortOptions {
    /// The usual: 1,024 descriptors, frames for us and multicast, the driver's hash key.
    pub fn new(device: Device, queues: u16, mtu: u16) -> Self {
        Self {
            device,
            queues,
            mtu,
            mac: None,
            reception: Reception::OwnAndMulticast,
            receive_descriptors: 1024,
            transmit_descriptors: 1024,
            hash_key: HashKey::Driver,
        }
    }
}

/// Which frames a port takes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reception {
    /// Those for its address, broadcast, and all multicast (which IPv6 neighbour discovery needs).
    OwnAndMulticast,
    /// All.
    Everything,
}

/// The key of the NIC's flow hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashKey {
    /// The driver's own.
    Driver,
    /// One that gives both directions of a flow the same queue.
    Symmetric,
}

/// A port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The device is missing or malformed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Its packets found no memory.
    #[error("device \"{device}\": {source}")]
    Pool {
        /// The device.
        device: String,
        /// Why.
        source: PoolError,
    },
    /// The driver refused the device, or there is no such driver.
    #[error(
        "DPDK could not open device \"{device}\" with the arguments \"{arguments}\" ({reason}){said}. See whether the \
         driver's name is right, another process has the device, and this process has the rights (root, or \
         CAP_NET_ADMIN and CAP_NET_RAW)"
    )]
    Refused {
        /// The device.
        device: String,
        /// The driver's arguments.
        arguments: String,
        /// DPDK's words.
        reason: String,
        /// Its last log lines.
        said: String,
    },
    /// A PCI device that was not named when the EAL started, or that no driver takes.
    #[error(
        "PCI device {device} was not given to DPDK at its start, or no installed driver knows it as an Ethernet \
         device{said}: restart with it in the configuration, and see `dpdk-devbind.py --status`"
    )]
    NotProbed {
        /// The device.
        device: String,
        /// DPDK's last log lines.
        said: String,
    },
    /// The MTU does not fit the device.
    #[error("device \"{device}\" cannot carry an MTU of {mtu} bytes ({reason}); it allows {least} to {most}")]
    Mtu {
        /// The device.
        device: String,
        /// Bytes wanted.
        mtu: u16,
        /// DPDK's words.
        reason: String,
        /// The least it allows.
        least: u16,
        /// The most it allows.
        most: u16,
    },
    /// A step of the set-up failed.
    #[error("device \"{device}\": {step} failed ({reason}){said}")]
    SetUp {
        /// The device.
        device: String,
        /// What was tried.
        step: &'static str,
        /// DPDK's words.
        reason: String,
        /// Its last log lines.
        said: String,
    },
}

/// A running port on a DPDK device. It is stopped and closed when it and its queues are dropped.
pub struct DpdkPort {
    port: Arc<OpenPort>,
    info: PortInfo,
    untaken: Vec<Box<dyn PortQueue<Mbuf>>>,
}

/// A started device, its memory and its environment, closed on drop.
pub(super) struct OpenPort {
    id: u16,
    queues: u16,
    device: Device,
    /// Packets in several segments that found no room in one.
    scattered: AtomicU64,
    /// Where the device's receive queues take their mbufs from: it outlives them.
    _pool: Pool,
    _eal: Eal,
}

impl DpdkPort {
    /// Opens a device and starts it, with queues, flow hash, checksum offloads, MTU and filters as far as its driver has
    /// them. Virtual devices are made in the calling thread's network namespace.
    pub fn open(pools: &mut Pools, options: &PortOptions) -> Result<Self, PortError> {
        let _quiet = log::Quiet::begin();
        let eal = pools.eal().clone();
        let attached = setup::attach(&options.device, options)?;
        let device_name = options.device.to_string();
        let pool = pools.on_node(attached.numa_node()).and_then(|pool| match options.mtu > pools.max_mtu() {
            true => Err(PoolError::MtuTooLarge(options.mtu)),
            false => Ok(pool),
        });
        let pool = pool.map_err(|source| PortError::Pool { device: device_name, source })?;
        let info = attached.start(&pool, options)?;
        let port = Arc::new(OpenPort {
            id: attached.detach(),
            queues: info.queues,
            device: options.device.clone(),
            scattered: AtomicU64::new(0),
            _pool: pool,
            _eal: eal,
        });
        let queue = |number| Box::new(DpdkQueue::new(QueueId(number), port.clone())) as Box<dyn PortQueue<Mbuf>>;
        let untaken = (0..info.queues).map(queue).collect();
        tracing::info!(
            device = %options.device, driver = info.driver, queues = info.queues, mtu = options.mtu,
            spreads_flows = info.receive_side_scaling, "port started"
        );
        Ok(Self { port, info, untaken })
    }
}

impl Port<Mbuf> for DpdkPort {
    fn info(&self) -> PortInfo {
        self.info.clone()
    }

    fn take_queues(&mut self) -> Vec<Box<dyn PortQueue<Mbuf>>> {
        std::mem::take(&mut self.untaken)
    }

    /// Packets that were dropped because they came in several segments count as received and as receive errors.
    fn statistics(&self) -> PortStatistics {
        let mut counted = sys::rte_eth_stats::default();
        // SAFETY: the port is open, and the call fills the struct in.
        let result = unsafe { sys::rte_eth_stats_get(self.port.id, &mut counted) };
        if result != 0 {
            tracing::debug!("device {}: no statistics ({})", self.port.device, error_text(-result));
        }
        PortStatistics {
            received_packets: counted.ipackets,
            received_bytes: counted.ibytes,
            transmitted_packets: counted.opackets,
            transmitted_bytes: counted.obytes,
            missed: counted.imissed,
            receive_errors: counted.ierrors + self.port.scattered.load(Ordering::Relaxed),
            transmit_errors: counted.oerrors,
            no_buffer: counted.rx_nombuf,
        }
    }

    fn link_up(&self) -> bool {
        // SAFETY: the port is open.
        unsafe { sys::shim_link_up(self.port.id) == 1 }
    }
}

impl OpenPort {
    pub(super) fn id(&self) -> u16 {
        self.id
    }

    pub(super) fn count_scattered(&self, packets: u64) {
        self.scattered.fetch_add(packets, Ordering::Relaxed);
    }

    /// Takes out what the device still holds: some virtual devices (net_ring) keep packets beyond their close. Bounded,
    /// as traffic may go on.
    fn drain(&self) {
        const PACKETS_AT_MOST: usize = 8192;
        for queue in 0..self.queues {
            let mut burst = [std::ptr::null_mut(); BURST];
            for _ in 0..PACKETS_AT_MOST / BURST {
                // SAFETY: the queues are gone, so nobody else polls; what is received is ours to free.
                let count = unsafe {
                    let count = sys::shim_rx_burst(self.id, queue, burst.as_mut_ptr(), BURST as u16);
                    sys::rte_pktmbuf_free_bulk(burst.as_mut_ptr(), u32::from(count));
                    count
                };
                if count == 0 {
                    break;
                }
            }
        }
    }
}

impl Drop for OpenPort {
    fn drop(&mut self) {
        self.drain();
        // SAFETY: the port is started, and its queues are gone.
        let result = unsafe { sys::rte_eth_dev_stop(self.id) };
        if result != 0 {
            tracing::warn!("device {} did not stop ({})", self.device, error_text(-result));
        }
        setup::remove(&self.device);
    }
}
