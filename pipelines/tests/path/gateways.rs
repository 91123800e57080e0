//! A service of gateways in a flood of handshakes: what they see of it, and who still gets in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use jetway_config::{Forward, Persistence};
use jetway_pipelines::dispatch::flow_scan::Progress;
use jetway_pipelines::dispatch::service::Gateways;
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::ids::{NodeId, SlotIndex, WorkerId};
use jetway_pipelines::packet::udp;
use jetway_pipelines::packet::{Parsed, Protocol};
use jetway_pipelines::path::explain::{Role, Selection, explain};
use jetway_pipelines::path::packet::Origin;
use jetway_pipelines::path::{HandshakeQuestion, Order, Scene};
use jetway_pipelines::wireguard::cookie::{CookieChecker, CookieSecrets};
use jetway_pipelines::wireguard::index::{IndexKey, IndexLayout};
use jetway_pipelines::wireguard::kdf::Secret;
use jetway_pipelines::wireguard::load::{AddressProof, Decision};
use jetway_pipelines::wireguard::x25519::KeyPair;

use super::bench::packets::{datagram, frame, parse_datagram};
use super::bench::services::{SERVICE_PORT, ServicePlan, servers, service_address};
use super::bench::*;

/// Handshakes of strangers that pass at once.
const STRANGERS_BURST: usize = 2000;
/// The number of the first gateway's node.
const FIRST_NODE: u8 = 11;

/// A node of the cluster, as it checks and gives cookies.
fn of_cluster(world: &World) -> CookieChecker {
    let secrets = CookieSecrets::of_cluster(Secret::new([8; 32]), world.wall());
    CookieChecker::new(KeyPair::new(&PRIVATE_KEY).public(), Arc::new(secrets))
}

/// A node that dispatches for three gateways with the bench's key.
fn dispatcher(family: Family) -> World {
    let mut world = World::new(1, &[family, family]);
    let gateways = Gateways {
        checker: Arc::new(of_cluster(&world)),
        nodes: (0..3).map(|position| (NodeId(FIRST_NODE + position as u8), position)).collect(),
    };
    let plan = ServicePlan {
        forward: Forward::L2,
        persistence: Persistence::Client,
        gateways: Some(gateways),
        ..ServicePlan::nat(family, Protocol::UDP)
    };
    world.offer([plan.service(&servers(family, 1..=3))]);
    world
}

fn service(family: Family) -> SocketAddr {
    SocketAddr::new(service_address(family), SERVICE_PORT)
}

/// An address beyond the gateway on the WAN; no two are in one /64.
fn stranger(family: Family, number: u32) -> SocketAddr {
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + number)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(0x2001_0db8_ffff_0000 << 64 | u128::from(number) << 64 | 7)),
    };
    SocketAddr::new(address, 1000)
}

/// Copies of a message come from so many addresses at once.
fn flood(world: &mut World, message: &[u8], family: Family, sources: u32) {
    let frames: Vec<Vec<u8>> = (0..sources)
        .map(|number| {
            let packet = datagram(stranger(family, number), service(family), 0, message);
            frame(MACS[0], neighbour_mac(service_address(family)), &packet)
        })
        .collect();
    world.receive(0, WAN, frames);
    world.settle();
}

/// The client sends a message to the service. Returns whether it went on to a gateway.
fn reaches_a_gateway(world: &mut World, from: SocketAddr, message: &[u8], family: Family) -> bool {
    let frame = world.frame_from(from, service(family), 0, message);
    world.receive(0, WAN, [frame]);
    world.settle();
    !world.take_sent(LAN).is_empty()
}

/// What the service answered to an address, one message.
fn answer(world: &mut World, to: SocketAddr, family: Family) -> Vec<u8> {
    let sent = world.take_sent(WAN);
    assert_eq!(sent.len(), 1, "{:?}", world.losses());
    let (from, reached, message) = parse_datagram(&sent[0]).expect("a datagram");
    assert_eq!((from, reached), (service(family), to), "it comes from where the client sent to");
    message.to_vec()
}

/// A dispatcher in the midst of a flood, after the strangers' share is used up.
fn flooded(family: Family) -> World {
    let mut world = dispatcher(family);
    let initiation = world.clients[0].initiation();
    flood(&mut world, &initiation, family, 3000);
    world
}

#[test]
fn gateways_see_no_more_of_a_flood_than_the_strangers_share_and_the_rest_is_asked_for_cookies() {
    for family in FAMILIES {
        let mut world = flooded(family);
        assert_eq!(world.take_sent(LAN).len(), STRANGERS_BURST);
        let cookies = world.take_sent(WAN);
        let counted = world.workers[0].counters.cookies_for_gateways.get();
        assert_eq!((cookies.len(), counted), (1000, 1000), "{:?}", world.losses());
        for packet in &cookies {
            let (from, to, reply) = parse_datagram(packet).expect("a datagram");
            assert_eq!((from, to.port(), reply[0], reply.len()), (service(family), 1000, 3, 64));
            assert!(packet.len() <= 40 + udp::HEADER_LENGTH + 148, "the flood cannot be turned on others with gain");
        }
        assert_eq!(world.losses(), []);
    }
}

#[test]
fn a_stock_client_gets_through_the_flood_once_it_shows_its_cookie() {
    for family in FAMILIES {
        let mut world = flooded(family);
        world.sent.clear();
        let from = world.clients[1].address;
        let initiation = world.clients[1].initiation();
        assert!(!reaches_a_gateway(&mut world, from, &initiation, family));
        let reply = answer(&mut world, from, family);
        world.clients[1].process(&reply);
        let initiation = world.clients[1].initiation();
        assert_ne!(initiation[132..], [0; 16], "boringtun shows the cookie with its next initiation");
        assert!(reaches_a_gateway(&mut world, from, &initiation, family));
        // A gateway that is under load itself asks for no other: clients keep only one.
        assert!(of_cluster(&world).has_valid_mac2(&initiation, from));
        // The same cookie from another address proves nothing.
        let elsewhere = SocketAddr::new(from.ip(), from.port() + 1);
        assert!(!reaches_a_gateway(&mut world, elsewhere, &initiation, family));
        assert_eq!(world.losses(), []);
    }
}

#[test]
fn a_source_gets_its_share_of_handshakes_with_a_cookie_and_its_share_of_cookies() {
    let mut world = flooded(Family::V4);
    world.sent.clear();
    let from = world.clients[1].address;
    let initiation = world.clients[1].initiation();
    let asked = (0..100).filter(|_| {
        reaches_a_gateway(&mut world, from, &initiation, Family::V4);
        !world.take_sent(WAN).is_empty()
    });
    // Five, or less if the source shares its bucket with one of the attacker's.
    let cookies = asked.count() as u64;
    assert!((1..=5).contains(&cookies), "{cookies}");
    assert_eq!(world.drops(DropReason::WireguardRateLimited), 100 - cookies);

    let mut world = flooded(Family::V4);
    world.sent.clear();
    let initiation = world.clients[1].initiation();
    reaches_a_gateway(&mut world, from, &initiation, Family::V4);
    let reply = answer(&mut world, from, Family::V4);
    world.clients[1].process(&reply);
    let initiation = world.clients[1].initiation();
    let passed = (0..100).filter(|_| reaches_a_gateway(&mut world, from, &initiation, Family::V4)).count();
    assert_eq!(passed, 5);
}

/// What is said of a client's message to the service: whether it shows a cookie, and what the worker would do.
fn foreseen(world: &mut World, from: SocketAddr, message: &[u8], family: Family) -> (AddressProof, Decision) {
    let packet = datagram(from, service(family), 0, message);
    let parsed = Parsed::from_ip(&packet).expect("a packet");
    let layout = IndexLayout::new(NodeId(1), 1, &IndexKey::new([9; 8]));
    let explanation = explain(&packet, &parsed, Origin::Port(WAN), &world.tables, &layout);
    let Role::Client(Selection { handshake: Some(handshake), .. }) = explanation.role else {
        panic!("{explanation:?}");
    };
    let question = HandshakeQuestion { ticket: 7, from: handshake.from, proof: handshake.proof, decision: None };
    let mut order = Order::Foresee(Box::new(question));
    let scene = Scene { tables: &world.tables, now: world.now };
    assert_eq!(world.workers[0].pipeline.carry_out(&mut order, &scene), Progress::Done);
    match order {
        Order::Foresee(answer) => (handshake.proof, answer.decision.expect("an answer")),
        Order::Flows(_) => panic!("another order"),
    }
}

#[test]
fn what_is_said_of_a_handshake_is_what_becomes_of_it_and_saying_it_costs_nothing() {
    for family in FAMILIES {
        let mut world = dispatcher(family);
        let from = world.clients[1].address;
        let initiation = world.clients[1].initiation();
        assert_eq!(foreseen(&mut world, from, &initiation, family), (AddressProof::None, Decision::Pass));
        let mut world = flooded(family);
        world.sent.clear();
        for _ in 0..100 {
            let initiation = world.clients[1].initiation();
            assert_eq!(foreseen(&mut world, from, &initiation, family), (AddressProof::None, Decision::AskCookie));
        }
        let initiation = world.clients[1].initiation();
        assert!(!reaches_a_gateway(&mut world, from, &initiation, family));
        let reply = answer(&mut world, from, family);
        world.clients[1].process(&reply);
        let initiation = world.clients[1].initiation();
        assert_eq!(foreseen(&mut world, from, &initiation, family), (AddressProof::Cookie, Decision::Pass));
        let passed = (0..20).filter(|_| reaches_a_gateway(&mut world, from, &initiation, family)).count();
        assert_eq!(passed, 5);
        assert_eq!(foreseen(&mut world, from, &initiation, family), (AddressProof::Cookie, Decision::Drop));
    }
}

#[test]
fn messages_of_sessions_pass_in_the_flood() {
    let mut world = flooded(Family::V4);
    world.sent.clear();
    let gateway = IndexLayout::new(NodeId(FIRST_NODE + 1), 1, &IndexKey::new([9; 8]));
    let mut message = vec![4, 0, 0, 0];
    message.extend(gateway.encode(WorkerId(0), SlotIndex(5)).to_le_bytes());
    message.extend([0; 24]);
    let from = world.clients[1].address;
    assert!(reaches_a_gateway(&mut world, from, &message, Family::V4));
    assert_eq!(world.losses(), []);
}

#[test]
fn without_a_flood_nobody_is_asked_for_a_cookie() {
    let mut world = dispatcher(Family::V4);
    let initiation = world.clients[0].initiation();
    flood(&mut world, &initiation, Family::V4, STRANGERS_BURST as u32);
    assert_eq!(world.take_sent(LAN).len(), STRANGERS_BURST);
    assert_eq!(world.take_sent(WAN), Vec::<Vec<u8>>::new());
}
