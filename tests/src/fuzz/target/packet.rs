//! Frames and IP packets.

use jetway_pipelines::packet::arp::Arp;
use jetway_pipelines::packet::ecn::Ecn;
use jetway_pipelines::packet::icmp::Icmp;
use jetway_pipelines::packet::icmpv6::Icmpv6;
use jetway_pipelines::packet::mss::{Clamped, MssLimit, clamp_mss};
use jetway_pipelines::packet::tcp::Tcp;
use jetway_pipelines::packet::udp::Udp;
use jetway_pipelines::packet::{EtherType, FlowHasher, Fragment, Frame, Parsed, Protocol, checksum};

use crate::fuzz::Outcome;

/// A frame: its header, and what it carries.
pub fn frame(data: &[u8]) -> Outcome {
    let Ok(frame) = Frame::parse(data) else { return Outcome::of("truncated") };
    let payload = frame.payload(data);
    assert!(data.ends_with(payload) && frame.l3_offset + payload.len() == data.len());
    let tags = frame.vlans.iter().flatten().count();
    assert_eq!(frame.l3_offset, 14 + 4 * tags);
    if frame.ethertype == EtherType::ARP {
        return Outcome::of((tags, Arp::parse(payload).map(|arp| arp.operation as u8)));
    }
    match Parsed::from_payload(frame.ethertype, payload) {
        None => Outcome::of((tags, "other")),
        Some(Err(error)) => Outcome::of((tags, error.to_string())),
        Some(Ok(parsed)) => {
            assert_eq!(parsed.is_ipv4(), frame.ethertype == EtherType::IPV4);
            assert_eq!(Parsed::from_ip(payload), Ok(parsed));
            Outcome::of((tags, parsed.protocol.0, parsed.fragment as u8))
        }
    }
}

/// An IP packet: its headers, its transport's, and everything that changes it in place.
pub fn ip_packet(data: &[u8]) -> Outcome {
    let parsed = match Parsed::from_ip(data) {
        Ok(parsed) => parsed,
        Err(error) => return Outcome::of(error.to_string()),
    };
    let length = parsed.total_length as usize;
    assert!(usize::from(parsed.l4_offset) <= length && length <= data.len());
    // What follows the packet does not matter, and every shorter piece of it is refused.
    assert_eq!(Parsed::from_ip(&data[..length]), Ok(parsed));
    assert!(length == 0 || Parsed::from_ip(&data[..length - 1]).is_err());
    assert!(parsed.ports.is_none() || parsed.fragment != Fragment::Later);
    let transport = transport(data, &parsed);
    let changed = change_in_place(data, &parsed);
    FlowHasher::new([1, 2, 3, 4]).hash(&parsed);
    let checksum = parsed.verify_header_checksum(data).is_ok();
    Outcome::of((parsed.is_ipv4(), parsed.fragment as u8, parsed.l4_offset / 8, checksum, transport, changed))
}

/// Looks into the transport's header.
fn transport(data: &[u8], parsed: &Parsed) -> (u8, u8) {
    let l4 = parsed.l4(data);
    let code = match parsed.protocol {
        Protocol::UDP => match Udp::parse(l4) {
            Ok(udp) => {
                assert!(udp.payload(l4).len() + 8 == usize::from(udp.length));
                u8::from(udp.verify_checksum(parsed, l4).is_ok())
            }
            Err(error) => 2 + error as u8,
        },
        Protocol::TCP => Tcp::parse(l4).map_or(255, |tcp| {
            let mss = tcp.mss_offset(l4);
            assert!(mss.is_none_or(|at| at + 2 <= usize::from(tcp.header_length)));
            tcp.header_length / 4 + if mss.is_some() { 32 } else { 0 }
        }),
        Protocol::ICMP => Icmp::parse(l4).map_or(255, |icmp| {
            embedded(icmp.embedded(l4));
            icmp.kind.0.min(20)
        }),
        Protocol::ICMPV6 => Icmpv6::parse(l4).map_or(255, |icmp| {
            embedded(icmp.embedded(l4));
            if icmp.kind.0 < 5 { icmp.kind.0 } else { icmp.kind.0 & 0xf8 }
        }),
        _ => 0,
    };
    (parsed.protocol.0, code)
}

/// A quoted packet is mostly cut short: it parses or it does not.
fn embedded(quote: Option<&[u8]>) {
    if let Some(quote) = quote {
        let _ = Parsed::from_ip(quote);
    }
}

/// Changes a copy in every way in which a router does; checksums that were right stay so, and nothing else changes.
fn change_in_place(data: &[u8], parsed: &Parsed) -> (bool, u8) {
    let mut packet = data.to_vec();
    let mut after = *parsed;
    let header_right = parsed.verify_header_checksum(data).is_ok();
    let hop = after.decrement_ttl(&mut packet);
    assert_eq!(hop.is_some(), parsed.ttl > 1);
    after.set_ecn(&mut packet, Ecn::Ce);
    assert_eq!(Parsed::from_ip(&packet), Ok(after));
    assert_eq!(after.verify_header_checksum(&packet).is_ok(), header_right);
    assert_eq!((after.dscp(), after.ecn()), (parsed.dscp(), Ecn::Ce));

    let segment_right = tcp_checksum_is_right(&packet, &after);
    let limit = MssLimit::for_mtu(1420);
    let clamped = clamp_mss(&mut packet, &after, limit);
    assert_eq!(Parsed::from_ip(&packet), Ok(after));
    let kind = match clamped {
        Clamped::NotSyn => 0,
        Clamped::NoOption => 1,
        Clamped::Fits => 2,
        Clamped::Lowered { from } => {
            assert!(from > limit.v4.min(limit.v6));
            assert_eq!(tcp_checksum_is_right(&packet, &after), segment_right);
            assert_eq!(clamp_mss(&mut packet, &after, limit), Clamped::Fits);
            3
        }
    };
    (hop.is_some(), kind)
}

fn tcp_checksum_is_right(packet: &[u8], parsed: &Parsed) -> bool {
    let l4 = parsed.l4(packet);
    checksum::pseudo(parsed.source, parsed.destination, Protocol::TCP, l4.len() as u32).bytes(l4).is_right()
}
