//! Servers die, are drained, come and change their weight under load, and no client of another server notices.

use jetway_tests::world::{
    Ask, Family, Fleet, FleetPlan, Forward, Kept, KeptConnections, Origin, Request, RequestStream, VipConfig, World,
    answers, backends, failures, wait_until,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SERVICE: &str = "10.100.0.10";
/// Long connections beside the stream of requests.
const KEPT: usize = 30;

fn service(servers: impl IntoIterator<Item = usize>) -> VipConfig {
    VipConfig {
        name: "web".into(),
        address: SERVICE.into(),
        port: 80,
        protocol: "tcp",
        forward: Forward::Nat,
        backends: backends(servers, Family::V4),
        // What a configuration has that says nothing else: 5 s, three failures.
        more: vec!["health = { kind = \"tcp\" }".into()],
    }
}

/// `patience` is long where nothing may fail, since a machine with much else to do is late, and short where what waits for a
/// dead server is to end.
fn way(origin: Origin, patience: Duration) -> Ask {
    let to = format!("{SERVICE}:80").parse().expect("an address");
    Ask { from: origin.address(Family::V4), to, patience }
}

const PATIENT: Duration = Duration::from_secs(10);
const IMPATIENT: Duration = Duration::from_secs(2);

/// A load of requests and kept connections, through the tunnel and in clear.
struct Load {
    streams: Vec<RequestStream>,
    kept: Vec<KeptConnections>,
}

impl Load {
    #[track_caller]
    fn start(fleet: &Fleet, patience: Duration) -> Self {
        let ways = [Origin::Tunnel, Origin::Plain].map(|origin| way(origin, patience));
        let kept = ways.map(|way| KeptConnections::open(&fleet.client, way, KEPT)).into();
        let pause = Duration::from_millis(4);
        let streams = ways.map(|way| RequestStream::start(&fleet.client, way, 2, pause)).into();
        Load { streams, kept }
    }

    /// Lets it go on for so long, and until so many more requests have ended.
    #[track_caller]
    fn go_on(&self, time: Duration, requests: usize) {
        let ended = || self.streams.iter().map(RequestStream::ended).sum::<usize>();
        let before = ended();
        std::thread::sleep(time);
        wait_until("enough requests have ended", Duration::from_secs(60), || ended() - before >= requests);
    }

    #[track_caller]
    fn finish(self) -> (Vec<Request>, Vec<Kept>) {
        let requests = self.streams.into_iter().flat_map(RequestStream::finish).collect();
        (requests, self.kept.into_iter().flat_map(KeptConnections::finish).collect())
    }
}

/// Runs `event` in the midst of a load.
#[track_caller]
fn under_load<T>(
    fleet: &mut Fleet,
    patience: Duration,
    event: impl FnOnce(&mut Fleet) -> T,
) -> (Vec<Request>, Vec<Kept>, T) {
    let load = Load::start(fleet, patience);
    // Shares are told from these: chance is a few in a hundred of so many.
    load.go_on(Duration::from_secs(1), 200);
    let result = event(fleet);
    load.go_on(Duration::from_secs(2), 800);
    let (requests, kept) = load.finish();
    (requests, kept, result)
}

#[track_caller]
fn assert_nothing_broke(fleet: &Fleet, requests: &[Request], kept: &[Kept]) {
    let failed = failures(requests);
    let broken: Vec<&Kept> = kept.iter().filter(|kept| kept.broken.is_some()).collect();
    println!(
        "{} requests, {} failed; {} kept connections, {} broken",
        requests.len(),
        failed.len(),
        kept.len(),
        broken.len()
    );
    if !failed.is_empty() || !broken.is_empty() {
        let shown = &failed[..failed.len().min(5)];
        panic!("failed: {shown:?}\nbroken: {broken:?}\n{}", fleet.where_packets_were_lost());
    }
}

fn answers_after(requests: &[Request], when: Instant) -> BTreeMap<String, usize> {
    let later: Vec<Request> = requests.iter().filter(|request| request.began > when).cloned().collect();
    answers(&later)
}

#[track_caller]
fn is_found_down_within(limit: Duration, patience: Duration, strike: impl FnOnce(&mut Fleet)) {
    let Some(world) = World::open() else { return };
    let mut fleet = FleetPlan::new(vec![service(1..=3)]).build(&world);
    let (requests, kept, struck) = under_load(&mut fleet, patience, |fleet| {
        let now = Instant::now();
        strike(fleet);
        std::thread::sleep(limit);
        now
    });
    let before: Vec<Request> = requests.iter().filter(|request| request.ended < struck).cloned().collect();
    assert!(failures(&before).is_empty() && answers(&before).len() == 3, "before: {:?}", answers(&before));
    let failed = failures(&requests);
    let last = failed.iter().map(|request| request.began).max().unwrap_or(struck);
    let found = last.saturating_duration_since(struck);
    let broken: Vec<&Kept> = kept.iter().filter(|kept| kept.broken.is_some()).collect();
    let others = broken.iter().filter(|kept| kept.server != "server-2").count();
    let answered = requests.iter().filter(|request| request.began > struck && request.answer.is_ok());
    let longest = answered.map(|request| request.ended - request.began).max().unwrap_or_default();
    println!(
        "the last request that failed began {found:?} after the server died, the slowest that was answered took \
         {longest:?}; {} of {} requests failed; {} of {} kept connections broke, {others} of them of other servers",
        failed.len(),
        requests.len(),
        broken.len(),
        kept.len()
    );
    assert_eq!(others, 0, "connections of other servers broke: {broken:?}\n{}", fleet.where_packets_were_lost());
    assert!(found < limit, "new requests failed until {found:?}\n{}", fleet.where_packets_were_lost());
    let after = answers_after(&requests, struck + limit);
    assert!(after.len() == 2 && !after.contains_key("server-2"), "{after:?}");
    fleet.jetway.assert_every_packet_is_accounted_for();
}

#[test]
fn a_server_killed_under_load_gets_no_new_requests_within_a_second_and_others_keep_their_flows() {
    is_found_down_within(Duration::from_secs(1), PATIENT, |fleet| fleet.servers[1].nginx.kill());
}

#[test]
fn a_server_that_falls_silent_under_load_gets_no_new_requests_once_it_is_found_and_others_keep_their_flows() {
    // A connection is tried again after a second, and the probe that this brings takes one to fail.
    is_found_down_within(Duration::from_secs(5), IMPATIENT, |fleet| {
        fleet.servers[1].namespace.ip(&["link set eth0 down"]);
    });
}

#[test]
fn a_server_that_comes_back_gets_requests_again() {
    let Some(world) = World::open() else { return };
    let mut fleet = FleetPlan::new(vec![service(1..=3)]).build(&world);
    let load = Load::start(&fleet, PATIENT);
    fleet.servers[1].nginx.kill();
    wait_until("the server is down", Duration::from_secs(60), || state(&fleet, "server-2") == "down");
    let down = Instant::now();
    let server = &mut fleet.servers[1];
    server.nginx.restart(&world, &server.namespace);
    wait_until("the server is up", Duration::from_secs(60), || state(&fleet, "server-2") == "up");
    let up = Instant::now();
    load.go_on(Duration::from_secs(1), 200);
    let (requests, kept) = load.finish();
    let failed = requests.iter().filter(|request| request.began > down && request.answer.is_err()).count();
    assert_eq!(failed, 0, "requests failed after the server was found down\n{}", fleet.where_packets_were_lost());
    assert!(kept.iter().all(|kept| kept.broken.is_none() || kept.server == "server-2"), "{kept:?}");
    let after = answers_after(&requests, up);
    assert_eq!(after.len(), 3, "{after:?}");
    fleet.jetway.assert_every_packet_is_accounted_for();
}

#[test]
fn a_draining_server_keeps_its_flows_gets_no_new_ones_and_no_request_fails() {
    let Some(world) = World::open() else { return };
    let mut fleet = FleetPlan::new(vec![service(1..=3)]).build(&world);
    let (requests, kept, drained) = under_load(&mut fleet, PATIENT, |fleet| {
        fleet.jetway.command(&["backend", "drain", "web/server-2"]).unwrap_or_else(|error| panic!("{error}"));
        Instant::now()
    });
    assert_nothing_broke(&fleet, &requests, &kept);
    assert!(kept.iter().any(|kept| kept.server == "server-2"), "no kept connection shows what a drain does");
    let after = answers_after(&requests, drained);
    assert!(after.len() == 2 && !after.contains_key("server-2"), "{after:?}");
    fleet.jetway.assert_every_packet_is_accounted_for();
}

#[test]
fn a_server_added_by_reload_gets_its_share_and_no_flow_breaks() {
    let Some(world) = World::open() else { return };
    let mut fleet = FleetPlan { servers: 4, ..FleetPlan::new(vec![service(1..=3)]) }.build(&world);
    let (requests, kept, added) = under_load(&mut fleet, PATIENT, |fleet| {
        fleet.reload(vec![service(1..=4)]);
        Instant::now()
    });
    assert_nothing_broke(&fleet, &requests, &kept);
    let after = answers_after(&requests, added);
    let total: usize = after.values().sum();
    let new = after.get("server-4").copied().unwrap_or(0);
    assert!(
        new * 100 > total * 15 && new * 100 < total * 35,
        "{new} of {total} requests went to the new server: {after:?}"
    );
    fleet.jetway.assert_every_packet_is_accounted_for();
}

#[test]
fn a_reload_with_other_weights_breaks_no_flow() {
    let Some(world) = World::open() else { return };
    let mut fleet = FleetPlan::new(vec![service(1..=3)]).build(&world);
    let (requests, kept, changed) = under_load(&mut fleet, PATIENT, |fleet| {
        let mut weighted = service(1..=3);
        weighted.backends[0].weight = 6;
        weighted.backends[1].weight = 3;
        fleet.reload(vec![weighted]);
        Instant::now()
    });
    assert_nothing_broke(&fleet, &requests, &kept);
    let after = answers_after(&requests, changed);
    let share = |name: &str| after.get(name).copied().unwrap_or(0) as f64 / after.values().sum::<usize>() as f64;
    let shares = ["server-1", "server-2", "server-3"].map(share);
    println!("shares by weights 6, 3, 1: {shares:.3?}");
    for (share, expected) in shares.iter().zip([0.6, 0.3, 0.1]) {
        assert!((share - expected).abs() < 0.06, "{shares:?}");
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}

#[track_caller]
fn state(fleet: &Fleet, server: &str) -> String {
    let text = fleet.jetway.command(&["vips", "web", "--json"]).unwrap_or_else(|error| panic!("{error}"));
    let services: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let found = services[0]["backends"].as_array().and_then(|all| all.iter().find(|one| one["name"] == server));
    found.and_then(|one| one["state"].as_str()).unwrap_or_else(|| panic!("no {server} in {text}")).to_owned()
}
