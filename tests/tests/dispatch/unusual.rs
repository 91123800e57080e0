//! What a network engineer tries: traceroute, IPv6 extension headers, tagged frames, traffic classes.

use crate::echoes::{ECHO, decapsulate, family, service, socket, start_echoes};
use jetway_tests::world::{
    Ask, Attachment, Capture, Family, FleetPlan, Forward, Origin, PYTHON, UdpClient, VipConfig, World, backends,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long an answer may take: on a machine with much else to do it is late, and not lost.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn traceroute_ends_at_the_service_and_sees_the_node() {
    let Some(world) = World::open() else { return };
    let vips = vec![
        service("nat4", "tcp", "10.100.0.10", Forward::Nat, Family::V4),
        service("l24", "tcp", "10.100.0.11", Forward::L2, Family::V4),
        service("nat6", "tcp", "fd00:100::10", Forward::Nat, Family::V6),
        service("echo4", "udp", "10.100.0.12", Forward::Nat, Family::V4),
    ];
    let fleet = FleetPlan::new(vips).build(&world);
    let _echoes = start_echoes(&fleet);
    for vip in &fleet.vips {
        for origin in [Origin::Plain, Origin::Tunnel] {
            let source = origin.address(family(vip)).to_string();
            let node = match (origin, family(vip)) {
                (Origin::Tunnel, Family::V4) => "10.8.0.1",
                (Origin::Tunnel, Family::V6) => "fd00:8::1",
                (_, Family::V4) => "198.51.100.1",
                (_, Family::V6) => "2001:db8:100::1",
            };
            let port = vip.port.to_string();
            let kinds: &[&[&str]] = match vip.protocol {
                // Datagrams to ports on which nothing listens end at the node itself, which bears the service's address.
                "tcp" => &[&["-T", "-p", &port], &[]],
                _ => &[&["-U", "-p", &port]],
            };
            for kind in kinds {
                let seconds = PATIENCE.as_secs().to_string();
                // One probe at a time: a kernel answers only a few datagrams a second to ports on which nothing listens.
                let common = ["-n", "-N", "1", "-q", "1", "-w", &seconds, "-m", "6", "-s", &source];
                let arguments = [&common[..], kind, &[&vip.address]].concat();
                let output = fleet.client.run("traceroute", &arguments);
                let hops: Vec<&str> =
                    output.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
                let expected: &[&str] = if kind.is_empty() { &[&vip.address] } else { &[node, &vip.address] };
                assert_eq!(
                    hops,
                    expected,
                    "{} {origin:?} {kind:?}:\n{output}{}",
                    vip.name,
                    fleet.where_packets_were_lost()
                );
            }
        }
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}

/// Sends a datagram with the given IPv6 options (as Python's socket module calls them) and prints who answered.
const WITH_OPTIONS: &str = "
import socket, sys
source, target, port, options, patience = sys.argv[1:]
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind((source, 0))
s.settimeout(float(patience))
pad = bytes([0, 0, 1, 4, 0, 0, 0, 0])
for option in options.split():
    s.setsockopt(socket.IPPROTO_IPV6, getattr(socket, option), pad)
s.sendto(b'hello', (target, int(port)))
print(s.recv(2000).decode())
";

#[test]
fn datagrams_with_ipv6_extension_headers_reach_their_server() {
    let Some(world) = World::open() else { return };
    let vips = vec![
        service("nat", "udp", "fd00:100::10", Forward::Nat, Family::V6),
        service("l2", "udp", "fd00:100::11", Forward::L2, Family::V6),
        service("gre", "udp", "fd00:100::12", Forward::Gre, Family::V4),
    ];
    let fleet = FleetPlan::new(vips).build(&world);
    let (_echoes, _decapsulators) = (start_echoes(&fleet), decapsulate(&fleet));
    let port = ECHO.to_string();
    for vip in &fleet.vips {
        for origin in [Origin::Plain, Origin::Tunnel] {
            let source = origin.address(Family::V6).to_string();
            for options in ["IPV6_DSTOPTS", "IPV6_HOPOPTS", "IPV6_HOPOPTS IPV6_DSTOPTS"] {
                let patience = PATIENCE.as_secs().to_string();
                let arguments = ["-c", WITH_OPTIONS, &source, &vip.address, &port, options, &patience];
                let answer = fleet.client.try_run(PYTHON, &arguments);
                assert!(
                    answer.as_ref().is_ok_and(|answer| answer.ends_with("|hello\n")),
                    "{} {origin:?} {options}: {answer:?}\n{}",
                    vip.name,
                    fleet.where_packets_were_lost()
                );
            }
        }
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}

/// Sends a datagram in a frame with an 802.1Q tag; prints who answered, or `nobody`.
const TAGGED: &str = "
import socket, struct, sys
vlan, target_mac, source, target, port, patience = sys.argv[1:]
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total > 0xffff: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
answers.bind((source, 0))
answers.settimeout(float(patience))
datagram = struct.pack('!HHHH', answers.getsockname()[1], int(port), 8 + 5, 0) + b'hello'
head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(datagram), 1, 0x4000, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
head = head[:10] + struct.pack('!H', checksum(head)) + head[12:]
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(('eth0', 0))
mac = bytes.fromhex(target_mac.replace(':', ''))
tag = struct.pack('!HH', 0x8100, 5 << 13 | int(vlan))
raw.send(mac + raw.getsockname()[4] + tag + b'\\x08\\x00' + head + datagram)
try: print(answers.recv(2000).decode())
except TimeoutError: print('nobody')
";

#[track_caller]
fn tagged_frames_are_told_apart(attachment: Attachment) {
    let Some(world) = World::open() else { return };
    let vips = vec![service("echo", "udp", "10.100.0.10", Forward::Nat, Family::V4)];
    let fleet = FleetPlan { wan: attachment, ..FleetPlan::new(vips) }.build(&world);
    let _echoes = start_echoes(&fleet);
    let from = Origin::Plain.address(Family::V4);
    let client = UdpClient::new(&fleet.client, from, socket(&fleet.vips[0]), PATIENCE);
    client.ask(b"hello").unwrap_or_else(|error| panic!("{error}\n{}", fleet.where_packets_were_lost()));
    let neighbours = fleet.client.run("ip", &["neigh", "show", "198.51.100.1"]);
    let mac = neighbours.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).expect("it was just used");
    let port = ECHO.to_string();
    let ask = |vlan: &str, patience: Duration| {
        let patience = patience.as_secs().to_string();
        let arguments = ["-c", TAGGED, vlan, mac, &from.to_string(), &fleet.vips[0].address, &port, &patience];
        fleet.client.run(PYTHON, &arguments)
    };
    // A tag of VLAN 0 only tells a priority (IEEE 802.1Q): the frame belongs to the port's own network.
    let answer = ask("0", PATIENCE);
    assert!(answer.ends_with("|hello\n"), "priority tag: {answer}\n{}", fleet.where_packets_were_lost());
    // Another VLAN is another network, of which the node knows nothing.
    assert_eq!(ask("100", Duration::from_secs(2)), "nobody\n", "{}", fleet.where_packets_were_lost());
    fleet.jetway.assert_every_packet_is_accounted_for();
}

#[test]
fn a_priority_tag_changes_nothing_and_another_vlan_is_another_network_over_af_packet() {
    tagged_frames_are_told_apart(Attachment::AfPacket);
}

#[test]
fn a_priority_tag_changes_nothing_and_another_vlan_is_another_network_over_tap() {
    tagged_frames_are_told_apart(Attachment::Tap);
}

/// What tshark says of one encapsulated packet.
struct Frame {
    addresses: (Vec<String>, Vec<String>),
    hops: Vec<String>,
    classes: Vec<String>,
    source_port: String,
}

#[test]
fn encapsulated_packets_are_what_their_rfcs_say() {
    let Some(world) = World::open() else { return };
    let vips = vec![
        service("ipip", "udp", "10.100.0.10", Forward::Ipip, Family::V4),
        service("gre", "udp", "10.100.0.11", Forward::Gre, Family::V4),
        service("gue", "udp", "10.100.0.12", Forward::Gue, Family::V4),
    ];
    let one_server = |vip: VipConfig| VipConfig { backends: backends(1..=1, Family::V4), ..vip };
    let fleet = FleetPlan { servers: 1, ..FleetPlan::new(vips.into_iter().map(one_server).collect()) }.build(&world);
    let (_echoes, _decapsulators) = (start_echoes(&fleet), decapsulate(&fleet));
    // EF and ECT(0): the one is to be seen on the way (RFC 2983, uniform model), the other to be marked (RFC 6040).
    const CLASS: u32 = 46 << 2 | 2;
    for vip in &fleet.vips {
        let filter = "ip proto 4 or ip proto 47 or udp port 6080";
        let capture = Capture::start(&world, &fleet.servers[0].namespace, "eth0", filter);
        let from = Origin::DirectReturn.address(Family::V4);
        for _ in 0..30 {
            let client = UdpClient::new(&fleet.client, from, socket(vip), PATIENCE);
            socket2::SockRef::from(client.socket()).set_tos_v4(CLASS).expect("root may");
            for _ in 0..2 {
                client.ask(b"hello").unwrap_or_else(|error| panic!("{error}\n{}", fleet.where_packets_were_lost()));
            }
        }
        let fields = [
            "ip.src",
            "ip.dst",
            "ip.proto",
            "ip.ttl",
            "ip.dsfield",
            "ip.checksum.status",
            "udp.srcport",
            "udp.checksum.status",
            "gre.flags_and_version",
            "gre.proto",
            "udp.dstport",
        ];
        let rows = capture.finish("ip", &fields);
        assert_eq!(rows.len(), 60, "{}: {rows:?}", vip.name);
        let mut ports = BTreeSet::new();
        for row in &rows {
            let list = |field: usize| row[field].split(',').map(str::to_owned).collect::<Vec<String>>();
            let service = vip.address.clone();
            let frame = Frame {
                addresses: (list(0), list(1)),
                hops: list(3),
                classes: list(4),
                source_port: list(6)[0].clone(),
            };
            let sources = ["192.0.2.1".to_owned(), from.to_string()];
            assert_eq!(frame.addresses, (sources.into(), vec!["192.0.2.11".to_owned(), service]), "{row:?}");
            let outer = match vip.forward {
                Forward::Gre => ["47", "17"],
                Forward::Gue => ["17", "17"],
                Forward::Nat | Forward::L2 | Forward::Ipip => ["4", "17"],
            };
            assert_eq!(list(2), outer, "{row:?}");
            // The inner packet was forwarded once; the outer one is new.
            assert_eq!(frame.hops, ["64", "63"], "{row:?}");
            assert_eq!(frame.classes, ["0xba", "0xba"], "{row:?}");
            assert_eq!(list(5), ["1", "1"], "a header checksum is wrong: {row:?}");
            match vip.forward {
                Forward::Gre => {
                    assert_eq!((row[8].as_str(), row[9].as_str()), ("0x0000", "0x0800"), "{row:?}");
                }
                Forward::Gue => {
                    assert_eq!(list(10)[0], "6080", "{row:?}");
                    // Over IPv4 a checksum of 0 is none (RFC 768), which tshark calls not present (3).
                    assert!(list(7)[0] == "1" || list(7)[0] == "3", "{row:?}");
                    ports.insert(frame.source_port);
                }
                Forward::Nat | Forward::L2 | Forward::Ipip => {}
            }
        }
        if vip.forward == Forward::Gue {
            println!("GUE: {} source ports for 30 flows", ports.len());
            assert!((25..=30).contains(&ports.len()), "30 flows had {} source ports: {ports:?}", ports.len());
            let dynamic = |port: &String| port.parse::<u16>().is_ok_and(|port| port >= 49_152);
            assert!(ports.iter().all(dynamic), "{ports:?}");
        }
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}

#[test]
fn a_server_is_still_reached_at_its_own_address() {
    let Some(world) = World::open() else { return };
    let vips = vec![
        service("nat", "tcp", "10.100.0.10", Forward::Nat, Family::V4),
        service("l2", "tcp", "10.100.0.11", Forward::L2, Family::V4),
    ];
    let fleet = FleetPlan::new(vips).build(&world);
    for origin in [Origin::Tunnel, Origin::Plain] {
        let from = origin.address(Family::V4);
        for target in ["10.100.0.10:80", "192.0.2.11:80", "10.100.0.11:80", "192.0.2.11:80", "10.100.0.10:80"] {
            let ask = Ask { from, to: target.parse().expect("a socket"), patience: PATIENCE };
            let answer = fleet.client.inside(|| ask.once());
            let lost = || fleet.where_packets_were_lost();
            assert!(answer.is_ok(), "{target} {origin:?}: {answer:?}\n{}", lost());
        }
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}
