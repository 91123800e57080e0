//! The Internet checksum and what is derived from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::packet::checksum::{self, Sum};
use crate::packet::ecn::Ecn;
use crate::packet::{Protocol, ipv4, udp};

/// RFC 1071 section 1, word by word.
fn plain(data: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in data.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Zero and all ones are the same number in ones' complement.
fn same(a: u16, b: u16) -> bool {
    a == b || (a, b) == (0, 0xffff) || (a, b) == (0xffff, 0)
}

#[test]
fn the_example_of_rfc_1071_sums_to_ddf2() {
    let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(Sum::ZERO.bytes(&data).folded(), 0xddf2);
    assert_eq!(checksum::checksum(&data), !0xddf2);
}

#[test]
fn the_example_of_rfc_1624_updates_to_zero_and_not_to_all_ones() {
    // Section 4: the header's checksum is 0xdd2f, a word changes from 0x5555 to 0x3285.
    assert_eq!(checksum::update(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
    // The two zero bytes are the checksum field; the word before makes the sum all ones.
    let addresses = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv4Addr::LOCALHOST));
    let pseudo = checksum::pseudo(addresses.0, addresses.1, Protocol::UDP, 10);
    let mut datagram = [0, 0, 0, 0, 0, 10, 0, 0, 0, 0];
    let missing = 0xffff - pseudo.bytes(&datagram).folded();
    datagram[8..].copy_from_slice(&missing.to_be_bytes());
    assert_eq!(pseudo.bytes(&datagram).checksum(), 0);
    assert_eq!(udp::checksum_of(addresses.0, addresses.1, &datagram), 0xffff);
}

proptest! {
    #[test]
    fn the_wide_sum_is_the_plain_sum(data in prop::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert_eq!(checksum::checksum(&data), plain(&data));
    }

    #[test]
    fn sums_of_pieces_are_the_sum_of_the_whole(data in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..150) {
        let (head, tail) = data.split_at((cut * 2).min(data.len() / 2 * 2));
        let whole = Sum::ZERO.bytes(&data).folded();
        prop_assert_eq!(Sum::ZERO.bytes(head).bytes(tail).folded(), whole);
        prop_assert_eq!(Sum::ZERO.bytes(head).plus(Sum::ZERO.bytes(tail)).folded(), whole);
    }

    #[test]
    fn an_update_is_the_checksum_of_the_changed_data(
        mut data in prop::collection::vec(any::<u8>(), 8..100),
        new in any::<[u8; 4]>(),
        place in any::<prop::sample::Index>(),
    ) {
        let at = place.index(data.len() / 2 - 2) * 2;
        let before = plain(&data);
        let old: [u8; 4] = data[at..at + 4].try_into().unwrap();
        data[at..at + 4].copy_from_slice(&new);
        prop_assert!(same(checksum::update_bytes(before, &old, &new), plain(&data)));
        let word = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
        let one = checksum::update(before, word(&old), word(&new));
        prop_assert!(same(checksum::update(one, word(&old[2..]), word(&new[2..])), plain(&data)));
    }

    #[test]
    fn both_pseudo_headers_are_the_bytes_that_the_rfcs_draw(
        source in any::<u128>(), destination in any::<u128>(), protocol in any::<u8>(), length in any::<u16>(),
    ) {
        let (s6, d6) = (Ipv6Addr::from_bits(source), Ipv6Addr::from_bits(destination));
        let (s4, d4) = (Ipv4Addr::from_bits(source as u32), Ipv4Addr::from_bits(destination as u32));
        let [l0, l1] = length.to_be_bytes();
        let v4 = [&s4.octets()[..], &d4.octets(), &[0, protocol, l0, l1]].concat();
        let v6 = [&s6.octets()[..], &d6.octets(), &[0, 0, l0, l1, 0, 0, 0, protocol]].concat();
        let protocol = Protocol(protocol);
        prop_assert_eq!(checksum::pseudo_v4(s4, d4, protocol, length).checksum(), plain(&v4));
        prop_assert_eq!(checksum::pseudo(s4.into(), d4.into(), protocol, length.into()).checksum(), plain(&v4));
        prop_assert_eq!(checksum::pseudo_v6(s6, d6, protocol, length.into()).checksum(), plain(&v6));
        prop_assert_eq!(checksum::pseudo(s6.into(), d6.into(), protocol, length.into()).checksum(), plain(&v6));
    }

    #[test]
    fn a_hop_and_a_mark_leave_the_ipv4_checksum_right(
        addresses in any::<[u32; 2]>(), ttl in 2u8.., traffic_class in any::<u8>(), identification in any::<u16>(),
        length in any::<u16>(), mark in 0u8..4,
    ) {
        let mut packet = [0; 20];
        ipv4::Header {
            source: Ipv4Addr::from_bits(addresses[0]),
            destination: Ipv4Addr::from_bits(addresses[1]),
            protocol: Protocol::UDP,
            traffic_class,
            ttl,
            fragmentation: ipv4::Fragmentation::Allowed { identification },
            total_length: length,
        }.write(&mut packet);
        prop_assert!(ipv4::checksum_is_right(&packet));
        prop_assert_eq!(ipv4::decrement_ttl(&mut packet), Some(()));
        prop_assert_eq!(packet[8], ttl - 1);
        prop_assert!(ipv4::checksum_is_right(&packet));
        ipv4::set_ecn(&mut packet, Ecn::of(mark));
        prop_assert_eq!(packet[1], traffic_class & !3 | mark);
        prop_assert!(ipv4::checksum_is_right(&packet));
    }
}
