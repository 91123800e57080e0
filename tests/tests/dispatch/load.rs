//! Weights that follow what servers say of their load.

use jetway_tests::world::{
    Ask, Family, Fleet, FleetPlan, Forward, KeptConnections, LoadTeller, Origin, RequestStream, VipConfig, World,
    answers, backends, failures, wait_until,
};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Slots of a table.
const SLOTS: f64 = 65_537.0;
/// Of them may move in a minute: enough for a step of a tenth of the table every ten seconds.
const SLOTS_PER_MINUTE: f64 = 40_000.0;

fn service(name: &str, address: &str, forward: Forward, load: &str) -> VipConfig {
    let port = LoadTeller::HTTP;
    VipConfig {
        name: name.into(),
        address: address.into(),
        port: 80,
        protocol: "tcp",
        forward,
        backends: backends(1..=3, Family::V4),
        more: vec![
            format!(
                "health = {{ kind = \"http\", path = \"/\", port = {port}, interval = \"500ms\", timeout = \"500ms\", fall = 20 }}"
            ),
            format!("load = {{ {load}, slots_per_minute = {SLOTS_PER_MINUTE} }}"),
        ],
    }
}

fn way(vip: &VipConfig, origin: Origin) -> Ask {
    let to = SocketAddr::new(vip.address.parse().expect("an address"), vip.port);
    Ask { from: origin.address(Family::V4), to, patience: Duration::from_secs(5) }
}

/// The share of the table that each server has.
#[track_caller]
fn shares(fleet: &Fleet, vip: &str) -> Vec<f64> {
    let text = fleet.jetway.command(&["vips", vip, "--json"]).unwrap_or_else(|error| panic!("{error}"));
    let services: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let servers = services[0]["backends"].as_array().unwrap_or_else(|| panic!("{text}"));
    servers.iter().map(|server| server["share"].as_f64().unwrap_or_else(|| panic!("{text}"))).collect()
}

/// Slots that led elsewhere after a table with the shares of `before` was replaced by one with those of `after`, at least.
fn slots_moved(before: &[f64], after: &[f64]) -> f64 {
    before.iter().zip(after).map(|(before, after)| (after - before).abs()).sum::<f64>() / 2.0 * SLOTS
}

#[test]
fn a_busy_server_gets_fewer_new_clients_little_by_little_and_keeps_those_that_it_has() {
    let Some(world) = World::open() else { return };
    let vips = vec![
        service("header", "10.100.0.10", Forward::Nat, "from = \"header\""),
        service("agent", "10.100.0.11", Forward::L2, &format!("from = \"agent\", port = {}", LoadTeller::AGENT)),
    ];
    let fleet = FleetPlan::new(vips).build(&world);
    // One says that the first server is busy, the other that the third is.
    let busy = [0, 2];
    let _tellers: Vec<LoadTeller> = (fleet.servers.iter().zip([(95, 10), (10, 10), (10, 95)]))
        .map(|(server, (header, agent))| LoadTeller::start(&server.namespace, header, agent))
        .collect();
    let origins = [Origin::Tunnel, Origin::Plain];
    let each = || fleet.vips.iter().flat_map(|vip| origins.map(|origin| way(vip, origin)));
    let kept: Vec<_> = each().map(|way| KeptConnections::open(&fleet.client, way, 20)).collect();
    let began = Instant::now();
    let mut last: Vec<Vec<f64>> = fleet.vips.iter().map(|vip| shares(&fleet, &vip.name)).collect();
    let mut moved = [0.0; 2];
    wait_until("both busy servers have less than two thirds of their share", Duration::from_secs(90), || {
        for ((vip, last), moved) in fleet.vips.iter().zip(&mut last).zip(&mut moved) {
            let now = shares(&fleet, &vip.name);
            *moved += slots_moved(last, &now);
            *last = now;
        }
        busy.iter().zip(&last).all(|(busy, shares)| shares[*busy] < 2.0 / 9.0)
    });
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!("after {:.0} s the shares are {last:.3?}; {moved:.0?} slots moved", minutes * 60.0);
    for moved in moved {
        // Half of a minute's budget may have been saved up.
        assert!(moved <= SLOTS_PER_MINUTE * (0.5 + minutes), "{moved} slots moved in {minutes} minutes");
    }

    let pause = Duration::from_millis(3);
    let streams: Vec<_> = each().map(|way| RequestStream::start(&fleet.client, way, 1, pause)).collect();
    std::thread::sleep(Duration::from_secs(2));
    let requests: Vec<_> = streams.into_iter().map(RequestStream::finish).collect();
    for (pair, (busy, shares)) in requests.chunks(origins.len()).zip(busy.iter().zip(&last)) {
        let requests = pair.concat();
        let failed = failures(&requests);
        assert!(failed.is_empty(), "{failed:?}\n{}", fleet.where_packets_were_lost());
        let name = &fleet.servers[*busy].nginx.name().to_owned();
        let got = answers(&requests).get(name).copied().unwrap_or(0) as f64 / requests.len() as f64;
        println!("{name} answered {:.3} of {} requests", got, requests.len());
        // It may have gone a step further since; and three standard deviations of chance.
        let chance = 3.0 * (0.25 / requests.len() as f64).sqrt();
        assert!(got < shares[*busy] + chance && got > 0.05, "{name} answered {got}, its share is {shares:?}");
    }
    let kept: Vec<Vec<_>> = kept.into_iter().map(KeptConnections::finish).collect();
    for (pair, busy) in kept.chunks(origins.len()).zip(busy) {
        let kept = pair.concat();
        assert!(kept.iter().all(|kept| kept.broken.is_none()), "{kept:?}\n{}", fleet.where_packets_were_lost());
        let name = fleet.servers[busy].nginx.name();
        assert!(kept.iter().any(|kept| kept.server == name), "no kept connection shows that {name} keeps its own");
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}
