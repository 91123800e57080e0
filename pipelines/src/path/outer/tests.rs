use std::sync::Arc;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, UdpHeaderSlice};
use proptest::prelude::*;

use super::*;
use crate::buffer::HeapBuf;
use crate::packet::MacAddress;
use crate::tables::{PortEntry, Source};

const MESSAGE: usize = 64;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn tables() -> Tables {
    let port = |last: u8, checksum_by| PortEntry {
        mac: MacAddress([2, 0, 0, 0, 0, last]),
        mtu: 1500 - u16::from(last),
        l4_checksum: checksum_by,
        source: Source {
            v4: Some([192, 0, 2, last].into()),
            v6: Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)].into()),
        },
    };
    let route = |port: u16, gateway: Option<&str>, source: Option<&str>, mtu| Route::Port {
        port: PortId(port),
        gateway: gateway.map(ip),
        source: source.map(ip),
        mtu,
    };
    let routes = [
        ("0.0.0.0/0", route(0, Some("192.0.2.254"), None, None)),
        ("203.0.113.0/24", route(0, Some("192.0.2.254"), Some("198.51.100.7"), Some(1400))),
        ("192.0.2.0/24", route(0, None, None, None)),
        ("10.0.0.0/8", Route::Unreachable),
        ("::/0", route(1, Some("fe80::1"), None, None)),
        ("2001:db8::/64", route(1, None, None, Some(1300))),
    ];
    Tables {
        ports: [port(1, ChecksumBy::Software), port(2, ChecksumBy::Software)].into(),
        local: Arc::new(["192.0.2.1", "198.51.100.7", "2001:db8::2"].map(ip).into_iter().collect()),
        routes: routes.into_iter().map(|(net, route)| (net.parse().expect("a prefix"), route)).collect(),
        ..Tables::default()
    }
}

/// Endpoints of both families behind gateways, on networks of ours and nowhere, that talked to us at several addresses.
fn endpoints() -> impl Strategy<Value = Endpoint> {
    let net = prop::sample::select(vec!["8.8.", "203.0.", "192.0.", "10.0.", "2a00::", "2001:db8::"]);
    let local = prop::sample::select(vec![
        None,
        Some("192.0.2.1"),
        Some("198.51.100.7"),
        Some("192.0.2.99"),
        Some("2001:db8::2"),
    ]);
    (net, 0..4u8, 0..3u16, local).prop_map(|(net, host, port, local)| {
        let remote = match net {
            "203.0." => format!("203.0.113.{host}"),
            "192.0." => format!("192.0.2.{}", 100 + host),
            v6 if v6.contains(':') => format!("{v6}{host}:ffff"),
            v4 => format!("{v4}{}.{host}", 255 - host),
        };
        Endpoint { remote: SocketAddr::new(ip(&remote), 65_533 + port), local: local.map(ip) }
    })
}

/// A message with the headers that `outer` puts before it.
fn wrapped(outer: &Outer) -> Vec<u8> {
    let mut buffer = HeapBuf::from_packet(&[7; MESSAGE]);
    outer.wrap(&mut buffer, 0, &mut 41).expect("there is room");
    buffer.data().to_vec()
}

proptest! {
    #[test]
    fn a_way_found_after_others_is_the_one_that_is_found_alone(
        wishes in prop::collection::vec((endpoints(), 51820..51822u16), 1..20),
    ) {
        let tables = tables();
        let mut last_way = LastWay::default();
        for (endpoint, source_port) in wishes {
            let found = last_way.find(&endpoint, source_port, &tables).map(|outer| {
                let mut outer = *outer;
                outer.turn_to(endpoint.remote);
                outer
            });
            let alone = Outer::resolve(&endpoint, source_port, &tables);
            prop_assert_eq!(found.as_ref().err(), alone.as_ref().err());
            let (Ok(found), Ok(alone)) = (found, alone) else { continue };
            prop_assert_eq!((found.port, found.next_hop), (alone.port, alone.next_hop));
            prop_assert_eq!(found.room_for_inner(), alone.room_for_inner());
            prop_assert_eq!(wrapped(&found), wrapped(&alone), "{:?}", endpoint);
            judge(&wrapped(&found), &endpoint, source_port);
        }
    }
}

/// A stock parser reads in the headers what the endpoint asks for.
fn judge(packet: &[u8], endpoint: &Endpoint, source_port: u16) {
    let udp = match endpoint.remote.ip() {
        IpAddr::V4(remote) => {
            let header = Ipv4HeaderSlice::from_slice(packet).expect("an IPv4 header");
            assert_eq!(header.destination_addr(), remote);
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            if endpoint.local == Some(ip("192.0.2.1")) {
                assert_eq!(IpAddr::V4(header.source_addr()), ip("192.0.2.1"));
            }
            &packet[ipv4::HEADER_LENGTH..]
        }
        IpAddr::V6(remote) => {
            let header = Ipv6HeaderSlice::from_slice(packet).expect("an IPv6 header");
            assert_eq!(header.destination_addr(), remote);
            let payload = &packet[V6_LENGTH..];
            let udp = UdpHeaderSlice::from_slice(&packet[ipv6::HEADER_LENGTH..]).expect("a UDP header");
            let expected = udp.to_header().calc_checksum_ipv6(&header.to_header(), payload).expect("it is short");
            assert_eq!(udp.checksum(), expected);
            &packet[ipv6::HEADER_LENGTH..]
        }
    };
    let udp = UdpHeaderSlice::from_slice(udp).expect("a UDP header");
    assert_eq!((udp.source_port(), udp.destination_port()), (source_port, endpoint.remote.port()));
    assert_eq!(usize::from(udp.length()), udp::HEADER_LENGTH + MESSAGE);
}

#[test]
fn an_address_that_is_not_the_nodes_any_more_is_not_spoken_from() {
    let tables = tables();
    let endpoint = |local| Endpoint { remote: "8.8.8.8:4000".parse().expect("an endpoint"), local: Some(ip(local)) };
    let source = |outer: Outer| Ipv4HeaderSlice::from_slice(&wrapped(&outer)).map(|header| header.source_addr());
    let ours = Outer::resolve(&endpoint("198.51.100.7"), 51820, &tables).map(source).expect("a way");
    let gone = Outer::resolve(&endpoint("192.0.2.99"), 51820, &tables).map(source).expect("a way");
    assert_eq!((ours.expect("a header"), gone.expect("a header")), ([198, 51, 100, 7].into(), [192, 0, 2, 1].into()));
}
