use proptest::prelude::*;

use super::*;
use crate::test_config;
use crate::uapi::{AllowedIpChange, PeerSet};
use ipnet::IpNet;
use jetway_config::PublicKey;

const SERVER_KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

/// A configuration with the tunnel `jw0` and peers of these key bytes and allowed IPs.
fn config(peers: &[(u8, &str)]) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::from(
        "[[tunnel]]\nname = \"jw0\"\nlisten_port = 51820\nprivate_key_file = \"server.key\"\naddresses = [\"10.8.0.1/16\"]\n",
    );
    for (key, allowed) in peers {
        let public_key = PublicKey([*key; 32]);
        text += &format!(
            "[[tunnel.peer]]\nname = \"peer-{key}\"\npublic_key = \"{public_key}\"\nallowed_ips = [\"{allowed}\"]\n"
        );
    }
    test_config::load(folder.path(), &text, SERVER_KEY)
}

fn key(byte: u8) -> PublicKey {
    PublicKey([byte; 32])
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn peer_set(byte: u8, allowed: &str) -> PeerSet {
    PeerSet { allowed_ips: vec![AllowedIpChange::Add(net(allowed))], ..PeerSet::new(key(byte)) }
}

fn request(peers: Vec<PeerSet>) -> SetRequest {
    SetRequest { peers, ..SetRequest::default() }
}

fn names(changes: &Changes) -> Vec<String> {
    let name = |change: &PeerChange| match change {
        PeerChange::Add { public_key, .. } => format!("add {}", public_key.0[0]),
        PeerChange::Remove { public_key, .. } => format!("remove {}", public_key.0[0]),
        PeerChange::Update { public_key, .. } => format!("update {}", public_key.0[0]),
    };
    changes.peers.iter().map(name).collect()
}

#[test]
fn a_port_on_which_another_tunnel_listens_is_refused_and_nothing_changes() {
    let mut intent = Intent::new();
    let mut config = config(&[]);
    let mut second = config.tunnels[0].clone();
    (second.name, second.listen_port) = ("jw1".parse().unwrap(), 51821);
    config.tunnels.push(second);
    intent.reload(&config);
    let request =
        SetRequest { listen_port: Some(51820), peers: vec![peer_set(1, "10.8.0.2/32")], ..SetRequest::default() };
    assert_eq!(intent.set("jw1", request.clone()).map_err(|error| error.errno), Err(libc::EADDRINUSE));
    assert_eq!(intent.tunnel("jw1").unwrap().peers().count(), 0);
    assert!(intent.set("jw0", request).is_ok());
}

#[test]
fn the_first_configuration_adds_everything_and_the_same_again_nothing() {
    let mut intent = Intent::new();
    let config = config(&[(1, "10.8.0.2/32"), (2, "10.8.0.3/32")]);
    let changes = intent.reload(&config);
    assert_eq!(changes.tunnels, [TunnelChange::Added { tunnel: TunnelId(0), name: "jw0".to_owned() }]);
    assert_eq!(names(&changes), ["add 1", "add 2"]);
    assert!(intent.reload(&config).is_empty());
}

#[test]
fn a_reload_with_one_peer_more_and_one_less_touches_no_other() {
    let mut intent = Intent::new();
    intent.reload(&config(&[(1, "10.8.0.2/32"), (2, "10.8.0.3/32")]));
    let changes = intent.reload(&config(&[(2, "10.8.0.3/32"), (3, "10.8.0.4/32")]));
    assert_eq!(names(&changes), ["remove 1", "add 3"]);
    assert!(changes.tunnels.is_empty());
}

#[test]
fn a_reload_keeps_what_wg_added_and_restores_what_the_file_says() {
    let mut intent = Intent::new();
    let config = config(&[(1, "10.8.0.2/32"), (2, "10.8.0.3/32")]);
    intent.reload(&config);
    intent.set("jw0", request(vec![peer_set(9, "10.8.9.0/24")])).unwrap();
    let removed = PeerSet { remove: true, ..PeerSet::new(key(1)) };
    let slower = PeerSet { persistent_keepalive: Some(7), ..PeerSet::new(key(2)) };
    intent.set("jw0", request(vec![removed, slower])).unwrap();
    let changes = intent.reload(&config);
    assert_eq!(names(&changes), ["add 1", "update 2"]);
    let tunnel = intent.tunnel("jw0").unwrap();
    assert_eq!(tunnel.peer(&key(9)).unwrap().origin, Origin::Runtime);
    assert_eq!(tunnel.peer(&key(2)).unwrap().spec.persistent_keepalive, 0);
}

#[test]
fn a_network_that_moves_is_taken_before_it_is_given() {
    let mut intent = Intent::new();
    intent.reload(&config(&[(5, "10.8.0.2/32"), (6, "10.8.0.3/32")]));
    let changes = intent.set("jw0", request(vec![peer_set(1, "10.8.0.3/32"), peer_set(5, "10.8.0.3/32")])).unwrap();
    let [
        PeerChange::Update { public_key, update, .. },
        PeerChange::Add { spec, .. },
        PeerChange::Update { update: given, .. },
    ] = changes.peers.as_slice()
    else {
        panic!("{changes:?}")
    };
    assert_eq!((*public_key, &update.allowed_ips_removed), (key(6), &vec![net("10.8.0.3/32")]));
    assert_eq!(spec.allowed_ips, [], "it had it only for a moment");
    assert_eq!(given.allowed_ips_added, [net("10.8.0.3/32")]);
}

#[test]
fn a_tunnel_that_goes_takes_its_peers_along() {
    let mut intent = Intent::new();
    intent.reload(&config(&[(1, "10.8.0.2/32")]));
    let folder = tempfile::tempdir().unwrap();
    let changes = intent.reload(&test_config::load(folder.path(), "", SERVER_KEY));
    assert_eq!(names(&changes), ["remove 1"]);
    assert_eq!(changes.tunnels, [TunnelChange::Removed { tunnel: TunnelId(0) }]);
}

#[test]
fn a_request_for_an_unknown_tunnel_or_without_a_key_changes_nothing() {
    let mut intent = Intent::new();
    intent.reload(&config(&[(1, "10.8.0.2/32")]));
    assert_eq!(intent.set("jw7", request(vec![])).unwrap_err().errno, libc::ENODEV);
    let clear = SetRequest { private_key: Some(SecretChange::Clear), replace_peers: true, ..SetRequest::default() };
    assert_eq!(intent.set("jw0", clear).unwrap_err().errno, libc::EINVAL);
    assert!(intent.tunnel("jw0").unwrap().peer(&key(1)).is_some());
}

#[test]
fn a_tunnel_is_no_peer_of_itself() {
    let mut intent = Intent::new();
    intent.reload(&config(&[]));
    let own = jetway_pipelines::wireguard::x25519::KeyPair::new(intent.tunnel("jw0").unwrap().private_key().expose());
    let own = PublicKey(*own.public());
    assert!(intent.set("jw0", request(vec![PeerSet::new(own)])).unwrap().is_empty());
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[[tunnel]]\nname = \"jw0\"\nlisten_port = 51820\nprivate_key_file = \"server.key\"\naddresses = [\"10.8.0.1/16\"]\n\
         [[tunnel.peer]]\nname = \"itself\"\npublic_key = \"{own}\"\nallowed_ips = [\"10.8.0.2/32\"]\n"
    );
    assert!(intent.reload(&test_config::load(folder.path(), &text, SERVER_KEY)).is_empty());
}

#[test]
fn update_only_makes_no_peer_and_a_replaced_peer_keeps_its_number() {
    let mut intent = Intent::new();
    intent.reload(&config(&[(1, "10.8.0.2/32")]));
    let index = intent.tunnel("jw0").unwrap().peer(&key(1)).unwrap().index;
    let ghost = PeerSet { update_only: true, ..peer_set(4, "10.8.0.9/32") };
    let all = SetRequest { replace_peers: true, ..request(vec![ghost, peer_set(1, "10.8.0.2/32")]) };
    assert!(intent.set("jw0", all).unwrap().is_empty(), "the same peer again is no change");
    assert_eq!(intent.tunnel("jw0").unwrap().peer(&key(1)).unwrap().index, index);
}

/// What an engine knows that carries out the changes and nothing else.
#[derive(Default, PartialEq, Debug)]
struct Engine {
    peers: BTreeMap<PublicKey, (PeerIndex, PeerSpec)>,
    owners: BTreeMap<IpNet, PublicKey>,
}

impl Engine {
    fn carry_out(&mut self, changes: Changes) {
        for change in changes.peers {
            match change {
                PeerChange::Add { index, public_key, spec, .. } => {
                    self.owners.extend(spec.allowed_ips.iter().map(|net| (*net, public_key)));
                    assert!(self.peers.insert(public_key, (index, spec)).is_none());
                }
                PeerChange::Remove { index, public_key, allowed_ips, .. } => {
                    allowed_ips.iter().for_each(|net| assert_eq!(self.owners.remove(net), Some(public_key)));
                    assert_eq!(self.peers.remove(&public_key).unwrap().0, index);
                }
                PeerChange::Update { public_key, update, .. } => self.update(public_key, update),
            }
        }
    }

    fn update(&mut self, public_key: PublicKey, update: PeerUpdate) {
        let (_, spec) = self.peers.get_mut(&public_key).unwrap();
        for net in &update.allowed_ips_removed {
            assert_eq!(self.owners.remove(net), Some(public_key));
            spec.allowed_ips.retain(|own| own != net);
        }
        for net in &update.allowed_ips_added {
            assert_eq!(self.owners.insert(*net, public_key), None, "taken before given");
            spec.allowed_ips.push(*net);
        }
        spec.allowed_ips.sort_unstable();
        spec.preshared_key = update.preshared_key.unwrap_or(spec.preshared_key.take());
        spec.endpoint = update.endpoint.or(spec.endpoint);
        spec.persistent_keepalive = update.persistent_keepalive.unwrap_or(spec.persistent_keepalive);
    }
}

fn any_peer_set() -> impl Strategy<Value = PeerSet> {
    let nets = prop::sample::select(vec!["10.8.0.0/24", "10.8.0.2/32", "10.8.0.3/32", "fd00::/64"]).prop_map(net);
    let change =
        prop_oneof![4 => nets.clone().prop_map(AllowedIpChange::Add), 1 => nets.prop_map(AllowedIpChange::Remove)];
    let secret = prop_oneof![
        Just(SecretChange::Clear),
        any::<u8>().prop_map(|byte| SecretChange::Set(Secret::take(&mut [byte; 32])))
    ];
    (
        0..4_u8,
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::option::of(secret),
        prop::option::of(0..3_u16),
        any::<bool>(),
        prop::collection::vec(change, 0..3),
    )
        .prop_map(
            |(byte, remove, update_only, preshared_key, persistent_keepalive, replace_allowed_ips, allowed_ips)| {
                let endpoint = persistent_keepalive.map(|port| ([192, 0, 2, 1], port + 1).into());
                PeerSet {
                    public_key: key(byte),
                    remove,
                    update_only,
                    preshared_key,
                    endpoint,
                    persistent_keepalive,
                    replace_allowed_ips,
                    allowed_ips,
                }
            },
        )
}

proptest! {
    /// Whoever carries out the changes, and looks at nothing else, knows the same as the intent.
    #[test]
    fn the_changes_say_everything(
        requests in prop::collection::vec(
            (prop::collection::vec(any_peer_set(), 0..4), prop::bool::weighted(0.1), prop::bool::weighted(0.2)), 0..20),
    ) {
        let mut intent = Intent::new();
        let mut engine = Engine::default();
        let config = config(&[(1, "10.8.0.2/32"), (7, "10.8.0.3/32")]);
        engine.carry_out(intent.reload(&config));
        for (peers, replace_peers, reload) in requests {
            engine.carry_out(intent.set("jw0", SetRequest { replace_peers, ..request(peers) }).unwrap());
            if reload {
                engine.carry_out(intent.reload(&config));
            }
            let tunnel = intent.tunnel("jw0").unwrap();
            let wanted: BTreeMap<_, _> = tunnel.peers().map(|(key, p)| (*key, (p.index, p.spec.clone()))).collect();
            prop_assert_eq!(&engine.peers, &wanted);
            let owners: BTreeMap<_, _> =
                wanted.iter().flat_map(|(key, (_, spec))| spec.allowed_ips.iter().map(|net| (*net, *key))).collect();
            prop_assert_eq!(&engine.owners, &owners);
        }
    }
}
