//! A DPDK device as the configuration names it, and the arguments that its driver wants.

use std::ffi::CString;
use std::fmt;
use std::path::Path;

use jetway_pipelines::buffer::HEADROOM;

/// What a port's `device` may be: a virtual device or a PCI address, each with driver arguments behind a comma.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Device {
    /// A virtual device, such as `net_af_packet0,iface=veth-wan`.
    Virtual {
        /// The driver and a number: `net_af_packet0`.
        name: String,
        /// The arguments: `iface=veth-wan`.
        arguments: Arguments,
    },
    /// A function of a PCI device, such as `0000:3b:00.0`.
    Pci {
        /// Domain, bus, device and function.
        address: PciAddress,
        /// The driver's arguments; mostly empty.
        arguments: Arguments,
    },
}

/// The address of a PCI function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PciAddress {
    /// The domain (segment).
    pub domain: u16,
    /// The bus.
    pub bus: u8,
    /// The device on it, below 32.
    pub device: u8,
    /// The function of it, below 8.
    pub function: u8,
}

/// A driver's arguments, `key=value` each, in their order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Arguments(Vec<(String, String)>);

/// A device could not be understood, or is not there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeviceError {
    /// The text is neither a PCI address nor a virtual device.
    #[error(
        "device \"{0}\" is neither a PCI address such as \"0000:3b:00.0\" nor a DPDK virtual device such as \
         \"net_af_packet0,iface=eth0\""
    )]
    Malformed(String),
    /// The driver needs an argument that is not there.
    #[error("device \"{device}\" needs the argument {argument}=..., as in \"{device},{argument}=eth0\"")]
    ArgumentMissing {
        /// The device.
        device: String,
        /// The argument.
        argument: &'static str,
    },
    /// The network interface is not there.
    #[error(
        "device \"{device}\" wants the network interface \"{interface}\", which does not exist in this network \
         namespace: see `ip link`, or correct iface="
    )]
    InterfaceMissing {
        /// The device.
        device: String,
        /// The interface.
        interface: String,
    },
    /// No such PCI device.
    #[error("no PCI device has the address {0}: see `lspci -D` or `dpdk-devbind.py --status`")]
    PciMissing(PciAddress),
    /// The kernel's own driver holds the PCI device.
    #[error(
        "PCI device {address} is bound to {driver}: give it to DPDK with `dpdk-devbind.py -b vfio-pci {address}` \
         (its kernel interface goes away)"
    )]
    PciNotBound {
        /// The device.
        address: PciAddress,
        /// The kernel's driver, or "no driver".
        driver: String,
    },
}

impl Arguments {
    fn parse(text: &str) -> Option<Self> {
        let pairs = text.split(',').filter(|pair| !pair.is_empty());
        let parse_pair = |pair: &str| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Some((key.trim().to_owned(), value.trim().to_owned())),
            Some(_) => None,
            None => Some((pair.trim().to_owned(), "1".to_owned())),
        };
        pairs.map(parse_pair).collect::<Option<_>>().map(Self)
    }

    /// The value of the first argument called `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// Adds `key=value` unless the user gave `key` already.
    fn default_to(&mut self, key: &str, value: impl fmt::Display) {
        if self.get(key).is_none() {
            self.0.push((key.to_owned(), value.to_string()));
        }
    }
}

impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl std::str::FromStr for PciAddress {
    type Err = DeviceError;

    /// Reads `0000:3b:00.0` or, in domain 0, `3b:00.0`.
    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let parse = || {
            let (rest, function) = text.rsplit_once('.')?;
            let mut parts = rest.rsplit(':');
            let device = u8::from_str_radix(parts.next()?, 16).ok().filter(|device| *device < 32)?;
            let bus = u8::from_str_radix(parts.next()?, 16).ok()?;
            let domain = parts.next().map_or(Some(0), |domain| u16::from_str_radix(domain, 16).ok())?;
            let function = function.parse::<u8>().ok().filter(|function| *function < 8)?;
            parts.next().is_none().then_some(Self { domain, bus, device, function })
        };
        parse().ok_or_else(|| DeviceError::Malformed(text.to_owned()))
    }
}

impl std::str::FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let malformed = || DeviceError::Malformed(text.to_owned());
        let (name, arguments) = text.split_once(',').unwrap_or((text, ""));
        let (name, arguments) = (name.trim(), Arguments::parse(arguments).ok_or_else(malformed)?);
        if let Ok(address) = name.parse() {
            return Ok(Self::Pci { address, arguments });
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        match name.starts_with("net_") && name.chars().all(plain) {
            true => Ok(Self::Virtual { name: name.to_owned(), arguments }),
            false => Err(malformed()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments = self.arguments();
        let comma = if arguments.0.is_empty() { "" } else { "," };
        write!(f, "{}{comma}{arguments}", self.name())
    }
}

impl Device {
    /// The name under which DPDK knows it.
    pub fn name(&self) -> String {
        match self {
            Self::Virtual { name, .. } => name.clone(),
            Self::Pci { address, .. } => address.to_string(),
        }
    }

    fn arguments(&self) -> &Arguments {
        match self {
            Self::Virtual { arguments, .. } | Self::Pci { arguments, .. } => arguments,
        }
    }

    /// The driver of a virtual device: its name without the number.
    fn driver(&self) -> &str {
        match self {
            Self::Virtual { name, .. } => name.trim_end_matches(|c: char| c.is_ascii_digit()),
            Self::Pci { .. } => "",
        }
    }

    /// The arguments for the driver of a port with `queues` queues and packets of up to `mtu` bytes: what the user
    /// gave, and what the driver needs beyond it because it is set nowhere else.
    pub fn driver_arguments(&self, queues: u16, mtu: u16) -> Arguments {
        let mut arguments = self.arguments().clone();
        match self.driver() {
            "net_af_packet" => {
                // Its 512 frames by default cost two thirds of the rate.
                let frame = ring_frame(mtu);
                arguments.default_to("qpairs", queues);
                arguments.default_to("framesz", frame);
                arguments.default_to("blocksz", frame.max(PAGE));
                arguments.default_to("framecnt", 8192);
            }
            "net_af_xdp" => arguments.default_to("queue_count", hardware_queues(&arguments).min(queues)),
            "net_vhost" | "net_virtio_user" | "virtio_user" => arguments.default_to("queues", queues),
            _ => {}
        }
        arguments
    }

    /// Checks what the kernel can tell before DPDK is asked, because it tells why.
    pub fn check_present(&self) -> Result<(), DeviceError> {
        match self {
            Self::Virtual { name, arguments } => check_interface(name, self.driver(), arguments),
            Self::Pci { address, .. } => check_pci(*address),
        }
    }

    pub(super) fn name_for_c(&self) -> CString {
        CString::new(self.name()).unwrap_or_default()
    }
}

/// Bytes of an Ethernet header with two VLAN tags, and of the frame check sequence that some drivers count in.
const FRAME_OVERHEAD: u32 = 14 + 8 + 4;

/// Room for the header and the alignment that the kernel puts before each frame of a packet ring (TPACKET_V2).
const RING_OVERHEAD: u32 = 80;

/// The block of a packet ring is a multiple of it.
const PAGE: u32 = 4096;

/// The frame size of a packet ring for packets of `mtu` bytes. The driver takes the ring for one array of frames, so they
/// have to fill their block: two in a block of one page, or one in a block of several.
fn ring_frame(mtu: u16) -> u32 {
    match u32::from(mtu) + FRAME_OVERHEAD + RING_OVERHEAD {
        small if small <= PAGE / 2 => PAGE / 2,
        large => large.next_multiple_of(PAGE),
    }
}

/// Bytes a buffer must have, headroom included, for packets of `mtu` bytes from any driver: a whole frame of a packet
/// ring, and a second set of tunnel headers and padding behind the packet.
pub(super) fn buffer_size(mtu: u16) -> u32 {
    let tail = 128;
    HEADROOM as u32 + (ring_frame(mtu) + tail).max(2176)
}

/// Receive queues of a real NIC's interface; everything else (veth above all) has one that AF_XDP can use.
fn hardware_queues(arguments: &Arguments) -> u16 {
    let Some(interface) = arguments.get("iface") else { return 1 };
    let folder = Path::new("/sys/class/net").join(interface);
    match folder.join("device").exists() {
        true => std::fs::read_dir(folder.join("queues")).map_or(1, |entries| {
            let receive = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-"));
            u16::try_from(receive.count()).unwrap_or(u16::MAX).max(1)
        }),
        false => 1,
    }
}

fn check_interface(device: &str, driver: &str, arguments: &Arguments) -> Result<(), DeviceError> {
    let required = match driver {
        "net_af_packet" | "net_af_xdp" => true,
        "net_pcap" => false,
        _ => return Ok(()),
    };
    let Some(interface) = arguments.get("iface") else {
        return match required {
            true => Err(DeviceError::ArgumentMissing { device: device.to_owned(), argument: "iface" }),
            false => Ok(()),
        };
    };
    // By index, not in /sys: that shows the namespace it was mounted in.
    match nix::net::if_::if_nametoindex(interface) {
        Ok(_) => Ok(()),
        Err(_) => Err(DeviceError::InterfaceMissing { device: device.to_owned(), interface: interface.to_owned() }),
    }
}

/// The kernel drivers through which DPDK reaches a PCI device; mlx4, mlx5 and mana share it with the kernel.
const PCI_DRIVERS: &[&str] = &["vfio-pci", "uio_pci_generic", "igb_uio", "mlx5_core", "mlx4_core", "mana"];

fn check_pci(address: PciAddress) -> Result<(), DeviceError> {
    let folder = Path::new("/sys/bus/pci/devices").join(address.to_string());
    if !folder.exists() {
        return Err(DeviceError::PciMissing(address));
    }
    let driver = std::fs::read_link(folder.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    match driver {
        Some(driver) if PCI_DRIVERS.contains(&driver.as_str()) => Ok(()),
        Some(driver) => Err(DeviceError::PciNotBound { address, driver }),
        None => Err(DeviceError::PciNotBound { address, driver: "no driver".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Device, DeviceError, PciAddress, buffer_size};

    fn arguments(device: &str, queues: u16, mtu: u16) -> String {
        device.parse::<Device>().expect("a device").driver_arguments(queues, mtu).to_string()
    }

    #[test]
    fn a_packet_ring_gets_its_queues_and_a_deep_ring_unless_the_user_says_otherwise() {
        assert_eq!(
            arguments("net_af_packet0,iface=veth0", 2, 1500),
            "iface=veth0,qpairs=2,framesz=2048,blocksz=4096,framecnt=8192"
        );
        assert_eq!(
            arguments("net_af_packet0,iface=veth0,qpairs=1,framecnt=512", 2, 9000),
            "iface=veth0,qpairs=1,framecnt=512,framesz=12288,blocksz=12288"
        );
    }

    #[test]
    fn other_drivers_get_what_they_need_and_no_more() {
        assert_eq!(arguments("net_tap0,iface=jw-lan-wire", 2, 1500), "iface=jw-lan-wire");
        assert_eq!(arguments("net_ring0", 2, 1500), "");
        assert_eq!(arguments("net_af_xdp0,iface=no-such-0", 4, 1500), "iface=no-such-0,queue_count=1");
        assert_eq!(arguments("net_vhost0,iface=/tmp/socket", 4, 1500), "iface=/tmp/socket,queues=4");
    }

    #[test]
    fn addresses_and_names_are_told_apart_and_shown_as_they_were_given() {
        let pci = PciAddress { domain: 0, bus: 0x3b, device: 0, function: 1 };
        assert!(matches!("3b:00.1".parse(), Ok(Device::Pci { address, .. }) if address == pci));
        assert!(matches!("0000:3b:00.1".parse(), Ok(Device::Pci { address, .. }) if address == pci));
        for text in ["0000:3b:00.1", "net_tap0,iface=x", "net_null0,size=64,no-rx=1"] {
            assert_eq!(text.parse::<Device>().expect(text).to_string(), text);
        }
        for text in ["", "eth0", "0000:3b:20.0", "3b:00.8", "net_tap0,=x", "1:2:3:4.5", "net tap"] {
            assert_eq!(text.parse::<Device>(), Err(DeviceError::Malformed(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_missing_interface_and_a_missing_argument_are_named() {
        let check = |text: &str| text.parse::<Device>().expect(text).check_present().expect_err(text).to_string();
        assert!(check("net_af_packet0,iface=no-such-0").contains("\"no-such-0\", which does not exist"));
        assert!(check("net_af_packet0").contains("iface="));
        assert!(check("ffff:ff:1f.7").contains("ffff:ff:1f.7"));
    }

    #[test]
    fn a_buffer_holds_a_whole_ring_frame_with_room_before_and_behind() {
        assert_eq!(buffer_size(1500), 128 + 2176);
        assert_eq!(buffer_size(9000), 128 + 12288 + 128);
        assert!(buffer_size(u16::MAX) > u32::from(u16::MAX), "such an MTU fits no mbuf and has to be refused");
    }
}
