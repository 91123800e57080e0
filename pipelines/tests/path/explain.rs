//! What is said about a packet is what happens to it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jetway_config::{AllDown, Persistence};
use jetway_pipelines::dispatch::{Administration, Health};
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::ids::NodeId;
use jetway_pipelines::packet::{Parsed, Protocol};
use jetway_pipelines::path::explain::{Basis, End, Explanation, Role, Selection, explain};
use jetway_pipelines::path::packet::Origin;
use jetway_pipelines::tables::Twin;
use jetway_pipelines::wireguard::index::{IndexKey, IndexLayout};

use crate::bench::packets::{Inner, datagram, frame};
use crate::bench::services::{SERVER_PORT, SERVICE_PORT, ServicePlan, server_address, servers, service_address};
use crate::bench::{
    FAMILIES, Family, LAN, LISTEN_PORT, MACS, TUNNEL, WAN, World, address, neighbour_mac, node_inner, node_lan, server,
};

fn explained<'t>(world: &'t World, packet: &[u8], origin: Origin) -> Explanation<'t> {
    let parsed = Parsed::from_ip(packet).expect("a packet");
    explain(packet, &parsed, origin, &world.tables, &IndexLayout::new(NodeId(1), 1, &IndexKey::new([9; 8])))
}

/// How the server of a client's packet is found.
fn selection(explanation: Explanation<'_>) -> Selection<'_> {
    match explanation.role {
        Role::Client(selection) => selection,
        other => panic!("{other:?}"),
    }
}

fn clear_client(family: Family, number: u16) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::V4 => IpAddr::from([203, 0, 114, (number % 250) as u8 + 1]),
        Family::V6 => address(&format!("2001:db8:ffff::{:x}", number + 1)),
    };
    SocketAddr::new(ip, 1_000 + number)
}

fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => address("198.51.100.254"),
        Family::V6 => address("2001:db8::fe"),
    }
}

#[test]
fn a_client_in_clear_goes_to_the_server_that_was_named_whatever_state_servers_are_in() {
    for family in FAMILIES {
        for persistence in [Persistence::Flow, Persistence::Client] {
            let mut world = World::new(1, &[]);
            let pool = servers(family, 1..=5);
            world.offer([ServicePlan { persistence, ..ServicePlan::nat(family, Protocol::UDP) }.service(&pool)]);
            pool[0].set_health(Health::Down);
            pool[1].set_administration(Administration::Draining);
            for number in 0..200 {
                let (from, to) = (clear_client(family, number), SocketAddr::new(service_address(family), SERVICE_PORT));
                let packet = datagram(from, to, 0, b"hello");
                let selection = selection(explained(&world, &packet, Origin::Port(WAN)));
                let named = selection.server.expect("some are up").address;
                let owner = selection.owner.expect("every slot has an owner");
                assert_eq!(owner.address == named, owner.state().takes_new_flows());
                let basis = if persistence == Persistence::Flow { Basis::Flow } else { Basis::ClientAddress };
                assert_eq!((selection.basis, selection.bond.is_some()), (basis, persistence == Persistence::Client));
                world.receive(0, WAN, [frame(MACS[0], neighbour_mac(gateway(family)), &packet)]);
                world.settle();
                let sent = world.take_sent(LAN);
                assert_eq!(sent.len(), 1, "client {number}: {:?}", world.losses());
                assert_eq!(Parsed::from_ip(&sent[0]).expect("a packet").destination, named, "client {number}");
            }
        }
    }
}

#[test]
fn a_peer_goes_by_its_key_and_only_with_an_address_of_its_own() {
    let mut world = World::connected(1, &[Family::V4]);
    let pool = servers(Family::V4, 1..=5);
    let plan = ServicePlan { persistence: Persistence::Client, ..ServicePlan::nat(Family::V4, Protocol::UDP) };
    world.offer([plan.service(&pool)]);
    let to = SocketAddr::new(service_address(Family::V4), SERVICE_PORT);
    let packet = datagram(SocketAddr::new(world.inner(0, Family::V4), 4_000), to, 0, b"hello");
    let selection = selection(explained(&world, &packet, Origin::Tunnel(TUNNEL)));
    assert_eq!(selection.basis, Basis::ClientPeer);
    let named = selection.server.expect("all are up").address;
    world.client_sends(0, &packet);
    let sent = world.take_sent(LAN);
    assert_eq!(Parsed::from_ip(&sent[0]).expect("a packet").destination, named);
    let foreign = datagram("10.8.99.99:4000".parse().unwrap(), to, 0, b"hello");
    let explanation = explained(&world, &foreign, Origin::Tunnel(TUNNEL));
    assert_eq!(explanation.end.err(), Some(DropReason::InnerSourceNotAllowed));
}

#[test]
fn a_service_without_a_server_refuses_or_serves_as_it_is_told() {
    for (all_down, serves) in [(AllDown::Refuse, false), (AllDown::Serve, true)] {
        let mut world = World::new(1, &[]);
        let pool = servers(Family::V4, 1..=3);
        world.offer([ServicePlan { all_down, ..ServicePlan::nat(Family::V4, Protocol::UDP) }.service(&pool)]);
        pool.iter().for_each(|server| server.set_health(Health::Down));
        let to = SocketAddr::new(service_address(Family::V4), SERVICE_PORT);
        let packet = datagram(clear_client(Family::V4, 1), to, 0, b"hello");
        let explanation = explained(&world, &packet, Origin::Port(WAN));
        assert_eq!(explanation.end.is_ok(), serves);
        assert_eq!(selection(explanation).server.err(), (!serves).then_some(DropReason::ServiceDown));
    }
}

#[test]
fn what_concerns_no_service_is_local_decrypted_forwarded_or_dropped() {
    for family in FAMILIES {
        let mut world = World::new(1, &[family]);
        world.offer([ServicePlan::nat(family, Protocol::UDP).service(&servers(family, 1..=2))]);
        let client = clear_client(family, 1);
        let wan = Origin::Port(WAN);
        let to = |ip: IpAddr, port| SocketAddr::new(ip, port);
        let ping = Inner::ping(client.ip(), service_address(family)).bytes();
        let explanation = explained(&world, &ping, wan);
        assert!(matches!((&explanation.role, &explanation.end), (Role::Local, Ok(End::Kernel(Twin::Port(WAN))))));
        let message = datagram(client, to(node_lan(family), LISTEN_PORT), 0, b"no message");
        assert!(matches!(explained(&world, &message, wan).end, Ok(End::Decryption(TUNNEL))));
        let across = datagram(client, to(server(family), 9), 0, b"x");
        match explained(&world, &across, wan) {
            Explanation { role: Role::Forwarded, end: Ok(End::Port(LAN, next)), .. } => {
                assert_eq!(next, server(family))
            }
            other => panic!("{other:?}"),
        }
        let inner = world.inner(0, family);
        let to_peer = datagram(to(server(family), 9), to(inner, 9), 0, b"x");
        match explained(&world, &to_peer, Origin::Port(LAN)) {
            Explanation { role: Role::Forwarded, end: Ok(End::Peer(peer)), .. } => {
                assert!(Arc::ptr_eq(peer, &world.peers[0]))
            }
            other => panic!("{other:?}"),
        }
        let forged = datagram(to(inner, 9), to(server(family), 9), 0, b"x");
        assert_eq!(explained(&world, &forged, wan).end.err(), Some(DropReason::ReversePath));
        let spent = Inner::udp(client.ip(), server(family), 8).ttl(1).bytes();
        assert_eq!(explained(&world, &spent, wan).end.err(), Some(DropReason::TtlExceeded));
        let answer = datagram(to(server_address(family, 1), SERVER_PORT), client, 0, b"x");
        match explained(&world, &answer, Origin::Port(LAN)).role {
            Role::Answer(_, from) => assert_eq!(from.address, server_address(family, 1)),
            other => panic!("{other:?}"),
        }
        let to_node = datagram(to(inner, 9), to(node_inner(family), 9), 0, b"x");
        let explanation = explained(&world, &to_node, Origin::Tunnel(TUNNEL));
        assert!(matches!(explanation.end, Ok(End::Kernel(Twin::Tunnel(TUNNEL)))), "{explanation:?}");
    }
}
