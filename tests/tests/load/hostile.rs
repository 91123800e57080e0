//! A hundred thousand datagrams that no honest peer sends: none gets through, none harms, each is counted.

use jetway_tests::world::{
    Attachment, KeyPair, PeerConfig, Site, SiteBuilder, StockPeer, World, echo_request, wait_until,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 3);
const CASES: usize = 105_000;
/// Few enough for the rings on their way, so that every case arrives.
const BATCH: usize = 250;

/// What is done to a datagram, and the reason under which the node must count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    Replay,
    FlipBody,
    FlipIndex,
    FlipHeader,
    Truncate,
    Extend,
    ForgeInitiation,
    ForgeResponse,
    ForgeCookie,
    ForgeData,
    Noise,
}

const ATTACKS: [Attack; 11] = [
    Attack::Replay,
    Attack::FlipBody,
    Attack::FlipIndex,
    Attack::FlipHeader,
    Attack::Truncate,
    Attack::Extend,
    Attack::ForgeInitiation,
    Attack::ForgeResponse,
    Attack::ForgeCookie,
    Attack::ForgeData,
    Attack::Noise,
];

impl Attack {
    /// Reasons that fit; several where chance decides which rule a datagram breaks first.
    fn reasons(self) -> &'static [&'static str] {
        match self {
            Attack::Replay => &["wireguard_replayed"],
            // The counter may become one that was seen.
            Attack::FlipBody => &["wireguard_forged", "wireguard_replayed"],
            Attack::Extend => &["wireguard_forged"],
            Attack::FlipIndex => &["wireguard_no_session"],
            Attack::FlipHeader => &["wireguard_malformed"],
            Attack::Truncate => &["wireguard_forged", "wireguard_malformed"],
            Attack::ForgeInitiation | Attack::ForgeResponse => &["wireguard_bad_mac1"],
            // A cookie reply carries no MAC that a worker could check: the handshaker refuses it.
            Attack::ForgeCookie => &["consumed", "wireguard_rate_limited", "wireguard_queue_full"],
            Attack::ForgeData => &["wireguard_no_session"],
            Attack::Noise => &["wireguard_malformed"],
        }
    }

    /// Makes a case of a datagram that is sealed but was never sent, or of one that was.
    fn make(self, unsent: &[u8], sent: &[u8], random: &mut StdRng) -> Vec<u8> {
        let mut bytes = unsent.to_vec();
        match self {
            Attack::Replay => bytes = sent.to_vec(),
            Attack::FlipBody => {
                // The counter, the ciphertext or the tag.
                let at = random.random_range(8..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            Attack::FlipIndex => bytes[random.random_range(4..8)] ^= 1 << random.random_range(0..8),
            Attack::FlipHeader => {
                let at = random.random_range(0..4);
                // A type that is none, or a reserved byte that is not zero.
                bytes[at] = if at == 0 { random.random_range(5..=255) } else { random.random_range(1..=255) };
            }
            Attack::Truncate => bytes.truncate(random.random_range(0..unsent.len())),
            Attack::Extend => bytes.extend((0..random.random_range(1..900)).map(|_| random.random::<u8>())),
            Attack::ForgeInitiation => bytes = forged(1, 148, random),
            Attack::ForgeResponse => bytes = forged(2, 92, random),
            Attack::ForgeCookie => bytes = forged(3, 64, random),
            Attack::ForgeData => bytes = forged(4, 32 + 16 * random.random_range(0..80), random),
            Attack::Noise => {
                let length = random.random_range(0..1400);
                bytes = (0..length).map(|_| random.random()).collect();
                if let Some(kind) = bytes.first_mut() {
                    *kind = random.random_range(5..=255);
                }
            }
        }
        bytes
    }
}

fn forged(kind: u8, length: usize, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend((4..length).map(|_| random.random::<u8>()));
    bytes
}

/// A client with a session that has been used.
fn stock_client(site: &Site, key: &KeyPair) -> StockPeer {
    let node: SocketAddr = site.node_endpoint().parse().expect("an address and a port");
    let from = SocketAddr::from(([198, 51, 100, 2], 40_000));
    let mut client = StockPeer::new(&site.client, from, node, &site.config.tunnels[0].key, key, ADDRESS, 7);
    client.initiate();
    client.receive_until("there is a session", Duration::from_secs(10), |client| client.handshakes() == 1);
    client.send_echo(SERVER);
    client.receive_until("a packet passes", Duration::from_secs(5), |client| client.echoes_unanswered() == 0);
    client
}

#[test]
fn nothing_forged_replayed_or_broken_gets_through_and_each_is_counted_under_its_reason() {
    let Some(world) = World::open() else { return };
    let seed: u64 = std::env::var("JETWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("replay with JETWAY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let key = KeyPair::generate();
    let peer = PeerConfig {
        name: "stock".into(),
        public_key: key.public.clone(),
        allowed_ips: vec![format!("{ADDRESS}/32")],
        ..PeerConfig::default()
    };
    let mut site = SiteBuilder { more_peers: vec![peer], ..SiteBuilder::new(Attachment::AfPacket) }.build(&world);
    let mut client = stock_client(&site, &key);
    let sent = client.seal(&echo_request(ADDRESS, SERVER, 60_000));
    client.send(&sent);

    let mut cases = 0;
    while cases < CASES {
        let unsent = client.seal(&echo_request(ADDRESS, SERVER, 60_001));
        for attack in ATTACKS {
            let reasons = attack.reasons();
            let before = site.jetway().stats();
            let count =
                |stats: &jetway_tests::world::Stats| reasons.iter().map(|reason| stats.drops(reason)).sum::<u64>();
            for _ in 0..BATCH {
                client.send(&attack.make(&unsent, &sent, &mut random));
            }
            cases += BATCH;
            let what = format!("{BATCH} cases of {attack:?} are counted under {reasons:?}");
            wait_until(&what, Duration::from_secs(10), || {
                let stats = site.jetway().stats();
                assert_eq!(stats.sum("opened"), before.sum("opened"), "{attack:?} was accepted, seed {seed}");
                count(&stats) >= count(&before) + BATCH as u64
            });
            let counted = count(&site.jetway().stats()) - count(&before);
            // What the client itself says to keep its session is consumed too.
            let others = if attack == Attack::ForgeCookie { 3 } else { 0 };
            assert!(counted <= BATCH as u64 + others, "{counted} for {BATCH} cases of {attack:?}, seed {seed}");
        }
        // The session lives on, and what the client sends is still taken.
        client.send_echo(SERVER);
        client.receive_until("a packet passes", Duration::from_secs(5), |client| client.echoes_unanswered() == 0);
    }
    site.assert_every_packet_is_accounted_for();
}
