//! A server behind a link that carries less than the node's own: clients learn it, though packets reach the server inside others.

use jetway_tests::world::{
    BackendConfig, Decapsulator, Family, Fleet, FleetPlan, Forward, Namespace, Origin, UdpClient, UdpEcho, VipConfig,
    World, wait_until,
};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// What the link behind the router carries.
const NARROW: u64 = 1380;
const PORT: u16 = 7;
const V4: &str = "10.100.0.10";
const V6: &str = "fd00:100::10";

fn service(name: &str, address: &str, forward: Forward, server: &str) -> VipConfig {
    VipConfig {
        name: name.into(),
        address: address.into(),
        port: PORT,
        protocol: "udp",
        forward,
        backends: vec![BackendConfig { name: "far".into(), address: server.into(), weight: 1, node: None }],
        more: Vec::new(),
    }
}

/// A server beyond the router, which answers past the node.
#[track_caller]
fn far_server(world: &World, fleet: &Fleet) -> Namespace {
    let far = world.namespace("far");
    fleet.router.connect("narrow", &far, "eth0");
    fleet.router.ip(&[&format!("link set narrow mtu {NARROW}")]);
    fleet.router.addresses("narrow", &["10.9.0.1/24", "2001:db8:9::1/64"]);
    far.ip(&[&format!("link set eth0 mtu {NARROW}")]);
    far.addresses("eth0", &["10.9.0.2/24", "2001:db8:9::2/64"]);
    far.addresses("lo", &[&format!("{V4}/32"), &format!("{V6}/128")]);
    far.ip(&["route add default via 10.9.0.1", "route add default via 2001:db8:9::1"]);
    fleet.node.ip(&["route add 10.9.0.0/24 via 192.0.2.254", "route add 2001:db8:9::/64 via 2001:db8:2::fe"]);
    far
}

/// What `jetway vips` says of a service's only server.
#[track_caller]
fn server_of(fleet: &Fleet, service: &str) -> Value {
    let text = fleet.jetway.command(&["vips", service, "--json"]).unwrap_or_else(|error| panic!("{error}"));
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    let server = json.pointer("/0/backends/0");
    server.unwrap_or_else(|| panic!("no server in {text}")).clone()
}

#[test]
fn datagrams_too_long_for_a_link_behind_a_router_get_through_once_the_client_was_told() {
    let Some(world) = World::open() else { return };
    let vips =
        vec![service("ipip4", V4, Forward::Ipip, "10.9.0.2"), service("gue6", V6, Forward::Gue, "2001:db8:9::2")];
    let fleet = FleetPlan { servers: 1, ..FleetPlan::new(vips) }.build(&world);
    let far = far_server(&world, &fleet);
    let _decapsulator = Decapsulator::start(&far);
    let _echo = UdpEcho::start(&far, "far", &[V4, V6], PORT);
    let payload: Vec<u8> = (0..1_400_u32).map(|byte| (byte % 251) as u8).collect();
    for (name, family) in [("ipip4", Family::V4), ("gue6", Family::V6)] {
        let to = SocketAddr::new(if family == Family::V4 { V4 } else { V6 }.parse().expect("an address"), PORT);
        let from = Origin::DirectReturn.address(family);
        let client = UdpClient::new(&fleet.client, from, to, Duration::from_secs(2));
        wait_until("a short datagram comes back", Duration::from_secs(60), || client.ask(b"short").is_ok());
        assert_eq!(server_of(&fleet, name)["path_mtu"], Value::Null);
        let mut asked = 0;
        wait_until("a long datagram comes back", Duration::from_secs(60), || {
            asked += 1;
            client.ask(&payload).is_ok()
        });
        let server = server_of(&fleet, name);
        println!("{name}: a long datagram came back at the {asked}. time; {server}");
        assert_eq!(server["path_mtu"], NARROW, "{server}");
        assert!(server["lost"]["too_big"].as_u64().is_some_and(|count| count >= 1), "{server}");
        for _ in 0..10 {
            client.ask(&payload).unwrap_or_else(|error| panic!("{name}: {error}\n{}", fleet.where_packets_were_lost()));
        }
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}
