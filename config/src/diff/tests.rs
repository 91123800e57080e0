//! Differences are right when applying them gives the new intent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::intent::*;

fn name(prefix: &str, number: u8) -> Name {
    Name::new(&format!("{prefix}{number}")).unwrap()
}

fn net(third: u8, fourth: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new(Ipv4Addr::new(10, 0, third, fourth), length).unwrap())
}

fn endpoint(number: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, number), 51820).into()
}

fn secret(number: u8) -> Secret {
    Secret::take(&mut [number; 32])
}

fn addresses() -> impl Strategy<Value = Vec<IpNet>> {
    vec(0..4_u8, 0..4).prop_map(|mut thirds| {
        thirds.sort_unstable();
        thirds.dedup();
        thirds.into_iter().map(|third| net(third, 1, 24)).collect()
    })
}

fn peers() -> impl Strategy<Value = Vec<Peer>> {
    let peer = (0..3_u8, proptest::option::of(0..2_u8), 0..3_u8, proptest::option::of(1..3_u8), 0..2_u16);
    btree_map(1..8_u8, peer, 0..8).prop_map(|peers| {
        let peers = peers.into_iter().map(|(key, (title, psk, networks, place, keepalive))| Peer {
            name: name("peer", key * 8 + title),
            public_key: PublicKey([key; 32]),
            preshared_key: psk.map(secret),
            allowed_ips: (0..networks).map(|network| net(key, network, 32)).collect(),
            endpoint: place.map(endpoint),
            persistent_keepalive: (keepalive > 0).then_some(keepalive),
        });
        peers.collect()
    })
}

fn tunnels() -> impl Strategy<Value = Vec<Tunnel>> {
    let tunnel = (1..3_u16, 0..3_u8, addresses(), 1280..1282_u16, any::<bool>(), peers());
    btree_map(0..3_u8, tunnel, 0..3).prop_map(|tunnels| {
        let tunnels = tunnels.into_iter().map(|(number, (port, key, addresses, mtu, copy_dscp, peers))| Tunnel {
            name: InterfaceName::new(&format!("jw{number}")).unwrap(),
            listen_port: port,
            private_key: secret(key),
            addresses,
            mtu,
            copy_dscp,
            peers,
        });
        tunnels.collect()
    })
}

fn vips() -> impl Strategy<Value = Vec<Vip>> {
    btree_map(0..3_u8, (1..3_u16, 1..4_u8), 0..3).prop_map(|vips| {
        let vips = vips.into_iter().map(|(number, (port, servers))| Vip {
            name: name("vip", number),
            address: IpAddr::V4(Ipv4Addr::new(10, 100, 0, number)),
            port,
            protocol: Protocol::Tcp,
            persistence: Persistence::Flow,
            forward: Forward::Nat,
            health: None,
            load: None,
            on_down: OnDown::Move,
            all_down: AllDown::Serve,
            table_size: Vip::DEFAULT_TABLE_SIZE,
            public_key: None,
            backends: (0..servers)
                .map(|server| VipBackend {
                    name: name("server", server),
                    address: IpAddr::V4(Ipv4Addr::new(10, 101, 0, server)),
                    port,
                    weight: 1,
                    node: None,
                })
                .collect(),
        });
        vips.collect()
    })
}

fn port(number: u8, mtu: u16, addresses: Vec<IpNet>) -> Port {
    let device =
        VirtualDevice { driver: VirtualDriver::Tap, name: format!("net_tap{number}"), arguments: String::new() };
    Port {
        name: name("port", number),
        device: Device::Virtual(device),
        addresses,
        mtu,
        queues: None,
        host_interface: InterfaceName::new(&format!("jw-{number}")).unwrap(),
        mac: None,
    }
}

fn configs() -> impl Strategy<Value = Config> {
    let ports = btree_map(0..2_u8, (1500..1502_u16, addresses()), 0..3);
    let engine = (0..2_usize, 1..3_u32, proptest::option::of(1..3_u8), 0..2_u8);
    let decapsulate = proptest::option::of(addresses().prop_map(|from| Decapsulate { from, kinds: Vec::new() }));
    (engine, ports, tunnels(), vips(), decapsulate).prop_map(
        |((core, rate, metrics, id), ports, tunnels, vips, decapsulate)| Config {
            node: Node { name: name("edge", 1), id, index_key: None },
            engine: Engine {
                cores: vec![core],
                control_cores: None,
                memory: Memory { kind: MemoryKind::Auto, size_mib: None },
                idle: Idle::Backoff,
                aead: AeadChoice::Auto,
                punt: PuntLimit { rate, burst: 1 },
                buffers: Engine::DEFAULT_BUFFERS,
                flows: Engine::DEFAULT_FLOWS,
            },
            ports: ports.into_iter().map(|(number, (mtu, addresses))| port(number, mtu, addresses)).collect(),
            tunnels,
            vips,
            decapsulate,
            api: Api { socket: "/run/jetway/edge1.sock".into(), metrics: metrics.map(endpoint) },
        },
    )
}

/// The same intent with every list sorted that has no order.
fn sorted(mut config: Config) -> Config {
    config.tunnels.sort_by_key(|tunnel| tunnel.name.clone());
    config.vips.sort_by_key(|vip| vip.name.clone());
    config.ports.iter_mut().for_each(|port| port.addresses.sort());
    for tunnel in &mut config.tunnels {
        tunnel.addresses.sort();
        tunnel.peers.sort_by_key(|peer| peer.public_key);
        tunnel.peers.iter_mut().for_each(|peer| peer.allowed_ips.sort());
    }
    config
}

/// `old` with all of `new` that needs no restart.
fn reloaded(old: &Config, new: &Config) -> Config {
    let mut config = old.clone();
    config.engine.punt = new.engine.punt;
    config.api.metrics = new.api.metrics;
    config.decapsulate = new.decapsulate.clone();
    config.tunnels = new.tunnels.clone();
    config.vips = new.vips.clone();
    for port in &mut config.ports {
        if let Some(wanted) = new.port(port.name.as_str()) {
            port.addresses = wanted.addresses.clone();
        }
    }
    config
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn applying_the_difference_gives_the_new_intent_but_for_what_needs_a_restart(old in configs(), new in configs()) {
        let difference = diff(&old, &new);
        let mut running = old.clone();
        difference.apply(&mut running);
        prop_assert_eq!(sorted(running.clone()), sorted(reloaded(&old, &new)));
        let rest = diff(&running, &new);
        prop_assert_eq!(&rest, &Diff { restart: difference.restart, ..Diff::default() });
        prop_assert_eq!(rest.restart.is_empty(), sorted(running) == sorted(new));
    }

    #[test]
    fn an_intent_does_not_differ_from_itself_in_another_order(config in configs()) {
        let mut other = config.clone();
        other.tunnels.reverse();
        other.vips.reverse();
        other.tunnels.iter_mut().for_each(|tunnel| {
            tunnel.peers.reverse();
            tunnel.peers.iter_mut().for_each(|peer| peer.allowed_ips.reverse());
        });
        prop_assert!(diff(&config, &other).is_empty());
    }
}

fn one_peer() -> Config {
    let engine = Engine {
        cores: vec![1],
        control_cores: None,
        memory: Memory { kind: MemoryKind::Auto, size_mib: None },
        idle: Idle::Backoff,
        aead: AeadChoice::Auto,
        punt: PuntLimit::DEFAULT,
        buffers: Engine::DEFAULT_BUFFERS,
        flows: Engine::DEFAULT_FLOWS,
    };
    let peer = Peer {
        name: name("alice", 1),
        public_key: PublicKey([1; 32]),
        preshared_key: None,
        allowed_ips: vec![net(1, 1, 32)],
        endpoint: None,
        persistent_keepalive: None,
    };
    let tunnel = Tunnel {
        name: InterfaceName::new("jw0").unwrap(),
        listen_port: 51820,
        private_key: secret(9),
        addresses: vec![net(0, 1, 16)],
        mtu: 1420,
        copy_dscp: false,
        peers: vec![peer],
    };
    Config {
        node: Node { name: name("edge", 1), id: 1, index_key: None },
        engine,
        ports: vec![port(0, 1500, vec![net(9, 1, 24)])],
        tunnels: vec![tunnel],
        vips: Vec::new(),
        decapsulate: None,
        api: Api { socket: "/run/jetway/edge1.sock".into(), metrics: None },
    }
}

#[test]
fn a_peer_with_another_network_changes_in_nothing_else() {
    let old = one_peer();
    let mut new = old.clone();
    new.tunnels[0].peers[0].allowed_ips.push(net(1, 2, 32));
    let difference = diff(&old, &new);
    assert!(difference.restart.is_empty());
    let [tunnel] = difference.tunnels.changed.as_slice() else { panic!("{difference:?}") };
    let [peer] = tunnel.peers.changed.as_slice() else { panic!("{tunnel:?}") };
    assert_eq!(peer.allowed_ips.as_deref(), Some([net(1, 1, 32), net(1, 2, 32)].as_slice()));
    assert_eq!((&peer.endpoint, &peer.preshared_key, &peer.name), (&None, &None, &None));
}

#[test]
fn a_peer_with_another_key_is_another_peer() {
    let old = one_peer();
    let mut new = old.clone();
    new.tunnels[0].peers[0].public_key = PublicKey([2; 32]);
    let peers = diff(&old, &new).tunnels.changed.remove(0).peers;
    assert_eq!((peers.removed, peers.added.len(), peers.changed.len()), (vec![PublicKey([1; 32])], 1, 0));
}

#[test]
fn what_the_engine_fixes_at_its_start_needs_a_restart_and_is_named() {
    let old = one_peer();
    let mut new = old.clone();
    new.node.name = name("edge", 2);
    new.engine.cores = vec![1, 2];
    new.api.socket = "/run/jetway/other.sock".into();
    new.ports[0].mtu = 9000;
    new.ports.push(port(1, 1500, Vec::new()));
    let difference = diff(&old, &new);
    let paths: Vec<_> = difference.restart.iter().map(|needed| needed.path.as_str()).collect();
    assert_eq!(paths, ["node.name", "engine.cores", "api.socket", "port \"port1\"", "port \"port0\".mtu"]);
    assert_eq!(Diff { restart: Vec::new(), ..difference }, Diff::default());
}

#[test]
fn a_difference_prints_no_key() {
    let old = one_peer();
    let mut new = old.clone();
    new.tunnels[0].private_key = secret(7);
    new.tunnels[0].peers[0].preshared_key = Some(secret(8));
    let printed = format!("{:?}", diff(&old, &new));
    assert!(printed.contains("Secret(..)") && !printed.contains("7, 7") && !printed.contains("8, 8"), "{printed}");
}
