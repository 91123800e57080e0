//! Every backend against the RFC's vectors and against aws-lc-rs.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use proptest::prelude::*;

use super::*;

/// What this machine can run.
fn backends() -> Vec<Aead> {
    Backend::ALL.into_iter().filter_map(|backend| Aead::with_backend(backend).ok()).collect()
}

/// The packet as aws-lc-rs seals it: ciphertext and tag.
fn reference_seal(key: &[u8; 32], counter: u64, plaintext: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of 32 bytes"));
    let mut packet = plaintext.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce(counter)), Aad::empty(), &mut packet)
        .expect("a short packet");
    packet
}

/// A packet of a test: its own key, counter and plaintext.
#[derive(Clone, Debug)]
struct Packet {
    key: [u8; 32],
    counter: u64,
    plaintext: Vec<u8>,
}

impl Packet {
    fn sealed(&self) -> Vec<u8> {
        reference_seal(&self.key, self.counter, &self.plaintext)
    }
}

/// Keys of a burst, one for all packets that have the same, as in a session.
struct Keys {
    distinct: Vec<([u8; 32], Key)>,
}

impl Keys {
    fn of(aead: Aead, packets: &[Packet]) -> Self {
        let mut distinct: Vec<([u8; 32], Key)> = Vec::new();
        for packet in packets {
            if distinct.iter().all(|(bytes, _)| *bytes != packet.key) {
                distinct.push((packet.key, aead.key(&packet.key)));
            }
        }
        Self { distinct }
    }

    fn get(&self, packet: &Packet) -> &Key {
        let found = self.distinct.iter().find(|(bytes, _)| *bytes == packet.key);
        &found.expect("a packet of the burst").1
    }
}

fn seal_all(aead: Aead, packets: &[Packet]) -> Vec<Vec<u8>> {
    let keys = Keys::of(aead, packets);
    let mut buffers: Vec<Vec<u8>> =
        packets.iter().map(|packet| [packet.plaintext.as_slice(), &[0xee; TAG_LENGTH]].concat()).collect();
    let mut jobs: Vec<SealJob<'_>> = (packets.iter().zip(&mut buffers))
        .map(|(packet, buffer)| SealJob { key: keys.get(packet), counter: packet.counter, buffer })
        .collect();
    aead.seal_burst(&mut jobs);
    buffers
}

/// Opens `buffers` as if they were `packets`, and returns what each was found to be.
fn open_all(aead: Aead, packets: &[Packet], buffers: &mut [Vec<u8>]) -> Vec<bool> {
    let keys = Keys::of(aead, packets);
    let mut jobs: Vec<OpenJob<'_>> = (packets.iter().zip(buffers))
        .map(|(packet, buffer)| OpenJob { key: keys.get(packet), counter: packet.counter, buffer, authentic: false })
        .collect();
    aead.open_burst(&mut jobs);
    jobs.iter().map(|job| job.authentic).collect()
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(31) ^ seed.wrapping_mul(89)) as u8).collect()
}

/// Distinct packets of the given lengths.
fn packets_of(lengths: &[usize]) -> Vec<Packet> {
    let packet = |(index, &length): (usize, &usize)| Packet {
        key: std::array::from_fn(|byte| (byte * 7 + index * 13) as u8),
        counter: (index as u64) << 31 | 5,
        plaintext: pattern(length, index),
    };
    lengths.iter().enumerate().map(packet).collect()
}

#[test]
fn a_packet_of_every_short_length_seals_as_the_reference_does_and_opens_again() {
    for aead in backends() {
        let lengths: Vec<usize> = (0..600).chain([1419, 1420, 1421, 1500, 8999, 9000]).collect();
        let packets = packets_of(&lengths);
        let mut buffers = seal_all(aead, &packets);
        for (packet, buffer) in packets.iter().zip(&buffers) {
            assert_eq!(*buffer, packet.sealed(), "{aead:?} at {} bytes", packet.plaintext.len());
        }
        let authentic = open_all(aead, &packets, &mut buffers);
        for ((packet, buffer), authentic) in packets.iter().zip(&buffers).zip(authentic) {
            assert!(authentic, "{aead:?} at {} bytes", packet.plaintext.len());
            assert_eq!(buffer[..packet.plaintext.len()], packet.plaintext, "{aead:?}");
        }
    }
}

#[test]
fn a_buffer_too_short_for_a_tag_is_not_authentic_and_seals_to_zeros() {
    for aead in backends() {
        let key = aead.key(&[3; 32]);
        for length in 0..TAG_LENGTH {
            let mut buffer = vec![0x55; length];
            let mut jobs = [OpenJob { key: &key, counter: 0, buffer: &mut buffer, authentic: true }];
            aead.open_burst(&mut jobs);
            assert!(!jobs[0].authentic, "{aead:?} at {length} bytes");
            aead.seal_burst(&mut [SealJob { key: &key, counter: 0, buffer: &mut buffer }]);
            assert_eq!(buffer, vec![0; length], "{aead:?}");
        }
    }
}

#[test]
fn an_empty_burst_is_fine() {
    for aead in backends() {
        aead.seal_burst(&mut []);
        aead.open_burst(&mut []);
    }
}

#[test]
fn a_key_shows_nothing_of_itself_when_printed() {
    assert_eq!(format!("{:?}", Key::new(&[0x41; 32])), "Key(..)");
}

#[test]
fn the_best_backend_is_one_that_the_cpu_supports() {
    let best = Aead::best().backend();
    assert!(Aead::with_backend(best).is_ok());
    assert_eq!(best.name().parse(), Ok(best));
    assert_eq!("des".parse::<Backend>(), Err(UnknownBackend));
}

#[test]
fn one_forged_packet_anywhere_in_a_burst_leaves_the_others_alone() {
    for aead in backends() {
        for length in [0, 64, 65, 700] {
            let packets = packets_of(&[length; 64]);
            let sealed: Vec<Vec<u8>> = packets.iter().map(Packet::sealed).collect();
            for forged in 0..packets.len() {
                let mut buffers = sealed.clone();
                buffers[forged][length] ^= 1;
                let authentic = open_all(aead, &packets, &mut buffers);
                for (index, (packet, buffer)) in packets.iter().zip(&buffers).enumerate() {
                    assert_eq!(authentic[index], index != forged, "{aead:?} at {length} bytes, {forged} forged");
                    let is_plain = buffer[..length] == packet.plaintext;
                    assert!(is_plain != (index == forged && length > 0), "{aead:?} at {length} bytes, {forged} forged");
                }
            }
        }
    }
}

#[test]
fn one_packet_of_another_session_anywhere_in_a_burst_has_its_own_key() {
    for aead in backends() {
        for count in [2, 8, 9, 16, 31, 64] {
            for other in 0..count {
                let mut packets = packets_of(&vec![64; count]);
                packets.iter_mut().for_each(|packet| packet.key = [1; 32]);
                packets[other].key = [2; 32];
                let mut buffers = seal_all(aead, &packets);
                let sealed: Vec<_> = packets.iter().map(Packet::sealed).collect();
                assert_eq!(buffers, sealed, "{aead:?}: packet {other} of {count}");
                assert_eq!(
                    open_all(aead, &packets, &mut buffers),
                    vec![true; count],
                    "{aead:?}: packet {other} of {count}"
                );
            }
        }
    }
}

#[test]
fn a_burst_with_packets_too_long_or_too_short_for_the_kernel_is_done_all_the_same() {
    for aead in backends() {
        let packets = packets_of(&[100, 16_384, 40_000, 0, 16_385, 1500, 64, 20_000, 7, 300]);
        let mut buffers = seal_all(aead, &packets);
        assert_eq!(buffers, packets.iter().map(Packet::sealed).collect::<Vec<_>>(), "{aead:?}");
        buffers[3].truncate(TAG_LENGTH - 1);
        buffers[4][5] ^= 1;
        let authentic = open_all(aead, &packets, &mut buffers);
        assert_eq!(authentic, [true, true, true, false, false, true, true, true, true, true], "{aead:?}");
        for (index, (packet, buffer)) in packets.iter().zip(&buffers).enumerate().filter(|(index, _)| authentic[*index])
        {
            assert_eq!(buffer[..packet.plaintext.len()], packet.plaintext, "{aead:?}: packet {index}");
        }
    }
}

/// What is done to a sealed packet on its way.
#[derive(Clone, Copy, Debug)]
enum Corruption {
    None,
    FlipInText(usize),
    FlipInTag(usize),
    Truncated(usize),
    WrongKey(usize),
    WrongCounter(u32),
}

fn corruption() -> impl Strategy<Value = Corruption> {
    prop_oneof![
        6 => Just(Corruption::None),
        1 => any::<usize>().prop_map(Corruption::FlipInText),
        1 => (0..TAG_LENGTH * 8).prop_map(Corruption::FlipInTag),
        1 => any::<usize>().prop_map(Corruption::Truncated),
        1 => (0..256usize).prop_map(Corruption::WrongKey),
        1 => (0..64u32).prop_map(Corruption::WrongCounter),
    ]
}

impl Corruption {
    /// Returns whether the packet is still what its sender made.
    fn apply(self, packet: &mut Packet, buffer: &mut Vec<u8>) -> bool {
        let text = buffer.len() - TAG_LENGTH;
        match self {
            Self::None => return true,
            Self::FlipInText(_) if text == 0 => return true,
            Self::FlipInText(bit) => buffer[bit % (text * 8) / 8] ^= 1 << (bit % 8),
            Self::FlipInTag(bit) => buffer[text + bit / 8] ^= 1 << (bit % 8),
            Self::Truncated(by) => buffer.truncate(buffer.len() - 1 - by % buffer.len()),
            Self::WrongKey(bit) => packet.key[bit / 8] ^= 1 << (bit % 8),
            Self::WrongCounter(bit) => packet.counter ^= 1 << bit,
        }
        false
    }
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..300usize, 2 => 1300..1520usize, 1 => 0..9001usize]
}

fn packets() -> impl Strategy<Value = Vec<(Packet, Corruption)>> {
    // Few different keys, so that runs of one key and changes of key both occur.
    let packet = |length: BoxedStrategy<usize>| {
        (0..4u8, any::<u64>(), length, any::<usize>(), corruption()).prop_map(
            |(key, counter, length, seed, corruption)| {
                (Packet { key: [key; 32], counter, plaintext: pattern(length, seed) }, corruption)
            },
        )
    };
    prop_oneof![
        3 => prop::collection::vec(packet(length().boxed()), 1..65),
        // One length, around the blocks of both algorithms.
        1 => (0..9usize, 0..17usize, 1..65usize).prop_flat_map(move |(blocks, bytes, count)| {
            let length = (blocks * 64 + bytes).saturating_sub(8);
            prop::collection::vec(packet(Just(length).boxed()), count)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_burst_seals_as_the_reference_does(burst in packets()) {
        let packets: Vec<Packet> = burst.into_iter().map(|(packet, _)| packet).collect();
        let expected: Vec<Vec<u8>> = packets.iter().map(Packet::sealed).collect();
        for aead in backends() {
            prop_assert_eq!(&seal_all(aead, &packets), &expected, "{:?}", aead);
        }
    }

    #[test]
    fn a_burst_opens_what_is_authentic_and_shows_nothing_of_the_rest(burst in packets()) {
        let originals: Vec<Packet> = burst.iter().map(|(packet, _)| packet.clone()).collect();
        let mut received = originals.clone();
        let mut sealed: Vec<Vec<u8>> = originals.iter().map(Packet::sealed).collect();
        let intact: Vec<bool> = (received.iter_mut().zip(&mut sealed).zip(&burst))
            .map(|((packet, buffer), (_, corruption))| corruption.apply(packet, buffer))
            .collect();
        for aead in backends() {
            let mut buffers = sealed.clone();
            let authentic = open_all(aead, &received, &mut buffers);
            prop_assert_eq!(&authentic, &intact, "{:?}", aead);
            for (index, buffer) in buffers.iter().enumerate() {
                let text = buffer.len().saturating_sub(TAG_LENGTH);
                if intact[index] {
                    prop_assert_eq!(&buffer[..text], &originals[index].plaintext[..], "{:?}", aead);
                } else {
                    let zeroed = buffer[..text].iter().all(|&byte| byte == 0);
                    prop_assert!(zeroed || *buffer == sealed[index], "{:?}: packet {} changed", aead, index);
                }
                prop_assert_eq!(&buffer[text..], &sealed[index][text..], "{:?}: the tag changed", aead);
            }
        }
    }
}
