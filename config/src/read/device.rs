//! Reads the `device` of a port.

use crate::intent::{Device, PciAddress, VirtualDevice, VirtualDriver};
use crate::section::Field;
use crate::source::shown;
use crate::suggest::nearest;

pub(super) fn read(field: &Field<'_>) -> Option<Device> {
    let text = field.text("\"net_af_packet0,iface=eth1\"")?;
    if let Ok(address) = text.parse::<PciAddress>() {
        return Some(Device::Pci(address));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        field.error(format!("`device` contains white space: {}", shown(text)), "separate arguments by commas only");
        return None;
    }
    let (name, arguments) = text.split_once(',').unwrap_or((text, ""));
    let Some(driver) = driver(name) else {
        unknown(field, name);
        return None;
    };
    let device = VirtualDevice { driver, name: name.to_owned(), arguments: arguments.to_owned() };
    arguments_are_complete(field, &device).then_some(Device::Virtual(device))
}

/// The driver of a device name such as `net_tap0`: DPDK takes the driver whose name, with anything after it, fits.
fn driver(name: &str) -> Option<VirtualDriver> {
    let alias = ("virtio_user", VirtualDriver::VirtioUser);
    let mut known = VirtualDriver::ALL.iter().map(|(driver, prefix)| (*prefix, *driver)).chain([alias]);
    known
        .find(|(prefix, _)| name.strip_prefix(prefix).is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit())))
        .map(|(_, driver)| driver)
}

fn unknown(field: &Field<'_>, name: &str) {
    let known: Vec<_> = VirtualDriver::ALL.iter().map(|(_, prefix)| *prefix).collect();
    let word = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let hint = if name.contains(':') {
        "a PCI address has the form \"0000:3b:00.0\"; `dpdk-devbind.py --status` lists yours".to_owned()
    } else if let Some(near) = nearest(word, &known) {
        format!("did you mean \"{near}0\"?")
    } else {
        format!("write a PCI address such as \"0000:3b:00.0\" or a virtual device, one of: {}", known.join(", "))
    };
    field.error(format!("no driver is known for the device {}", shown(name)), hint);
}

/// Whether a driver has what it cannot start without.
fn arguments_are_complete(field: &Field<'_>, device: &VirtualDevice) -> bool {
    let needed: &[&str] = match device.driver {
        VirtualDriver::AfPacket | VirtualDriver::AfXdp | VirtualDriver::Vhost => &["iface"],
        VirtualDriver::VirtioUser => &["path"],
        VirtualDriver::Pcap => &["iface", "rx_iface", "rx_pcap", "tx_iface", "tx_pcap"],
        VirtualDriver::Tap | VirtualDriver::Null | VirtualDriver::Ring | VirtualDriver::Memif => &[],
    };
    let empty = device.arguments.split(',').any(|argument| argument.is_empty() || argument.ends_with('='));
    if empty && !device.arguments.is_empty() {
        field
            .error(format!("an argument of {} is empty", shown(&device.name)), "write name=value, separated by commas");
        return false;
    }
    if needed.is_empty() || needed.iter().any(|key| device.argument(key).is_some()) {
        return true;
    }
    let example = match device.driver {
        VirtualDriver::AfPacket | VirtualDriver::AfXdp => format!("{},iface=eth1", device.name),
        VirtualDriver::Vhost => format!("{},iface=/run/vhost.sock", device.name),
        VirtualDriver::VirtioUser => format!("{},path=/dev/vhost-net", device.name),
        VirtualDriver::Pcap => format!("{},rx_pcap=in.pcap,tx_pcap=out.pcap", device.name),
        VirtualDriver::Tap | VirtualDriver::Null | VirtualDriver::Ring | VirtualDriver::Memif => device.name.clone(),
    };
    field.error(
        format!("the device {} needs the argument `{}=`", shown(&device.name), needed.join("=` or `")),
        format!("for example \"{example}\""),
    );
    false
}
