//! The examples that users copy from are configurations without a fault.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use jetway_config::{
    AeadChoice, Device, Encapsulation, HealthKind, Idle, MemoryKind, PciAddress, Style, Vip, VirtualDriver, render,
};

fn example(name: &str) -> jetway_config::Checked {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let text = fs::read_to_string(&path).unwrap();
    common::check(&text, name).unwrap_or_else(|problems| panic!("{}", render(&problems, Style::Plain)))
}

#[test]
fn every_example_is_free_of_errors_and_warnings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() >= 3);
    for name in names {
        let checked = example(name.to_str().unwrap());
        assert!(checked.warnings.is_empty(), "{}", render(&checked.warnings, Style::Plain));
    }
}

#[test]
fn the_two_port_gateway_means_what_it_says() {
    let config = example("two-ports.toml").config;
    assert_eq!((config.node.name.as_str(), config.node.id), ("edge-1", 1));
    assert_eq!((config.engine.cores.as_slice(), config.engine.idle), ([1].as_slice(), Idle::Backoff));
    let wan = config.port("wan").unwrap();
    let Device::Virtual(device) = &wan.device else { panic!("{:?}", wan.device) };
    assert_eq!(device.driver, VirtualDriver::AfPacket);
    assert_eq!(device.argument("iface"), Some("veth-wan"));
    assert_eq!(device.to_string(), "net_af_packet0,iface=veth-wan");
    assert_eq!(wan.host_interface.as_str(), "jw-wan");
    assert_eq!(config.smallest_port_mtu(), Some(1500));
    let tunnel = config.tunnel("jw0").unwrap();
    assert_eq!(tunnel.listen_port, 51820);
    assert_eq!(&tunnel.private_key.expose()[..10], b"server.key");
    assert_eq!(tunnel.addresses[0].to_string(), "10.8.0.1/16");
    let (of, alice) = config.peers_named("alice-laptop").next().unwrap();
    assert_eq!(of.name, tunnel.name);
    assert_eq!(alice.public_key.0, [1; 32]);
    assert_eq!(&alice.preshared_key.as_ref().unwrap().expose()[..9], b"alice.psk");
    assert_eq!(alice.allowed_ips.len(), 2);
    assert_eq!(alice.endpoint, Some("203.0.113.9:51820".parse().unwrap()));
    assert_eq!(alice.persistent_keepalive, Some(25));
    let erp: &Vip = config.vip("erp").unwrap();
    let health = erp.health.as_ref().unwrap();
    assert_eq!((health.kind.clone(), health.interval), (HealthKind::Tcp, Duration::from_secs(5)));
    assert_eq!(erp.backends.iter().map(|backend| backend.port).collect::<Vec<_>>(), [443, 8443]);
    assert_eq!(config.api.metrics, Some("127.0.0.1:9590".parse().unwrap()));
}

#[test]
fn the_real_nic_is_a_pci_device_and_the_socket_bears_the_nodes_name() {
    let config = example("real-nic.toml").config;
    let address = PciAddress { domain: 0, bus: 0x3b, device: 0, function: 1 };
    assert_eq!(config.port("core").unwrap().device.pci(), Some(address));
    assert_eq!(config.engine.aead, AeadChoice::Avx512);
    assert_eq!((config.engine.memory.kind, config.engine.memory.size_mib), (MemoryKind::Hugepages, Some(2048)));
    assert_eq!(config.api.socket.to_str(), Some("/run/jetway/fra-edge-7.sock"));
    assert!(config.node.index_key.is_some());
    assert!(config.tunnel("vpn").unwrap().copy_dscp);
}

#[test]
fn a_gateway_behind_a_dispatcher_takes_packets_out_of_its_and_others_do_not() {
    let decapsulate = example("behind-dispatcher.toml").config.decapsulate.unwrap();
    assert_eq!(decapsulate.from, ["192.0.2.1/32".parse().unwrap()]);
    assert_eq!(decapsulate.kinds, [Encapsulation::Ipip]);
    assert_eq!(example("gateway.toml").config.decapsulate, None);
}
