//! A flood of forged handshakes to a service of gateways: the dispatcher takes it, and stock clients still get in.

use jetway_tests::world::{Flood, Gateways, GatewaysPlan, LISTEN_PORT, Ping, SERVICE_ADDRESS, World, wait_until};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const INSIDE: &str = "10.8.0.1";
/// Forged initiations a second.
const RATE: u64 = 20_000;
/// Handshakes of strangers that one worker lets through, in a second and at once (`Limits::of_worker`).
const STRANGERS_RATE: f64 = 4_000.0;
const STRANGERS_BURST: f64 = 2_000.0;

/// Packets that came to the gateways so far.
fn seen_by_gateways(site: &Gateways) -> u64 {
    site.gateways.iter().map(|gateway| gateway.stats().sum("received")).sum()
}

/// What the worker would do with a handshake message, as `jetway explain` says.
#[track_caller]
fn what_becomes_of(site: &Gateways, packet: &str) -> String {
    let text = site.dispatcher.command(&["explain", packet, "--json"]).unwrap_or_else(|error| panic!("{error}"));
    let explained: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(explained["assumed"], "a WireGuard handshake initiation without a cookie", "{explained}");
    let workers = explained["service"]["handshake"]["workers"].as_array().expect("an answer of each worker");
    workers.first().and_then(Value::as_str).unwrap_or_else(|| panic!("{explained}")).to_owned()
}

#[test]
fn stock_clients_get_in_through_a_flood_of_which_gateways_see_only_the_strangers_share() {
    let Some(world) = World::open() else { return };
    let site = GatewaysPlan { clients: 2, ..GatewaysPlan::L2 }.build(&world);
    let sources: Vec<String> = (0..40).map(|source| format!("198.51.100.{}", 100 + source)).collect();
    let addresses: Vec<String> = sources.iter().map(|source| format!("{source}/24")).collect();
    site.client.addresses("eth0", &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let service: SocketAddr = format!("{SERVICE_ADDRESS}:{LISTEN_PORT}").parse().expect("an address and a port");

    let asked = format!("udp 198.51.100.99:5000 > {service}");
    assert_eq!(what_becomes_of(&site, &asked), "pass");
    let flood = Flood::start(&site.client, &sources, service, &site.tunnel_key, RATE);
    wait_until("the dispatcher gives cookies", Duration::from_secs(30), || flood.cookies() > 0);
    wait_until("a stranger would be asked for a cookie", Duration::from_secs(30), || {
        what_becomes_of(&site, &asked) == "cookie"
    });
    let (began, sent, seen) = (Instant::now(), flood.sent(), seen_by_gateways(&site));
    let pings: Vec<_> = (0..site.clients.len())
        .map(|client| {
            let ping = Ping::to(INSIDE).count(150).every(Duration::from_millis(100));
            ping.from(site.interface(client)).start(&world, &site.client)
        })
        .collect();
    // Asked for a cookie, a client comes again after REKEY_TIMEOUT (5 s) with the cookie.
    wait_until("every client has shaken hands", Duration::from_secs(30), || {
        site.handshakes().iter().all(Option::is_some)
    });
    println!("both clients were in after {:?}", began.elapsed());
    for ping in pings {
        let report = ping.finish();
        assert!(report.answered > 0, "{}", report.output);
    }
    let (seen, sent) = (seen_by_gateways(&site) - seen, flood.sent() - sent);
    let seconds = began.elapsed().as_secs_f64();
    let cookies = flood.cookies();
    drop(flood);
    let (rate, share) = (sent as f64 / seconds, seen as f64 / seconds);
    println!("flood of {rate:.0}/s, {cookies} cookies came back; gateways got {share:.0} packets a second");
    assert!(rate > 2.0 * STRANGERS_RATE, "the generator reached {rate:.0}/s only");
    // What is not of the flood: pings and probes.
    let others = 100.0;
    assert!(share < STRANGERS_RATE + STRANGERS_BURST / seconds + others, "gateways got {share:.0}/s");
    let stats = site.dispatcher.stats();
    assert!(stats.sum("cookies_for_gateways") >= cookies);
    assert!(stats.drops("wireguard_rate_limited") > 0, "{:?}", stats.all_drops());
    site.dispatcher.assert_every_packet_is_accounted_for();
}
