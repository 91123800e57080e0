//! The usual site with emulated machines: the node drives PCI network cards, the client is a kernel with its own WireGuard.
//!
//! ```text
//!   client machine            node machine                      server
//!   wg0 10.8.0.2 =========== jw0 10.8.0.1
//!   eth0 (virtio) -- bridge -- 00:03.0 (PCI driver of DPDK)
//!   198.51.100.2               00:04.0 (PCI driver of DPDK) -- bridge -- eth0 192.0.2.2
//! ```

use jetway_tests::world::{
    Contents, Image, KeyPair, LISTEN_PORT, Machine, MachinePlan, Namespace, NodeConfig, PeerConfig, PortConfig, Stats,
    TunnelConfig, World, binary,
};
use std::time::Duration;

const CARDS: [(&str, &str); 2] = [("wan", "0000:00:03.0"), ("lan", "0000:00:04.0")];
const STEP: Duration = Duration::from_secs(60);

/// A network card of the node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// Intel's gigabit card with one queue.
    E1000,
    /// virtio-net with two queue pairs and receive-side scaling.
    VirtioTwoQueues,
}

/// The kernel driver through which DPDK reaches a card.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// vfio-pci behind an emulated IOMMU.
    Vfio,
    /// uio_pci_generic, without an IOMMU.
    UioGeneric,
}

/// Both machines and the server; machines drop before the namespaces they are in.
pub struct MachineSite {
    /// The machine with the kernel's WireGuard.
    pub client: Machine,
    /// The machine with the node.
    pub node: Machine,
    /// Where the server is.
    pub server: Namespace,
    _wire: Namespace,
}

impl MachineSite {
    /// Boots both machines, starts the node on its cards and brings the tunnel up.
    #[track_caller]
    pub fn build(world: &World, card: Card, binding: Binding) -> Self {
        let (wire, server) = (world.namespace("wire"), world.namespace("server"));
        lay_wires(&wire, &server, card);
        let node = Machine::boot(world, &wire, "node", &node_image(world), &node_plan(card, binding));
        let client = Machine::boot(world, &wire, "client", &client_image(world), &client_plan());
        let mut site = MachineSite { node: node.up(), client: client.up(), server, _wire: wire };

        let (node_key, client_key) = (KeyPair::generate(), KeyPair::generate());
        bind_cards(&mut site.node, binding);
        start_node(&mut site.node, &node_config(card, &node_key, &client_key));
        start_client(&mut site.client, &node_key, &client_key);
        site
    }

    /// `jetway stats --json` in the node's machine.
    #[track_caller]
    pub fn stats(&mut self) -> Stats {
        let text = self.node.run("jetway stats --json --config /etc/jetway/node.toml 2>/dev/null", STEP);
        Stats(serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON: {error}\n{text}")))
    }
}

fn node_image(world: &World) -> Image {
    let jetway = binary();
    Image::build(
        world,
        "node",
        &Contents {
            modules: &["virtio_pci", "virtio_console", "tun", "vfio-pci", "vfio_iommu_type1", "uio_pci_generic"],
            programs: &[&jetway.to_string_lossy(), "ip", "wg"],
            drivers: &["net_e1000", "net_virtio", "mempool_ring", "bus_pci", "bus_vdev"],
        },
    )
}

fn client_image(world: &World) -> Image {
    let contents = Contents {
        modules: &["virtio_pci", "virtio_console", "virtio_net", "wireguard"],
        programs: &["wg", "ip", "ping", "curl"],
        drivers: &[],
    };
    Image::build(world, "client", &contents)
}

/// Bridges between the machines and the server that add nothing of their own to what they carry.
fn lay_wires(wire: &Namespace, server: &Namespace, card: Card) {
    wire.sysctl("net.ipv6.conf.default.disable_ipv6", "1");
    let queues = match card {
        Card::E1000 => "",
        Card::VirtioTwoQueues => " multi_queue",
    };
    for (port, _) in CARDS {
        wire.ip(&[
            &format!("link add br-{port} type bridge forward_delay 0 mcast_snooping 0"),
            &format!("tuntap add n-{port} mode tap{queues}"),
            &format!("link set n-{port} master br-{port} up"),
            &format!("link set br-{port} up"),
        ]);
    }
    wire.ip(&["tuntap add c-wan mode tap", "link set c-wan master br-wan up"]);
    wire.connect("s-lan", server, "eth0");
    wire.ip(&["link set s-lan master br-lan"]);
    server.addresses("eth0", &["192.0.2.2/24", "2001:db8:2::2/64"]);
    server.ip(&["route add 10.8.0.0/16 via 192.0.2.1", "route add fd00:8::/64 via 2001:db8:2::1"]);
}

fn node_plan(card: Card, binding: Binding) -> MachinePlan {
    let mut devices = Vec::new();
    let mut add = |text: String| devices.extend(text.split(' ').map(String::from));
    if binding == Binding::Vfio {
        add("-device intel-iommu,intremap=off,caching-mode=on".into());
    }
    for (index, (port, address)) in CARDS.iter().enumerate() {
        let slot = &address[8..10];
        let (backend, device) = match (card, binding) {
            (Card::E1000, _) => ("", "e1000".to_owned()),
            (Card::VirtioTwoQueues, Binding::UioGeneric) => {
                (",queues=2", "virtio-net-pci,mq=on,rss=on,vectors=6".to_owned())
            }
            (Card::VirtioTwoQueues, Binding::Vfio) => {
                (",queues=2", "virtio-net-pci,mq=on,rss=on,vectors=6,iommu_platform=on,disable-legacy=on".to_owned())
            }
        };
        add(format!("-netdev tap,id={port},ifname=n-{port},script=no,downscript=no{backend}"));
        add(format!("-device {device},netdev={port},romfile=,mac=02:00:00:00:01:0{index},addr={slot}"));
    }
    let kernel_arguments = match binding {
        Binding::Vfio => "intel_iommu=on",
        Binding::UioGeneric => "",
    };
    MachinePlan { cpus: 2, memory: 1024, kernel_arguments: kernel_arguments.into(), devices }
}

fn client_plan() -> MachinePlan {
    // Without offloads, so that a frame on the wire has its checksums, as one from a real cable has.
    let devices = "-netdev tap,id=wan,ifname=c-wan,script=no,downscript=no \
        -device virtio-net-pci,netdev=wan,romfile=,mac=02:00:00:00:02:00,csum=off,gso=off,guest_csum=off,\
guest_tso4=off,guest_tso6=off,guest_ufo=off";
    MachinePlan {
        cpus: 1,
        memory: 512,
        kernel_arguments: String::new(),
        devices: devices.split_whitespace().map(String::from).collect(),
    }
}

fn bind_cards(node: &mut Machine, binding: Binding) {
    let driver = match binding {
        // The emulated IOMMU does not remap interrupts.
        Binding::Vfio => {
            node.run("echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", STEP);
            "vfio-pci"
        }
        Binding::UioGeneric => "uio_pci_generic",
    };
    node.run("echo 160 > /proc/sys/vm/nr_hugepages; mount -t hugetlbfs hugetlbfs /mnt/huge", STEP);
    for (_, card) in CARDS {
        // As on a server, where the kernel has taken the cards first.
        node.run(&format!("cd /sys/bus/pci/devices/{card}; [ ! -e driver ] || echo {card} > driver/unbind"), STEP);
        node.run(&format!("echo {driver} > /sys/bus/pci/devices/{card}/driver_override"), STEP);
        node.run(&format!("echo {card} > /sys/bus/pci/drivers_probe"), STEP);
        let bound = node.run(&format!("readlink /sys/bus/pci/devices/{card}/driver"), STEP);
        assert!(bound.trim().ends_with(driver), "{card} is bound to {bound:?}");
    }
}

fn node_config(card: Card, node_key: &KeyPair, client_key: &KeyPair) -> NodeConfig {
    let networks = [["198.51.100.1/24", "2001:db8:100::1/64"], ["192.0.2.1/24", "2001:db8:2::1/64"]];
    let port = |((name, device), addresses): ((&str, &str), [&str; 2])| PortConfig {
        name: name.into(),
        device: device.into(),
        addresses: addresses.map(String::from).to_vec(),
        mtu: 1500,
    };
    NodeConfig {
        name: "node".into(),
        id: 1,
        index_key: None,
        cores: match card {
            Card::E1000 => vec![1],
            Card::VirtioTwoQueues => vec![0, 1],
        },
        ports: CARDS.into_iter().zip(networks).map(port).collect(),
        tunnels: vec![TunnelConfig {
            name: "jw0".into(),
            listen_port: LISTEN_PORT,
            key: node_key.clone(),
            addresses: vec!["10.8.0.1/16".into(), "fd00:8::1/64".into()],
            mtu: 1420,
            peers: vec![PeerConfig {
                name: "client".into(),
                public_key: client_key.public.clone(),
                allowed_ips: vec!["10.8.0.2/32".into(), "fd00:8::2/128".into()],
                ..PeerConfig::default()
            }],
        }],
        more: String::new(),
    }
}

fn start_node(node: &mut Machine, config: &NodeConfig) {
    node.run("mkdir -p /etc/jetway", STEP);
    node.write("/etc/jetway/jw0.key", &config.tunnels[0].key.private);
    node.write("/etc/jetway/node.toml", &config.to_toml_in("/etc/jetway"));
    node.run("jetway run --config /etc/jetway/node.toml >/dev/ttyS0 2>&1 &", STEP);
    // A node that ended has said on the console why.
    node.wait_for("! pidof jetway >/dev/null || jetway ready --config /etc/jetway/node.toml", STEP);
    node.run("jetway ready --config /etc/jetway/node.toml", STEP);
}

fn start_client(client: &mut Machine, node_key: &KeyPair, client_key: &KeyPair) {
    client.write("/etc/client.key", &client_key.private);
    // Duplicate address detection would hold the addresses back.
    client.run("echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad", STEP);
    // The shell has an `ip` of its own, which knows less.
    for command in [
        "/bin/ip addr add 198.51.100.2/24 dev eth0",
        "/bin/ip addr add 2001:db8:100::2/64 dev eth0 nodad",
        "/bin/ip link set eth0 up",
        "/bin/ip link add wg0 type wireguard",
        &format!(
            "wg set wg0 private-key /etc/client.key peer {} endpoint 198.51.100.1:{LISTEN_PORT} \
             allowed-ips 10.8.0.0/16,192.0.2.0/24,fd00:8::/64,2001:db8:2::/64",
            node_key.public
        ),
        "/bin/ip addr add 10.8.0.2/16 dev wg0",
        "/bin/ip addr add fd00:8::2/64 dev wg0 nodad",
        "/bin/ip link set wg0 mtu 1420 up",
        "/bin/ip route add 192.0.2.0/24 dev wg0",
        "/bin/ip route add 2001:db8:2::/64 dev wg0",
    ] {
        client.run(command, STEP);
    }
}
