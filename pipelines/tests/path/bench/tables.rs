//! The node's tables and the addresses of its world.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use jetway_pipelines::ids::PortId;
use jetway_pipelines::packet::MacAddress;
use jetway_pipelines::packet::ecn::Dscp;
use jetway_pipelines::tables::{ChecksumBy, PortEntry, PuntLimit, Route, Source, Tables, TunnelEntry};
use jetway_pipelines::wireguard::Peer;
use jetway_pipelines::wireguard::cookie::CookieChecker;

use super::{Client, Family, LISTEN_PORT, PORT_MTU, TUNNEL, TUNNEL_MTU, World};

pub const WAN: PortId = PortId(0);
pub const LAN: PortId = PortId(1);
pub const MACS: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2])];
pub const PUNT_RATE: u32 = 1000;
pub const PUNT_BURST: u32 = 100;

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// A host of the LAN.
pub fn server(family: Family) -> IpAddr {
    match family {
        Family::V4 => address("192.0.2.11"),
        Family::V6 => address("2001:db8:2::11"),
    }
}

/// The node in the tunnel.
pub fn node_inner(family: Family) -> IpAddr {
    match family {
        Family::V4 => address("10.8.0.1"),
        Family::V6 => address("fd00:8::1"),
    }
}

/// The node on the LAN.
pub fn node_lan(family: Family) -> IpAddr {
    match family {
        Family::V4 => address("192.0.2.1"),
        Family::V6 => address("2001:db8:2::1"),
    }
}

/// The link-layer address of whoever has this address on a link.
pub fn neighbour_mac(of: IpAddr) -> MacAddress {
    let last = match of {
        IpAddr::V4(of) => of.octets()[3],
        IpAddr::V6(of) => of.octets()[15],
    };
    MacAddress([2, 0, 0, 0, 1, last])
}

pub fn tables(peers: &[Arc<Peer>], clients: &[Client], checker: CookieChecker) -> Tables {
    let port = |mac, v4: [u8; 4], v6: &str| PortEntry {
        mac,
        mtu: PORT_MTU,
        l4_checksum: ChecksumBy::Software,
        source: Source { v4: Some(v4.into()), v6: v6.parse().ok() },
    };
    let allowed_ips = peers.iter().zip(clients).flat_map(|(peer, client)| {
        [client.inner_v4, client.inner_v6].map(|inner| (IpNet::from(inner), Arc::clone(peer)))
    });
    let tunnel = TunnelEntry {
        listen_port: LISTEN_PORT,
        mtu: TUNNEL_MTU,
        source: Source { v4: Some(Ipv4Addr::new(10, 8, 0, 1)), v6: Some(Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, 1)) },
        dscp: Dscp::Hide,
        allowed_ips: allowed_ips.collect(),
        checker: Arc::new(checker),
    };
    let ours = ["198.51.100.1", "192.0.2.1", "10.8.0.1", "2001:db8::1", "2001:db8:2::1", "fd00:8::1"];
    let link = |port| Route::Port { port, gateway: None, source: None, mtu: None };
    let by_gateway =
        |gateway: &str| Route::Port { port: WAN, gateway: Some(address(gateway)), source: None, mtu: None };
    let routes = [
        ("198.51.100.0/24", link(WAN)),
        ("2001:db8::/64", link(WAN)),
        ("192.0.2.0/24", link(LAN)),
        ("2001:db8:2::/64", link(LAN)),
        ("0.0.0.0/0", by_gateway("198.51.100.254")),
        ("2001:db8:ffff::/48", by_gateway("2001:db8::fe")),
        ("10.8.0.0/16", Route::Tunnel(TUNNEL)),
        ("fd00:8::/64", Route::Tunnel(TUNNEL)),
        ("203.0.113.0/26", Route::Blackhole),
        ("203.0.113.64/26", Route::Unreachable),
        ("203.0.113.128/26", Route::Prohibit),
    ];
    let neighbours = clients.iter().map(|client| (WAN, client.address.ip())).chain([
        (WAN, address("198.51.100.254")),
        (WAN, address("2001:db8::fe")),
        (LAN, server(Family::V4)),
        (LAN, server(Family::V6)),
    ]);
    Tables {
        epoch: 1,
        ports: [port(MACS[0], [198, 51, 100, 1], "2001:db8::1"), port(MACS[1], [192, 0, 2, 1], "2001:db8:2::1")].into(),
        tunnels: vec![Arc::new(tunnel)],
        listeners: Arc::new([(LISTEN_PORT, TUNNEL)].into_iter().collect()),
        local: Arc::new(ours.map(address).into_iter().collect()),
        services: Arc::default(),
        decapsulation: None,
        punt_limit: PuntLimit { rate: PUNT_RATE, burst: PUNT_BURST },
        routes: routes.into_iter().map(|(prefix, route)| (net(prefix), route)).collect(),
        neighbours: Arc::new(neighbours.map(|(port, at)| ((port, at), neighbour_mac(at))).collect()),
    }
}

impl World {
    /// The kernel tells of a neighbour.
    pub fn learn_neighbour(&mut self, port: PortId, at: IpAddr) {
        Arc::make_mut(&mut self.tables.neighbours).insert((port, at), neighbour_mac(at));
        self.tables.epoch += 1;
    }

    /// The kernel forgets a neighbour.
    pub fn forget_neighbour(&mut self, port: PortId, at: IpAddr) {
        Arc::make_mut(&mut self.tables.neighbours).remove(&(port, at));
        self.tables.epoch += 1;
    }

    /// The operator changes the tunnel.
    pub fn change_tunnel(&mut self, change: impl FnOnce(&mut TunnelEntry)) {
        change(Arc::make_mut(&mut self.tables.tunnels[TUNNEL.index()]));
        self.tables.epoch += 1;
    }

    /// A port's MTU changes.
    pub fn set_port_mtu(&mut self, port: PortId, mtu: u16) {
        let mut ports = self.tables.ports.to_vec();
        ports[port.index()].mtu = mtu;
        self.tables.ports = ports.into();
        self.tables.epoch += 1;
    }
}
