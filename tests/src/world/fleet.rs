//! A dispatcher between clients and many servers.
//!
//! ```text
//!   client              node                           servers, each in a namespace
//!   wg 10.8.0.2 ======= jw 10.8.0.1
//!   eth0 ------+------- wan            lan -----+------ eth0 192.0.2.11, lo: the services' addresses
//!   .2, .3     |        198.51.100.1   192.0.2.1 +----- eth0 192.0.2.12 ...
//!              +------- router ------------------+
//! ```
//!
//! Packets from 10.8.0.2 go to services through the tunnel, from 198.51.100.2 and .3 in clear. What servers send to
//! 198.51.100.3 goes by the router: a direct return that the node never sees.

use super::jetway::{Jetway, NodeConfig, PeerConfig};
use super::site::{Attachment, LISTEN_PORT, move_tap, usual_node};
use super::vip::{BackendConfig, VipConfig};
use super::{KeyPair, Namespace, Nginx, WireguardGo, WireguardPeer, World};
use std::net::IpAddr;

/// What a fleet is to be like.
#[derive(Clone)]
pub struct FleetPlan {
    /// Servers, whether a service has them or not.
    pub servers: usize,
    /// How the WAN port is wired.
    pub wan: Attachment,
    /// How the LAN port is wired.
    pub lan: Attachment,
    /// The services.
    pub vips: Vec<VipConfig>,
}

/// Which way a client's packets take to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Through the tunnel.
    Tunnel,
    /// In clear, with answers by the node.
    Plain,
    /// In clear, with answers past the node.
    DirectReturn,
}

/// Which IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A fleet that is up: fields drop in this order, processes before the namespaces they are in.
pub struct Fleet {
    /// The stock client of the tunnel.
    pub peer: WireguardGo,
    /// The node.
    pub jetway: Jetway,
    /// The servers.
    pub servers: Vec<Server>,
    /// The namespace of the client.
    pub client: Namespace,
    /// The namespace of the node.
    pub node: Namespace,
    /// The namespace of the switch.
    pub switch: Namespace,
    /// The namespace of the router that is another way from servers to the client.
    pub router: Namespace,
    /// The node's configuration, without its services.
    pub config: NodeConfig,
    /// The services.
    pub vips: Vec<VipConfig>,
    /// The client's keys.
    pub client_key: KeyPair,
}

/// One server.
pub struct Server {
    /// What runs on it.
    pub nginx: Nginx,
    /// Its namespace.
    pub namespace: Namespace,
}

/// The name of a server, from 1.
pub fn server_name(number: usize) -> String {
    format!("server-{number}")
}

/// The address of a server, from 1.
pub fn server_address(number: usize, family: Family) -> String {
    match family {
        Family::V4 => format!("192.0.2.{}", 10 + number),
        Family::V6 => format!("2001:db8:2::{}", 10 + number),
    }
}

/// Servers of a service, by their numbers from 1, of equal weight.
pub fn backends(numbers: impl IntoIterator<Item = usize>, family: Family) -> Vec<BackendConfig> {
    let one = |number| BackendConfig {
        name: server_name(number),
        address: server_address(number, family),
        weight: 1,
        node: None,
    };
    numbers.into_iter().map(one).collect()
}

impl Origin {
    /// The client's address.
    pub fn address(self, family: Family) -> IpAddr {
        let address = match (self, family) {
            (Origin::Tunnel, Family::V4) => "10.8.0.2",
            (Origin::Tunnel, Family::V6) => "fd00:8::2",
            (Origin::Plain, Family::V4) => "198.51.100.2",
            (Origin::Plain, Family::V6) => "2001:db8:100::2",
            (Origin::DirectReturn, Family::V4) => "198.51.100.3",
            (Origin::DirectReturn, Family::V6) => "2001:db8:100::3",
        };
        address.parse().expect("an address")
    }
}

impl FleetPlan {
    /// Three servers between virtual cables.
    pub fn new(vips: Vec<VipConfig>) -> Self {
        FleetPlan { servers: 3, wan: Attachment::AfPacket, lan: Attachment::AfPacket, vips }
    }

    /// Builds it and waits until node and servers answer.
    #[track_caller]
    pub fn build(self, world: &World) -> Fleet {
        let [client, node, switch, router] = ["client", "node", "switch", "router"].map(|role| world.namespace(role));
        let client_key = KeyPair::generate();
        let peer = PeerConfig {
            name: "client".into(),
            public_key: client_key.public.clone(),
            // .3 is a second address of the same client.
            allowed_ips: vec!["10.8.0.2/31".into(), "fd00:8::2/127".into()],
            ..PeerConfig::default()
        };
        let config = usual_node(world, [self.wan, self.lan], vec![1], vec![peer]);
        connect_client_and_router(&client, &router, &switch);

        let wires = [("w-wan", self.wan, "node-wan", "outside"), ("w-lan", self.lan, "node-lan", "inside")];
        for (wire, _, name, _) in wires.iter().filter(|wire| wire.1 == Attachment::AfPacket) {
            node.connect(wire, &switch, name);
        }
        let with_services = with_services(&config, &self.vips);
        let servers: Vec<Server> = (1..=self.servers).map(|number| start_server(world, &switch, number)).collect();
        let non_nat = self.vips.iter().filter(|vip| vip.forward != super::Forward::Nat);
        let on_loopback: Vec<String> = non_nat.map(|vip| host_prefix(&vip.address)).collect();
        let on_loopback: Vec<&str> = on_loopback.iter().map(String::as_str).collect();
        if !on_loopback.is_empty() {
            servers.iter().for_each(|server| server.namespace.addresses("lo", &on_loopback));
        }
        // Servers first: a node that asks for one that is not there yet asks again only after a second.
        let jetway = Jetway::start(world, &node, &with_services);
        for (wire, _, name, _) in wires.iter().filter(|wire| wire.1 == Attachment::Tap) {
            move_tap(&node, wire, &switch, name);
        }
        for (_, _, name, segment) in wires {
            switch.ip(&[&format!("link set {name} master {segment}")]);
        }

        let peer = WireguardGo::start(world, &client);
        let fleet = Fleet { peer, jetway, servers, client, node, switch, router, config, vips: self.vips, client_key };
        fleet.configure_client(world);
        fleet
    }
}

impl Fleet {
    /// Has the node take other services, as an operator does: by its file and `jetway reload`.
    #[track_caller]
    pub fn reload(&mut self, vips: Vec<VipConfig>) {
        self.jetway.rewrite(&with_services(&self.config, &vips));
        self.jetway.command(&["reload"]).unwrap_or_else(|error| panic!("{error}"));
        self.vips = vips;
    }

    /// Datagrams that reached the kernel of the client or a server and found the buffer of their reader full: on a busy machine
    /// iperf3 and wireguard-go come late to their sockets.
    #[track_caller]
    pub fn receive_buffer_overflows(&self) -> u64 {
        let servers = self.servers.iter().map(|server| &server.namespace);
        std::iter::once(&self.client).chain(servers).map(Namespace::receive_buffer_overflows).sum()
    }

    /// For the message of a test that misses packets: the node's drops by reason, its services, its ports' counters.
    pub fn where_packets_were_lost(&self) -> String {
        let stats = self.jetway.stats();
        let vips = self.jetway.command(&["vips"]).unwrap_or_else(|error| error);
        let ends = std::iter::once(&self.client).chain(self.servers.iter().map(|server| &server.namespace));
        let kernels = ends.map(|end| {
            // Of the kernel's counters those that are not 0: reassembly, checksums, full buffers.
            let counters = end.try_run("nstat", &["-s", "Ip*", "Udp*", "Icmp*"]).unwrap_or_default();
            format!("{}:\n{counters}", end.name())
        });
        let kernels: String = kernels.collect();
        format!("drops {:?}\nports {}\n{vips}{kernels}", stats.all_drops(), stats.0["ports"])
    }

    fn configure_client(&self, world: &World) {
        let tunnel = &self.config.tunnels[0];
        let node = WireguardPeer {
            public_key: tunnel.key.public.clone(),
            allowed_ips: ["0.0.0.0/0", "::/0"].map(String::from).to_vec(),
            endpoint: Some(format!("198.51.100.1:{LISTEN_PORT}")),
            ..WireguardPeer::default()
        };
        self.peer.configure(world, &self.client_key.private, 0, &[node]);
        self.peer.bring_up(
            &self.client,
            &["10.8.0.2/16", "10.8.0.3/16", "fd00:8::2/64", "fd00:8::3/64"],
            tunnel.mtu,
            &[],
        );
        let interface = self.peer.interface();
        self.client.ip(&[
            "rule add from 10.8.0.2/31 lookup 100",
            &format!("route add default dev {interface} table 100"),
            &format!("route add ::/0 dev {interface} table 100"),
        ]);
        // A batch has one family of rules.
        self.client.run("ip", &["-6", "rule", "add", "from", "fd00:8::2/127", "lookup", "100"]);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(stats) = self.jetway.command(&["stats"])
        {
            println!("---- jetway stats, jetway vips\n{stats}{}", self.jetway.command(&["vips"]).unwrap_or_default());
        }
    }
}

/// The configuration of a node with services.
pub fn with_services(config: &NodeConfig, vips: &[VipConfig]) -> NodeConfig {
    let services: String = vips.iter().map(VipConfig::to_toml).collect();
    NodeConfig { more: config.more.clone() + &services, ..config.clone() }
}

#[track_caller]
fn start_server(world: &World, switch: &Namespace, number: usize) -> Server {
    let name = server_name(number);
    let namespace = world.namespace(&name);
    switch.connect(&name, &namespace, "eth0");
    switch.ip(&[&format!("link set {name} master inside")]);
    let [v4, v6] = [Family::V4, Family::V6].map(|family| server_address(number, family));
    namespace.addresses("eth0", &[&format!("{v4}/24"), &format!("{v6}/64")]);
    namespace.ip(&[
        "route add default via 192.0.2.1",
        "route add default via 2001:db8:2::1",
        "route add 198.51.100.3/32 via 192.0.2.254",
        "route add 2001:db8:100::3/128 via 2001:db8:2::fe",
    ]);
    let nginx = Nginx::start(world, &namespace, &name);
    Server { nginx, namespace }
}

/// Makes the two segments of a network in the switch, with client and router on them: `outside` and `inside`.
pub(super) fn connect_client_and_router(client: &Namespace, router: &Namespace, switch: &Namespace) {
    for segment in ["outside", "inside"] {
        switch.ip(&[
            &format!("link add name {segment} type bridge forward_delay 0 mcast_snooping 0"),
            &format!("link set {segment} up"),
        ]);
    }
    let ends =
        [("client", client, "eth0", "outside"), ("out", router, "eth1", "outside"), ("in", router, "eth0", "inside")];
    for (name, far, interface, segment) in ends {
        switch.connect(name, far, interface);
        switch.ip(&[&format!("link set {name} master {segment}")]);
    }
    client.addresses("eth0", &["198.51.100.2/24", "198.51.100.3/24", "2001:db8:100::2/64", "2001:db8:100::3/64"]);
    client.ip(&["route add default via 198.51.100.1", "route add default via 2001:db8:100::1"]);
    router.addresses("eth0", &["192.0.2.254/24", "2001:db8:2::fe/64"]);
    router.addresses("eth1", &["198.51.100.254/24", "2001:db8:100::fe/64"]);
    router.sysctl("net.ipv4.ip_forward", "1");
    router.sysctl("net.ipv6.conf.all.forwarding", "1");
}

fn host_prefix(address: &str) -> String {
    format!("{address}/{}", if address.contains(':') { 128 } else { 32 })
}
