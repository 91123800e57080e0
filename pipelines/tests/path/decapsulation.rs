//! A gateway behind a dispatcher that puts packets into others: what it takes out of them, and from whom.

use std::net::IpAddr;
use std::sync::Arc;

use jetway_config::Encapsulation;
use jetway_pipelines::buffer::{HeapBuf, PacketBuf};
use jetway_pipelines::dispatch::decapsulation::Decapsulation;
use jetway_pipelines::dispatch::encapsulation::{Ends, wrap};
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::ids::NodeId;
use jetway_pipelines::packet::ecn::Ecn;
use jetway_pipelines::packet::{Parsed, Protocol};
use jetway_pipelines::path::explain::{End, explain};
use jetway_pipelines::path::packet::Origin;
use jetway_pipelines::tables::Twin;
use jetway_pipelines::wireguard::index::{IndexKey, IndexLayout};

use super::bench::packets::{Inner, datagram, frame, packet_of, set_fragment};
use super::bench::*;

const KINDS: [Encapsulation; 3] = [Encapsulation::Ipip, Encapsulation::Gre, Encapsulation::Gue];
const IPIP: Encapsulation = Encapsulation::Ipip;

/// Where the dispatcher sends from, a host of the LAN.
fn dispatcher(family: Family) -> IpAddr {
    match family {
        Family::V4 => address("192.0.2.9"),
        Family::V6 => address("2001:db8:2::9"),
    }
}

impl World {
    /// The node takes packets out of those of the dispatcher.
    fn trust_dispatcher(&mut self) {
        let from = FAMILIES
            .map(|family| net(&format!("{}/{}", dispatcher(family), if family == Family::V4 { 32 } else { 128 })));
        self.tables.decapsulation = Some(Arc::new(Decapsulation::new(from, &KINDS)));
        self.tables.epoch += 1;
    }

    fn lan_packet(&mut self, worker: usize, packet: &[u8]) {
        self.receive(worker, LAN, [frame(MACS[1], neighbour_mac(dispatcher(Family::V4)), packet)]);
        self.settle();
    }
}

/// The packet inside another, from `source` to the node.
fn wrapped(packet: &[u8], wrapping: Encapsulation, source: IpAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { Family::V4 } else { Family::V6 };
    let ends = Ends::new(source, node_lan(family)).expect("one family");
    let mut buffer = HeapBuf::from_packet(packet);
    let parsed = Parsed::from_ip(packet).expect("a packet");
    wrap(wrapping, &mut buffer, &parsed, ends, 1234, &mut 7).expect("room");
    buffer.data().to_vec()
}

/// A client's message inside another packet.
fn message_inside(world: &World, client: usize, message: &[u8], wrapping: Encapsulation, outer: Family) -> Vec<u8> {
    let Client { address, node, .. } = world.clients[client];
    wrapped(&datagram(address, node, 0, message), wrapping, dispatcher(outer))
}

#[test]
fn a_stock_client_whose_messages_come_inside_others_is_answered_directly_from_where_it_sent_to() {
    for wrapping in KINDS {
        for outer in FAMILIES {
            for family in FAMILIES {
                let mut world = World::new(1, &[family]);
                world.trust_dispatcher();
                let initiation = world.clients[0].initiation();
                let packet = message_inside(&world, 0, &initiation, wrapping, outer);
                world.lan_packet(0, &packet);
                world.exchange();
                assert!(world.peers[0].sending_session().is_some(), "{wrapping:?} {outer:?} {family:?}");
                assert_eq!(world.clients[0].heard_from, Some(world.clients[0].node));
                let inner = Inner::udp(world.inner(0, Family::V4), server(Family::V4), 200);
                let message = world.clients[0].seal(&inner.bytes());
                let packet = message_inside(&world, 0, &message, wrapping, outer);
                world.lan_packet(0, &packet);
                assert_eq!(world.take_sent(LAN), [inner.forwarded()]);
                world.lan_sends(0, &Inner::udp(server(Family::V4), world.inner(0, Family::V4), 200).bytes());
                assert_eq!(world.take_received(0).len(), 1);
                assert_eq!(world.losses(), []);
            }
        }
    }
}

#[test]
fn a_message_inside_another_packet_is_handed_to_the_worker_that_has_its_session() {
    let mut world = World::connected(2, &[Family::V4]);
    world.trust_dispatcher();
    let inner = Inner::udp(world.inner(0, Family::V4), server(Family::V4), 200);
    let message = world.clients[0].seal(&inner.bytes());
    let packet = message_inside(&world, 0, &message, IPIP, Family::V4);
    world.lan_packet(1, &packet);
    assert_eq!(world.take_sent(LAN), [inner.forwarded()]);
    assert_eq!(world.workers[1].counters.handed_off.get(), 1);
    assert_eq!(world.losses(), []);
}

#[test]
fn nothing_is_taken_out_of_packets_of_others_nor_of_those_that_come_by_another_port() {
    let mut world = World::new(1, &[Family::V4]);
    let initiation = world.clients[0].initiation();
    let packet = message_inside(&world, 0, &initiation, IPIP, Family::V4);
    world.lan_packet(0, &packet);
    assert_eq!(world.punted.len(), 1, "by default it is the kernel's");
    world.trust_dispatcher();
    let Client { address: client, node, .. } = world.clients[0];
    let by_another = wrapped(&datagram(client, node, 0, &initiation), IPIP, address("192.0.2.10"));
    world.lan_packet(0, &by_another);
    assert_eq!(world.drops(DropReason::EncapsulationUntrusted), 1);
    let frame = frame(MACS[0], neighbour_mac(dispatcher(Family::V4)), &packet);
    world.receive(0, WAN, [frame]);
    world.settle();
    assert_eq!(world.drops(DropReason::EncapsulationUntrusted), 2);
    assert_eq!((world.punted.len(), world.in_flight()), (1, 0));
}

#[test]
fn congestion_on_the_way_from_the_dispatcher_shows_inside_where_it_can_be_understood() {
    let far = address("203.0.114.7");
    for (inner, outer, left) in [
        (Ecn::Ect0, Ecn::Ce, Some(Ecn::Ce)),
        (Ecn::Ect0, Ecn::Ect1, Some(Ecn::Ect1)),
        (Ecn::Ce, Ecn::NotEct, Some(Ecn::Ce)),
        (Ecn::NotEct, Ecn::Ect0, Some(Ecn::NotEct)),
        (Ecn::NotEct, Ecn::Ce, None),
    ] {
        let mut world = World::new(1, &[]);
        world.trust_dispatcher();
        // DSCP 46.
        let packet = Inner::udp(server(Family::V4), far, 100).class(0xb8 | inner as u8).bytes();
        let mut packet = wrapped(&packet, IPIP, dispatcher(Family::V4));
        let mut parsed = Parsed::from_ip(&packet).expect("a packet");
        parsed.set_ecn(&mut packet, outer);
        world.lan_packet(0, &packet);
        let sent = world.take_sent(WAN);
        match left {
            Some(ecn) => {
                let class = Parsed::from_ip(&sent[0]).expect("a packet").traffic_class;
                assert_eq!(class, 0xb8 | ecn as u8, "{inner:?} {outer:?}");
                assert_eq!(world.losses(), []);
            }
            None => assert_eq!(world.drops(DropReason::EcnInconsistent), 1),
        }
    }
}

#[test]
fn what_is_taken_out_is_judged_as_if_it_had_come_by_itself_and_nothing_is_taken_out_of_it() {
    let mut world = World::new(1, &[]);
    world.trust_dispatcher();
    let ping = Inner::ping(server(Family::V4), node_lan(Family::V4)).bytes();
    let inner = wrapped(&ping, IPIP, dispatcher(Family::V4));
    world.lan_packet(0, &wrapped(&inner, Encapsulation::Gre, dispatcher(Family::V4)));
    // The kernel sees the frame that would have come.
    let (twin, seen) = world.punted.remove(0);
    assert_eq!((twin, packet_of(&seen)), (Twin::Port(LAN), &inner[..]));
    assert_eq!(seen[..12], frame(MACS[1], neighbour_mac(dispatcher(Family::V4)), &inner)[..12]);

    // An address of a tunnel's peer may not come in clear, inside another packet or not.
    let spoofed = Inner::udp(address("10.8.0.2"), address("203.0.114.7"), 100).bytes();
    world.lan_packet(0, &wrapped(&spoofed, IPIP, dispatcher(Family::V4)));
    assert_eq!(world.losses(), [("reverse_path", 1)]);
}

#[test]
fn what_is_said_about_a_packet_inside_another_is_what_happens_to_it() {
    let layout = IndexLayout::new(NodeId(1), 1, &IndexKey::new([9; 8]));
    let mut world = World::new(1, &[Family::V4]);
    let initiation = world.clients[0].initiation();
    let message = message_inside(&world, 0, &initiation, Encapsulation::Gue, Family::V4);
    let across = Inner::udp(server(Family::V4), address("203.0.114.7"), 100).bytes();
    let [across, twice] =
        [wrapped(&across, IPIP, dispatcher(Family::V4)), wrapped(&across, IPIP, dispatcher(Family::V4))];
    let twice = wrapped(&twice, Encapsulation::Gre, dispatcher(Family::V4));
    let foreign = wrapped(&across, IPIP, address("192.0.2.10"));
    let explained = |world: &World, packet: &[u8]| {
        let parsed = Parsed::from_ip(packet).expect("a packet");
        let explanation = explain(packet, &parsed, Origin::Port(LAN), &world.tables, &layout);
        let end = match explanation.end {
            Ok(End::Decryption(_)) => "decryption",
            Ok(End::Port(WAN, _)) => "wan",
            Ok(End::Kernel(_)) => "kernel",
            Err(reason) => reason.name(),
            other => panic!("{other:?}"),
        };
        (explanation.inside.map(|inside| inside.protocol), end)
    };
    assert_eq!(explained(&world, &message), (None, "kernel"), "by default it is the kernel's");
    world.trust_dispatcher();
    assert_eq!(explained(&world, &message), (Some(Protocol::UDP), "decryption"));
    assert_eq!(explained(&world, &across), (Some(Protocol::UDP), "wan"));
    assert_eq!(explained(&world, &twice), (Some(Protocol::IPV4), "kernel"));
    assert_eq!(explained(&world, &foreign), (None, "encapsulation_untrusted"));
    for (packet, refused, [wan, punted]) in [(&across, 0, [1, 0]), (&twice, 0, [0, 1]), (&foreign, 1, [0, 0])] {
        world.lan_packet(0, packet);
        assert_eq!(world.drops(DropReason::EncapsulationUntrusted), refused);
        assert_eq!((world.take_sent(WAN).len(), world.punted.drain(..).count()), (wan, punted));
    }
}

#[test]
fn pieces_and_what_is_broken_inside_are_dropped() {
    let mut world = World::new(1, &[]);
    world.trust_dispatcher();
    let inner = Inner::udp(server(Family::V4), address("203.0.114.7"), 100).bytes();
    let mut piece = wrapped(&inner, IPIP, dispatcher(Family::V4));
    set_fragment(&mut piece, 0, true);
    world.lan_packet(0, &piece);
    assert_eq!(world.losses(), [("outer_fragment", 1)]);

    let mut cut = inner.clone();
    cut.truncate(60);
    let mut broken = inner.clone();
    broken[8] ^= 1;
    for (packet, reason) in [(cut, DropReason::EncapsulationMalformed), (broken, DropReason::Ipv4BadChecksum)] {
        let outer = Inner::new(dispatcher(Family::V4), node_lan(Family::V4), Protocol::IPV4, packet);
        world.lan_packet(0, &outer.bytes());
        assert_eq!(world.drops(reason), 1, "{reason:?}");
    }
    assert_eq!(world.take_sent(WAN), Vec::<Vec<u8>>::new());
}
