//! WireGuard's hash functions (paper, section 5.4): BLAKE2s, its keyed MAC, HMAC (RFC 2104), and the KDF over it.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, Mac, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use zeroize::Zeroizing;

/// 32 secret bytes, wiped when dropped.
pub type Secret = Zeroizing<[u8; 32]>;

const BLOCK: usize = 64;

/// `HASH`: BLAKE2s-256 (RFC 7693) over the parts, one behind the other.
pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    for part in parts {
        Update::update(&mut state, part);
    }
    state.finalize_fixed().into()
}

/// `MAC`: keyed BLAKE2s with an output of 16 bytes. The key has 1 to 32 bytes, as every key here has by its type.
pub fn mac<const N: usize>(key: &[u8; N], message: &[&[u8]]) -> [u8; 16] {
    PreparedMac::new(key, &[]).code(message)
}

/// `MAC` of messages that begin alike: what can be hashed of the key and the beginning is hashed in advance.
#[derive(Clone, Debug)]
pub struct PreparedMac {
    state: Option<Blake2sMac<U16>>,
}

impl PreparedMac {
    /// Of messages that begin with `beginning`, which should not be empty: the key's block is not hashed before something follows it.
    pub fn new<const N: usize>(key: &[u8; N], beginning: &[u8]) -> Self {
        const { assert!(N >= 1 && N <= 32) };
        let mut state = Blake2sMac::new_with_salt_and_personal(Some(key), &[], &[]).ok();
        if let Some(state) = &mut state {
            Mac::update(state, beginning);
        }
        Self { state }
    }

    /// The code of the beginning and the parts, one behind the other.
    pub fn code(self, rest: &[&[u8]]) -> [u8; 16] {
        // A key of this length is never refused; a MAC that nothing matches is what is left to say otherwise.
        let Some(mut state) = self.state else { return [0; 16] };
        for part in rest {
            Mac::update(&mut state, part);
        }
        state.finalize_fixed().into()
    }
}

/// HMAC-BLAKE2s under one key, with the key's two blocks hashed in advance.
pub struct Hmac {
    inner: Blake2s256,
    outer: Blake2s256,
}

impl Hmac {
    /// HMAC under `key`.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { inner: keyed(key, 0x36), outer: keyed(key, 0x5c) }
    }

    /// The code of the parts, one behind the other.
    pub fn code(&self, parts: &[&[u8]]) -> Secret {
        let mut inner = self.inner.clone();
        for part in parts {
            Update::update(&mut inner, part);
        }
        let digest: Secret = Zeroizing::new(inner.finalize_fixed().into());
        let mut outer = self.outer.clone();
        Update::update(&mut outer, digest.as_slice());
        Zeroizing::new(outer.finalize_fixed().into())
    }
}

fn keyed(key: &[u8; 32], pad: u8) -> Blake2s256 {
    let mut block = Zeroizing::new([pad; BLOCK]);
    for (byte, key) in block.iter_mut().zip(key) {
        *byte ^= key;
    }
    let mut state = Blake2s256::new();
    Update::update(&mut state, block.as_slice());
    state
}

/// `KDF_N`: `N` keys (at most 255) from a chaining key and input.
pub fn kdf<const N: usize>(key: &[u8; 32], input: &[u8]) -> [Secret; N] {
    let root = Hmac::new(&Hmac::new(key).code(&[input]));
    let mut number = 0;
    let mut previous: Option<Secret> = None;
    std::array::from_fn(|_| {
        number += 1;
        let code = match &previous {
            None => root.code(&[&[number]]),
            Some(previous) => root.code(&[previous.as_slice(), &[number]]),
        };
        previous = Some(code.clone());
        code
    })
}

#[cfg(test)]
mod tests {
    use blake2::Blake2s;
    use blake2::digest::consts::{U20, U28, U32};
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
        30, 31,
    ];

    #[test]
    fn the_vector_of_rfc_7693_appendix_b_holds() {
        let expected = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
        assert_eq!(hex::encode(hash(&[b"a", b"", b"bc"])), expected);
    }

    /// The deterministic bytes of RFC 7693, appendix E.
    fn sequence(length: usize, seed: u32) -> Vec<u8> {
        let (mut a, mut b) = (0xdead_4bad_u32.wrapping_mul(seed), 1u32);
        (0..length)
            .map(|_| {
                (a, b) = (b, a.wrapping_add(b));
                (b >> 24) as u8
            })
            .collect()
    }

    fn self_test_round<N>(sum: &mut Blake2s256, length: usize)
    where
        N: blake2::digest::array::ArraySize
            + blake2::digest::typenum::IsLessOrEqual<U32, Output = blake2::digest::typenum::True>,
    {
        for input in [0, 3, 64, 65, 255, 1024] {
            let data = sequence(input, input as u32);
            Update::update(sum, &Blake2s::<N>::new().chain_update(&data).finalize_fixed());
            let key = sequence(length, length as u32);
            let mut keyed = Blake2sMac::<N>::new_with_salt_and_personal(Some(&key), &[], &[]).unwrap();
            Mac::update(&mut keyed, &data);
            Update::update(sum, &keyed.finalize_fixed());
        }
    }

    #[test]
    fn the_self_test_of_rfc_7693_appendix_e_passes() {
        let mut sum = Blake2s256::new();
        self_test_round::<U16>(&mut sum, 16);
        self_test_round::<U20>(&mut sum, 20);
        self_test_round::<U28>(&mut sum, 28);
        self_test_round::<U32>(&mut sum, 32);
        let expected = "6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe";
        assert_eq!(hex::encode(sum.finalize_fixed()), expected);
    }

    /// The expected values come from Python's `hashlib.blake2s` and `hmac`.
    #[test]
    fn mac_hmac_and_kdf_agree_with_another_implementation() {
        assert_eq!(hex::encode(mac(&KEY, &[b"mess", b"age"])), "2b75eb9c63ca8524ff53d01905b406eb");
        let code = Hmac::new(&KEY).code(&[b"message"]);
        assert_eq!(hex::encode(*code), "db1ebbda189c6ec2d7755c2592537050e44264aa57a3d4f825f451ebcdff4cd3");
        let expected = [
            "2b0d5aab9473d3c3c6fd8db48c244c9ade3b19ca19efab17ffed77caa731d293",
            "cd583984d0fc0b927174268d87a447e8116fd0794938d71a256bd978a459eedf",
            "5107daf9b2ec1d8b2625f7939e5f14d156e62f72489b988ccd6d5946db237a54",
        ];
        let input = b"the input of the KDF";
        assert_eq!(kdf::<1>(&KEY, input).map(|key| hex::encode(*key)), expected[..1]);
        assert_eq!(kdf::<2>(&KEY, input).map(|key| hex::encode(*key)), expected[..2]);
        assert_eq!(kdf::<3>(&KEY, input).map(|key| hex::encode(*key)), expected);
        let of_nothing = kdf::<2>(&KEY, &[]).map(|key| hex::encode(*key));
        assert_eq!(of_nothing[1], "1a17621f346abdc520746a9fb64d8eb03231d674fc15687537b0780fd9c060fd");
    }

    /// RFC 2104 as it stands there, without any state kept.
    fn plain_hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
        let pad = |with: u8| -> Vec<u8> { (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ with).collect() };
        hash(&[&pad(0x5c), &hash(&[&pad(0x36), message])])
    }

    proptest! {
        #[test]
        fn hmac_is_rfc_2104s(key: [u8; 32], message in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(*Hmac::new(&key).code(&[&message]), plain_hmac(&key, &message));
        }
    }
}
