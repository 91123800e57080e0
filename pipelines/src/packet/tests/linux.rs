//! Packets that Linux made: what they say, and that our errors are those of Linux.

use std::net::IpAddr;

use crate::packet::arp::{Arp, Operation};
use crate::packet::checksum;
use crate::packet::icmp::{self, Icmp};
use crate::packet::icmp_error::{Arrival, Cause, IcmpError};
use crate::packet::icmpv6::{self, Icmpv6};
use crate::packet::tcp::{Flags, Tcp};
use crate::packet::udp::Udp;
use crate::packet::{EtherType, Fragment, Frame, Parsed, Protocol, ipv4};

/// The captured frames by name.
pub(super) fn frames() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let lines = include_str!("linux.hex").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).map(|(name, bytes)| (name, hex::decode(bytes).unwrap()))
}

/// The IP packet in the frame of this name.
pub(super) fn packet(name: &str) -> Vec<u8> {
    let (_, frame) = frames().find(|(found, _)| *found == name).unwrap();
    Frame::parse(&frame).unwrap().payload(&frame).to_vec()
}

#[test]
fn every_packet_parses_with_checksums_that_are_right() {
    let mut seen = 0;
    for (name, frame) in frames() {
        let header = Frame::parse(&frame).unwrap();
        let data = header.payload(&frame);
        let Some(parsed) = Parsed::from_payload(header.ethertype, data) else {
            assert_eq!(header.ethertype, EtherType::ARP, "{name}");
            continue;
        };
        let parsed = parsed.unwrap();
        seen += 1;
        assert_eq!(parsed, Parsed::from_ip(data).unwrap(), "{name}");
        assert_eq!(parsed.total_length as usize, data.len(), "{name}");
        assert_eq!(parsed.verify_header_checksum(data), Ok(()), "{name}");
        let l4 = parsed.l4(data);
        if parsed.fragment != Fragment::No {
            continue;
        }
        let right = match parsed.protocol {
            Protocol::ICMP => checksum::checksum(l4) == 0,
            Protocol::UDP => Udp::parse(l4).unwrap().verify_checksum(&parsed, l4).is_ok(),
            protocol => {
                let pseudo = checksum::pseudo(parsed.source, parsed.destination, protocol, l4.len() as u32);
                pseudo.bytes(l4).is_right()
            }
        };
        assert!(right, "{name}");
    }
    assert_eq!(seen, 33);
}

#[test]
fn what_the_packets_say_is_what_was_sent() {
    let parsed = |name: &str| Parsed::from_ip(&packet(name)).unwrap();
    let udp = parsed("udp_v6");
    assert_eq!((udp.protocol, udp.ports.map(|ports| ports.destination)), (Protocol::UDP, Some(9999)));
    assert_eq!(udp.l4(&packet("udp_v6"))[8..], *b"hello");
    for (first, later) in [("first_fragment_v4", "later_fragment_v4"), ("first_fragment_v6", "later_fragment_v6")] {
        assert_eq!((parsed(first).fragment, parsed(later).fragment), (Fragment::First, Fragment::Later));
        assert_eq!(parsed(first).protocol, parsed(later).protocol);
    }
    assert_eq!(parsed("options_v4").l4_offset, 60);
    assert_eq!(parsed("hop_short_v6").ttl, 1);
    assert!(parsed("big_v4").dont_fragment && !parsed("first_fragment_v4").dont_fragment);
    let syn_ack = packet("syn_ack_v6");
    let tcp = Tcp::parse(parsed("syn_ack_v6").l4(&syn_ack)).unwrap();
    assert_eq!((tcp.source_port, tcp.header_length), (80, 40));
    assert!(tcp.flags.contains(Flags::SYN) && tcp.flags.contains(Flags::ACK));
    assert!(!tcp.flags.contains(Flags::RST) && !tcp.flags.contains(Flags::FIN));
    assert!(!Tcp::parse(parsed("ack_v4").l4(&packet("ack_v4"))).unwrap().flags.contains(Flags::SYN));
}

#[test]
fn arp_is_recognised() {
    let arp = |name: &str| Arp::parse(&packet(name)).unwrap();
    let (request, reply) = (arp("arp_request"), arp("arp_reply"));
    assert_eq!((request.operation, reply.operation), (Operation::Request, Operation::Reply));
    assert_eq!((request.sender.to_string(), request.target.to_string()), ("192.0.2.2".into(), "192.0.2.1".into()));
    assert_eq!((reply.sender, reply.target), (request.target, request.sender));
    assert_eq!(reply.sender_mac.to_string(), "f2:15:8c:40:77:2e");
    assert_eq!(Arp::parse(&packet("arp_reply")[..27]), None);
    assert_eq!(Arp::parse(&packet("udp_v4")), None);
}

#[test]
fn errors_quote_the_packet_that_they_tell_of() {
    let message = packet("fragmentation_needed");
    let parsed = Parsed::from_ip(&message).unwrap();
    let icmp = Icmp::parse(parsed.l4(&message)).unwrap();
    assert_eq!((icmp.kind, icmp.next_hop_mtu()), (icmp::Kind::UNREACHABLE, Some(1400)));
    let quote = icmp.embedded(parsed.l4(&message)).unwrap();
    assert!(packet("big_v4").starts_with(quote) && quote.len() == 548);
    let message = packet("packet_too_big");
    let parsed = Parsed::from_ip(&message).unwrap();
    let icmp = Icmpv6::parse(parsed.l4(&message)).unwrap();
    assert_eq!((icmp.kind, icmp.next_hop_mtu()), (icmpv6::Kind::PACKET_TOO_BIG, Some(1400)));
    assert!(packet("big_v6").starts_with(icmp.embedded(parsed.l4(&message)).unwrap()));
    let echo = packet("echo_v6");
    let parsed = Parsed::from_ip(&echo).unwrap();
    let icmp = Icmpv6::parse(parsed.l4(&echo)).unwrap();
    assert_eq!((icmp.kind, icmp.embedded(parsed.l4(&echo)), icmp.next_hop_mtu()), (icmpv6::Kind::ECHO, None, None));
}

/// What two routers may choose as they like: type of service, identification and its flag, and the checksum over them.
fn without_choices(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        assert!(ipv4::checksum_is_right(&packet));
        for at in [1, 4, 5, 6, 7, 10, 11] {
            packet[at] = 0;
        }
    } else {
        packet[..4].fill(0);
    }
    packet
}

#[test]
fn our_errors_are_those_of_linux() {
    let cases = [
        ("hop_short_v4", "time_exceeded_v4", Cause::TimeExceeded),
        ("hop_short_v6", "time_exceeded_v6", Cause::TimeExceeded),
        ("big_v4", "fragmentation_needed", Cause::TooBig { mtu: 1400 }),
        ("big_v6", "packet_too_big", Cause::TooBig { mtu: 1400 }),
        ("prohibited_packet_v6", "prohibited_v6", Cause::Prohibited),
        ("unreachable_packet_v4", "host_unreachable_v4", Cause::AddressUnreachable),
        ("unreachable_packet_v6", "no_route_v6", Cause::NoRoute),
    ];
    for (about, linux, cause) in cases {
        let about = packet(about);
        let source: IpAddr = Parsed::from_ip(&packet(linux)).unwrap().source;
        let parsed = Parsed::from_ip(&about).unwrap();
        let error = IcmpError::about(&about, &parsed, Arrival::Unicast, cause).unwrap();
        let mut ours = vec![0; 2000];
        let length = error.write(source, &mut ours).unwrap();
        ours.truncate(length);
        assert_eq!(hex::encode(without_choices(ours)), hex::encode(without_choices(packet(linux))), "{linux}");
    }
}

#[test]
fn port_unreachable_of_linux_is_ours_about_what_it_quotes() {
    for (linux, header) in [("port_unreachable_v4", 28), ("port_unreachable_v6", 48)] {
        let linux = packet(linux);
        let quote = &linux[header..];
        let parsed = Parsed::from_ip(quote).unwrap();
        let error = IcmpError::about(quote, &parsed, Arrival::Unicast, Cause::PortUnreachable).unwrap();
        let mut ours = vec![0; error.length()];
        error.write(Parsed::from_ip(&linux).unwrap().source, &mut ours).unwrap();
        assert_eq!(ours[header - 8..], linux[header - 8..]);
    }
}
