//! Gateways behind a dispatcher that knows WireGuard: sessions outlive whatever happens in front of them.

use jetway_tests::world::{Family, Forward, Gateways, GatewaysPlan, Ping, RunningPing, World, wait_until};
use std::time::{Duration, Instant};

/// The gateways' end of the tunnel, whichever has the client's session.
const INSIDE: &str = "10.8.0.1";
const CLIENTS: usize = 6;

/// Pings from every client, ten a second, for so long.
#[track_caller]
fn ping_from_all(world: &World, site: &Gateways, seconds: u32) -> Vec<RunningPing> {
    let one = |client| {
        let ping = Ping::to(INSIDE).count(seconds * 10).every(Duration::from_millis(100));
        ping.from(site.interface(client)).start(world, &site.client)
    };
    (0..CLIENTS).map(one).collect()
}

#[track_caller]
fn assert_all_pass(world: &World, site: &Gateways) {
    let one = |client| Ping::to(INSIDE).count(5).from(site.interface(client)).start(world, &site.client);
    let running: Vec<_> = (0..CLIENTS).map(one).collect();
    for (client, ping) in running.into_iter().enumerate() {
        let report = ping.finish();
        let stats = site.dispatcher.stats();
        assert_eq!(report.lost(), 0, "client {client}: {}\ndispatcher drops {:?}", report.output, stats.all_drops());
    }
}

/// Has every client shake hands, and returns when each did.
#[track_caller]
fn connect_all(world: &World, site: &mut Gateways) -> Vec<Option<u64>> {
    let pings = ping_from_all(world, site, 1);
    wait_until("every client has shaken hands", Duration::from_secs(20), || {
        site.handshakes().iter().all(Option::is_some)
    });
    pings.into_iter().for_each(|ping| drop(ping.finish()));
    assert_all_pass(world, site);
    let gateways = site.gateways_of_clients();
    println!("clients are at gateways {gateways:?}");
    assert!(gateways.iter().all(Option::is_some), "{gateways:?}");
    site.handshakes()
}

#[test]
fn no_session_is_lost_when_clients_roam_the_dispatcher_is_restarted_or_a_gateway_is_added() {
    let Some(world) = World::open() else { return };
    let mut site = GatewaysPlan { gateways: 4, clients: CLIENTS, ..GatewaysPlan::L2 }.build(&world);
    let handshakes = connect_all(&world, &mut site);

    for round in 0..5 {
        for (client, peer) in site.clients.iter().enumerate() {
            let port = (41_000 + round * 100 + client).to_string();
            peer.wg(&["set", peer.interface(), "listen-port", &port]);
        }
        assert_all_pass(&world, &site);
    }
    // And to another address, of another port at once.
    site.client.addresses("eth0", &["198.51.100.77/24"]);
    site.client.ip(&["route replace default via 198.51.100.1 src 198.51.100.77"]);
    for (client, peer) in site.clients.iter().enumerate() {
        peer.wg(&["set", peer.interface(), "listen-port", &(42_000 + client).to_string()]);
    }
    assert_all_pass(&world, &site);
    assert_eq!(site.handshakes(), handshakes, "roaming cost a handshake");

    let pings = ping_from_all(&world, &site, 8);
    std::thread::sleep(Duration::from_secs(1));
    let killed = Instant::now();
    site.dispatcher.kill();
    site.dispatcher.restart(&world, &site.node);
    println!("the dispatcher was killed and answers again after {:?}", killed.elapsed());
    for ping in pings {
        let report = ping.finish();
        println!("  silence of {:?}", report.longest_silence);
    }
    assert_all_pass(&world, &site);
    assert_eq!(site.handshakes(), handshakes, "the dispatcher's restart cost a handshake");

    let pings = ping_from_all(&world, &site, 2);
    site.know(4);
    for ping in pings {
        let report = ping.finish();
        assert_eq!(report.lost(), 0, "the new gateway cost packets: {}", report.output);
    }
    assert_all_pass(&world, &site);
    assert_eq!(site.handshakes(), handshakes, "the new gateway cost a handshake");
    site.dispatcher.assert_every_packet_is_accounted_for();
}

#[test]
fn only_clients_of_a_killed_gateway_shake_hands_again() {
    let Some(world) = World::open() else { return };
    let mut site = GatewaysPlan { clients: CLIENTS, ..GatewaysPlan::L2 }.build(&world);
    let before = connect_all(&world, &mut site);
    let gateways = site.gateways_of_clients();
    let victim = gateways[0].expect("client 0 is somewhere");
    let orphans: Vec<usize> = (0..CLIENTS).filter(|client| gateways[*client] == Some(victim)).collect();

    let pings = ping_from_all(&world, &site, 24);
    std::thread::sleep(Duration::from_secs(1));
    let killed = Instant::now();
    site.gateways[victim].kill();
    wait_until("clients of the killed gateway have shaken hands", Duration::from_secs(60), || {
        let now = site.handshakes();
        orphans.iter().all(|&client| now[client] != before[client])
    });
    println!("{} clients of the killed gateway have shaken hands again after {:?}", orphans.len(), killed.elapsed());
    for (client, ping) in pings.into_iter().enumerate() {
        let report = ping.finish();
        println!("  client {client}: silence of {:?}", report.longest_silence);
        if !orphans.contains(&client) {
            assert_eq!(report.lost(), 0, "client {client} of another gateway: {}", report.output);
        }
    }
    assert_all_pass(&world, &site);
    let after = site.handshakes();
    for client in (0..CLIENTS).filter(|client| !orphans.contains(client)) {
        assert_eq!(after[client], before[client], "client {client} of another gateway shook hands again");
    }
    assert!(site.gateways_of_clients().iter().all(|gateway| gateway.is_some_and(|gateway| gateway != victim)));
    site.dispatcher.assert_every_packet_is_accounted_for();
}

/// Clients' messages reach gateways inside other packets; the gateways answer by the router, from the service's address.
#[track_caller]
fn sessions_are_kept_through(forward: Forward, inside: Family) {
    let Some(world) = World::open() else { return };
    let mut site = GatewaysPlan { clients: CLIENTS, forward, inside, ..GatewaysPlan::L2 }.build(&world);
    let handshakes = connect_all(&world, &mut site);
    for (client, peer) in site.clients.iter().enumerate() {
        peer.wg(&["set", peer.interface(), "listen-port", &(41_000 + client).to_string()]);
    }
    assert_all_pass(&world, &site);
    let pings = ping_from_all(&world, &site, 4);
    site.dispatcher.kill();
    site.dispatcher.restart(&world, &site.node);
    pings.into_iter().for_each(|ping| drop(ping.finish()));
    assert_all_pass(&world, &site);
    assert_eq!(site.handshakes(), handshakes, "roaming or the dispatcher's restart cost a handshake");
    for node in std::iter::once(&site.dispatcher).chain(&site.gateways) {
        node.assert_every_packet_is_accounted_for();
    }
    for gateway in &site.gateways {
        let drops = gateway.stats().all_drops();
        let lost = drops.iter().any(|(reason, _)| reason.starts_with("encapsulation") || reason == "outer_fragment");
        assert!(!lost, "{drops:?}");
    }
}

#[test]
fn sessions_are_kept_through_ip_in_ip() {
    sessions_are_kept_through(Forward::Ipip, Family::V4);
}

#[test]
fn sessions_are_kept_through_gue_over_ipv6() {
    sessions_are_kept_through(Forward::Gue, Family::V6);
}

#[test]
fn sessions_are_kept_through_gre() {
    sessions_are_kept_through(Forward::Gre, Family::V4);
}
