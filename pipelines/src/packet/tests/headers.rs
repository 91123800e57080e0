//! Parsers and writers of the headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::packet::ecn::{self, Dscp, Ecn};
use crate::packet::ethernet::{self, EtherType, Frame, FrameError, MacAddress};
use crate::packet::ipv4::{self, Fragmentation};
use crate::packet::ipv6;
use crate::packet::udp::{self, Checksum, Udp, UdpError};
use crate::packet::{Fragment, IpError, Parsed, Ports, Protocol};

fn v4(text: &str) -> IpAddr {
    text.parse::<Ipv4Addr>().unwrap().into()
}

fn v6(text: &str) -> IpAddr {
    text.parse::<Ipv6Addr>().unwrap().into()
}

/// An IPv4 packet of UDP from 192.0.2.1:5000 to 198.51.100.2:53.
fn udp_over_v4(payload: &[u8]) -> Vec<u8> {
    let length = udp::HEADER_LENGTH + payload.len();
    let mut header = [0; 20];
    ipv4::Header {
        source: Ipv4Addr::new(192, 0, 2, 1),
        destination: Ipv4Addr::new(198, 51, 100, 2),
        protocol: Protocol::UDP,
        traffic_class: 0xb9,
        ttl: 64,
        fragmentation: Fragmentation::Forbidden,
        total_length: (20 + length) as u16,
    }
    .write(&mut header);
    let mut udp = [0; 8];
    udp::write(&mut udp, 5000, 53, length as u16, Checksum::None);
    let checksum = udp::checksum_of(v4("192.0.2.1"), v4("198.51.100.2"), &[&udp, payload].concat());
    udp::write(&mut udp, 5000, 53, length as u16, Checksum::Value(checksum));
    [&header[..], &udp, payload].concat()
}

/// An IPv6 packet with these bytes behind its fixed header.
fn over_v6(next: Protocol, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; 40];
    ipv6::Header {
        source: "2001:db8::1".parse().unwrap(),
        destination: "2001:db8:1::2".parse().unwrap(),
        protocol: next,
        traffic_class: 0xb9,
        flow_label: 0xabcde,
        hop_limit: 64,
        payload_length: payload.len() as u16,
    }
    .write(&mut header);
    [&header[..], payload].concat()
}

#[test]
fn a_udp_packet_over_ipv4_says_what_was_written() {
    let packet = udp_over_v4(b"hello");
    let parsed = Parsed::from_ip(&packet).unwrap();
    let expected = Parsed {
        source: v4("192.0.2.1"),
        destination: v4("198.51.100.2"),
        total_length: 33,
        l4_offset: 20,
        protocol: Protocol::UDP,
        fragment: Fragment::No,
        ports: Some(Ports { source: 5000, destination: 53 }),
        dont_fragment: true,
        traffic_class: 0xb9,
        ttl: 64,
    };
    assert_eq!(parsed, expected);
    assert_eq!((parsed.dscp(), parsed.ecn()), (46, Ecn::Ect1));
    assert_eq!(parsed.verify_header_checksum(&packet), Ok(()));
    let udp = Udp::parse(parsed.l4(&packet)).unwrap();
    assert_eq!(udp.payload(parsed.l4(&packet)), b"hello");
    assert_eq!(udp.verify_checksum(&parsed, parsed.l4(&packet)), Ok(()));
}

#[test]
fn padding_behind_a_packet_is_no_part_of_it() {
    let mut packet = udp_over_v4(b"hello");
    packet.resize(46, 0xff);
    let parsed = Parsed::from_ip(&packet).unwrap();
    assert_eq!(parsed.total_length, 33);
    assert_eq!(parsed.l4(&packet).len(), 13);
    let mut packet = over_v6(Protocol::UDP, &[0; 8]);
    packet.push(1);
    assert_eq!(Parsed::from_ip(&packet).unwrap().l4(&packet), [0; 8]);
}

#[test]
fn a_packet_that_lacks_bytes_is_refused_at_every_length() {
    let packet = udp_over_v4(b"hello");
    for length in 0..packet.len() {
        let error = if length == 0 { IpError::UnknownVersion } else { IpError::Ipv4Truncated };
        assert_eq!(Parsed::from_ip(&packet[..length]), Err(error), "{length}");
    }
    let packet = over_v6(Protocol::HOP_BY_HOP, &[17, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 8, 0, 0]);
    for length in 1..packet.len() {
        assert_eq!(Parsed::from_ip(&packet[..length]), Err(IpError::Ipv6Truncated), "{length}");
    }
    assert!(Parsed::from_ip(&packet).is_ok());
}

#[test]
fn each_contradiction_in_an_ipv4_header_is_found() {
    let with = |at: usize, byte: u8| {
        let mut packet = udp_over_v4(b"hello");
        packet[at] = byte;
        packet
    };
    assert_eq!(Parsed::from_ip(&with(0, 0x44)), Err(IpError::Ipv4HeaderLength));
    assert_eq!(Parsed::from_ip(&with(0, 0x55)), Err(IpError::UnknownVersion));
    assert_eq!(Parsed::from_ip(&with(3, 19)), Err(IpError::Ipv4HeaderLength));
    assert_eq!(Parsed::from_ip(&with(3, 34)), Err(IpError::Ipv4Truncated));
    assert_eq!(Parsed::from_ip(&with(0, 0x4f)), Err(IpError::Ipv4HeaderLength));
    let options = with(0, 0x46);
    assert_eq!(Parsed::from_ip(&options).unwrap().l4_offset, 24);
    let changed = with(12, 193);
    assert_eq!(Parsed::from_ip(&changed).unwrap().verify_header_checksum(&changed), Err(IpError::Ipv4Checksum));
    let payload = |ethertype| Parsed::from_payload(ethertype, &udp_over_v4(&[0; 20])).map(|parsed| parsed.map(drop));
    assert_eq!(payload(EtherType::IPV6), Some(Err(IpError::Ipv6Version)));
    assert_eq!(payload(EtherType::IPV4), Some(Ok(())));
    assert_eq!(payload(EtherType::ARP), None);
}

#[test]
fn only_the_first_fragment_has_ports() {
    let with = |flags: u16| {
        let mut packet = udp_over_v4(b"hello");
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        let parsed = Parsed::from_ip(&packet).unwrap();
        (parsed.fragment, parsed.ports.is_some(), parsed.dont_fragment)
    };
    assert_eq!(with(0x4000), (Fragment::No, true, true));
    assert_eq!(with(0x2000), (Fragment::First, true, false));
    assert_eq!(with(0x2001), (Fragment::Later, false, false));
    assert_eq!(with(0x0001), (Fragment::Later, false, false));
    let with = |field: u16| {
        let [f0, f1] = field.to_be_bytes();
        let packet = over_v6(Protocol::FRAGMENT, &[17, 0, f0, f1, 1, 2, 3, 4, 0, 1, 0, 2, 0, 8, 0, 0]);
        let parsed = Parsed::from_ip(&packet).unwrap();
        (parsed.fragment, parsed.ports.is_some(), parsed.l4_offset, parsed.protocol)
    };
    assert_eq!(with(0), (Fragment::No, true, 48, Protocol::UDP));
    assert_eq!(with(1), (Fragment::First, true, 48, Protocol::UDP));
    assert_eq!(with(8), (Fragment::Later, false, 48, Protocol::UDP));
    // An atomic fragment inside a first fragment does not make it whole.
    let nested =
        over_v6(Protocol::FRAGMENT, &[44, 0, 0, 1, 0, 0, 0, 1, 17, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 2, 0, 8, 0, 0]);
    assert_eq!(Parsed::from_ip(&nested).unwrap().fragment, Fragment::First);
}

#[test]
fn extension_headers_are_walked_to_the_transport() {
    let chain = [
        &[43, 0, 1, 4, 0, 0, 0, 0][..],                     // hop-by-hop
        &[51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // routing of 16 bytes
        &[60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],             // authentication of 12 bytes
        &[17, 0, 1, 4, 0, 0, 0, 0],                         // destination options
        &[0x13, 0x88, 0, 53, 0, 8, 0, 0],                   // UDP
    ]
    .concat();
    let packet = over_v6(Protocol::HOP_BY_HOP, &chain);
    let parsed = Parsed::from_ip(&packet).unwrap();
    assert_eq!((parsed.protocol, parsed.l4_offset), (Protocol::UDP, 40 + 8 + 16 + 12 + 8));
    assert_eq!(parsed.ports, Some(Ports { source: 5000, destination: 53 }));
    // The last header says that it is longer than the packet.
    let mut longer = packet.clone();
    longer[40 + 8 + 16 + 12 + 1] = 2;
    assert_eq!(Parsed::from_ip(&longer), Err(IpError::Ipv6ExtensionTruncated));
    let mut empty_authentication = packet.clone();
    empty_authentication[40 + 8 + 16 + 1] = 0;
    assert_eq!(Parsed::from_ip(&empty_authentication), Err(IpError::Ipv6ExtensionTruncated));
    let nothing = Parsed::from_ip(&over_v6(Protocol::NO_NEXT, &[0; 4])).unwrap();
    assert_eq!((nothing.protocol, nothing.ports), (Protocol::NO_NEXT, None));
}

#[test]
fn the_ninth_extension_header_is_too_many() {
    let chain = |count: usize| {
        let mut bytes = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        bytes[(count - 1) * 8] = 59;
        over_v6(Protocol::DESTINATION_OPTIONS, &bytes)
    };
    assert_eq!(Parsed::from_ip(&chain(8)).unwrap().protocol, Protocol::NO_NEXT);
    assert_eq!(Parsed::from_ip(&chain(9)), Err(IpError::Ipv6TooManyExtensions));
}

#[test]
fn frames_are_looked_through_two_tags() {
    let mut header = [0; 14];
    let (ours, theirs) = (MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2]));
    ethernet::write(&mut header, ours, theirs, EtherType::IPV4);
    let plain = Frame::parse(&header).unwrap();
    assert_eq!((plain.destination, plain.source, plain.ethertype), (ours, theirs, EtherType::IPV4));
    assert_eq!((plain.l3_offset, plain.vlans), (14, [None; 2]));

    let tagged = [&header[..12], &[0x88, 0xa8, 0x60, 100, 0x81, 0, 0, 7, 0x86, 0xdd, 9]].concat();
    let frame = Frame::parse(&tagged).unwrap();
    assert_eq!((frame.ethertype, frame.payload(&tagged)), (EtherType::IPV6, &[9][..]));
    let tags = frame.vlans.map(|tag| tag.map(|tag| (tag.ethertype, tag.vlan(), tag.priority())));
    assert_eq!(tags, [Some((EtherType::SERVICE_VLAN, 100, 3)), Some((EtherType::VLAN, 7, 0))]);
    for length in 0..22 {
        assert_eq!(Frame::parse(&tagged[..length]), Err(FrameError::Truncated));
    }
    let three = [&header[..12], &[0x81, 0, 0, 1], &[0x81, 0, 0, 2], &[0x81, 0, 0, 3], &[8, 0]].concat();
    assert_eq!(Frame::parse(&three).unwrap().ethertype, EtherType::VLAN);
}

#[test]
fn a_hop_is_taken_only_when_another_is_left() {
    for (ttl, taken) in [(0, None), (1, None), (2, Some(1)), (255, Some(254))] {
        let mut packet = udp_over_v4(b"");
        packet[8] = ttl;
        let mut parsed = Parsed::from_ip(&packet).unwrap();
        let done = parsed.decrement_ttl(&mut packet);
        assert_eq!((done.map(|()| packet[8]), parsed.ttl), (taken, taken.unwrap_or(ttl)));
        let mut packet = over_v6(Protocol::UDP, b"");
        packet[7] = ttl;
        let mut parsed = Parsed::from_ip(&packet).unwrap();
        let done = parsed.decrement_ttl(&mut packet);
        assert_eq!((done.map(|()| packet[7]), parsed.ttl), (taken, taken.unwrap_or(ttl)));
    }
}

#[test]
fn ecn_leaves_a_tunnel_as_the_table_of_rfc_6040_says() {
    use Ecn::{Ce, Ect0, Ect1, NotEct};
    let outer = [NotEct, Ect0, Ect1, Ce];
    let table = [
        (NotEct, [Ok(NotEct), Ok(NotEct), Ok(NotEct), Err(ecn::Inconsistent)]),
        (Ect0, [Ok(Ect0), Ok(Ect0), Ok(Ect1), Ok(Ce)]),
        (Ect1, [Ok(Ect1), Ok(Ect1), Ok(Ect1), Ok(Ce)]),
        (Ce, [Ok(Ce), Ok(Ce), Ok(Ce), Ok(Ce)]),
    ];
    for (inner, row) in table {
        assert_eq!(outer.map(|outer| ecn::decapsulate(inner, outer)), row, "{inner:?}");
    }
    assert_eq!(ecn::encapsulate(0xb9, Dscp::Hide), 0x01);
    assert_eq!(ecn::encapsulate(0xb9, Dscp::Copy), 0xb9);
    for mut packet in [udp_over_v4(b"x"), over_v6(Protocol::UDP, &[0; 8])] {
        let mut parsed = Parsed::from_ip(&packet).unwrap();
        parsed.set_ecn(&mut packet, Ce);
        assert_eq!(Parsed::from_ip(&packet), Ok(parsed));
        assert_eq!((parsed.ecn(), parsed.dscp()), (Ce, 46));
        assert_eq!(parsed.verify_header_checksum(&packet), Ok(()));
    }
}

#[test]
fn each_fault_of_a_udp_header_is_found() {
    let packet = udp_over_v4(b"hello");
    let parsed = Parsed::from_ip(&packet).unwrap();
    let l4 = parsed.l4(&packet);
    assert_eq!(Udp::parse(&l4[..7]), Err(UdpError::Truncated));
    assert_eq!(Udp::parse(&l4[..12]), Err(UdpError::Length));
    let with = |at: usize, byte: u8| {
        let mut l4 = l4.to_vec();
        l4[at] = byte;
        Udp::parse(&l4).and_then(|udp| udp.verify_checksum(&parsed, &l4))
    };
    assert_eq!(with(5, 7), Err(UdpError::Length));
    assert_eq!(with(12, b'O'), Err(UdpError::Checksum));
    assert_eq!(with(12, b'o'), Ok(()));
    let unsummed = [0x13, 0x88, 0, 53, 0, 8, 0, 0];
    let udp = Udp::parse(&unsummed).unwrap();
    assert_eq!(udp.verify_checksum(&parsed, &unsummed), Ok(()));
    let over_v6 = Parsed { source: v6("::1"), destination: v6("::2"), ..parsed };
    assert_eq!(udp.verify_checksum(&over_v6, &unsummed), Err(UdpError::Checksum));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_and_what_parses_lies_inside(mut data in prop::collection::vec(any::<u8>(), 0..120), version in 0u8..3) {
        if let (Some(first), 1..) = (data.first_mut(), version) {
            *first = if version == 1 { 0x40 | (*first & 0x0f) } else { 0x60 | (*first & 0x0f) };
        }
        if data.len() > 5 && version > 0 {
            // Lengths that fit, so that more than the length check is reached.
            let at = if version == 1 { 2 } else { 4 };
            let length = if version == 1 { data.len() } else { data.len().saturating_sub(40) };
            data[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
        }
        let _ = Frame::parse(&data);
        if let Ok(parsed) = Parsed::from_ip(&data) {
            prop_assert!(usize::from(parsed.l4_offset) <= parsed.total_length as usize);
            prop_assert!(parsed.total_length as usize <= data.len());
            prop_assert_eq!(parsed.ports.is_some() && parsed.fragment == Fragment::Later, false);
        }
    }
}
