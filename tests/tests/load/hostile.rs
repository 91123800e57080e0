//! A hundred thousand datagrams that no honest peer sends: none gets through, none harms, each is counted.

use jetway_tests::world::{
    Attachment, KeyPair, PeerConfig, Site, SiteBuilder, Stats, StockPeer, World, echo_request, mac1, wait_until,
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
    SignInitiation,
    SignResponse,
    ReplayInitiation,
    StrangersInitiation,
    ForgeCookie,
    ForgeData,
    Noise,
}

const ATTACKS: [Attack; 15] = [
    Attack::Replay,
    Attack::FlipBody,
    Attack::FlipIndex,
    Attack::FlipHeader,
    Attack::Truncate,
    Attack::Extend,
    Attack::ForgeInitiation,
    Attack::ForgeResponse,
    Attack::SignInitiation,
    Attack::SignResponse,
    Attack::ReplayInitiation,
    Attack::StrangersInitiation,
    Attack::ForgeCookie,
    Attack::ForgeData,
    Attack::Noise,
];

/// What handshake messages may find if there are too many of them, whatever else is wrong with them.
const LOAD: [&str; 3] = ["wireguard_rate_limited", "wireguard_queue_full", "handshake_cookies_sent"];

impl Attack {
    /// The counter that fits; several where chance decides which rule a datagram breaks first. What workers let pass to
    /// the handshaker is counted there.
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
            Attack::SignInitiation => &["handshake_refused_forged"],
            // A cookie reply carries no MAC that a worker could check.
            Attack::SignResponse | Attack::ForgeCookie => &["handshake_refused_unexpected"],
            Attack::ReplayInitiation => &["handshake_refused_replayed"],
            Attack::StrangersInitiation => &["handshake_refused_unknown_peer"],
            Attack::ForgeData => &["wireguard_no_session"],
            Attack::Noise => &["wireguard_malformed"],
        }
    }

    /// Whether it is a handshake message as far as a worker sees.
    fn passes_for_handshake(self) -> bool {
        self.reasons().iter().any(|reason| reason.starts_with("handshake_"))
    }

    /// How many datagrams were counted as such.
    fn count(self, stats: &Stats) -> u64 {
        let load = if self.passes_for_handshake() { &LOAD[..] } else { &[] };
        self.reasons().iter().chain(load).map(|reason| counted(stats, reason)).sum()
    }

    /// Makes a case of a datagram that is sealed but was never sent, or of one that was.
    fn make(self, materials: &mut Materials, random: &mut StdRng) -> Vec<u8> {
        let Materials { unsent, sent, initiation, stranger, mac1_key } = materials;
        let mut bytes = unsent.clone();
        match self {
            Attack::Replay => bytes.clone_from(sent),
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
            Attack::SignInitiation => {
                bytes = forged(1, 148, random);
                mac1::sign(mac1_key, &mut bytes);
            }
            Attack::SignResponse => {
                bytes = forged(2, 92, random);
                mac1::sign(mac1_key, &mut bytes);
            }
            Attack::ReplayInitiation => bytes.clone_from(initiation),
            Attack::StrangersInitiation => bytes = stranger.initiation(),
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

/// What attacks are made of.
struct Materials {
    /// A data message that is sealed but was never sent.
    unsent: Vec<u8>,
    /// One that was.
    sent: Vec<u8>,
    /// An initiation that was answered.
    initiation: Vec<u8>,
    /// Somebody whom the node does not know.
    stranger: StockPeer,
    mac1_key: [u8; 32],
}

/// A counter of workers or of the handshaker.
fn counted(stats: &Stats, reason: &str) -> u64 {
    match reason.starts_with("handshake_") {
        true => stats.counter(reason).unwrap_or_else(|| panic!("there is no counter {reason}")),
        false => stats.drops(reason),
    }
}

fn forged(kind: u8, length: usize, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend((4..length).map(|_| random.random::<u8>()));
    bytes
}

/// A client of the site that has done nothing yet, at a UDP port of its own.
fn stock_peer(site: &Site, key: &KeyPair, port: u16) -> StockPeer {
    let node: SocketAddr = site.node_endpoint().parse().expect("an address and a port");
    let from = SocketAddr::from(([198, 51, 100, 2], port));
    StockPeer::new(&site.client, from, node, &site.config.tunnels[0].key, key, ADDRESS, u32::from(port))
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
    let mut client = stock_peer(&site, &key, 40_000);
    let initiation = client.initiation();
    client.send(&initiation);
    client.receive_until("there is a session", Duration::from_secs(10), |client| client.handshakes() == 1);
    client.send_echo(SERVER);
    client.receive_until("a packet passes", Duration::from_secs(5), |client| client.echoes_unanswered() == 0);
    let sent = client.seal(&echo_request(ADDRESS, SERVER, 60_000));
    client.send(&sent);
    let stranger = stock_peer(&site, &KeyPair::generate(), 40_001);
    let mac1_key = mac1::key(&site.config.tunnels[0].key);
    let mut materials = Materials { unsent: Vec::new(), sent, initiation, stranger, mac1_key };

    let mut cases = 0;
    let mut refused = [0; ATTACKS.len()];
    while cases < CASES {
        materials.unsent = client.seal(&echo_request(ADDRESS, SERVER, 60_001));
        for (number, attack) in ATTACKS.into_iter().enumerate() {
            let before = site.jetway().stats();
            for _ in 0..BATCH {
                client.send(&attack.make(&mut materials, &mut random));
            }
            cases += BATCH;
            let what = format!("{BATCH} cases of {attack:?} are counted under {:?}", attack.reasons());
            wait_until(&what, Duration::from_secs(10), || {
                let stats = site.jetway().stats();
                assert_eq!(stats.sum("opened"), before.sum("opened"), "{attack:?} was accepted, seed {seed}");
                attack.count(&stats) >= attack.count(&before) + BATCH as u64
            });
            let after = site.jetway().stats();
            let count = attack.count(&after) - attack.count(&before);
            assert_eq!(count, BATCH as u64, "cases of {attack:?}, seed {seed}");
            let own = |stats: &Stats| attack.reasons().iter().map(|reason| counted(stats, reason)).sum::<u64>();
            refused[number] += own(&after) - own(&before);
        }
        // The session lives on, and what the client sends is still taken.
        client.send_echo(SERVER);
        client.receive_until("a packet passes", Duration::from_secs(5), |client| client.echoes_unanswered() == 0);
    }
    for (attack, refused) in ATTACKS.iter().zip(refused) {
        assert!(refused > 0, "load hid what is wrong with every case of {attack:?}, seed {seed}");
        println!("{attack:?}: {refused} refused for what they are");
    }
    site.assert_every_packet_is_accounted_for();
}
