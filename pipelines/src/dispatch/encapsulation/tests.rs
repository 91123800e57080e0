use etherparse::{PacketBuilder, SlicedPacket};

use super::*;
use crate::buffer::HeapBuf;
use crate::packet::ipv4::checksum_is_right;
use crate::packet::udp::Udp;

const ADDRESSES: [(&str, &str); 2] = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")];

fn inner(v4: bool, dont_fragment: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if v4 {
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9);
        builder.udp(1, 2).write(&mut out, &[7; 33]).unwrap();
        out[1] = 0b1011_1001;
        out[6] = if dont_fragment { 0x40 } else { 0 };
        out[10..12].fill(0);
        let sum = crate::packet::checksum::checksum(&out[..20]);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        let builder = PacketBuilder::ipv6([1; 16], [2; 16], 9);
        builder.udp(1, 2).write(&mut out, &[7; 33]).unwrap();
        out[0] = 0x60 | 0b1011;
        out[1] = 0b1001_0000;
    }
    out
}

/// Every encapsulation of every version in every version.
fn each(mut check: impl FnMut(Encapsulation, &[u8], &Parsed, &[u8])) {
    for encapsulation in [Encapsulation::Ipip, Encapsulation::Gre, Encapsulation::Gue] {
        for (source, destination) in ADDRESSES.map(|(a, b)| (a.parse().unwrap(), b.parse::<IpAddr>().unwrap())) {
            for packet in [inner(true, true), inner(true, false), inner(false, true)] {
                let mut buffer = HeapBuf::from_packet(&packet);
                let parsed = Parsed::from_ip(&packet).unwrap();
                let ends = Ends::new(source, destination).unwrap();
                wrap(encapsulation, &mut buffer, &parsed, ends, 0x1234_5678_9abc_def0, &mut 0).unwrap();
                let grown = buffer.data().len() - packet.len();
                assert_eq!(grown, usize::from(overhead(encapsulation, destination)));
                check(encapsulation, &packet, &parsed, buffer.data());
            }
        }
    }
}

#[test]
fn the_packet_is_inside_as_it_was_behind_headers_that_a_second_parser_reads() {
    each(|encapsulation, packet, inner, outer| {
        let parsed = Parsed::from_ip(outer).unwrap();
        assert!(SlicedPacket::from_ip(outer).is_ok());
        assert_eq!(parsed.total_length as usize, outer.len());
        assert!(!parsed.is_ipv4() || checksum_is_right(outer));
        let payload = parsed.l4(outer);
        let inside = match (encapsulation, parsed.protocol) {
            (Encapsulation::Ipip, protocol) => {
                assert_eq!(protocol.0, if inner.is_ipv4() { 4 } else { 41 });
                payload
            }
            (Encapsulation::Gre, Protocol(47)) => {
                assert_eq!(payload[..4], if inner.is_ipv4() { [0, 0, 8, 0] } else { [0, 0, 0x86, 0xdd] });
                &payload[4..]
            }
            (Encapsulation::Gue, Protocol::UDP) => {
                let udp = Udp::parse(payload).unwrap();
                assert_eq!((udp.destination_port, udp.source_port >= 49_152), (6080, true));
                udp.verify_checksum(&parsed, payload).unwrap();
                udp.payload(payload)
            }
            (_, protocol) => panic!("protocol {protocol:?}"),
        };
        assert_eq!(inside, packet);
    });
}

#[test]
fn class_of_traffic_shows_outside_hops_do_not_and_dont_fragment_is_kept() {
    each(|_, _, inner, outer| {
        let parsed = Parsed::from_ip(outer).unwrap();
        assert_eq!((parsed.traffic_class, parsed.ttl), (inner.traffic_class, 64));
        assert!(!parsed.is_ipv4() || parsed.dont_fragment == inner.dont_fragment);
    });
}

#[test]
fn a_buffer_without_room_says_so() {
    let packet = inner(true, true);
    let mut buffer = HeapBuf::from_packet(&packet);
    buffer.grow_front(crate::buffer::HEADROOM - 10).unwrap();
    let ends = Ends::new("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()).unwrap();
    let parsed = Parsed::from_ip(&packet).unwrap();
    assert!(wrap(Encapsulation::Gre, &mut buffer, &parsed, ends, 0, &mut 0).is_err());
}
