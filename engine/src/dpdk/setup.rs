//! The steps that make a DPDK device a started port.

use std::ffi::{CStr, CString, c_int};

use dpdk_sys as sys;
use jetway_pipelines::ids::QueueId;

use super::device::Device;
use super::eal::{error_text, last_error};
use super::interface;
use super::log;
use super::pool::Pool;
use super::port::{HashKey, PortError, PortOptions, Reception};
use crate::port::PortInfo;

/// A device that DPDK has probed and nobody has started. It is removed on drop unless it was detached.
pub(super) struct Attached {
    id: u16,
    device: Device,
    info: sys::rte_eth_dev_info,
}

/// Makes a virtual device, or finds a PCI device: probed by the EAL at its start, or removed by an earlier port.
pub(super) fn attach(device: &Device, options: &PortOptions) -> Result<Attached, PortError> {
    device.check_present()?;
    log::clear_complaints();
    let arguments = device.driver_arguments(options.queues, options.mtu).to_string();
    let added = match (device, port_of(device)) {
        (Device::Pci { .. }, Ok(_)) => 0,
        (Device::Pci { .. }, Err(_)) | (Device::Virtual { .. }, _) => add(device, &arguments),
    };
    let id = match (added, device) {
        (0, _) => port_of(device),
        (_, Device::Pci { .. }) => return Err(PortError::NotProbed { device: device.name(), said: log::said() }),
        (error, Device::Virtual { .. }) => Err(error),
    };
    let id = id.map_err(|error| PortError::Refused {
        device: device.name(),
        arguments,
        reason: error_text(-error),
        said: log::said(),
    })?;
    let mut attached = Attached { id, device: device.clone(), info: Default::default() };
    // SAFETY: the port exists, and the call fills the struct in.
    let result = unsafe { sys::rte_eth_dev_info_get(id, &mut attached.info) };
    attached.check("asking what it can do", result)?;
    Ok(attached)
}

fn bus(device: &Device) -> &'static CStr {
    match device {
        Device::Virtual { .. } => c"vdev",
        Device::Pci { .. } => c"pci",
    }
}

/// Makes the device known to DPDK; zero, or a negative errno.
fn add(device: &Device, arguments: &str) -> c_int {
    let (name, arguments) = (device.name_for_c(), CString::new(arguments).unwrap_or_default());
    // SAFETY: the EAL is running, and the strings live through the call.
    unsafe { sys::rte_eal_hotplug_add(bus(device).as_ptr(), name.as_ptr(), arguments.as_ptr()) }
}

/// The number of the device's port, or a negative errno.
fn port_of(device: &Device) -> Result<u16, c_int> {
    let (name, mut id) = (device.name_for_c(), 0);
    // SAFETY: the name lives through the call, which writes one number.
    match unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) } {
        0 => Ok(id),
        error => Err(error),
    }
}

/// Closes a stopped port and takes its device from DPDK, which can open it again.
pub(super) fn remove(device: &Device) {
    let name = device.name_for_c();
    // SAFETY: the port is stopped and nobody uses it; the strings live through the call.
    let result = unsafe { sys::rte_eal_hotplug_remove(bus(device).as_ptr(), name.as_ptr()) };
    if result != 0 {
        tracing::warn!("device {device} did not close ({})", error_text(-result));
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        remove(&self.device);
    }
}

/// The configuration that a port got, after what its driver can do.
struct Plan {
    queues: u16,
    receive_offloads: u64,
    transmit_offloads: u64,
    hash_fields: u64,
}

/// Drivers behind which the other end may leave checksums to us when we say that we check them on receive. We forward
/// packets as they are, so theirs have to be complete.
const PARTIAL_CHECKSUMS: &[&str] = &["net_virtio", "net_virtio_user", "virtio_user", "net_vhost"];

/// Drivers whose kernel end spreads flows over queues by itself.
const SPREAD_BY_KERNEL: &[&str] = &["net_af_packet", "net_tap", "net_af_xdp"];

impl Attached {
    /// Keeps the device, and says its number.
    pub(super) fn detach(self) -> u16 {
        std::mem::ManuallyDrop::new(self).id
    }

    /// The NUMA node of the device, if it has one.
    pub(super) fn numa_node(&self) -> Option<u32> {
        // SAFETY: the port exists.
        u32::try_from(unsafe { sys::rte_eth_dev_socket_id(self.id) }).ok()
    }

    /// Configures and starts the port.
    pub(super) fn start(&self, pool: &Pool, options: &PortOptions) -> Result<PortInfo, PortError> {
        let plan = self.plan(options);
        self.configure(&plan, options)?;
        self.set_up_queues(&plan, pool, options)?;
        if let Some(mac) = options.mac {
            self.set_mac(mac)?;
        }
        self.set_mtu(options.mtu)?;
        // SAFETY: the port is configured, and its queues are set up.
        self.check("starting", unsafe { sys::rte_eth_dev_start(self.id) })?;
        self.finish(&plan, options)
    }

    fn driver(&self) -> String {
        match self.info.driver_name.is_null() {
            true => String::new(),
            // SAFETY: the driver's name is a static string of the driver.
            false => unsafe { CStr::from_ptr(self.info.driver_name) }.to_string_lossy().into_owned(),
        }
    }

    fn plan(&self, options: &PortOptions) -> Plan {
        let info = &self.info;
        let queues = options.queues.min(info.max_rx_queues).min(info.max_tx_queues).max(1);
        if queues < options.queues {
            tracing::warn!("device {} has {queues} queues where {} are wanted", self.device, options.queues);
        }
        let checksums =
            sys::SHIM_RX_OFFLOAD_IPV4_CKSUM | sys::SHIM_RX_OFFLOAD_UDP_CKSUM | sys::SHIM_RX_OFFLOAD_TCP_CKSUM;
        let receive_offloads = match PARTIAL_CHECKSUMS.contains(&self.driver().as_str()) {
            true => 0,
            false => info.rx_offload_capa & checksums,
        };
        let layer4 = sys::SHIM_TX_OFFLOAD_UDP_CKSUM | sys::SHIM_TX_OFFLOAD_TCP_CKSUM;
        let fields = sys::SHIM_RSS_IP | sys::SHIM_RSS_UDP | sys::SHIM_RSS_TCP;
        Plan {
            queues,
            receive_offloads,
            // One without the other is of no use to a stage that asks for "the transport checksum".
            transmit_offloads: if info.tx_offload_capa & layer4 == layer4 { layer4 } else { 0 },
            hash_fields: if queues > 1 { info.flow_type_rss_offloads & fields } else { 0 },
        }
    }

    fn configure(&self, plan: &Plan, options: &PortOptions) -> Result<(), PortError> {
        let mut key = symmetric_key(self.info.hash_key_size);
        let mut wanted = sys::rte_eth_conf::default();
        wanted.rxmode.offloads = plan.receive_offloads;
        wanted.txmode.offloads = plan.transmit_offloads;
        if plan.hash_fields != 0 {
            wanted.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_RSS;
            wanted.rx_adv_conf.rss_conf.rss_hf = plan.hash_fields;
            match options.hash_key {
                HashKey::Driver => {}
                HashKey::Symmetric => {
                    wanted.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
                    wanted.rx_adv_conf.rss_conf.rss_key_len = u8::try_from(key.len()).unwrap_or(0);
                }
            }
        }
        // Buffers for whole frames are needed from the first queue on, so an MTU above the usual is told now.
        wanted.rxmode.mtu = u32::from(options.mtu);
        // SAFETY: the configuration and the key live through the call, which copies them.
        let result = unsafe { sys::rte_eth_dev_configure(self.id, plan.queues, plan.queues, &wanted) };
        if result == 0 {
            return Ok(());
        }
        // Some drivers' largest frame leaves no room for the frame check sequence that DPDK adds to the MTU, though
        // their packets have none. Those take an MTU afterwards.
        log::clear_complaints();
        wanted.rxmode.mtu = u32::from(self.info.min_mtu.max(1280));
        // SAFETY: as above.
        let result = unsafe { sys::rte_eth_dev_configure(self.id, plan.queues, plan.queues, &wanted) };
        self.check("configuring its queues", result)
    }

    fn set_up_queues(&self, plan: &Plan, pool: &Pool, options: &PortOptions) -> Result<(), PortError> {
        let (mut receive, mut transmit) = (options.receive_descriptors, options.transmit_descriptors);
        // SAFETY: the port is configured; the call changes the two numbers.
        let result = unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut receive, &mut transmit) };
        self.check("fitting its descriptors to the driver's limits", result)?;
        let node = self.numa_node().map_or(u32::MAX, |node| node);
        let mut receive_options = self.info.default_rxconf;
        receive_options.offloads = plan.receive_offloads;
        let mut transmit_options = self.info.default_txconf;
        transmit_options.offloads = plan.transmit_offloads;
        for queue in 0..plan.queues {
            // SAFETY: the port is configured for these queues; the pool outlives the port (`OpenPort` holds it).
            let result =
                unsafe { sys::rte_eth_rx_queue_setup(self.id, queue, receive, node, &receive_options, pool.as_ptr()) };
            self.check("setting a receive queue up", result)?;
            // SAFETY: the port is configured for these queues.
            let result = unsafe { sys::rte_eth_tx_queue_setup(self.id, queue, transmit, node, &transmit_options) };
            self.check("setting a transmit queue up", result)?;
        }
        Ok(())
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), PortError> {
        let mut address = sys::rte_ether_addr { addr_bytes: mac };
        // SAFETY: the port is configured; the address lives through the call.
        let result = unsafe { sys::rte_eth_dev_default_mac_addr_set(self.id, &mut address) };
        self.check("setting its MAC address", result)
    }

    /// Sets the MTU even where the configuration told it already: virtual drivers pass it on to the kernel only here.
    fn set_mtu(&self, mtu: u16) -> Result<(), PortError> {
        // SAFETY: the port is configured.
        let result = unsafe { sys::rte_eth_dev_set_mtu(self.id, mtu) };
        if result == 0 || interface::set_mtu(&self.device, mtu).is_ok() {
            return Ok(());
        }
        let mut current = 0;
        // SAFETY: the port is configured; the call writes one number.
        let known = unsafe { sys::rte_eth_dev_get_mtu(self.id, &mut current) } == 0;
        // A driver without an MTU of its own carries whatever fits its frames, the usual 1,500 bytes at least.
        if known && current == mtu || result == -libc::ENOTSUP && mtu <= current.max(1500) {
            return Ok(());
        }
        Err(PortError::Mtu {
            device: self.device.name(),
            mtu,
            reason: error_text(-result),
            least: self.info.min_mtu,
            // DPDK counts the Ethernet header and the frame check sequence against the largest frame.
            most: self.info.max_mtu.min(u16::try_from(self.info.max_rx_pktlen.saturating_sub(18)).unwrap_or(u16::MAX)),
        })
    }

    /// What can only be set on a running port, and what it turned out to be.
    fn finish(&self, plan: &Plan, options: &PortOptions) -> Result<PortInfo, PortError> {
        self.set_reception(options.reception);
        self.spread_over_queues(plan);
        // SAFETY: the port is started. Drivers that cannot set it are up already.
        unsafe { sys::rte_eth_dev_set_link_up(self.id) };
        let mut mac = sys::rte_ether_addr::default();
        // SAFETY: the port exists; the call writes the address.
        let result = unsafe { sys::rte_eth_macaddr_get(self.id, &mut mac) };
        if let Err(error) = self.check("asking for its MAC address", result) {
            // SAFETY: the port is started and has no users yet.
            unsafe { sys::rte_eth_dev_stop(self.id) };
            return Err(error);
        }
        let driver = self.driver();
        let by_kernel = SPREAD_BY_KERNEL.contains(&driver.as_str());
        Ok(PortInfo {
            mac: mac.addr_bytes,
            driver,
            queues: plan.queues,
            transmit_l4_checksum: plan.transmit_offloads != 0,
            receive_checksum: plan.receive_offloads != 0,
            receive_side_scaling: plan.queues > 1 && (plan.hash_fields != 0 || by_kernel),
            numa_node: self.numa_node(),
        })
    }

    /// A driver without a multicast filter is asked for everything instead; one without either filters nothing.
    fn set_reception(&self, reception: Reception) {
        // SAFETY: the port is started.
        let result = unsafe {
            match reception {
                Reception::OwnAndMulticast => match sys::rte_eth_allmulticast_enable(self.id) {
                    0 => 0,
                    _ => sys::rte_eth_promiscuous_enable(self.id),
                },
                Reception::Everything => sys::rte_eth_promiscuous_enable(self.id),
            }
        };
        if result != 0 {
            tracing::debug!("device {}: its filters stay as they are ({})", self.device, error_text(-result));
        }
    }

    /// Points the entries of the hash's redirection table at the queues in turn.
    fn spread_over_queues(&self, plan: &Plan) {
        let entries = self.info.reta_size;
        if plan.hash_fields == 0 || entries == 0 {
            return;
        }
        let group = sys::SHIM_RETA_GROUP_SIZE;
        let mut table = vec![sys::rte_eth_rss_reta_entry64::default(); usize::from(entries.div_ceil(group))];
        for entry in 0..entries {
            let part = &mut table[usize::from(entry / group)];
            part.mask |= 1 << (entry % group);
            part.reta[usize::from(entry % group)] = QueueId(entry % plan.queues).0;
        }
        // SAFETY: the port is started, and the table has an entry for each of its `entries`.
        let result = unsafe { sys::rte_eth_dev_rss_reta_update(self.id, table.as_mut_ptr(), entries) };
        if result != 0 {
            tracing::debug!("device {}: the driver's own table stays ({})", self.device, error_text(-result));
        }
    }

    fn check(&self, step: &'static str, result: c_int) -> Result<(), PortError> {
        match result {
            0 => Ok(()),
            -1 => Err(self.failed(step, last_error())),
            error => Err(self.failed(step, error_text(error.wrapping_neg()))),
        }
    }

    fn failed(&self, step: &'static str, reason: String) -> PortError {
        PortError::SetUp { device: self.device.to_string(), step, reason, said: log::said() }
    }
}

/// A Toeplitz key of one 16-bit pattern gives both directions of a flow the same hash (Woo and Park, "Scalable TCP
/// session monitoring with symmetric receive-side scaling", 2012).
fn symmetric_key(length: u8) -> Vec<u8> {
    let length = if length == 0 { 40 } else { usize::from(length) };
    [0x6d, 0x5a].into_iter().cycle().take(length).collect()
}
