//! Datagrams in fragments, and packets that do not fit somewhere on their way.

use crate::echoes::{decapsulate, family, service, socket, start_echoes};
use jetway_tests::world::{
    Attachment, Family, Fleet, FleetPlan, Forward, Iperf3Server, Namespace, Origin, Server, Transport, UdpClient,
    VipConfig, Way, World, download, iperf3_with, wait_until,
};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

#[test]
fn datagrams_of_8_kb_come_and_go_in_fragments() {
    let Some(world) = World::open() else { return };
    // A driver that takes packets from the kernel's packet sockets never sees a fragment: TAPs do.
    let vips = vec![
        service("nat4", "udp", "10.100.0.10", Forward::Nat, Family::V4),
        service("nat6", "udp", "fd00:100::10", Forward::Nat, Family::V6),
        service("l24", "udp", "10.100.0.11", Forward::L2, Family::V4),
        service("l26", "udp", "fd00:100::11", Forward::L2, Family::V6),
        service("ipip4", "udp", "10.100.0.12", Forward::Ipip, Family::V4),
        service("gue4", "udp", "10.100.0.13", Forward::Gue, Family::V4),
    ];
    let fleet = FleetPlan { wan: Attachment::Tap, lan: Attachment::Tap, ..FleetPlan::new(vips) }.build(&world);
    let (_echoes, _decapsulators) = (start_echoes(&fleet), decapsulate(&fleet));
    teach_tunnel_mtu(&fleet);
    for vip in &fleet.vips {
        for origin in [Origin::Plain, Origin::Tunnel] {
            let servers = who_answers_datagrams_of_8_kb(&fleet, vip, origin);
            assert!(servers.len() > 1, "{} {origin:?}: only {servers:?} answered", vip.name);
        }
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}

/// The servers that send back what twenty clients send, a flow each: every datagram of it.
#[track_caller]
fn who_answers_datagrams_of_8_kb(fleet: &Fleet, vip: &VipConfig, origin: Origin) -> BTreeSet<String> {
    // None may be lost; a machine with much else to do may be late.
    const PATIENCE: Duration = Duration::from_secs(10);
    let payload: Vec<u8> = (0..8_000_u32).map(|byte| (byte % 251) as u8).collect();
    let from = origin.address(family(vip));
    let clients: Vec<_> = (0..20).map(|_| UdpClient::new(&fleet.client, from, socket(vip), PATIENCE)).collect();
    let datagrams = clients.iter().enumerate().flat_map(|client| [client; 3]).enumerate();
    let answers = datagrams.map(|(number, (client, socket))| {
        socket.ask(&payload).unwrap_or_else(|error| {
            let lost = fleet.where_packets_were_lost();
            panic!("{} {origin:?}, client {client}, datagram {number}: {error}\n{lost}", vip.name)
        })
    });
    answers.collect()
}

/// No router cuts IPv6, so a server's first long packet into the tunnel is refused: here a ping, and it knows the MTU from then on.
#[track_caller]
fn teach_tunnel_mtu(fleet: &Fleet) {
    let client = Origin::Tunnel.address(Family::V6).to_string();
    for Server { namespace, .. } in &fleet.servers {
        wait_until("the server knows the tunnel's MTU", Duration::from_secs(30), || {
            let _ = namespace.try_run("ping", &["-c", "1", "-W", "1", "-s", "1440", &client]);
            namespace.run("ip", &["-6", "route", "get", &client]).contains("mtu 1420")
        });
    }
}

#[test]
fn iperf3_sends_datagrams_of_8_kb_either_way_through_a_tunnel_to_a_service() {
    const RATE: u64 = 10_000_000;
    const SIZE: u32 = 8_000;
    let Some(world) = World::open() else { return };
    let addresses = [("v4", "10.100.0.10", Family::V4), ("v6", "fd00:100::10", Family::V6)];
    // iperf3 agrees over TCP on what it does over UDP: both services must choose the same server.
    let both = |(name, address, servers)| {
        let usual = |protocol| service(&format!("{name}-{protocol}"), protocol, address, Forward::Nat, servers);
        ["tcp", "udp"].map(|protocol| VipConfig {
            port: 5201,
            more: [usual(protocol).more, vec!["persistence = \"client\"".into()]].concat(),
            ..usual(protocol)
        })
    };
    let vips = addresses.into_iter().flat_map(both).collect();
    let fleet = FleetPlan { wan: Attachment::Tap, lan: Attachment::Tap, ..FleetPlan::new(vips) }.build(&world);
    let _servers: Vec<_> = fleet.servers.iter().map(|server| Iperf3Server::start(&world, &server.namespace)).collect();
    // iperf3 gives up when it is told an MTU.
    teach_tunnel_mtu(&fleet);
    for (_, address, family) in addresses {
        let from = Origin::Tunnel.address(family).to_string();
        for way in [Way::Up, Way::Down] {
            let stream = Transport::Udp { rate: RATE, size: SIZE };
            let overflows = fleet.receive_buffer_overflows();
            let report = iperf3_with(&fleet.client, address, stream, way, 2, &["-B", &from]);
            let lost_on_the_way = report.lost.saturating_sub(fleet.receive_buffer_overflows() - overflows);
            println!("{address} {way:?}: lost {} of {}, {lost_on_the_way} on the way", report.lost, report.datagrams);
            let most = RATE * 2 / 8 / u64::from(SIZE) * 9 / 10;
            assert!(
                report.datagrams >= most && lost_on_the_way * 100 <= report.datagrams,
                "{address} {way:?}: {report:?}\n{}",
                fleet.where_packets_were_lost()
            );
        }
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}

/// A network behind the client that takes packets of 1,300 bytes, of which its hosts do not know.
#[track_caller]
fn narrow_network(world: &World, fleet: &Fleet) -> Namespace {
    let far = world.namespace("far");
    fleet.client.connect("narrow", &far, "eth0");
    fleet.client.ip(&["link set narrow mtu 1300"]);
    fleet.client.addresses("narrow", &["203.0.113.1/24", "2001:db8:113::1/64"]);
    far.addresses("eth0", &["203.0.113.2/24", "2001:db8:113::2/64"]);
    far.ip(&["route add default via 203.0.113.1", "route add default via 2001:db8:113::1"]);
    fleet.client.sysctl("net.ipv4.ip_forward", "1");
    fleet.client.sysctl("net.ipv6.conf.all.forwarding", "1");
    fleet.node.ip(&["route add 203.0.113.0/24 via 198.51.100.2", "route add 2001:db8:113::/64 via 2001:db8:100::2"]);
    far
}

/// A server that was told an MTU keeps it in mind for the client, whichever service told it, and would not be told again.
fn forget_path_mtus(fleet: &Fleet) {
    for server in &fleet.servers {
        server.namespace.run("ip", &["route", "flush", "cache"]);
        server.namespace.run("ip", &["-6", "route", "flush", "cache"]);
    }
}

#[track_caller]
fn downloads(namespace: &Namespace, vip: &VipConfig, folder: &Path) -> Result<(), String> {
    let file = folder.join("downloaded");
    download(namespace, &format!("http://{}/data", socket(vip)), &file, Duration::from_secs(10))?;
    let length = std::fs::metadata(&file).map_err(|error| error.to_string())?.len();
    if length == 1_000_000 { Ok(()) } else { Err(format!("{length} bytes came")) }
}

#[test]
fn a_router_that_finds_a_servers_packet_too_big_reaches_the_server_that_sent_it() {
    let Some(world) = World::open() else { return };
    let mut vips = Vec::new();
    for (number, forward) in [Forward::Nat, Forward::L2, Forward::Ipip].into_iter().enumerate() {
        let name = forward.word();
        let last = 10 + number;
        vips.push(service(&format!("{name}4"), "tcp", &format!("10.100.0.{last}"), forward, Family::V4));
        vips.push(service(&format!("{name}6"), "tcp", &format!("fd00:100::{last}"), forward, Family::V6));
    }
    let fleet = FleetPlan::new(vips).build(&world);
    let _decapsulators = decapsulate(&fleet);
    let far = narrow_network(&world, &fleet);
    for vip in &fleet.vips {
        // Several, so that the error must find the right one of three servers.
        for flow in 0..6 {
            forget_path_mtus(&fleet);
            downloads(&far, vip, world.folder()).unwrap_or_else(|error| {
                panic!("{} flow {flow}: {error}\n{}", vip.name, fleet.where_packets_were_lost())
            });
        }
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}

#[test]
fn a_server_whose_datagram_does_not_fit_into_the_tunnel_is_told_so() {
    let Some(world) = World::open() else { return };
    let vips = vec![
        service("nat", "udp", "10.100.0.10", Forward::Nat, Family::V4),
        service("l2", "udp", "10.100.0.11", Forward::L2, Family::V4),
    ];
    let fleet = FleetPlan::new(vips).build(&world);
    let _echoes = start_echoes(&fleet);
    // 1,420 bytes with their headers; the answer has ten bytes more, and the kernel forbids to fragment it.
    let payload = [7; 1420 - 28];
    for vip in &fleet.vips {
        forget_path_mtus(&fleet);
        let from = Origin::Tunnel.address(Family::V4);
        let client = UdpClient::new(&fleet.client, from, socket(vip), Duration::from_secs(3));
        // The server is told once, and fragments what follows.
        let answers = (0..3).map(|_| client.ask(&payload)).collect::<Vec<_>>();
        assert!(answers[2].is_ok(), "{}: {answers:?}\n{}", vip.name, fleet.where_packets_were_lost());
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}

#[test]
fn a_client_whose_packet_does_not_fit_into_the_encapsulation_is_told_so() {
    let Some(world) = World::open() else { return };
    let vips = vec![
        service("ipip", "tcp", "10.100.0.10", Forward::Ipip, Family::V4),
        service("gre", "tcp", "10.100.0.11", Forward::Gre, Family::V6),
        service("gue", "tcp", "fd00:100::12", Forward::Gue, Family::V6),
    ];
    let fleet = FleetPlan::new(vips).build(&world);
    let _decapsulators = decapsulate(&fleet);
    let upload = world.folder().join("upload");
    std::fs::write(&upload, vec![b'x'; 300_000]).expect("the world's folder takes a file");
    let data = format!("@{}", upload.display());
    for vip in &fleet.vips {
        for origin in [Origin::Plain, Origin::DirectReturn, Origin::Tunnel] {
            let (from, url) = (origin.address(family(vip)).to_string(), format!("http://{}/", socket(vip)));
            let arguments =
                ["-sS", "-g", "--fail", "--noproxy", "*", "--max-time", "10", "--interface", &from, "--data-binary"];
            let sent = fleet.client.try_run("curl", &[&arguments[..], &[&data, &url]].concat());
            assert!(
                sent.as_ref().is_ok_and(|name| name.starts_with("server-")),
                "{} {origin:?}: {sent:?}\n{}",
                vip.name,
                fleet.where_packets_were_lost()
            );
        }
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}
