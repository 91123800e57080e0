//! Our parsers against those of `etherparse`.

use std::net::IpAddr;

use etherparse::{IpSlice, PacketBuilder, TcpOptionElement, VlanId};
use proptest::prelude::*;

use super::linux::{self, packet};
use crate::packet::tcp::{Flags, Tcp};
use crate::packet::{EtherType, Fragment, Frame, MacAddress, Parsed, Ports, Protocol, checksum};

/// A frame as `etherparse` writes it, with what went into it.
#[derive(Clone, Debug)]
struct Written {
    bytes: Vec<u8>,
    expected: Parsed,
    tags: usize,
    destination: MacAddress,
}

fn written() -> impl Strategy<Value = Written> {
    let frame = (any::<[u8; 6]>(), any::<[u8; 6]>(), 0usize..3, 0u16..4096, 0u16..4096);
    let ip = (any::<bool>(), any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u8>());
    let transport = (0u8..3, any::<[u16; 2]>(), any::<u32>(), any::<u16>());
    (frame, ip, transport, prop::collection::vec(any::<u8>(), 0..64)).prop_map(|(frame, ip, transport, payload)| {
        let ((destination, source, tags, outer, inner), (v6, from, to, ttl)) = (frame, ip);
        let (kind, [source_port, destination_port], sequence, size) = transport;
        let ethernet = PacketBuilder::ethernet2(source, destination);
        let [outer, inner] = [outer, inner].map(|tag| VlanId::try_new(tag).unwrap());
        let four = |address: [u8; 16]| [address[0], address[1], address[2], address[3]];
        let network = match (tags, v6) {
            (0, false) => ethernet.ipv4(four(from), four(to), ttl),
            (0, true) => ethernet.ipv6(from, to, ttl),
            (1, false) => ethernet.single_vlan(outer).ipv4(four(from), four(to), ttl),
            (1, true) => ethernet.single_vlan(outer).ipv6(from, to, ttl),
            (_, false) => ethernet.double_vlan(outer, inner).ipv4(four(from), four(to), ttl),
            (_, true) => ethernet.double_vlan(outer, inner).ipv6(from, to, ttl),
        };
        let mut bytes = Vec::new();
        let (protocol, ports, header) = match kind {
            0 => {
                network.udp(source_port, destination_port).write(&mut bytes, &payload).unwrap();
                (Protocol::UDP, true, 8)
            }
            1 => {
                let options = [TcpOptionElement::Noop, TcpOptionElement::MaximumSegmentSize(size)];
                let segment =
                    network.tcp(source_port, destination_port, sequence, 1000).syn().options(&options).unwrap();
                segment.write(&mut bytes, &payload).unwrap();
                (Protocol::TCP, true, 28)
            }
            _ if v6 => {
                network.icmpv6_echo_request(source_port, destination_port).write(&mut bytes, &payload).unwrap();
                (Protocol::ICMPV6, false, 8)
            }
            _ => {
                network.icmpv4_echo_request(source_port, destination_port).write(&mut bytes, &payload).unwrap();
                (Protocol::ICMP, false, 8)
            }
        };
        let network = if v6 { 40 } else { 20 };
        let address = |octets: [u8; 16]| if v6 { IpAddr::from(octets) } else { IpAddr::from(four(octets)) };
        let expected = Parsed {
            source: address(from),
            destination: address(to),
            total_length: (network + header + payload.len()) as u32,
            l4_offset: network as u16,
            protocol,
            fragment: Fragment::No,
            ports: ports.then_some(Ports { source: source_port, destination: destination_port }),
            dont_fragment: true,
            traffic_class: 0,
            ttl,
        };
        Written { bytes, expected, tags, destination: MacAddress(destination) }
    })
}

/// Extension headers of random kinds and lengths before some payload, most of them well formed.
fn extended() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(0u8), Just(43), Just(44), Just(51), Just(60)];
    let header = (kind, 0u8..3, any::<[u8; 2]>());
    (prop::collection::vec(header, 0..7), 0u8..10, any::<u8>()).prop_map(|(headers, missing, last)| {
        let kinds: Vec<u8> = headers.iter().map(|(kind, ..)| *kind).chain([last]).collect();
        let mut bytes = packet("udp_v6");
        bytes.truncate(40);
        bytes[6] = kinds[0];
        for (at, (kind, length, field)) in headers.iter().enumerate() {
            let size = match kind {
                44 => 8,
                51 => (usize::from(*length) + 2) * 4,
                _ => (usize::from(*length) + 1) * 8,
            };
            let start = bytes.len();
            bytes.resize(start + size, 0);
            bytes[start..start + 4].copy_from_slice(&[
                kinds[at + 1],
                *length,
                field[0] & field[1] & 0x81,
                field[1] & 0x0f,
            ]);
        }
        bytes.extend([1; 8]);
        bytes.truncate(bytes.len() - usize::from(missing));
        let length = bytes.len().saturating_sub(40) as u16;
        bytes[4..6].copy_from_slice(&length.to_be_bytes());
        bytes
    })
}

/// What both parsers have to agree on about any bytes.
fn assert_agreement(data: &[u8]) -> Result<(), TestCaseError> {
    let ours = Parsed::from_ip(data);
    match IpSlice::from_slice(data) {
        Ok(theirs) => {
            let unknown_to_them = [Protocol::HOST_IDENTITY, Protocol::MOBILITY, Protocol::SHIM6];
            if unknown_to_them.contains(&Protocol(theirs.payload().ip_number.0)) {
                return Ok(());
            }
            let Ok(ours) = ours else {
                // They have no limit to the headers.
                prop_assert_eq!(ours, Err(crate::packet::IpError::Ipv6TooManyExtensions));
                return Ok(());
            };
            prop_assert_eq!((ours.source, ours.destination), (theirs.source_addr(), theirs.destination_addr()));
            prop_assert_eq!(ours.fragment != Fragment::No, theirs.is_fragmenting_payload());
            let authenticated_v4 = ours.is_ipv4() && ours.protocol == Protocol::AUTHENTICATION;
            // They read headers in later fragments, take a length of zero for that of a jumbogram, and look through
            // an authentication header of IPv4.
            let jumbogram = !ours.is_ipv4() && ours.total_length == 40;
            if ours.fragment != Fragment::Later && !authenticated_v4 && !jumbogram {
                let payload = theirs.payload();
                prop_assert_eq!((ours.protocol.0, ours.l4(data)), (payload.ip_number.0, payload.payload));
            }
        }
        Err(etherparse::err::ip::SliceError::Len(_)) => {
            let later = ours.is_ok_and(|ours| ours.fragment == Fragment::Later);
            let authenticated_v4 = ours.is_ok_and(|ours| ours.protocol == Protocol::AUTHENTICATION);
            prop_assert!(ours.is_err() || later || authenticated_v4, "{:?}", ours);
        }
        // They refuse what we leave to the receiver: hop-by-hop options in the middle.
        Err(etherparse::err::ip::SliceError::IpHeaders(_)) => {}
    }
    Ok(())
}

#[test]
fn both_agree_on_the_packets_of_linux_and_on_all_their_truncations() {
    for (_, frame) in linux::frames() {
        let data = frame.get(14..).unwrap();
        if Frame::parse(&frame).unwrap().ethertype != EtherType::ARP {
            (0..=data.len()).for_each(|length| assert_agreement(&data[..length]).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn what_etherparse_writes_we_read(written in written()) {
        let frame = Frame::parse(&written.bytes).unwrap();
        prop_assert_eq!(frame.destination, written.destination);
        prop_assert_eq!(frame.vlans.iter().flatten().count(), written.tags);
        let data = frame.payload(&written.bytes);
        let mut expected = written.expected;
        let parsed = Parsed::from_payload(frame.ethertype, data).unwrap().unwrap();
        expected.dont_fragment = parsed.dont_fragment;
        prop_assert_eq!(parsed, expected);
        prop_assert_eq!(parsed.verify_header_checksum(data), Ok(()));
        let l4 = parsed.l4(data);
        match parsed.protocol {
            Protocol::ICMP => prop_assert_eq!(checksum::checksum(l4), 0),
            protocol => {
                let pseudo = checksum::pseudo(parsed.source, parsed.destination, protocol, l4.len() as u32);
                prop_assert!(pseudo.bytes(l4).is_right());
            }
        }
        if parsed.protocol == Protocol::TCP {
            let tcp = Tcp::parse(l4).unwrap();
            prop_assert_eq!((tcp.flags, tcp.header_length, tcp.mss_offset(l4)), (Flags::SYN, 28, Some(23)));
        }
    }

    #[test]
    fn both_agree_on_packets_with_changed_bytes(
        which in any::<prop::sample::Index>(), changes in prop::collection::vec((0usize..60, any::<u8>()), 0..4), cut in 0usize..80,
    ) {
        let frames: Vec<_> = linux::frames().collect();
        let mut data = which.get(&frames).1[14..].to_vec();
        for (at, byte) in changes {
            if let Some(place) = data.get_mut(at) {
                *place = byte;
            }
        }
        data.truncate(data.len().saturating_sub(cut));
        assert_agreement(&data)?;
    }

    #[test]
    fn both_agree_on_chains_of_extension_headers(data in extended()) {
        assert_agreement(&data)?;
    }
}
