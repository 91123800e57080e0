//! Congestion marks and classes of traffic through the tunnel (RFC 6040).

use jetway_pipelines::packet::Parsed;
use jetway_pipelines::packet::ecn::Dscp;

use super::bench::packets::Inner;
use super::bench::*;

const NOT_ECT: u8 = 0;
const ECT1: u8 = 1;
const ECT0: u8 = 2;
const CE: u8 = 3;

/// RFC 6040 figure 4: rows by the inner field, columns by the outer one, both in the order of their values;
/// `None` is a drop.
const LEAVES_TUNNEL: [[Option<u8>; 4]; 4] = [
    [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
    [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)],
    [Some(ECT0), Some(ECT1), Some(ECT0), Some(CE)],
    [Some(CE), Some(CE), Some(CE), Some(CE)],
];

#[test]
fn marks_of_the_way_to_us_get_into_the_packet_as_rfc_6040_says() {
    for outer_family in FAMILIES {
        for family in FAMILIES {
            let mut world = World::connected(1, &[outer_family]);
            let mut dropped = 0;
            for (inner, row) in (0_u8..).zip(LEAVES_TUNNEL) {
                for (outer, expected) in (0_u8..).zip(row) {
                    // The outer DSCP means nothing behind the tunnel; the inner one stays.
                    world.clients[0].class = 0xb8 | outer;
                    let packet = Inner::udp(world.inner(0, family), server(family), 100).class(0x28 | inner);
                    world.client_sends(0, &packet.bytes());
                    let expected: Vec<_> =
                        expected.map(|ecn| packet.class(0x28 | ecn).forwarded()).into_iter().collect();
                    dropped += u64::from(expected.is_empty());
                    assert_eq!(world.take_sent(LAN), expected, "inner {inner:02b}, outer {outer:02b}");
                }
            }
            assert_eq!((world.losses(), dropped), (vec![("ecn_inconsistent", 1)], 1));
        }
    }
}

#[test]
fn the_outer_header_shows_the_inner_mark_and_the_class_only_if_told_to() {
    for outer_family in FAMILIES {
        for family in FAMILIES {
            for (dscp, shown) in [(Dscp::Hide, 0), (Dscp::Copy, 0xb8)] {
                let mut world = World::connected(1, &[outer_family]);
                world.change_tunnel(|tunnel| tunnel.dscp = dscp);
                for ecn in [NOT_ECT, ECT1, ECT0, CE] {
                    world.clients[0].datagrams.clear();
                    let packet = Inner::udp(server(family), world.inner(0, family), 100).class(0xb8 | ecn);
                    world.lan_sends(0, &packet.bytes());
                    assert_eq!(world.take_received(0), [packet.forwarded()], "the packet itself keeps both");
                    assert_eq!(world.clients[0].datagrams[0].0, shown | ecn);
                }
            }
        }
    }
}

#[test]
fn handshakes_are_marked_as_control_traffic_and_not_ecn_capable() {
    let world = World::connected(1, &[Family::V4]);
    let (class, response) = &world.clients[0].datagrams[0];
    assert_eq!((*class, response[0]), (0x88, 2));
}

#[test]
fn marks_survive_from_client_to_client() {
    let mut world = World::connected(1, &[Family::V4, Family::V6]);
    world.clients[0].class = CE;
    let packet = Inner::udp(world.inner(0, Family::V4), world.inner(1, Family::V4), 100).class(ECT0);
    world.client_sends(0, &packet.bytes());
    let received = world.take_received(1);
    assert_eq!(Parsed::from_ip(&received[0]).expect("a packet").traffic_class, CE);
    assert_eq!(world.clients[1].datagrams.last().expect("a datagram came").0, CE);
}
