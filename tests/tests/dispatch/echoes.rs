//! Services in front of three servers that send every datagram back.

use jetway_tests::world::{Decapsulator, Family, Fleet, Forward, Server, UdpEcho, VipConfig, backends, server_address};
use std::net::SocketAddr;

/// The port of services over UDP.
pub const ECHO: u16 = 7;

/// A service of all three servers.
pub fn service(name: &str, protocol: &'static str, address: &str, forward: Forward, servers: Family) -> VipConfig {
    VipConfig {
        name: name.into(),
        address: address.into(),
        port: if protocol == "udp" { ECHO } else { 80 },
        protocol,
        forward,
        backends: backends(1..=3, servers),
        // A machine with much else to do answers late, and is alive.
        more: vec!["health = { kind = \"icmp\", timeout = \"5s\" }".into()],
    }
}

/// The IP version of its address.
pub fn family(vip: &VipConfig) -> Family {
    if vip.address.contains(':') { Family::V6 } else { Family::V4 }
}

/// Where clients send to.
pub fn socket(vip: &VipConfig) -> SocketAddr {
    SocketAddr::new(vip.address.parse().expect("an address"), vip.port)
}

/// On every server an echo at its own addresses and those of services that servers bear.
#[track_caller]
pub fn start_echoes(fleet: &Fleet) -> Vec<UdpEcho> {
    let start = |(index, server): (usize, &Server)| {
        let own = [Family::V4, Family::V6].map(|family| server_address(index + 1, family));
        let services = fleet.vips.iter().filter(|vip| vip.forward != Forward::Nat).map(|vip| vip.address.clone());
        let all: Vec<String> = own.into_iter().chain(services).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        UdpEcho::start(&server.namespace, server.nginx.name(), &all, ECHO)
    };
    fleet.servers.iter().enumerate().map(start).collect()
}

/// On every server the kernel takes tunnelled packets apart.
#[track_caller]
pub fn decapsulate(fleet: &Fleet) -> Vec<Decapsulator> {
    fleet.servers.iter().map(|server| Decapsulator::start(&server.namespace)).collect()
}
