//! Reads `[[tunnel]]`.

use ipnet::IpNet;

use crate::cross_check::Ledger;
use crate::intent::Tunnel;
use crate::key_file::secret;
use crate::parse::Surroundings;
use crate::read::{KEY_IN_FILE, peer};
use crate::section::{Field, Section};
use crate::source::Finding;
use crate::value;

pub(super) fn read(mut section: Section<'_>, surroundings: &Surroundings<'_>, ledger: &mut Ledger) -> Option<Tunnel> {
    let source = section.source;
    let name = section.required("name", "give the tunnel a name, for example name = \"jw0\"").and_then(|field| {
        let name = value::interface_name(&field)?;
        ledger.add_interface(source, &name, &field.mark);
        Some(name)
    });
    let listen_port = section.required("listen_port", "for example listen_port = 51820").and_then(|field| {
        let port = field.number(1..=u16::MAX)?;
        ledger.add_listen_port(source, port, &field.mark);
        Some(port)
    });
    let private_key = section.required("private_key_file", "make a key with `(umask 077; wg genkey > server.key)`");
    let private_key = private_key.and_then(|field| secret(&field, surroundings.keys, "wg genkey"));
    let addresses = section.field("addresses").and_then(|field| field.list("[\"10.8.0.1/16\"]")).unwrap_or_default();
    let addresses = addresses.iter().filter_map(|field| {
        let address = value::interface_address(field)?;
        ledger.tunnel_addresses.push((address, field.mark.clone()));
        Some(address)
    });
    let addresses: Vec<IpNet> = addresses.collect();
    let mtu_field = section.field("mtu");
    let mtu = mtu_field.as_ref().map_or(Some(Tunnel::DEFAULT_MTU), |field| mtu(field, &addresses));
    let mark = mtu_field.map_or_else(|| section.mark(), |field| field.mark);
    ledger.tunnel_mtus.extend(mtu.map(|mtu| (mtu, mark)));
    let copy_dscp = section.field("copy_dscp").and_then(|field| field.truth()).unwrap_or(false);
    let peers = peer::read_all(section.tables("peer"), surroundings);
    if section.absent("peer") {
        let finding = Finding::warning(
            "the tunnel has no peers, so nobody can connect",
            "add a [[tunnel.peer]] with name, public_key and allowed_ips",
        );
        source.report(&section.mark(), finding);
    }
    section.finish(&[
        ("private_key", KEY_IN_FILE),
        ("address", "write a list: addresses = [\"10.8.0.1/16\"]"),
        ("dns", "the client's file holds its DNS servers, not the node's"),
        ("table", "set routes in the kernel, which Jetway mirrors: `ip route add ... dev TUNNEL`"),
    ]);
    Some(Tunnel {
        name: name?,
        listen_port: listen_port?,
        private_key: private_key?,
        addresses,
        mtu: mtu?,
        copy_dscp,
        peers: peers?,
    })
}

fn mtu(field: &Field<'_>, addresses: &[IpNet]) -> Option<u16> {
    const LEAST_FOR_IPV4: u16 = 576;
    const LEAST_FOR_IPV6: u16 = 1280;
    let mtu = field.number(LEAST_FOR_IPV4..=9000 - Tunnel::LARGEST_OVERHEAD)?;
    if mtu >= LEAST_FOR_IPV6 || addresses.iter().all(|address| matches!(address, IpNet::V4(_))) {
        return Some(mtu);
    }
    field.error(
        format!("IPv6 does not work over a tunnel whose `mtu` is {mtu}"),
        format!("write at least {LEAST_FOR_IPV6}, or remove the IPv6 addresses of the tunnel"),
    );
    None
}
