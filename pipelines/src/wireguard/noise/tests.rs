use super::*;
use crate::wireguard::kdf::hash;
use crate::wireguard::timestamp::WallClock;
use std::time::Duration;

#[test]
fn the_constants_are_the_hashes_of_their_names() {
    assert_eq!(hash(&[b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"]), CHAINING_KEY);
    assert_eq!(hash(&[&CHAINING_KEY, b"WireGuard v1 zx2c4 Jason@zx2c4.com"]), HASH);
}

/// A message from its body, with MACs that nobody checks here.
fn with_macs(body: &[u8]) -> Vec<u8> {
    [body, &[0; 32]].concat()
}

#[test]
fn both_sides_agree_on_the_keys_only_with_the_same_preshared_key() {
    let (alice, bob) = (KeyPair::new(&[1; 32]).unwrap(), KeyPair::new(&[2; 32]).unwrap());
    let shared = alice.agree(bob.public()).unwrap();
    let timestamp = Tai64n::of(WallClock(Duration::from_secs(1_700_000_000)));
    let (initiator, body) =
        Initiator::start(&alice, bob.public(), &shared, 11, timestamp, &Secret::new([3; 32])).unwrap();
    let message = with_macs(&body);
    let opened = Opened::open(&bob, &Initiation::parse(&message).unwrap()).unwrap();
    assert_eq!(opened.remote, *alice.public());
    let authentic = opened.authenticate(&shared).unwrap();
    assert_eq!((authentic.sender, authentic.timestamp), (11, timestamp));
    let (secrets, body) = authentic.respond(&[9; 32], 22, &Secret::new([4; 32])).unwrap();
    let message = with_macs(&body);
    let response = Response::parse(&message).unwrap();
    assert_eq!((response.sender, response.receiver), (22, 11));
    assert!(matches!(initiator.finish(&alice, &[8; 32], &response), Err(NoiseError::Forged)));
    let agreed = initiator.finish(&alice, &[9; 32], &response).unwrap();
    assert_eq!((agreed.send, agreed.receive), (secrets.receive, secrets.send));
}
