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
    let (alice, bob) = (KeyPair::new(&[1; 32]), KeyPair::new(&[2; 32]));
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

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// Bytes before the Noise message: type, reserved and indices.
const INITIATION_HEAD: usize = 8;
const RESPONSE_HEAD: usize = 12;

fn snow(private: &[u8; 32], preshared_key: &[u8; 32], remote: Option<&[u8; 32]>) -> snow::HandshakeState {
    let builder = snow::Builder::new(PATTERN.parse().unwrap()).prologue(PROLOGUE).unwrap();
    let builder = builder.local_private_key(private).unwrap().psk(2, preshared_key).unwrap();
    match remote {
        Some(remote) => builder.remote_public_key(remote).unwrap().build_initiator().unwrap(),
        None => builder.build_responder().unwrap(),
    }
}

/// Sends a message with our keys to snow, and one with snow's keys to us.
fn assert_keys_agree(secrets: &SessionSecrets, mut theirs: snow::TransportState) {
    use jetway_aead::{Aead, OpenJob, SealJob};
    let aead = Aead::best();
    for counter in 0..3 {
        let mut packet = b"from us.................".to_vec();
        aead.seal_burst(&mut [SealJob { key: &aead.key(&secrets.send), counter, buffer: &mut packet }]);
        let mut plain = [0; 64];
        let length = theirs.read_message(&packet, &mut plain).unwrap();
        assert_eq!(&plain[..length], b"from us.");

        let mut packet = [0; 64];
        let length = theirs.write_message(b"from snow", &mut packet).unwrap();
        let buffer = &mut packet[..length];
        let mut jobs = [OpenJob { key: &aead.key(&secrets.receive), counter, buffer, authentic: false }];
        aead.open_burst(&mut jobs);
        assert!(jobs[0].authentic);
        assert_eq!(&packet[..9], b"from snow");
    }
}

#[test]
fn as_initiator_we_agree_with_another_implementation_of_noise() {
    for preshared_key in [[0; 32], [9; 32]] {
        let (alice, bob) = (KeyPair::new(&[1; 32]), KeyPair::new(&[2; 32]));
        let mut theirs = snow(&[2; 32], &preshared_key, None);
        let shared = alice.agree(bob.public()).unwrap();
        let timestamp = Tai64n::of(WallClock(Duration::from_secs(1_700_000_000)));
        let ephemeral = Secret::new([3; 32]);
        let (initiator, body) = Initiator::start(&alice, bob.public(), &shared, 11, timestamp, &ephemeral).unwrap();
        let mut payload = [0; 64];
        let length = theirs.read_message(&body[INITIATION_HEAD..], &mut payload).unwrap();
        assert_eq!(payload[..length], *timestamp.as_bytes());
        assert_eq!(theirs.get_remote_static().unwrap(), alice.public());

        let mut message = [0; 64];
        let length = theirs.write_message(&[], &mut message).unwrap();
        let body = [&[2, 0, 0, 0, 5, 0, 0, 0, 11, 0, 0, 0], &message[..length]].concat();
        let message = with_macs(&body);
        let response = Response::parse(&message).unwrap();
        let secrets = initiator.finish(&alice, &preshared_key, &response).unwrap();
        assert_keys_agree(&secrets, theirs.into_transport_mode().unwrap());
    }
}

#[test]
fn as_responder_we_agree_with_another_implementation_of_noise() {
    for preshared_key in [[0; 32], [9; 32]] {
        let (alice, bob) = (KeyPair::new(&[1; 32]), KeyPair::new(&[2; 32]));
        let mut theirs = snow(&[1; 32], &preshared_key, Some(bob.public()));
        let mut message = [0; 128];
        let timestamp = Tai64n::of(WallClock(Duration::from_secs(1)));
        let length = theirs.write_message(timestamp.as_bytes(), &mut message).unwrap();
        let message = with_macs(&[&[1, 0, 0, 0, 7, 0, 0, 0], &message[..length]].concat());
        let opened = Opened::open(&bob, &Initiation::parse(&message).unwrap()).unwrap();
        assert_eq!(opened.remote, *alice.public());
        let authentic = opened.authenticate(&alice.agree(bob.public()).unwrap()).unwrap();
        assert_eq!((authentic.sender, authentic.timestamp), (7, timestamp));
        let (secrets, body) = authentic.respond(&preshared_key, 8, &Secret::new([4; 32])).unwrap();
        let mut payload = [0; 64];
        assert_eq!(theirs.read_message(&body[RESPONSE_HEAD..], &mut payload).unwrap(), 0);
        assert_keys_agree(&secrets, theirs.into_transport_mode().unwrap());
    }
}

#[test]
fn no_changed_bit_of_an_initiation_or_response_is_accepted() {
    let (alice, bob) = (KeyPair::new(&[1; 32]), KeyPair::new(&[2; 32]));
    let shared = alice.agree(bob.public()).unwrap();
    let (initiator, body) =
        Initiator::start(&alice, bob.public(), &shared, 11, Tai64n::default(), &Secret::new([3; 32])).unwrap();
    let accepts = |message: &[u8]| {
        let opened = Opened::open(&bob, &Initiation::parse(message).unwrap())?;
        opened.authenticate(&shared)?.respond(&[0; 32], 22, &Secret::new([4; 32]))
    };
    let message = with_macs(&body);
    let (_, response) = accepts(&message).unwrap();
    for bit in INITIATION_HEAD * 8..body.len() * 8 {
        let mut changed = message.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // X25519 ignores the last bit of a public key, but the hash of the handshake does not.
        assert!(accepts(&changed).is_err(), "bit {bit} of the initiation");
    }
    let message = with_macs(&response);
    for bit in RESPONSE_HEAD * 8..response.len() * 8 {
        let mut changed = message.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let response = Response::parse(&changed).unwrap();
        assert!(initiator.finish(&alice, &[0; 32], &response).is_err(), "bit {bit} of the response");
    }
    assert!(initiator.finish(&alice, &[0; 32], &Response::parse(&message).unwrap()).is_ok());
}
