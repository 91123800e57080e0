//! Reads `[[port]]`.

use crate::cross_check::Ledger;
use crate::intent::{InterfaceName, MacAddress, Name, Port};
use crate::read::device;
use crate::section::{Field, Section};
use crate::source::shown;
use crate::value;

pub(super) fn read(mut section: Section<'_>, ledger: &mut Ledger) -> Option<Port> {
    let source = section.source;
    let name_field = section.required("name", "give the port a name, for example name = \"wan\"");
    let name = name_field.as_ref().and_then(value::name);
    let name_is_free = match (&name_field, &name) {
        (Some(field), Some(name)) => {
            ledger.port_names.claim(source, name.clone(), &field.mark, |_| format!("two ports are named \"{name}\""))
        }
        (_, None) | (None, _) => false,
    };
    let device = section.required("device", "for example device = \"net_af_packet0,iface=eth1\" or \"0000:3b:00.0\"");
    let device = device.and_then(|field| {
        let device = device::read(&field)?;
        ledger.add_device(source, &device, &field.mark);
        Some(device)
    });
    let addresses = section.field("addresses").and_then(|field| field.list("[\"192.0.2.1/24\"]")).unwrap_or_default();
    let addresses = addresses.iter().filter_map(|field| {
        let address = value::interface_address(field)?;
        ledger.port_addresses.push((address, field.mark.clone()));
        Some(address)
    });
    let addresses = addresses.collect();
    let mtu = section.field("mtu").map_or(Some(Port::DEFAULT_MTU), |field| field.number(1280..=9000));
    ledger.port_mtus.extend(mtu);
    let queues = section.field("queues").and_then(|field| field.number(1..=256_u16));
    let host_field = section.field("host_interface");
    let host_interface = match (&host_field, &name_field, &name) {
        (Some(field), _, _) => value::interface_name(field),
        (None, Some(field), Some(name)) => default_twin(field, name),
        (None, _, _) => None,
    };
    // A twin named after a port whose name is taken would only repeat that complaint.
    let twin_field = host_field.as_ref().or(name_field.as_ref().filter(|_| name_is_free));
    if let (Some(twin), Some(field)) = (&host_interface, twin_field) {
        ledger.add_interface(source, twin, &field.mark);
    }
    let mac = section.field("mac").and_then(|field| mac_address(&field));
    section.finish(&[
        ("iface", "the interface is an argument of the device: device = \"net_af_packet0,iface=eth1\""),
        ("interface", "the interface is an argument of the device: device = \"net_af_packet0,iface=eth1\""),
        ("gateway", "set routes in the kernel, which Jetway mirrors: `ip route add default via ...`"),
    ]);
    Some(Port { name: name?, device: device?, addresses, mtu: mtu?, queues, host_interface: host_interface?, mac })
}

fn default_twin(field: &Field<'_>, name: &Name) -> Option<InterfaceName> {
    let twin = format!("jw-{name}");
    InterfaceName::new(&twin)
        .map_err(|fault| {
            field.error(
                format!("the port's twin in the kernel cannot be named \"{twin}\": it {fault}"),
                "set host_interface = \"...\" to a name of at most 15 bytes, or shorten the port's name to 12",
            );
        })
        .ok()
}

fn mac_address(field: &Field<'_>) -> Option<MacAddress> {
    let text = field.text("\"02:00:00:00:00:01\"")?;
    let mac = text.parse().ok();
    if mac.is_none() {
        field.error(
            format!("`mac` is not the MAC address of one station: {}", shown(text)),
            "write six bytes in hexadecimal, the first one even, for example \"02:00:00:00:00:01\"",
        );
    }
    mac
}
