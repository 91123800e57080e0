//! The ports through which packets come and go.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

use super::{InterfaceName, Name};

/// One DPDK port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port's name, unique in the node.
    pub name: Name,
    /// The device behind it.
    pub device: Device,
    /// The node's own addresses on this port, each with the prefix length of its network.
    pub addresses: Vec<IpNet>,
    /// The largest IP packet in bytes, 1280 to 9000.
    pub mtu: u16,
    /// Receive and transmit queues; `None`: one for each worker.
    pub queues: Option<u16>,
    /// The name of the port's twin in the kernel.
    pub host_interface: InterfaceName,
    /// The MAC address to set; `None`: the device's own.
    pub mac: Option<MacAddress>,
}

/// What DPDK opens for a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// A virtual device that the EAL creates (`--vdev`).
    Virtual(VirtualDevice),
    /// A device on the PCI bus.
    Pci(PciAddress),
}

/// A DPDK virtual device; its `Display` is the argument of `--vdev`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualDevice {
    /// The driver, which `name` begins with.
    pub driver: VirtualDriver,
    /// The device's name, for example `net_af_packet0`; unique in the node.
    pub name: String,
    /// The driver's arguments as the file has them, for example `iface=veth-wan,qpairs=2`; may be empty.
    pub arguments: String,
}

/// The virtual drivers that Jetway knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VirtualDriver {
    /// A packet socket on a kernel interface.
    AfPacket,
    /// An AF_XDP socket on a kernel interface.
    AfXdp,
    /// A TAP interface.
    Tap,
    /// A pcap file, or libpcap on an interface.
    Pcap,
    /// A source and sink of nothing.
    Null,
    /// A ring of pointers.
    Ring,
    /// Shared memory with another process.
    Memif,
    /// The host's side of a virtio device, over a socket.
    Vhost,
    /// The guest's side of a virtio device, without a guest.
    VirtioUser,
}

/// The address of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// PCI domain (segment).
    pub domain: u16,
    /// Bus number.
    pub bus: u8,
    /// Device number, below 32.
    pub device: u8,
    /// Function number, below 8.
    pub function: u8,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl Port {
    /// The MTU when the file says nothing, in bytes.
    pub const DEFAULT_MTU: u16 = 1500;
}

impl VirtualDevice {
    /// The value of `key` among the arguments.
    pub fn argument(&self, key: &str) -> Option<&str> {
        self.arguments.split(',').find_map(|argument| argument.trim().strip_prefix(key)?.strip_prefix('='))
    }
}

impl VirtualDriver {
    /// Every driver with the prefix that its devices' names have.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::AfPacket, "net_af_packet"),
        (Self::AfXdp, "net_af_xdp"),
        (Self::Tap, "net_tap"),
        (Self::Pcap, "net_pcap"),
        (Self::Null, "net_null"),
        (Self::Ring, "net_ring"),
        (Self::Memif, "net_memif"),
        (Self::Vhost, "net_vhost"),
        (Self::VirtioUser, "net_virtio_user"),
    ];

    /// The prefix that the names of this driver's devices have.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::AfPacket => "net_af_packet",
            Self::AfXdp => "net_af_xdp",
            Self::Tap => "net_tap",
            Self::Pcap => "net_pcap",
            Self::Null => "net_null",
            Self::Ring => "net_ring",
            Self::Memif => "net_memif",
            Self::Vhost => "net_vhost",
            Self::VirtioUser => "net_virtio_user",
        }
    }
}

impl Device {
    /// The PCI address, when the device is on the PCI bus.
    pub fn pci(&self) -> Option<PciAddress> {
        match self {
            Self::Pci(address) => Some(*address),
            Self::Virtual(_) => None,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Virtual(device) => device.fmt(f),
            Self::Pci(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for VirtualDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.arguments.is_empty() { Ok(()) } else { write!(f, ",{}", self.arguments) }
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

/// The text is not a PCI address of the form `0000:3b:00.0` or `3b:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PCI address")]
pub struct NotPciAddress;

impl FromStr for PciAddress {
    type Err = NotPciAddress;

    fn from_str(text: &str) -> Result<Self, NotPciAddress> {
        let (front, function) = text.rsplit_once('.').ok_or(NotPciAddress)?;
        let mut parts = front.rsplit(':');
        let device = hexadecimal(parts.next(), 2)?;
        let bus = hexadecimal(parts.next(), 2)?;
        let domain = match parts.next() {
            Some(domain) => hexadecimal(Some(domain), 4)?,
            None => 0,
        };
        let function = hexadecimal(Some(function), 1)?;
        if parts.next().is_some() || device > 31 || function > 7 {
            return Err(NotPciAddress);
        }
        Ok(Self { domain, bus: bus as u8, device: device as u8, function: function as u8 })
    }
}

fn hexadecimal(text: Option<&str>, digits: usize) -> Result<u16, NotPciAddress> {
    let text = text.filter(|text| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit()));
    u16::from_str_radix(text.ok_or(NotPciAddress)?, 16).map_err(|_| NotPciAddress)
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not a unicast MAC address of the form `02:00:00:00:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a unicast MAC address")]
pub struct NotMacAddress;

impl FromStr for MacAddress {
    type Err = NotMacAddress;

    fn from_str(text: &str) -> Result<Self, NotMacAddress> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(part.ok_or(NotMacAddress)?, 16).map_err(|_| NotMacAddress)?;
        }
        let multicast = bytes[0] & 1 == 1;
        if parts.next().is_some() || multicast || bytes == [0; 6] { Err(NotMacAddress) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_read_with_and_without_domain_and_print_in_full() {
        for text in ["0000:3b:00.1", "3b:00.1"] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), "0000:3b:00.1");
        }
        for text in ["", "3b:00", "3b:20.0", "3b:00.8", "1:0000:3b:00.1", "0000:3b:00.1 ", "+b:00.1"] {
            assert_eq!(text.parse::<PciAddress>(), Err(NotPciAddress), "{text:?}");
        }
    }

    #[test]
    fn only_unicast_mac_addresses_are_taken() {
        assert_eq!("02:00:00:00:00:0a".parse(), Ok(MacAddress([2, 0, 0, 0, 0, 10])));
        for text in ["01:00:00:00:00:0a", "00:00:00:00:00:00", "02:00:00:00:00", "02:00:00:00:00:0a:0b", "2:0:0:0:0:a"]
        {
            assert_eq!(text.parse::<MacAddress>(), Err(NotMacAddress), "{text:?}");
        }
    }

    #[test]
    fn an_argument_is_found_by_its_whole_key() {
        let device = VirtualDevice {
            driver: VirtualDriver::AfPacket,
            name: "net_af_packet0".into(),
            arguments: "iface2=no,iface=veth0,qpairs=2".into(),
        };
        assert_eq!(device.argument("iface"), Some("veth0"));
        assert_eq!(device.argument("framecnt"), None);
        assert_eq!(device.to_string(), "net_af_packet0,iface2=no,iface=veth0,qpairs=2");
    }
}
