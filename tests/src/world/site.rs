//! The usual site: a client on the node's WAN port, a server on its LAN port, one tunnel between client and node.
//!
//! ```text
//!   client             node                       server
//!   wg 10.8.0.2 ======= jw 10.8.0.1
//!   eth0 -------------- wan          lan -------- eth0
//!   198.51.100.2        198.51.100.1 192.0.2.1    192.0.2.2
//!   2001:db8:100::2     ...:100::1   ...:2::1     2001:db8:2::2
//! ```

use super::jetway::{Jetway, NodeConfig, PeerConfig, PortConfig, TunnelConfig};
use super::{KeyPair, Namespace, WireguardGo, WireguardPeer, World, run, wait_until};
use std::time::Duration;

/// The UDP port of the node's tunnel.
pub const LISTEN_PORT: u16 = 51820;

/// How a port of the node is wired to the kernel that plays the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// net_af_packet on one end of a virtual cable.
    AfPacket,
    /// net_tap, whose kernel end is moved to the other side.
    Tap,
}

impl Attachment {
    /// The DPDK device of a port that has the kernel's interface `wire`.
    pub fn device(self, index: usize, wire: &str, queues: usize) -> String {
        match self {
            // Few frames (the driver's 512) lose packets whenever sender and worker share a CPU.
            Attachment::AfPacket => {
                format!("net_af_packet{index},iface={wire},qpairs={queues},framesz=2048,blocksz=4096,framecnt=4096")
            }
            Attachment::Tap => format!("net_tap{index},iface={wire}"),
        }
    }
}

/// Who terminates the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// The node under test.
    Jetway,
    /// wireguard-go and the kernel's forwarding, on cables: proves the world itself, and is what we compare with.
    WireguardGo,
}

/// Which IP version carries the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Who sends the first handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// The stock client knows the node's endpoint.
    Client,
    /// The node knows the client's endpoint.
    Node,
}

/// What a site is to be like; see the defaults in [`SiteBuilder::new`].
#[derive(Clone)]
pub struct SiteBuilder {
    /// How the WAN port is wired.
    pub wan: Attachment,
    /// How the LAN port is wired.
    pub lan: Attachment,
    /// Who terminates the tunnel.
    pub gateway: Gateway,
    /// Which IP version carries the tunnel.
    pub outer: Outer,
    /// Who begins.
    pub initiator: Initiator,
    /// A preshared key, base64.
    pub preshared_key: Option<String>,
    /// Seconds between the client's keepalives.
    pub persistent_keepalive: Option<u16>,
    /// CPUs of the node's workers.
    pub cores: Vec<u32>,
    /// Peers of the tunnel beside the client.
    pub more_peers: Vec<PeerConfig>,
    /// More text for the node's configuration.
    pub more_config: String,
}

/// A site that is up: fields drop in this order, processes before the namespaces they are in.
pub struct Site {
    /// The stock client.
    pub peer: WireguardGo,
    gateway: Terminator,
    /// The namespace of the client.
    pub client: Namespace,
    /// The namespace of the node.
    pub node: Namespace,
    /// The namespace of the server.
    pub server: Namespace,
    /// The node's configuration.
    pub config: NodeConfig,
    /// The client's keys.
    pub client_key: KeyPair,
    /// What it was built from.
    pub plan: SiteBuilder,
}

enum Terminator {
    Jetway(Jetway),
    WireguardGo(WireguardGo),
}

impl SiteBuilder {
    /// A client that begins over IPv4, with both ports wired in the same way and one worker.
    pub fn new(attachment: Attachment) -> Self {
        SiteBuilder {
            wan: attachment,
            lan: attachment,
            gateway: gateway_of_environment(),
            outer: Outer::V4,
            initiator: Initiator::Client,
            preshared_key: None,
            persistent_keepalive: None,
            cores: vec![1],
            more_peers: Vec::new(),
            more_config: String::new(),
        }
    }

    /// Builds it and waits until the node answers; no packet has gone through the tunnel yet.
    #[track_caller]
    pub fn build(self, world: &World) -> Site {
        let (client, node, server) = (world.namespace("client"), world.namespace("node"), world.namespace("server"));
        let client_key = KeyPair::generate();
        let config = self.node_config(world, &client_key);
        let wires = [("w-wan", self.wan, &client), ("w-lan", self.lan, &server)];

        let gateway = match self.gateway {
            Gateway::Jetway => {
                for (wire, _, far) in wires.iter().filter(|(_, attachment, _)| *attachment == Attachment::AfPacket) {
                    node.connect(wire, far, "eth0");
                }
                let jetway = Jetway::start(world, &node, &config);
                for (wire, _, far) in wires.iter().filter(|(_, attachment, _)| *attachment == Attachment::Tap) {
                    move_tap(&node, wire, far, "eth0");
                }
                Terminator::Jetway(jetway)
            }
            Gateway::WireguardGo => Terminator::WireguardGo(self.start_wireguard_go(world, &node, &wires, &config)),
        };
        client.addresses("eth0", &["198.51.100.2/24", "2001:db8:100::2/64"]);
        server.addresses("eth0", &["192.0.2.2/24", "2001:db8:2::2/64"]);
        server.ip(&["route add 10.8.0.0/16 via 192.0.2.1", "route add fd00:8::/64 via 2001:db8:2::1"]);

        let peer = WireguardGo::start(world, &client);
        let site = Site { peer, gateway, client, node, server, config, client_key, plan: self };
        site.configure_client(world);
        site
    }

    fn node_config(&self, world: &World, client_key: &KeyPair) -> NodeConfig {
        let mut peers = vec![PeerConfig {
            name: "client".into(),
            public_key: client_key.public.clone(),
            preshared_key: self.preshared_key.clone(),
            allowed_ips: vec!["10.8.0.2/32".into(), "fd00:8::2/128".into()],
            endpoint: (self.initiator == Initiator::Node).then(|| match self.outer {
                Outer::V4 => "198.51.100.2:51821".into(),
                Outer::V6 => "[2001:db8:100::2]:51821".into(),
            }),
            persistent_keepalive: None,
        }];
        peers.extend(self.more_peers.iter().cloned());
        let more = self.more_config.clone();
        NodeConfig { more, ..usual_node(world, [self.wan, self.lan], self.cores.clone(), peers) }
    }

    /// Puts wireguard-go and the kernel's forwarding in the node's place, with the same addresses, keys and peers.
    fn start_wireguard_go(
        &self,
        world: &World,
        node: &Namespace,
        wires: &[(&str, Attachment, &Namespace)],
        config: &NodeConfig,
    ) -> WireguardGo {
        for ((wire, _, far), port) in wires.iter().zip(&config.ports) {
            node.connect(wire, far, "eth0");
            node.addresses(wire, &port.addresses.iter().map(String::as_str).collect::<Vec<_>>());
        }
        node.sysctl("net.ipv4.ip_forward", "1");
        node.sysctl("net.ipv6.conf.all.forwarding", "1");
        let tunnel = &config.tunnels[0];
        let peers: Vec<WireguardPeer> = tunnel
            .peers
            .iter()
            .map(|peer| WireguardPeer {
                public_key: peer.public_key.clone(),
                preshared_key: peer.preshared_key.clone(),
                allowed_ips: peer.allowed_ips.clone(),
                endpoint: peer.endpoint.clone(),
                persistent_keepalive: peer.persistent_keepalive,
            })
            .collect();
        let gateway = WireguardGo::start(world, node);
        gateway.configure(world, &tunnel.key.private, tunnel.listen_port, &peers);
        let addresses: Vec<&str> = tunnel.addresses.iter().map(String::as_str).collect();
        gateway.bring_up(node, &addresses, tunnel.mtu, &[]);
        gateway
    }
}

impl Site {
    /// The node under test.
    ///
    /// # Panics
    /// If another gateway stands in for it.
    #[track_caller]
    pub fn jetway(&mut self) -> &mut Jetway {
        match &mut self.gateway {
            Terminator::Jetway(jetway) => jetway,
            Terminator::WireguardGo(_) => panic!("this test looks into Jetway, and wireguard-go stands in for it"),
        }
    }

    /// Starts a node that ended again, on the same configuration, and waits until it answers.
    ///
    /// # Panics
    /// If a port is a TAP, whose far side ended with the node.
    #[track_caller]
    pub fn restart_node(&mut self, world: &World) {
        assert_eq!((self.plan.wan, self.plan.lan), (Attachment::AfPacket, Attachment::AfPacket));
        match &mut self.gateway {
            Terminator::Jetway(jetway) => jetway.restart(world, &self.node),
            Terminator::WireguardGo(_) => panic!("this test looks into Jetway, and wireguard-go stands in for it"),
        }
    }

    /// Whether the node under test is what runs.
    pub fn is_jetway(&self) -> bool {
        match self.gateway {
            Terminator::Jetway(_) => true,
            Terminator::WireguardGo(_) => false,
        }
    }

    /// The process that terminates the tunnel.
    pub fn gateway_pid(&mut self) -> u32 {
        match &mut self.gateway {
            Terminator::Jetway(jetway) => jetway.process().pid(),
            Terminator::WireguardGo(peer) => peer.process().pid(),
        }
    }

    /// The name of the node's tunnel.
    pub fn tunnel(&self) -> &str {
        &self.config.tunnels[0].name
    }

    /// Where the node listens, as a client writes it.
    pub fn node_endpoint(&self) -> String {
        match self.plan.outer {
            Outer::V4 => format!("198.51.100.1:{LISTEN_PORT}"),
            Outer::V6 => format!("[2001:db8:100::1]:{LISTEN_PORT}"),
        }
    }

    /// Asserts that every packet that the node took or made was sent, dropped for a reason, punted or is held.
    ///
    /// Nothing to assert where another gateway stands in.
    #[track_caller]
    pub fn assert_every_packet_is_accounted_for(&mut self) {
        if let Terminator::Jetway(jetway) = &self.gateway {
            jetway.assert_every_packet_is_accounted_for();
        }
    }

    /// For the message of a test that misses packets: the node's drops by reason, its ports' counters, and the kernel's.
    pub fn where_packets_were_lost(&mut self) -> String {
        let mut text = String::new();
        if let Terminator::Jetway(jetway) = &self.gateway {
            let stats = jetway.stats();
            text += &format!("drops {:?}, ports {}\n", stats.all_drops(), stats.0["ports"]);
        }
        for namespace in [&self.client, &self.server] {
            let links = namespace.try_run("ip", &["-s", "-s", "link"]).unwrap_or_default();
            let udp = namespace.try_run("grep", &["^Udp:", "/proc/net/snmp"]).unwrap_or_default();
            text += &format!("{}:\n{links}{udp}", namespace.name());
        }
        text
    }

    /// Datagrams that reached the kernel of client or server and found the buffer of their reader full.
    ///
    /// On a busy machine iperf3 and wireguard-go come late to their sockets; what is lost there was delivered by the node.
    #[track_caller]
    pub fn receive_buffer_overflows(&self) -> u64 {
        [&self.client, &self.server].into_iter().map(Namespace::receive_buffer_overflows).sum()
    }

    fn configure_client(&self, world: &World) {
        let tunnel = &self.config.tunnels[0];
        let endpoint = (self.plan.initiator == Initiator::Client).then(|| self.node_endpoint());
        let node = WireguardPeer {
            public_key: tunnel.key.public.clone(),
            preshared_key: self.plan.preshared_key.clone(),
            allowed_ips: ["10.8.0.0/16", "192.0.2.0/24", "fd00:8::/64", "2001:db8:2::/64"].map(String::from).to_vec(),
            endpoint,
            persistent_keepalive: self.plan.persistent_keepalive,
        };
        let listen_port = match self.plan.initiator {
            Initiator::Client => 0,
            Initiator::Node => 51821,
        };
        self.peer.configure(world, &self.client_key.private, listen_port, &[node]);
        let routes = ["192.0.2.0/24", "2001:db8:2::/64"];
        self.peer.bring_up(&self.client, &["10.8.0.2/16", "fd00:8::2/64"], tunnel.mtu, &routes);
    }
}

/// The configuration of a node between clients on its port `wan` and servers on its port `lan`, with one tunnel.
pub(super) fn usual_node(
    world: &World,
    [wan, lan]: [Attachment; 2],
    cores: Vec<u32>,
    peers: Vec<PeerConfig>,
) -> NodeConfig {
    let port = |index: usize, name: &str, attachment: Attachment, addresses: [&str; 2]| PortConfig {
        name: name.into(),
        device: attachment.device(index, &format!("w-{name}"), cores.len()),
        addresses: addresses.map(String::from).to_vec(),
        mtu: 1500,
    };
    let name = world.interface("jw");
    NodeConfig {
        name: format!("node-{name}"),
        id: 1,
        index_key: None,
        ports: vec![
            port(0, "wan", wan, ["198.51.100.1/24", "2001:db8:100::1/64"]),
            port(1, "lan", lan, ["192.0.2.1/24", "2001:db8:2::1/64"]),
        ],
        cores,
        tunnels: vec![TunnelConfig {
            name,
            listen_port: LISTEN_PORT,
            key: KeyPair::generate(),
            addresses: vec!["10.8.0.1/16".into(), "fd00:8::1/64".into()],
            mtu: 1420,
            peers,
        }],
        more: String::new(),
    }
}

/// Moves the kernel end of a TAP device to the far side of the wire.
pub(super) fn move_tap(node: &Namespace, wire: &str, far: &Namespace, name: &str) {
    wait_until("the driver has made its TAP interface", Duration::from_secs(30), || node.has_interface(wire));
    run("ip", &["-n", node.name(), "link", "set", "dev", wire, "netns", far.name(), "name", name]);
    // The kernel end has the MAC address of the port; the far side of a wire needs one of its own. The queue of 500 loses bursts.
    let mac: [u8; 4] = rand::random();
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    far.ip(&[&format!("link set {name} address 02:77:{mac} txqueuelen 8000 up")]);
    far.offload_off(name);
}

/// `JETWAY_WORLD_GATEWAY=wireguard-go` proves the worlds themselves, or takes a figure to compare with.
fn gateway_of_environment() -> Gateway {
    match std::env::var("JETWAY_WORLD_GATEWAY").as_deref() {
        Err(_) | Ok("jetway") => Gateway::Jetway,
        Ok("wireguard-go") => Gateway::WireguardGo,
        Ok(other) => panic!("JETWAY_WORLD_GATEWAY is {other:?}; it can be jetway or wireguard-go"),
    }
}
