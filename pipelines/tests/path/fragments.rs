//! IPv4 packets that are cut on the way, put together again by the test.

use jetway_pipelines::packet::{Fragment, Parsed, ipv4::Ipv4};
use jetway_pipelines::tables::Twin;

use super::bench::packets::{Inner, frame, set_fragment};
use super::bench::*;

/// One piece of a datagram: where it lies, whether more follow, its bytes.
fn piece(packet: &[u8]) -> (usize, bool, Vec<u8>) {
    let field = u16::from_be_bytes([packet[6], packet[7]]);
    assert_eq!(field >> 14, 0, "neither DF nor the reserved flag is set");
    (usize::from(field & 0x1fff) * 8, field >> 13 & 1 == 1, packet[20..].to_vec())
}

/// Puts pieces together that cover a range without gap and overlap: its start, whether more follow, its bytes.
fn reassemble(packets: &[Vec<u8>], mtu: usize) -> (usize, bool, Vec<u8>) {
    assert!(packets.iter().all(|packet| packet.len() <= mtu), "each piece fits");
    let mut pieces: Vec<_> = packets.iter().map(|packet| piece(packet)).collect();
    pieces.sort_unstable();
    let start = pieces[0].0;
    let mut all = Vec::new();
    for (number, (offset, more, bytes)) in pieces.iter().enumerate() {
        assert_eq!(*offset, start + all.len(), "no gap, no overlap");
        assert!(*more || number + 1 == pieces.len(), "only the last one may say that it is the last");
        all.extend(bytes);
    }
    (start, pieces.last().is_some_and(|(_, more, _)| *more), all)
}

/// The packets are pieces of `whole`, behind a router.
fn assert_pieces_of(packets: &[Vec<u8>], whole: &Inner, mtu: usize) {
    assert_eq!(reassemble(packets, mtu), (0, false, whole.payload.clone()));
    for packet in packets {
        let header = Ipv4::parse(packet).expect("IPv4");
        assert_eq!((header.ttl, header.traffic_class), (whole.ttl - 1, whole.class));
        assert_eq!(header.identification, 77);
    }
}

fn to_client(world: &World, length: usize) -> Inner {
    Inner::udp(server(Family::V4), world.inner(0, Family::V4), length).fragmentable(77).class(0x28)
}

#[test]
fn a_packet_that_may_be_cut_reaches_the_client_in_pieces() {
    for outer in FAMILIES {
        let mut world = World::connected(1, &[outer]);
        world.set_port_mtu(LAN, 9000);
        for length in [1420, 1421, 1428, 1429, 1480, 1500, 2820, 2821, 8999, 9000] {
            let packet = to_client(&world, length);
            world.lan_sends(0, &packet.bytes());
            let received = world.take_received(0);
            assert_eq!(received.len(), if length == 1420 { 1 } else { (length - 20).div_ceil(1400) }, "{length}");
            assert_pieces_of(&received, &packet, 1420);
        }
        assert_eq!(world.losses(), []);
    }
}

#[test]
fn a_packet_of_the_client_that_may_be_cut_reaches_the_server_in_pieces() {
    let mut world = World::connected(1, &[Family::V4]);
    world.set_port_mtu(LAN, 600);
    for length in [600, 601, 1180, 1400, 1420] {
        let packet = Inner::udp(world.inner(0, Family::V4), server(Family::V4), length).fragmentable(77);
        world.client_sends(0, &packet.bytes());
        let sent = world.take_sent(LAN);
        assert_pieces_of(&sent, &packet, 600);
    }
    assert_eq!(world.losses(), []);
}

#[test]
fn the_pieces_of_a_fragment_take_its_place_in_the_datagram() {
    for (offset, more) in [(0, true), (1480, true), (1480, false), (64_000, false)] {
        let mut world = World::connected(1, &[Family::V4]);
        let whole = to_client(&world, 1500);
        let mut fragment = whole.bytes();
        set_fragment(&mut fragment, offset, more);
        world.lan_sends(0, &fragment);
        let received = world.take_received(0);
        assert_eq!(reassemble(&received, 1420), (offset, more, whole.payload.clone()));
        assert!(received.iter().all(|packet| Parsed::from_ip(packet).is_ok_and(|ip| ip.fragment != Fragment::No)));
    }
}

#[test]
fn a_packet_that_fits_the_tunnel_but_not_the_way_to_the_peer_is_cut_as_well() {
    for outer in FAMILIES {
        let mut world = World::connected(1, &[outer]);
        world.set_port_mtu(WAN, 1400);
        let room = if outer == Family::V4 { 1400 - 60 } else { 1400 - 80 };
        // The last ones do not even fit the tunnel, so they are cut twice.
        for length in [room, room + 1, 1420, 1421, 1500] {
            let packet = to_client(&world, length);
            world.lan_sends(0, &packet.bytes());
            let received = world.take_received(0);
            assert_pieces_of(&received, &packet, room);
        }
        // The node's own.
        let packet = Inner::udp(node_inner(Family::V4), world.inner(0, Family::V4), 1420).fragmentable(77);
        world.kernel_sends(0, Twin::Tunnel(TUNNEL), &packet.bytes());
        assert_eq!(reassemble(&world.take_received(0), room), (0, false, packet.payload.clone()));
        assert_eq!(world.losses(), []);
    }
}

#[test]
fn a_whole_burst_of_packets_that_are_cut_arrives() {
    let mut world = World::connected(1, &[Family::V4]);
    let packet = to_client(&world, 1500);
    let frames = (0..64).map(|number| {
        let mut packet = packet.clone();
        packet.set_udp(number, 9);
        frame(MACS[1], neighbour_mac(server(Family::V4)), &packet.bytes())
    });
    let frames: Vec<_> = frames.collect();
    world.receive(0, LAN, frames);
    world.exchange();
    let received = world.take_received(0);
    assert_eq!((world.losses(), received.len()), (vec![], 128));
    for (number, pair) in received.chunks(2).enumerate() {
        let (_, _, payload) = reassemble(pair, 1420);
        assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), number as u16);
    }
}

#[test]
fn pieces_wait_for_a_session_as_whole_packets_do() {
    let mut world = World::new(1, &[Family::V4]);
    let endpoint = jetway_pipelines::wireguard::Endpoint::configured(world.clients[0].address);
    world.peers[0].endpoint.store(endpoint);
    let packet = to_client(&world, 1500);
    world.lan_sends(0, &packet.bytes());
    let received = world.take_received(0);
    assert_pieces_of(&received, &packet, 1420);
    assert_eq!(world.losses(), []);
}
