//! Fifty thousand forged initiations a second, which only handshakes that know the node's public key can tell from real ones.

use jetway_tests::world::{
    Attachment, Flood, Iperf3Server, KeyPair, PeerConfig, Ping, Site, SiteBuilder, Transport, Way, WireguardGo,
    WireguardPeer, World, iperf3,
};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const RATE: u64 = 50_000;
/// Addresses that the flood comes from.
const SOURCES: u8 = 50;
const SERVER: &str = "192.0.2.2";
/// What established tunnels may lose of their packets under the flood, beyond what they lose without it: a stated factor of
/// one in a hundred, for a machine of two cores that forges the flood as well.
const LOSS_ALLOWED: f64 = 0.01;
/// How many times slower TCP may be while the machine forges the flood as well.
const SLOWDOWN_ALLOWED: f64 = 10.0;

/// The share of packets that an established tunnel loses, and the rate of TCP through it.
#[track_caller]
fn measure(world: &World, site: &Site) -> (f64, f64) {
    let ping = Ping::to(SERVER).count(1_000).every(Duration::from_millis(5)).run(world, &site.client);
    let tcp = iperf3(&site.client, SERVER, Transport::Tcp, Way::Down, 3);
    (f64::from(ping.lost()) / f64::from(ping.sent), tcp.bits_per_second)
}

#[test]
fn established_tunnels_and_new_clients_live_through_a_flood_of_forged_initiations() {
    let Some(world) = World::open() else { return };
    let newcomer = KeyPair::generate();
    let peer = PeerConfig {
        name: "newcomer".into(),
        public_key: newcomer.public.clone(),
        allowed_ips: vec!["10.8.0.3/32".into()],
        ..PeerConfig::default()
    };
    let mut site = SiteBuilder { more_peers: vec![peer], ..SiteBuilder::new(Attachment::AfPacket) }.build(&world);
    let _server = Iperf3Server::start(&world, &site.server);
    let node: SocketAddr = site.node_endpoint().parse().expect("an address and a port");
    let sources: Vec<String> = (0..SOURCES).map(|source| format!("198.51.100.{}", 100 + source)).collect();
    let addresses: Vec<String> = sources.iter().map(|source| format!("{source}/24")).collect();
    site.client.addresses("eth0", &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let (loss_in_peace, tcp_in_peace) = measure(&world, &site);
    let flood = Flood::start(&site.client, &sources, node, &site.config.tunnels[0].key, RATE);
    let began = (Instant::now(), flood.sent());
    let (loss, tcp) = measure(&world, &site);
    let entered = time_to_enter(&world, &site, &newcomer);
    let rate = (flood.sent() - began.1) as f64 / began.0.elapsed().as_secs_f64();
    let cookies = flood.cookies();
    drop(flood);
    println!("flood of {rate:.0}/s, {cookies} cookies; lost {loss:.4} (in peace {loss_in_peace:.4})");
    println!("TCP {:.0} Mbit/s (in peace {:.0}); a new client was in after {entered:?}", tcp / 1e6, tcp_in_peace / 1e6);
    assert!(rate > 0.8 * RATE as f64, "the generator reached {rate:.0}/s only");
    assert!(cookies > 0, "nobody was asked for a cookie");
    assert!(
        loss <= loss_in_peace + LOSS_ALLOWED,
        "lost {loss} under the flood, {loss_in_peace} without\n{}",
        site.where_packets_were_lost()
    );
    assert!(tcp * SLOWDOWN_ALLOWED >= tcp_in_peace, "TCP at {tcp} under the flood, {tcp_in_peace} without");
    site.assert_every_packet_is_accounted_for();
}

/// How long a stock client without a session needs to complete a handshake.
#[track_caller]
fn time_to_enter(world: &World, site: &Site, key: &KeyPair) -> Duration {
    let client = WireguardGo::start(world, &site.client);
    let node = WireguardPeer {
        public_key: site.config.tunnels[0].key.public.clone(),
        allowed_ips: vec!["192.0.2.0/24".into()],
        endpoint: Some(site.node_endpoint()),
        persistent_keepalive: Some(1),
        ..WireguardPeer::default()
    };
    let began = Instant::now();
    client.configure(world, &key.private, 0, &[node]);
    client.bring_up(&site.client, &["10.8.0.3/32"], 1420, &[]);
    // Asked for a cookie, it comes again after REKEY_TIMEOUT (5 s) with the cookie.
    client.wait_for_handshake(Duration::from_secs(30));
    began.elapsed()
}
