//! What every user needs: handshakes, both IP versions inside and outside, every size, TCP and UDP.

use jetway_tests::world::{
    Attachment, HttpServer, Initiator, Iperf3Server, Outer, Ping, Site, SiteBuilder, Transport, Way, World, download,
    iperf3, preshared_key,
};
use std::time::Duration;

const SERVER_V4: &str = "192.0.2.2";
const SERVER_V6: &str = "2001:db8:2::2";
/// 1,000 packets at 200 a second.
const STEADY: (u32, Duration) = (1_000, Duration::from_millis(5));

#[track_caller]
fn assert_no_ping_lost(world: &World, site: &mut Site, target: &str, (count, interval): (u32, Duration)) {
    let report = Ping::to(target).count(count).every(interval).run(world, &site.client);
    if (report.sent, report.lost(), report.duplicates) != (count, 0, 0) {
        panic!("{}{}", report.output, site.where_packets_were_lost());
    }
}

/// A thousand pings to each of the server's addresses, over one IP version outside.
#[track_caller]
fn carries_both_versions(plan: SiteBuilder) {
    let Some(world) = World::open() else { return };
    let mut site = plan.build(&world);
    assert_no_ping_lost(&world, &mut site, SERVER_V4, STEADY);
    assert_no_ping_lost(&world, &mut site, SERVER_V6, STEADY);
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn both_ip_versions_pass_inside_ipv4_over_af_packet() {
    carries_both_versions(SiteBuilder::new(Attachment::AfPacket));
}

#[test]
fn both_ip_versions_pass_inside_ipv6_over_af_packet() {
    carries_both_versions(SiteBuilder { outer: Outer::V6, ..SiteBuilder::new(Attachment::AfPacket) });
}

#[test]
fn both_ip_versions_pass_inside_ipv4_over_tap() {
    carries_both_versions(SiteBuilder::new(Attachment::Tap));
}

#[test]
fn both_ip_versions_pass_inside_ipv6_over_tap() {
    carries_both_versions(SiteBuilder { outer: Outer::V6, ..SiteBuilder::new(Attachment::Tap) });
}

#[test]
fn ports_of_different_kinds_work_together() {
    carries_both_versions(SiteBuilder { lan: Attachment::Tap, ..SiteBuilder::new(Attachment::AfPacket) });
    carries_both_versions(SiteBuilder { lan: Attachment::AfPacket, ..SiteBuilder::new(Attachment::Tap) });
}

#[test]
fn the_node_begins_when_it_knows_the_clients_endpoint() {
    let Some(world) = World::open() else { return };
    for outer in [Outer::V4, Outer::V6] {
        let plan = SiteBuilder { outer, initiator: Initiator::Node, ..SiteBuilder::new(Attachment::AfPacket) };
        let mut site = plan.build(&world);
        let report = Ping::to("10.8.0.2").count(200).every(Duration::from_millis(5)).run(&world, &site.server);
        assert_eq!(report.lost(), 0, "{}", report.output);
        site.assert_every_packet_is_accounted_for();
    }
}

#[test]
fn a_preshared_key_must_match() {
    let Some(world) = World::open() else { return };
    let key = preshared_key();
    let plan = SiteBuilder { preshared_key: Some(key), ..SiteBuilder::new(Attachment::AfPacket) };
    let mut site = plan.build(&world);
    assert_no_ping_lost(&world, &mut site, SERVER_V4, (50, Duration::from_millis(10)));

    let wrong = world.secret_file("wrong.psk", &preshared_key());
    let (interface, node) = (site.peer.interface().to_owned(), site.config.tunnels[0].key.public.clone());
    site.peer.wg(&["set", &interface, "peer", &node, "remove"]);
    let endpoint = site.node_endpoint();
    site.peer.wg(&[
        "set",
        &interface,
        "peer",
        &node,
        "preshared-key",
        &wrong.to_string_lossy(),
        "endpoint",
        &endpoint,
        "allowed-ips",
        "192.0.2.0/24",
    ]);
    let report = Ping::to(SERVER_V4).count(5).every(Duration::from_millis(200)).run(&world, &site.client);
    assert_eq!(report.answered, 0, "{}", report.output);
    assert_eq!(site.peer.peers()[0].handshake_age, None, "a handshake with a wrong preshared key was completed");
}

#[test]
fn persistent_keepalives_hold_the_session_from_the_first_second() {
    let Some(world) = World::open() else { return };
    let plan = SiteBuilder { persistent_keepalive: Some(1), ..SiteBuilder::new(Attachment::AfPacket) };
    let site = plan.build(&world);
    site.peer.wait_for_handshake(Duration::from_secs(30));
    let before = site.peer.peers()[0].sent;
    jetway_tests::world::wait_until("three keepalives of 32 bytes are sent", Duration::from_secs(10), || {
        site.peer.peers()[0].sent >= before + 3 * 32
    });
}

#[test]
fn the_node_itself_answers_inside_the_tunnel_and_on_its_ports() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    for target in ["10.8.0.1", "fd00:8::1", "192.0.2.1", "198.51.100.1", "2001:db8:100::1"] {
        assert_no_ping_lost(&world, &mut site, target, (20, Duration::from_millis(10)));
    }
    site.assert_every_packet_is_accounted_for();
}

#[track_caller]
fn carries_streams(attachment: Attachment) {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(attachment).build(&world);
    let _server = Iperf3Server::start(&world, &site.server);
    for way in [Way::Up, Way::Down] {
        for target in [SERVER_V4, SERVER_V6] {
            let tcp = iperf3(&site.client, target, Transport::Tcp, way, 3);
            assert!(tcp.bits_per_second > 20e6, "TCP {way:?} to {target} at {tcp:?}");
        }
        let overflows = site.receive_buffer_overflows();
        let udp = iperf3(&site.client, SERVER_V4, Transport::Udp { rate: 10_000_000, size: 1300 }, way, 3);
        let lost_on_the_way = udp.lost.saturating_sub(site.receive_buffer_overflows() - overflows);
        if udp.datagrams < 2_000 || lost_on_the_way * 100 > udp.datagrams {
            panic!("UDP {way:?}: {udp:?}\n{}", site.where_packets_were_lost());
        }
    }
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn tcp_and_udp_streams_run_both_ways_over_af_packet() {
    carries_streams(Attachment::AfPacket);
}

#[test]
fn tcp_and_udp_streams_run_both_ways_over_tap() {
    carries_streams(Attachment::Tap);
}

#[test]
fn every_size_up_to_the_tunnels_mtu_passes_whole() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    // The tunnel carries packets of 1,420 bytes: less the headers of IP and ICMP.
    for (target, largest) in [(SERVER_V4, 1420 - 28), (SERVER_V6, 1420 - 48)] {
        let sizes = (0..largest).step_by(29).chain([largest - 1, largest]);
        for size in sizes {
            let report = Ping::to(target).count(2).unfragmented(size).run(&world, &site.client);
            if report.lost() > 0 {
                panic!("{}{}", report.output, site.where_packets_were_lost());
            }
        }
    }
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn a_packet_one_byte_too_large_is_refused_with_the_mtu_that_fits() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    assert_no_ping_lost(&world, &mut site, SERVER_V4, (3, Duration::from_millis(10)));
    // The server does not know the tunnel's MTU: its link takes 1,500 bytes.
    let too_big = Ping::to("10.8.0.2").count(2).every(Duration::from_millis(300)).unfragmented(1421 - 28);
    let report = too_big.run(&world, &site.server);
    assert!(report.output.contains("mtu = 1420") || report.output.contains("mtu=1420"), "{}", report.output);
    let too_big = Ping::to("fd00:8::2").count(2).every(Duration::from_millis(300)).unfragmented(1421 - 48);
    let report = too_big.run(&world, &site.server);
    assert!(report.output.contains("mtu = 1420") || report.output.contains("mtu=1420"), "{}", report.output);
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn tcp_to_a_server_that_never_hears_of_the_mtu_works_by_clamping() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    if !site.is_jetway() {
        return;
    }
    // A firewall in front of the server swallows what would tell it, as many do.
    site.server.run("nft", &["table inet blind { chain input { type filter hook input priority 0; icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; }; }"]);
    let http = HttpServer::start(&world, &site.server, 8080, 3_000_000);
    for host in [SERVER_V4, &format!("[{SERVER_V6}]")] {
        let file = world.folder().join("downloaded");
        // The client's end is told 1,500, so that nothing but the node lowers the segment size.
        site.client.ip(&[&format!("link set {} mtu 1500", site.peer.interface())]);
        download(&site.client, &format!("http://{host}:8080/data"), &file, Duration::from_secs(20))
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(std::fs::read(&file).unwrap() == std::fs::read(http.data()).unwrap(), "the file from {host} differs");
    }
    site.assert_every_packet_is_accounted_for();
}
