//! Two hundred clients that shake hands in the same second, twice.

use jetway_tests::world::{Attachment, KeyPair, PeerConfig, Site, SiteBuilder, StockPeer, World};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const CLIENTS: u8 = 200;
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Ten packets a second from each client.
const ROUND: Duration = Duration::from_millis(100);

fn inner_address(client: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 8, 1, client)
}

/// Each client has an address of its own outside too, as a crowd has.
fn outer_address(client: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 10 + client], 51820))
}

fn gather(site: &Site, keys: &[KeyPair]) -> Vec<StockPeer> {
    let addresses: Vec<String> = (0..CLIENTS).map(|client| format!("{}/24", outer_address(client).ip())).collect();
    site.client.addresses("eth0", &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let node: SocketAddr = site.node_endpoint().parse().expect("an address and a port");
    let node_key = &site.config.tunnels[0].key;
    (0..CLIENTS)
        .zip(keys)
        .map(|(client, key)| {
            let (from, address) = (outer_address(client), inner_address(client));
            StockPeer::new(&site.client, from, node, node_key, key, address, u32::from(client))
        })
        .collect()
}

/// All clients initiate at once, then all are served until each has a new session.
fn shake_hands(crowd: &mut [StockPeer]) -> Duration {
    let began = Instant::now();
    let before: Vec<u32> = crowd.iter().map(StockPeer::handshakes).collect();
    crowd.iter_mut().for_each(StockPeer::initiate);
    assert!(began.elapsed() < Duration::from_secs(1), "the machine is too slow to start so many in one second");
    loop {
        let waiting = crowd.iter().zip(&before).filter(|(client, before)| client.handshakes() == **before).count();
        if waiting == 0 {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{waiting} of {CLIENTS} clients have no new session");
        serve(crowd);
    }
}

fn serve(crowd: &mut [StockPeer]) {
    for client in crowd {
        client.receive();
        client.turn_timers();
    }
    std::thread::sleep(Duration::from_millis(1));
}

fn assert_all_answered(site: &mut Site, crowd: &mut [StockPeer]) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while crowd.iter().any(|client| client.echoes_unanswered() > 0) && Instant::now() < deadline {
        serve(crowd);
    }
    let (sent, lost) = crowd
        .iter()
        .fold((0, 0), |(sent, lost), client| (sent + client.echoes_sent(), lost + client.echoes_unanswered()));
    assert!(lost == 0, "{lost} of {sent} packets were lost\n{}", site.where_packets_were_lost());
}

#[test]
fn two_hundred_clients_shake_hands_and_rekey_in_the_same_second_without_a_lost_packet() {
    let Some(world) = World::open() else { return };
    let keys: Vec<KeyPair> = (0..CLIENTS).map(|_| KeyPair::generate()).collect();
    let peers = (0..CLIENTS).zip(&keys).map(|(client, key)| PeerConfig {
        name: format!("client-{client}"),
        public_key: key.public.clone(),
        allowed_ips: vec![format!("{}/32", inner_address(client))],
        ..PeerConfig::default()
    });
    let mut site = SiteBuilder { more_peers: peers.collect(), ..SiteBuilder::new(Attachment::AfPacket) }.build(&world);
    let mut crowd = gather(&site, &keys);

    let first = shake_hands(&mut crowd);
    // The first packet to the server waits until the server is found; only a few may wait with it.
    crowd[0].send_echo(SERVER);
    crowd[0].receive_until("the server is found", Duration::from_secs(5), |client| client.echoes_unanswered() == 0);
    for round in 0..60 {
        let began = Instant::now();
        crowd.iter_mut().for_each(|client| client.send_echo(SERVER));
        // In the middle of the traffic, all at once.
        if round == 20 {
            let second = shake_hands(&mut crowd);
            println!("{CLIENTS} handshakes took {first:?}, and {second:?} under traffic");
        }
        while began.elapsed() < ROUND {
            serve(&mut crowd);
        }
    }
    assert_all_answered(&mut site, &mut crowd);
    site.assert_every_packet_is_accounted_for();
}
