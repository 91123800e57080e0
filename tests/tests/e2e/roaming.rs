//! A client that moves: to another port, to another address, in the middle of a transfer.

use jetway_tests::world::{
    Attachment, Gateway, HttpServer, Iperf3Server, LISTEN_PORT, Ping, SiteBuilder, Transport, Way, World, download,
    iperf3, wait_until,
};
use std::time::Duration;

#[track_caller]
fn keeps_its_transfer(attachment: Attachment) {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(attachment).build(&world);
    let _server = Iperf3Server::start(&world, &site.server);
    let ping = Ping::to("192.0.2.2").count(2100).every(Duration::from_millis(10)).start(&world, &site.client);
    site.peer.wait_for_handshake(Duration::from_secs(30));

    // A TCP stream that breaks ends iperf3 with an error, which `iperf3` turns into a failure.
    let report = std::thread::scope(|scope| {
        let stream = scope.spawn(|| iperf3(&site.client, "192.0.2.2", Transport::Tcp, Way::Down, 20));
        let another_megabyte = || {
            let before = site.peer.peers()[0].received;
            wait_until("another megabyte has come", Duration::from_secs(30), || {
                site.peer.peers()[0].received > before + 1_000_000
            });
        };
        another_megabyte();
        site.peer.wg(&["set", site.peer.interface(), "listen-port", "40001"]);
        another_megabyte();
        // The old address goes first: what the node still sends there is lost, as behind a NAT that has moved.
        site.client.ip(&["addr del 198.51.100.2/24 dev eth0"]);
        // wireguard-go speaks from the address at which it was last spoken to, until it binds anew, as apps have it do when a network
        // goes. A packet that it takes in after that would have it speak from the old one again, for 15 s.
        let (mut before, mut times) = (0, 0);
        wait_until("wireguard-go has taken in all that had come", Duration::from_secs(30), || {
            let received = site.peer.peers()[0].received;
            times = if received == before { times + 1 } else { 0 };
            before = received;
            times == 5
        });
        site.client.ip(&["addr add 198.51.100.77/24 dev eth0"]);
        site.peer.wg(&["set", site.peer.interface(), "listen-port", "40002"]);
        another_megabyte();
        stream.join().expect("the stream was not reset")
    });
    assert!(report.bits_per_second > 5e6, "{report:?}");
    let report = ping.finish();
    assert!(
        report.longest_silence < Duration::from_secs(2),
        "silence of {:?}\n{}",
        report.longest_silence,
        report.output
    );
    if site.is_jetway() {
        let tunnel = site.tunnel().to_owned();
        let endpoint = site.jetway().wg_peers(&tunnel)[0].endpoint.clone();
        assert_eq!(endpoint.as_deref(), Some("198.51.100.77:40002"));
    }
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn a_client_moves_to_another_port_and_address_without_a_reset_over_af_packet() {
    keeps_its_transfer(Attachment::AfPacket);
}

#[test]
fn a_client_moves_to_another_port_and_address_without_a_reset_over_tap() {
    keeps_its_transfer(Attachment::Tap);
}

#[test]
fn a_client_moves_from_ipv4_to_ipv6() {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder::new(Attachment::AfPacket).build(&world);
    let http = HttpServer::start(&world, &site.server, 8080, 100_000);
    let file = world.folder().join("downloaded");
    for endpoint in [format!("198.51.100.1:{LISTEN_PORT}"), format!("[2001:db8:100::1]:{LISTEN_PORT}")] {
        let key = site.config.tunnels[0].key.public.clone();
        site.peer.wg(&["set", site.peer.interface(), "peer", &key, "endpoint", &endpoint]);
        download(&site.client, "http://192.0.2.2:8080/data", &file, Duration::from_secs(10))
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(std::fs::read(&file).unwrap() == std::fs::read(http.data()).unwrap());
    }
    if site.plan.gateway == Gateway::Jetway {
        let tunnel = site.tunnel().to_owned();
        let endpoint = site.jetway().wg_peers(&tunnel)[0].endpoint.clone().expect("it was heard from");
        assert!(endpoint.starts_with("[2001:db8:100::2]:"), "{endpoint}");
    }
    site.assert_every_packet_is_accounted_for();
}
