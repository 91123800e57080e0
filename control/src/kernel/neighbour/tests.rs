use jetway_pipelines::ids::PortId;

use super::*;
use crate::kernel::event::KernelEvent;
use crate::kernel::mirror::Mirror;
use crate::kernel::namespace::{Peer, in_namespace, index, ip};

const TWIN: Twin = Twin::Port(PortId(0));

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(1) + Duration::from_secs(seconds)
}

fn addr(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

#[test]
fn a_missing_neighbour_is_asked_for_once_a_second_however_many_packets_wait() {
    let mut schedule = NeighbourSchedule::default();
    for _ in 0..100 {
        schedule.note(NeighbourRequest::Missing(TWIN, addr(1)), at(0));
    }
    assert_eq!(schedule.due(at(0), 10), [(TWIN, addr(1))]);
    schedule.note(NeighbourRequest::Missing(TWIN, addr(1)), at(0));
    assert_eq!(schedule.due(at(0), 10), []);
    assert_eq!(schedule.due(at(1), 10), [(TWIN, addr(1))]);
    assert_eq!(schedule.due(at(2), 10), [], "nobody waits any more");
}

#[test]
fn a_stale_neighbour_is_asked_for_every_half_minute_while_it_is_in_use() {
    let mut schedule = NeighbourSchedule::default();
    schedule.note(NeighbourRequest::Observed(TWIN, addr(1), Some(NeighbourState::Stale)), at(0));
    assert_eq!(schedule.due(at(1), 10), [], "not in use");
    schedule.note(NeighbourRequest::Used(TWIN, addr(1)), at(1));
    assert_eq!(schedule.due(at(1), 10), [(TWIN, addr(1))]);
    assert_eq!(schedule.due(at(30), 10), []);
    assert_eq!(schedule.due(at(31), 10), [(TWIN, addr(1))]);
    assert_eq!(schedule.due(at(62), 10), [], "unused for a minute");
}

#[test]
fn a_neighbour_that_a_packet_waited_for_is_kept_fresh_until_the_kernel_loses_it() {
    let mut schedule = NeighbourSchedule::default();
    schedule.note(NeighbourRequest::Missing(TWIN, addr(1)), at(0));
    assert_eq!(schedule.due(at(0), 10), [(TWIN, addr(1))]);
    schedule.note(NeighbourRequest::Observed(TWIN, addr(1), Some(NeighbourState::Fresh)), at(0));
    assert_eq!(schedule.due(at(500), 10), []);
    schedule.forget_unused(at(500));
    schedule.note(NeighbourRequest::Observed(TWIN, addr(1), Some(NeighbourState::Stale)), at(501));
    assert_eq!(schedule.due(at(501), 10), [(TWIN, addr(1))]);
    assert_eq!(schedule.due(at(531), 10), [(TWIN, addr(1))]);
    schedule.note(NeighbourRequest::Observed(TWIN, addr(1), None), at(600));
    assert_eq!(schedule.due(at(600), 10), []);
    schedule.forget_unused(at(700));
    assert!(schedule.neighbours.is_empty());
}

#[test]
fn fresh_and_permanent_neighbours_are_left_alone() {
    let mut schedule = NeighbourSchedule::default();
    for (last, state) in [(1, NeighbourState::Fresh), (2, NeighbourState::Permanent)] {
        schedule.note(NeighbourRequest::Used(TWIN, addr(last)), at(0));
        schedule.note(NeighbourRequest::Observed(TWIN, addr(last), Some(state)), at(0));
    }
    assert_eq!(schedule.due(at(1), 10), []);
}

#[test]
fn a_scan_of_the_network_costs_bounded_memory_and_bounded_questions_a_turn() {
    let mut schedule = NeighbourSchedule::default();
    for number in 0..100_000_u32 {
        let scanned = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
        schedule.note(NeighbourRequest::Missing(TWIN, scanned), at(0));
    }
    assert_eq!(schedule.neighbours.len(), CAPACITY);
    assert_eq!(schedule.due(at(0), TURN).len(), TURN);
    schedule.forget_unused(at(100));
    assert_eq!(schedule.neighbours.len(), 0);
}

#[test]
fn the_kernel_resolves_a_neighbour_that_we_ask_for_and_the_mirror_tells_its_address() {
    in_namespace(|| async {
        let peer = Peer::with_veth("jw-test", "peer");
        ip("addr add 192.0.2.1/24 dev jw-test");
        ip("addr add 2001:db8::1/64 dev jw-test nodad");
        peer.ip("addr add 192.0.2.2/24 dev peer");
        peer.ip("addr add 2001:db8::2/64 dev peer nodad");
        peer.ip("link set peer address 02:00:00:00:00:99");
        let (_interfaces, watched) = watch::channel(Interfaces::from_iter([(index("jw-test"), TWIN)]));
        let (sender, mut events) = mpsc::channel(16);
        tokio::spawn(Mirror::open(watched.clone()).unwrap().run(sender));
        let (requests, requested) = mpsc::channel(16);
        tokio::spawn(NeighbourKeeper::open(watched).unwrap().run(requested));
        for wanted in [addr(2), "2001:db8::2".parse().unwrap()] {
            requests.send(NeighbourRequest::Missing(TWIN, wanted)).await.unwrap();
            let found = async {
                loop {
                    match events.recv().await.unwrap() {
                        KernelEvent::NeighbourUp { addr, mac, .. } if addr == wanted => break mac,
                        _ => {}
                    }
                }
            };
            let mac = tokio::time::timeout(Duration::from_secs(5), found).await.expect("no answer in 5 s");
            assert_eq!(mac, [2, 0, 0, 0, 0, 0x99]);
        }
    });
}
