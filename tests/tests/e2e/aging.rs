//! Sessions that grow old are replaced under traffic.

use jetway_tests::world::{Attachment, Initiator, Ping, SiteBuilder, World};
use std::time::Duration;

/// Past REKEY_AFTER_TIME (120 s) with time to spare on both sides.
const LONGER_THAN_A_SESSION: Duration = Duration::from_secs(135);

/// Both ends send, so that whoever initiated rekeys by its own timer.
#[track_caller]
fn loses_nothing_across_a_rekey(plan: SiteBuilder) {
    let Some(world) = World::open() else { return };
    let mut site = plan.build(&world);
    let interval = Duration::from_millis(20);
    let count = (LONGER_THAN_A_SESSION.as_millis() / interval.as_millis()) as u32;
    let from_client = Ping::to("192.0.2.2").count(count).every(interval);
    let from_server = Ping::to("10.8.0.2").count(count).every(interval);
    // The side that knows where the other is begins.
    let (first, second) = match site.plan.initiator {
        Initiator::Client => ((from_client, &site.client), (from_server, &site.server)),
        Initiator::Node => ((from_server, &site.server), (from_client, &site.client)),
    };
    let first = first.0.start(&world, first.1);
    site.peer.wait_for_handshake(Duration::from_secs(30));
    let second = second.0.start(&world, second.1);
    for report in [first.finish(), second.finish()] {
        assert_eq!((report.sent, report.lost(), report.duplicates), (count, 0, 0), "{}", report.output);
    }
    let age = site.peer.peers()[0].handshake_age.expect("there was a handshake");
    assert!(age < Duration::from_secs(60), "no rekey: the last handshake is {age:?} old");
    site.assert_every_packet_is_accounted_for();
}

#[test]
fn steady_traffic_crosses_a_rekey_of_the_client_over_af_packet() {
    loses_nothing_across_a_rekey(SiteBuilder::new(Attachment::AfPacket));
}

#[test]
fn steady_traffic_crosses_a_rekey_of_the_node_over_tap() {
    loses_nothing_across_a_rekey(SiteBuilder { initiator: Initiator::Node, ..SiteBuilder::new(Attachment::Tap) });
}
