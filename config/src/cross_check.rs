//! Rules between sections of a file.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::intent::{Device, InterfaceName, Name, Protocol, Tunnel, VirtualDriver};
use crate::source::{Finding, Mark, Source};

/// Who has what only one may have.
pub(crate) struct Claims<K>(HashMap<K, Mark>);

/// What the sections of a file have, for the rules between them.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) port_names: Claims<Name>,
    pub(crate) vip_names: Claims<Name>,
    pub(crate) port_addresses: Vec<(IpNet, Mark)>,
    pub(crate) tunnel_addresses: Vec<(IpNet, Mark)>,
    pub(crate) port_mtus: Vec<u16>,
    pub(crate) tunnel_mtus: Vec<(u16, Mark)>,
    interfaces: Claims<String>,
    devices: Claims<String>,
    listen_ports: Claims<u16>,
    services: Claims<(IpAddr, u16, Protocol)>,
    datagram_services: Vec<(IpAddr, u16, Mark)>,
    translated_servers: Claims<(IpAddr, u16, Protocol)>,
}

impl<K> Default for Claims<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Claims<K> {
    /// Takes `key` for `mark` and says true; if another has it, reports what `conflict` says of that one.
    pub(crate) fn claim(
        &mut self,
        source: &Source<'_>,
        key: K,
        mark: &Mark,
        conflict: impl FnOnce(&Mark) -> String,
    ) -> bool {
        self.claim_or(source, key, mark, conflict, "change one of the two")
    }

    fn claim_or(
        &mut self,
        source: &Source<'_>,
        key: K,
        mark: &Mark,
        conflict: impl FnOnce(&Mark) -> String,
        hint: &str,
    ) -> bool {
        match self.0.get(&key) {
            Some(before) => {
                source.report(mark, Finding::error(conflict(before), hint).related(before, "the other is here"));
                false
            }
            None => {
                self.0.insert(key, mark.clone());
                true
            }
        }
    }
}

impl Ledger {
    /// Notes a port's device: its name or PCI address, and the kernel interface that it takes.
    pub(crate) fn add_device(&mut self, source: &Source<'_>, device: &Device, mark: &Mark) {
        let name = match device {
            Device::Virtual(device) => device.name.clone(),
            Device::Pci(address) => address.to_string(),
        };
        let conflict = |_: &Mark| format!("two ports use the device \"{name}\"");
        self.devices.claim_or(
            source,
            name.clone(),
            mark,
            conflict,
            "number virtual devices differently: net_tap0, net_tap1",
        );
        let Device::Virtual(device) = device else { return };
        let on_interface = match device.driver {
            VirtualDriver::AfPacket | VirtualDriver::AfXdp | VirtualDriver::Tap | VirtualDriver::Pcap => true,
            VirtualDriver::Null
            | VirtualDriver::Ring
            | VirtualDriver::Memif
            | VirtualDriver::Vhost
            | VirtualDriver::VirtioUser => false,
        };
        if let (true, Some(interface)) = (on_interface, device.argument("iface")) {
            self.add_kernel_interface(source, interface, mark);
        }
    }

    /// Notes a kernel interface that Jetway makes.
    pub(crate) fn add_interface(&mut self, source: &Source<'_>, name: &InterfaceName, mark: &Mark) {
        self.add_kernel_interface(source, name.as_str(), mark);
    }

    fn add_kernel_interface(&mut self, source: &Source<'_>, name: &str, mark: &Mark) {
        let conflict = |_: &Mark| format!("the kernel interface \"{name}\" is used twice");
        self.interfaces.claim_or(source, name.to_owned(), mark, conflict, "give one of the two another name");
    }

    /// Notes the UDP port of a tunnel.
    pub(crate) fn add_listen_port(&mut self, source: &Source<'_>, port: u16, mark: &Mark) {
        let conflict = |_: &Mark| format!("two tunnels listen on port {port}");
        self.listen_ports.claim_or(source, port, mark, conflict, "give each tunnel its own port");
    }

    /// Notes what a virtual service answers for.
    pub(crate) fn add_service(
        &mut self,
        source: &Source<'_>,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
        mark: &Mark,
    ) {
        let carrier = carrier(protocol);
        let conflict = |_: &Mark| format!("two services have the address {address}, port {port} and the same protocol");
        self.services.claim(source, (address, port, carrier), mark, conflict);
        if carrier == Protocol::Udp {
            self.datagram_services.push((address, port, mark.clone()));
        }
    }

    /// Notes a server to which a service forwards by NAT: from what it sends, one must know whose answer it is.
    pub(crate) fn add_translated_server(
        &mut self,
        source: &Source<'_>,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
        mark: &Mark,
    ) {
        let conflict = |_: &Mark| format!("the server {address} port {port} serves two services by NAT");
        let hint = "what it sends must belong to one service: give it another port for the second one, or forward by \
                    \"l2\", \"ipip\", \"gre\" or \"gue\"";
        self.translated_servers.claim_or(source, (address, port, carrier(protocol)), mark, conflict, hint);
    }

    /// Checks the rules that need the whole file.
    pub(crate) fn check(&self, source: &Source<'_>) {
        self.check_addresses(source);
        self.check_mtus(source);
        self.check_tunnel_ports(source);
    }

    /// No two interfaces may have the same network or address, and no two ports overlapping networks: the kernel
    /// would choose one of them by an order that nobody sees.
    fn check_addresses(&self, source: &Source<'_>) {
        let mut networks: HashMap<IpNet, &Mark> = HashMap::new();
        let all = self.port_addresses.iter().chain(&self.tunnel_addresses);
        let mut all: Vec<_> = all.filter(|(net, _)| !is_link_local(net.addr())).collect();
        // Wider networks first, so that one walk upward from each finds all that contain it.
        all.sort_by_key(|(net, mark)| (net.prefix_len(), mark.span.start));
        for (net, mark) in all {
            let containing = (0..=net.prefix_len()).filter_map(|length| IpNet::new(net.addr(), length).ok());
            let before = containing.rev().find_map(|wider| Some((wider.trunc(), *networks.get(&wider.trunc())?)));
            match before {
                Some((wider, before))
                    if wider == net.trunc() || is_port(before) && is_port(mark) && before.section != mark.section =>
                {
                    report_overlap(source, (net, mark), (&wider, before));
                }
                Some(_) | None => {}
            }
            networks.entry(net.trunc()).or_insert(mark);
        }
    }

    /// What a tunnel's packets become must fit the ports.
    fn check_mtus(&self, source: &Source<'_>) {
        let Some(smallest) = self.port_mtus.iter().min() else { return };
        let most = smallest.saturating_sub(Tunnel::LARGEST_OVERHEAD);
        for (mtu, mark) in self.tunnel_mtus.iter().filter(|(mtu, _)| *mtu > most) {
            let finding = Finding::warning(
                format!("packets of {mtu} bytes no longer fit a port's {smallest} bytes once they are encrypted"),
                format!("WireGuard over IPv6 adds {} bytes: write mtu = {most}", Tunnel::LARGEST_OVERHEAD),
            );
            source.report(mark, finding);
        }
    }

    /// A service must not take the packets of a tunnel of the same node.
    fn check_tunnel_ports(&self, source: &Source<'_>) {
        let own: HashMap<IpAddr, &Mark> = self.port_addresses.iter().map(|(net, mark)| (net.addr(), mark)).collect();
        for (address, port, mark) in &self.datagram_services {
            if let (Some(tunnel), true) = (self.listen_ports.0.get(port), own.contains_key(address)) {
                let finding = Finding::error(
                    format!("the service takes the packets of the tunnel that listens on {address} port {port}"),
                    "give the service another address or port",
                );
                source.report(mark, finding.related(tunnel, "the tunnel"));
            }
        }
    }
}

/// What carries a protocol: services of one carrier share its ports.
fn carrier(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Tcp => Protocol::Tcp,
        Protocol::Udp | Protocol::WireGuard => Protocol::Udp,
    }
}

fn report_overlap(source: &Source<'_>, one: (&IpNet, &Mark), other: (&IpNet, &Mark)) {
    // The later of the two is the one that somebody added.
    let ((_, before), (_, after)) = if one.1.span.start > other.1.span.start { (other, one) } else { (one, other) };
    let message = if one.0.trunc() == *other.0 {
        format!("the network \"{}\" is on two interfaces, or twice on one", other.0)
    } else {
        format!("the networks \"{}\" and \"{}\" of two ports overlap", one.0.trunc(), other.0)
    };
    let hint = "give each interface a network of its own";
    source.report(after, Finding::error(message, hint).related(before, "the other is here"));
}

fn is_port(mark: &Mark) -> bool {
    mark.section.starts_with("port")
}

/// Every interface may have the same link-local network.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
