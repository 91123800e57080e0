//! Two workers on two queues: packets that land on the wrong one, and the order within each flow.

use jetway_tests::world::{
    Attachment, Iperf3Server, Ping, Site, SiteBuilder, Transport, Way, World, iperf3, iperf3_with, wait_until,
};
use std::time::Duration;

const SERVER: &str = "192.0.2.2";
const FLOWS: &str = "8";

/// How many of twenty packets must land on the wrong worker.
///
/// A packet socket keeps a flow where its hash says. A TAP device learns from each packet that the node transmits to which
/// queue the flow's next one goes, so that only the first after a move is wrong.
fn least_handed_off(attachment: Attachment) -> u64 {
    match attachment {
        Attachment::AfPacket => 20,
        Attachment::Tap => 1,
    }
}

/// Moves the client to other ports until its packets arrive at a worker that is not the home of its session.
#[track_caller]
fn land_on_the_wrong_worker(world: &World, site: &mut Site) {
    let mut port = 40_000;
    let least = least_handed_off(site.plan.wan);
    wait_until("packets land on the wrong worker", Duration::from_secs(60), || {
        port += 1;
        site.peer.wg(&["set", site.peer.interface(), "listen-port", &port.to_string()]);
        let before = site.jetway().stats().sum("handed_off");
        Ping::to(SERVER).count(20).run(world, &site.client);
        site.jetway().stats().sum("handed_off") >= before + least
    });
}

#[track_caller]
fn keeps_order_on_two_workers(attachment: Attachment) {
    let Some(world) = World::open() else { return };
    let mut site = SiteBuilder { cores: vec![0, 1], ..SiteBuilder::new(attachment) }.build(&world);
    let _server = Iperf3Server::start(&world, &site.server);
    let report = Ping::to(SERVER).count(200).every(Duration::from_millis(5)).run(&world, &site.client);
    assert_eq!(report.lost(), 0, "{}", report.output);
    land_on_the_wrong_worker(&world, &mut site);

    for way in [Way::Up, Way::Down] {
        let overflows = site.receive_buffer_overflows();
        let udp =
            iperf3_with(&site.client, SERVER, Transport::Udp { rate: 2_000_000, size: 400 }, way, 3, &["-P", FLOWS]);
        let lost = format!("{way:?}: {udp:?}");
        assert!(udp.datagrams > 5_000 && udp.out_of_order == 0, "{lost}");
        let lost_on_the_way = udp.lost.saturating_sub(site.receive_buffer_overflows() - overflows);
        assert!(lost_on_the_way * 100 <= udp.datagrams, "{lost}\n{}", site.where_packets_were_lost());
        let tcp = iperf3(&site.client, SERVER, Transport::Tcp, way, 3);
        assert!(tcp.bits_per_second > 20e6, "{way:?}: {tcp:?}");
    }
    let stats = site.jetway().stats();
    if attachment == Attachment::AfPacket {
        // Packets from so many flows of the server are spread over both queues, and sealed where they arrive.
        assert!(stats.by_worker("sealed").iter().all(|&packets| packets > 100), "{:?}", stats.by_worker("sealed"));
    }
    assert_eq!(stats.sum("handed_off"), stats.sum("taken_over"));
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn two_workers_deliver_all_and_in_order_over_af_packet() {
    keeps_order_on_two_workers(Attachment::AfPacket);
}

#[test]
fn two_workers_deliver_all_and_in_order_over_tap() {
    keeps_order_on_two_workers(Attachment::Tap);
}
