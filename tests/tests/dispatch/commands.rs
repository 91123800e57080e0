//! What the operator is told of flows is what happens to them.

use jetway_tests::world::{
    Ask, Family, Fleet, FleetPlan, Forward, KeptConnections, Origin, VipConfig, World, backends, with_services,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const FLOWS: usize = 60;

fn service(servers: usize) -> VipConfig {
    VipConfig {
        name: "web".into(),
        address: "10.100.0.10".into(),
        port: 80,
        protocol: "tcp",
        forward: Forward::Nat,
        backends: backends(1..=servers, Family::V4),
        more: vec!["health = { kind = \"tcp\" }".into()],
    }
}

#[track_caller]
fn told(fleet: &Fleet, arguments: &[&str]) -> Value {
    let text = fleet.jetway.command(arguments).unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Flows by the server that has them, as `jetway flows --count` tells.
#[track_caller]
fn by_server(report: &Value) -> BTreeMap<String, u64> {
    let counts = report["by_backend"].as_array().expect("counts").iter();
    counts
        .map(|count| (count["backend"].as_str().expect("a name").to_owned(), count["flows"].as_u64().unwrap()))
        .collect()
}

#[test]
fn flows_explanations_and_dry_runs_agree_with_who_answers() {
    let Some(world) = World::open() else { return };
    let fleet = FleetPlan::new(vec![service(3)]).build(&world);
    let from = Origin::Tunnel.address(Family::V4);
    let to = "10.100.0.10:80".parse().expect("an address");
    let way = Ask { from, to, patience: Duration::from_secs(5) };
    let kept = KeptConnections::open(&fleet.client, way, FLOWS);

    let listed = told(&fleet, &["flows", "--vip", "web", "--client", "10.8.0.0/16", "--limit", "1000", "--json"]);
    let flows = listed["flows"].as_array().expect("flows");
    assert_eq!((flows.len(), listed["has_more"].as_bool()), (FLOWS, Some(false)), "{listed}");
    for flow in flows {
        let packet = format!("tcp {} > {}", flow["client"].as_str().unwrap(), flow["service"].as_str().unwrap());
        let explained = told(&fleet, &["explain", &packet, "--json"]);
        let service = &explained["service"];
        assert_eq!((&explained["peer"], &service["vip"]), (&"client".into(), &"web".into()), "{explained}");
        assert_eq!(service["flow"]["backend"], flow["backend"], "{explained}");
        assert_eq!(service["backend"]["name"], flow["backend"], "{explained}");
        assert_eq!(service["slot_backend"]["name"], flow["backend"], "all are up: {explained}");
    }
    let counted = told(&fleet, &["flows", "--count", "--json"]);
    let counts = by_server(&counted);
    assert_eq!(counts.values().sum::<u64>(), FLOWS as u64, "{counted}");

    // A file without the third server, which nobody has the node read.
    fleet.jetway.rewrite(&with_services(&fleet.config, &[service(2)]));
    let would = told(&fleet, &["vips", "--dry-run", "--json"]);
    let leaving = counts.get("server-3").copied().unwrap_or(0);
    assert_eq!((&would[0]["flows"], &would[0]["flows_moved"]), (&FLOWS.into(), &leaving.into()), "{would}");
    assert_eq!(told(&fleet, &["vips", "--json"])[0]["backends"].as_array().map(Vec::len), Some(3), "nothing changed");

    let flushed = told(&fleet, &["flows", "flush", "--backend", "web/server-1", "--json"]);
    assert_eq!(by_server(&flushed), BTreeMap::from([("server-1".to_owned(), counts["server-1"])]));
    std::thread::sleep(Duration::from_millis(500));
    let kept = kept.finish();
    let answers = |server: &str| kept.iter().filter(|kept| kept.server == server).count() as u64;
    assert!(kept.iter().all(|kept| kept.broken.is_none()), "{kept:?}");
    for (server, flows) in &counts {
        assert_eq!(answers(server), *flows, "{server} of {kept:?}");
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}
