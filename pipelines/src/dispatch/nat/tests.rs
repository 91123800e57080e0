use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;

/// What a second implementation finds wrong with a packet's checksums.
fn judge(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).expect("a packet");
    let net = sliced.net.as_ref().expect("a network header");
    if let etherparse::NetSlice::Ipv4(ip) = net {
        assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum(), "IPv4 header");
    }
    match (net, sliced.transport.as_ref().expect("a transport header")) {
        (etherparse::NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) if udp.checksum() != 0 => {
            let sum = udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).expect("short");
            assert_eq!(sum, udp.checksum());
        }
        (etherparse::NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let sum = udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload()).expect("short");
            assert_eq!(sum, udp.checksum());
        }
        (etherparse::NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            let sum = tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()).expect("short");
            assert_eq!(sum, tcp.checksum());
        }
        (etherparse::NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            let sum = tcp.to_header().calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()).expect("short");
            assert_eq!(sum, tcp.checksum());
        }
        (_, TransportSlice::Icmpv6(message)) => {
            let etherparse::NetSlice::Ipv6(ip) = net else { panic!("ICMPv6 over IPv4") };
            assert!(message.is_checksum_valid(ip.header().source(), ip.header().destination()));
        }
        (_, _) => {}
    }
}

fn address(v4: bool, bytes: [u8; 16]) -> IpAddr {
    if v4 { IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]) } else { IpAddr::from(bytes) }
}

fn packet(source: IpAddr, destination: IpAddr, tcp: bool, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let builder = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => PacketBuilder::ipv4(source.octets(), destination.octets(), 64),
        (IpAddr::V6(source), IpAddr::V6(destination)) => PacketBuilder::ipv6(source.octets(), destination.octets(), 64),
        _ => panic!("two families"),
    };
    let mut out = Vec::new();
    if tcp {
        builder.tcp(ports.0, ports.1, 7, 1024).syn().write(&mut out, payload).expect("written");
    } else {
        builder.udp(ports.0, ports.1).write(&mut out, payload).expect("written");
    }
    out
}

proptest! {
    #[test]
    fn a_translation_changes_what_a_rewrite_to_the_same_end_changes(
        v4: bool, tcp: bool, no_checksum: bool, ends: [[u8; 16]; 3], ports: (u16, u16), port: u16,
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let [source, destination, fresh] = ends.map(|bytes| address(v4, bytes));
        let mut by_rewrite = packet(source, destination, tcp, ports, &payload);
        let mut parsed = Parsed::from_ip(&by_rewrite).expect("a packet");
        let l4_offset = usize::from(parsed.l4_offset);
        if no_checksum && v4 && !tcp {
            by_rewrite[l4_offset + UDP_CHECKSUM_OFFSET..][..2].fill(0);
        }
        let mut by_translation = by_rewrite.clone();
        rewrite(&mut by_rewrite, &mut parsed, Rewrite { end: End::Destination, address: fresh, port }).expect("it can be rewritten");
        let translation = Translation::new((destination, ports.1), (fresh, port)).expect("of one family");
        prop_assert_eq!(translation.apply(&mut by_translation, l4_offset, parsed.protocol), Ok(()));
        prop_assert_eq!(&by_translation, &by_rewrite);
        judge(&by_translation);
        let mut cut = by_rewrite.clone();
        cut.truncate(l4_offset + 5);
        let before = cut.clone();
        prop_assert_eq!(translation.apply(&mut cut, l4_offset, parsed.protocol), Err(NatError::Truncated));
        prop_assert_eq!(cut, before);
    }

    #[test]
    fn checksums_stay_right_and_the_way_back_gives_the_packet_again(
        v4: bool, tcp: bool, source: [u8; 16], destination: [u8; 16], fresh: [u8; 16], ports: (u16, u16), port: u16,
        at_source: bool, payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let [source, destination, fresh] = [source, destination, fresh].map(|bytes| address(v4, bytes));
        let original = packet(source, destination, tcp, ports, &payload);
        let mut changed = original.clone();
        let mut parsed = Parsed::from_ip(&changed).expect("a packet");
        let end = if at_source { End::Source } else { End::Destination };
        rewrite(&mut changed, &mut parsed, Rewrite { end, address: fresh, port }).expect("it can be rewritten");
        judge(&changed);
        prop_assert_eq!(Parsed::from_ip(&changed), Ok(parsed));
        let (address, before) = if at_source { (source, ports.0) } else { (destination, ports.1) };
        rewrite(&mut changed, &mut parsed, Rewrite { end, address, port: before }).expect("and back");
        prop_assert_eq!(changed, original);
    }

    #[test]
    fn a_quoted_packet_is_rewritten_and_the_errors_checksum_with_it(
        v4: bool, tcp: bool, client: [u8; 16], server: [u8; 16], service: [u8; 16], ports: (u16, u16), port: u16,
        words in 4usize..40,
    ) {
        let [client, server, service] = [client, server, service].map(|bytes| address(v4, bytes));
        let about = packet(client, server, tcp, ports, &[0xa5; 40]);
        let header = if v4 { 20 } else { 40 };
        let quote = &about[..(header + words * 2).min(about.len())];
        let mut error = error_about(server, client, quote);
        let parsed = Parsed::from_ip(&error).expect("a packet");
        let quoted = QuotedPacket::parse(quote).expect("it tells its flow");
        prop_assert_eq!((quoted.source, quoted.destination), (client, server));
        let to = Rewrite { end: End::Destination, address: service, port };
        rewrite_quote(&mut error, &parsed, &quoted, to).expect("it can be rewritten");
        judge_error(&error);
        // What it quotes is what the client sent to the service, as far as it was quoted.
        let mut sent = about.clone();
        let mut sent_parsed = Parsed::from_ip(&sent).expect("a packet");
        rewrite(&mut sent, &mut sent_parsed, to).expect("rewritten");
        prop_assert_eq!(&error[error.len() - quote.len()..], &sent[..quote.len()]);
    }

    #[test]
    fn no_bytes_make_a_quote_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), port: u16) {
        let Some(quoted) = QuotedPacket::parse(&bytes) else { return Ok(()) };
        let mut error = error_about(quoted.destination, quoted.source, &bytes);
        let parsed = Parsed::from_ip(&error).expect("a packet");
        let _ = rewrite_quote(&mut error, &parsed, &quoted, Rewrite { end: End::Source, address: quoted.source, port });
    }
}

fn error_about(from: IpAddr, to: IpAddr, quote: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let kind = etherparse::Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
            PacketBuilder::ipv4(from.octets(), to.octets(), 64).icmpv4(kind).write(&mut out, quote).expect("written");
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let kind = etherparse::Icmpv6Type::DestinationUnreachable(etherparse::icmpv6::DestUnreachableCode::Port);
            PacketBuilder::ipv6(from.octets(), to.octets(), 64).icmpv6(kind).write(&mut out, quote).expect("written");
        }
        _ => panic!("two families"),
    }
    out
}

fn judge_error(error: &[u8]) {
    let sliced = SlicedPacket::from_ip(error).expect("a packet");
    match sliced.transport.expect("a message") {
        TransportSlice::Icmpv4(message) => {
            let sum = message.icmp_type().calc_checksum(message.payload());
            assert_eq!(sum, message.checksum());
        }
        TransportSlice::Icmpv6(_) => judge(error),
        _ => panic!("no ICMP"),
    }
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let (client, server) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let mut datagram = packet(client, server, false, (1, 2), b"hello");
    datagram[26..28].fill(0);
    let mut parsed = Parsed::from_ip(&datagram).unwrap();
    let to = Rewrite { end: End::Destination, address: "198.51.100.1".parse().unwrap(), port: 9 };
    rewrite(&mut datagram, &mut parsed, to).unwrap();
    assert_eq!(datagram[26..28], [0, 0]);
    assert_eq!(datagram[16..20], [198, 51, 100, 1]);
}

#[test]
fn a_packet_that_cannot_be_rewritten_stays_as_it_is() {
    let (client, server) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let original = packet(client, server, true, (1, 2), b"");
    let mut parsed = Parsed::from_ip(&original).unwrap();
    let before = parsed;
    for (length, address) in [(original.len(), "2001:db8::1"), (30, "198.51.100.1")] {
        let mut changed = original[..length].to_vec();
        let to = Rewrite { end: End::Source, address: address.parse().unwrap(), port: 9 };
        assert!(rewrite(&mut changed, &mut parsed, to).is_err());
        assert_eq!((&changed[..], parsed), (&original[..length], before));
    }
}
