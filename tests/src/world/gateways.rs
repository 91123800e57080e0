//! A dispatcher in front of gateways that share one tunnel key: clients know only the service's address.
//!
//! ```text
//!   client              dispatcher                     gateways, each a node in a namespace
//!   eth0 ------+------- wan            lan -----+------ 192.0.2.11, 203.0.113.10, tunnel 10.8.0.1
//!   .2         |        198.51.100.1   192.0.2.1 +----- 192.0.2.12, 203.0.113.10, tunnel 10.8.0.1
//!              +------- router ------------------+
//! ```
//!
//! Gateways answer by the router: the dispatcher sees only what clients send.

use super::fleet::{connect_client_and_router, server_address, with_services};
use super::jetway::{Jetway, NodeConfig, PeerConfig, PortConfig, TunnelConfig};
use super::{
    Attachment, BackendConfig, Family, Forward, KeyPair, LISTEN_PORT, Namespace, PeerState, VipConfig, WireguardGo,
    WireguardPeer, World, preshared_key,
};

/// The address that clients know.
pub const SERVICE_ADDRESS: &str = "203.0.113.10";

/// How many there are.
#[derive(Clone, Copy)]
pub struct GatewaysPlan {
    /// Gateways that run.
    pub gateways: usize,
    /// Those of them that the dispatcher knows at first.
    pub known: usize,
    /// Stock clients.
    pub clients: usize,
    /// How messages get to a gateway. What the dispatcher puts into other packets, gateways take out of them.
    pub forward: Forward,
    /// The IP version by which the dispatcher sends to the gateways.
    pub inside: Family,
}

impl GatewaysPlan {
    /// Three gateways that are reached by their link-layer addresses, and a client.
    pub const L2: Self = Self { gateways: 3, known: 3, clients: 1, forward: Forward::L2, inside: Family::V4 };
}

/// All of it, up: fields drop in this order, processes before the namespaces they are in.
pub struct Gateways {
    /// The stock clients.
    pub clients: Vec<WireguardGo>,
    /// The dispatcher.
    pub dispatcher: Jetway,
    /// The gateways.
    pub gateways: Vec<Jetway>,
    /// The namespace of all clients.
    pub client: Namespace,
    /// The namespace of the dispatcher.
    pub node: Namespace,
    /// The name of the gateways' tunnel: a gateway's number follows.
    tunnel: String,
    config: NodeConfig,
    service: VipConfig,
    inside: Family,
    client_keys: Vec<KeyPair>,
    /// The key that the gateways share.
    pub tunnel_key: KeyPair,
    _gateway_namespaces: Vec<Namespace>,
    _router: Namespace,
    _switch: Namespace,
}

impl GatewaysPlan {
    /// Builds it and waits until every node answers; no client has shaken hands yet.
    #[track_caller]
    pub fn build(self, world: &World) -> Gateways {
        let [client, node, switch, router] = ["clients", "front", "switch", "router"].map(|role| world.namespace(role));
        let (tunnel_key, probe_key, index_key) = (KeyPair::generate(), KeyPair::generate(), preshared_key());
        let client_keys: Vec<KeyPair> = std::iter::repeat_with(KeyPair::generate).take(self.clients).collect();
        let tunnel = world.interface("gw");
        connect_client_and_router(&client, &router, &switch);

        let mut gateway_namespaces = Vec::new();
        let mut gateways = Vec::new();
        for number in 1..=self.gateways {
            let namespace = world.namespace(&format!("gateway-{number}"));
            namespace.connect("w-net", &switch, &format!("gateway-{number}"));
            switch.ip(&[&format!("link set gateway-{number} master inside")]);
            let mut peers: Vec<PeerConfig> = client_keys.iter().enumerate().map(client_peer).collect();
            peers.push(PeerConfig {
                name: "prober".into(),
                public_key: probe_key.public.clone(),
                ..PeerConfig::default()
            });
            let config = NodeConfig {
                name: format!("gateway-{number}-{tunnel}"),
                id: number as u32,
                index_key: Some(index_key.clone()),
                cores: vec![number as u32 % 2],
                ports: vec![PortConfig {
                    name: "net".into(),
                    device: Attachment::AfPacket.device(0, "w-net", 1),
                    addresses: vec![
                        format!("{}/24", server_address(number, Family::V4)),
                        format!("{}/64", server_address(number, Family::V6)),
                        format!("{SERVICE_ADDRESS}/32"),
                    ],
                    mtu: 1500,
                }],
                tunnels: vec![TunnelConfig {
                    name: format!("{tunnel}g{number}"),
                    listen_port: LISTEN_PORT,
                    key: tunnel_key.clone(),
                    addresses: vec!["10.8.0.1/16".into()],
                    mtu: 1420,
                    peers,
                }],
                more: decapsulate(self.forward),
            };
            gateways.push(Jetway::launch(world, &namespace, &config));
            gateway_namespaces.push(namespace);
        }

        let service = VipConfig {
            name: "tunnel".into(),
            address: SERVICE_ADDRESS.into(),
            port: LISTEN_PORT,
            protocol: "wireguard",
            forward: self.forward,
            backends: (1..=self.known).map(|number| gateway_backend(number, self.inside)).collect(),
            more: vec![
                format!("public_key = \"{}\"", tunnel_key.public),
                format!(
                    "health = {{ kind = \"wireguard\", private_key_file = \"{}\", interval = \"2s\" }}",
                    world.secret_file("probe.key", &probe_key.private).display()
                ),
            ],
        };
        let config = dispatcher_config(&tunnel, index_key);
        for (wire, name, segment) in [("w-wan", "node-wan", "outside"), ("w-lan", "node-lan", "inside")] {
            node.connect(wire, &switch, name);
            switch.ip(&[&format!("link set {name} master {segment}")]);
        }
        let dispatcher = Jetway::launch(world, &node, &with_services(&config, std::slice::from_ref(&service)));
        let mut all = Gateways {
            clients: Vec::new(),
            dispatcher,
            gateways,
            client,
            node,
            tunnel,
            config,
            service,
            inside: self.inside,
            client_keys,
            tunnel_key,
            _gateway_namespaces: gateway_namespaces,
            _router: router,
            _switch: switch,
        };
        for (gateway, namespace) in all.gateways.iter_mut().zip(&all._gateway_namespaces) {
            gateway.wait_until_ready();
            namespace.ip(&["route add 198.51.100.0/24 via 192.0.2.254"]);
        }
        all.dispatcher.wait_until_ready();
        all.start_clients(world);
        all
    }
}

impl Gateways {
    /// The interface of a client, to ping from.
    pub fn interface(&self, client: usize) -> &str {
        self.clients[client].interface()
    }

    /// When each client last completed a handshake, in seconds of the system's clock.
    #[track_caller]
    pub fn handshakes(&self) -> Vec<Option<u64>> {
        let last = |client: &WireguardGo| client.peers().first().and_then(|peer| peer.handshake_at);
        self.clients.iter().map(last).collect()
    }

    /// The gateway with which each client shook hands last.
    #[track_caller]
    pub fn gateways_of_clients(&mut self) -> Vec<Option<usize>> {
        let running = self.gateways.iter_mut().enumerate().filter_map(|(index, gateway)| {
            let is_running = gateway.process().is_running();
            is_running.then_some((index, &*gateway))
        });
        let of_gateway =
            |(index, gateway): (usize, &Jetway)| (index, gateway.wg_peers(&format!("{}g{}", self.tunnel, index + 1)));
        let peers: Vec<(usize, Vec<PeerState>)> = running.map(of_gateway).collect();
        let of_client = |key: &KeyPair| {
            let known = peers.iter().filter_map(|(index, peers)| {
                let peer = peers.iter().find(|peer| peer.public_key == key.public)?;
                Some((peer.handshake_at?, *index))
            });
            known.max().map(|(_, index)| index)
        };
        self.client_keys.iter().map(of_client).collect()
    }

    /// Has the dispatcher know so many gateways, by its file and a reload.
    #[track_caller]
    pub fn know(&mut self, gateways: usize) {
        self.service.backends = (1..=gateways).map(|number| gateway_backend(number, self.inside)).collect();
        self.dispatcher.rewrite(&with_services(&self.config, std::slice::from_ref(&self.service)));
        self.dispatcher.command(&["reload"]).unwrap_or_else(|error| panic!("{error}"));
    }

    fn start_clients(&mut self, world: &World) {
        for (index, key) in self.client_keys.iter().enumerate() {
            let client = WireguardGo::start(world, &self.client);
            let gateway = WireguardPeer {
                public_key: self.tunnel_key.public.clone(),
                allowed_ips: vec!["10.8.0.0/16".into()],
                endpoint: Some(format!("{SERVICE_ADDRESS}:{LISTEN_PORT}")),
                ..WireguardPeer::default()
            };
            client.configure(world, &key.private, 0, &[gateway]);
            client.bring_up(&self.client, &[&format!("{}/32", client_address(index))], 1420, &[]);
            self.client.ip(&[&format!("route add 10.8.0.1/32 dev {} metric {}", client.interface(), 100 + index)]);
            self.clients.push(client);
        }
    }
}

impl Drop for Gateways {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in std::iter::once(&self.dispatcher).chain(&self.gateways) {
            // One that was killed has nothing to say.
            let stats = node.command(&["stats"]).unwrap_or_default();
            println!("---- {}\n{stats}", node.file().display());
        }
        println!("{}", self.dispatcher.command(&["vips"]).unwrap_or_default());
    }
}

fn dispatcher_config(tunnel: &str, index_key: String) -> NodeConfig {
    let port = |index: usize, name: &str, addresses: &[&str]| PortConfig {
        name: name.into(),
        device: Attachment::AfPacket.device(index, &format!("w-{name}"), 1),
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        mtu: 1500,
    };
    NodeConfig {
        name: format!("front-{tunnel}"),
        id: 200,
        index_key: Some(index_key),
        cores: vec![1],
        ports: vec![port(0, "wan", &["198.51.100.1/24"]), port(1, "lan", &["192.0.2.1/24", "2001:db8:2::1/64"])],
        tunnels: Vec::new(),
        more: String::new(),
    }
}

/// What a gateway's configuration says of packets inside others.
fn decapsulate(forward: Forward) -> String {
    match forward {
        Forward::Nat | Forward::L2 => String::new(),
        Forward::Ipip | Forward::Gre | Forward::Gue => {
            format!("\n[decapsulate]\nfrom = [\"192.0.2.1\", \"2001:db8:2::1\"]\nkinds = [\"{}\"]\n", forward.word())
        }
    }
}

fn gateway_backend(number: usize, inside: Family) -> BackendConfig {
    BackendConfig {
        name: format!("gateway-{number}"),
        address: server_address(number, inside),
        weight: 1,
        node: Some(number as u32),
    }
}

fn client_address(index: usize) -> String {
    format!("10.8.0.{}", 11 + index)
}

fn client_peer((index, key): (usize, &KeyPair)) -> PeerConfig {
    PeerConfig {
        name: format!("client-{index}"),
        public_key: key.public.clone(),
        allowed_ips: vec![format!("{}/32", client_address(index))],
        ..PeerConfig::default()
    }
}
