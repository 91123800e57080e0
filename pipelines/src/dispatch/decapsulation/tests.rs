use super::*;
use crate::buffer::{HeapBuf, PacketBuf};
use crate::dispatch::encapsulation::{Ends, wrap};

const ALL: [Encapsulation; 3] = [Encapsulation::Ipip, Encapsulation::Gre, Encapsulation::Gue];

fn all_from(net: &str) -> Decapsulation {
    Decapsulation::new([net.parse::<IpNet>().unwrap()], &ALL)
}

/// An IP packet without content.
fn bare(is_v4: bool) -> Vec<u8> {
    let mut packet = vec![0; 40];
    if is_v4 {
        packet.truncate(20);
        packet[..10].copy_from_slice(&[0x45, 0, 0, 20, 0, 0, 0x40, 0, 64, 253]);
    } else {
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 253, 64]);
    }
    packet
}

fn ends(is_v4: bool) -> Ends {
    let ends = if is_v4 { ["192.0.2.1", "192.0.2.2"] } else { ["2001:db8::1", "2001:db8::2"] };
    let [source, destination] = ends.map(|end| end.parse().unwrap());
    Ends::new(source, destination).unwrap()
}

#[test]
fn what_jetway_puts_into_a_packet_is_found_in_it() {
    for kind in ALL {
        for (outer_v4, inner_v4) in [(true, true), (true, false), (false, true), (false, false)] {
            let inner = bare(inner_v4);
            let mut buffer = HeapBuf::from_packet(&inner);
            let parsed = Parsed::from_ip(&inner).unwrap();
            wrap(kind, &mut buffer, &parsed, ends(outer_v4), 77, &mut 5).unwrap();
            let outer = Parsed::from_ip(buffer.data()).unwrap();
            assert_eq!(all_from("192.0.2.0/24").kind_of(&outer), Some(kind));
            let inside = find_inside(kind, &outer, buffer.data(), ChecksumState::Unknown).unwrap();
            assert_eq!(buffer.data()[inside.offset..], inner);
            assert_eq!(inside.ethertype == EtherType::IPV4, inner_v4);
        }
    }
}

#[test]
fn only_what_is_configured_is_taken_from_those_who_are() {
    let ipip = Decapsulation::new(["192.0.2.0/24".parse::<IpNet>().unwrap()], &[Encapsulation::Ipip]);
    let protocol = |protocol| Parsed { protocol, ..Parsed::NOTHING };
    assert_eq!(ipip.kind_of(&protocol(Protocol::IPV6)), Some(Encapsulation::Ipip));
    assert_eq!(ipip.kind_of(&protocol(Protocol::GRE)), None);
    assert_eq!(ipip.kind_of(&protocol(Protocol::TCP)), None);
    assert!(ipip.trusts("192.0.2.9".parse().unwrap()));
    assert!(!ipip.trusts("192.0.3.9".parse().unwrap()) && !ipip.trusts("2001:db8::1".parse().unwrap()));
}

/// The error for a UDP or GRE payload over IPv4.
fn refused(protocol: u8, payload: &[u8]) -> Option<DropReason> {
    let mut packet = bare(true);
    packet[9] = protocol;
    packet.extend(payload);
    packet[3] = packet.len() as u8;
    let outer = Parsed::from_ip(&packet).unwrap();
    let kind = all_from("192.0.2.0/24").kind_of(&outer).unwrap();
    find_inside(kind, &outer, &packet, ChecksumState::Unknown).err()
}

#[test]
fn headers_with_options_and_packets_that_end_early_are_refused() {
    let malformed = Some(DropReason::EncapsulationMalformed);
    assert_eq!(refused(47, &[0, 0, 8, 0]), None);
    for gre in [&[0x20, 0, 8, 0, 0, 0, 0, 1][..], &[0, 1, 8, 0], &[0x80, 0, 8, 0], &[0, 0, 0x65, 0x58], &[0, 0, 8], &[]]
    {
        assert_eq!(refused(47, gre), malformed, "{gre:?}");
    }
    // To port 6080, without a checksum.
    let datagram = |length: u8, payload: &[u8]| [&[0xc0, 0, 0x17, 0xc0, 0, length, 0, 0], payload].concat();
    for good in [&[0x45, 0, 0, 20][..], &[0x60, 0, 0, 0], &[0, 4, 0, 0], &[0, 41, 0, 0]] {
        assert_eq!(refused(17, &datagram(12, good)), None, "{good:?}");
    }
    for gue in [&[0, 47, 0, 0][..], &[1, 4, 0, 0], &[0x20, 4, 0, 0], &[0, 4, 0x80, 0], &[0x80, 0, 0, 0], &[0x45]] {
        assert_eq!(refused(17, &datagram(8 + gue.len() as u8, gue)), malformed, "{gue:?}");
    }
    assert_eq!(refused(17, &datagram(13, &[0x45, 0, 0, 20])), Some(DropReason::UdpMalformed));
    let mut wrong = datagram(12, &[0x45, 0, 0, 20]);
    wrong[7] = 1;
    assert_eq!(refused(17, &wrong), Some(DropReason::UdpBadChecksum));
}
