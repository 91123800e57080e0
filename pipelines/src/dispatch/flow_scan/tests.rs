use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::super::flow_table::{Decision, address_bytes};
use super::*;
use crate::packet::Protocol;

const NOW: Tick = Tick(1_000);

fn address(network: u8, host: u32) -> IpAddr {
    let [_, a, b, c] = host.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(network, a, b, c))
}

fn service(port: u16) -> Socket {
    Socket { address: address(100, 7), port, protocol: Protocol::UDP }
}

fn key(kind: FlowKind, client: u32, port: u16) -> FlowKey {
    FlowKey {
        source: address_bytes(address(10, client)),
        destination: address_bytes(address(100, 7)),
        source_port: if kind == FlowKind::Client { 0 } else { 4_000 },
        destination_port: port,
        protocol: Protocol::UDP,
        kind,
        origin: 0,
    }
}

/// Clients 0.. with a flow each to port 53 or 443 and one of three servers, and a bond for every tenth.
fn table(clients: u32) -> FlowTable {
    let mut flows = FlowTable::new(clients as usize * 2, [1, 2, 3, 4]);
    for client in 0..clients {
        let decision = Decision::new(BackendIndex(client % 3), 0);
        let port = if client % 2 == 0 { 53 } else { 443 };
        let mut insert = |key: FlowKey, lifetime| {
            let hash = flows.hash(&key);
            flows.insert(hash, key, decision, lifetime, NOW).unwrap();
        };
        insert(key(FlowKind::Forward, client, port), Lifetime::Udp);
        if client % 10 == 0 {
            insert(key(FlowKind::Client, client, port), Lifetime::Client);
        }
    }
    flows
}

/// Runs a scan as control and worker do together; gives what it found and the turns that it took.
fn run(scan: &mut FlowScan, flows: &mut FlowTable) -> (Vec<FlowRecord>, usize) {
    let (mut found, mut turns) = (Vec::new(), 0);
    while !scan.is_finished() {
        while scan.step(flows, NOW) == Progress::GoesOn {
            turns += 1;
        }
        found.extend(scan.take_found());
    }
    (found, turns)
}

#[test]
fn a_list_has_every_flow_once_however_many_and_allocates_nothing_on_the_way() {
    let mut flows = table(20_000);
    let mut scan = FlowScan::new(7, FlowTask::List, FlowFilter::default(), 0);
    let capacity = scan.found.capacity();
    let (found, turns) = run(&mut scan, &mut flows);
    assert_eq!(scan.found.capacity(), capacity);
    let mut clients: Vec<_> = found.iter().map(|record| record.flow.key.source_address()).collect();
    clients.sort_unstable();
    clients.dedup();
    assert_eq!((found.len(), clients.len(), scan.matched()), (20_000, 20_000, 20_000));
    assert!(turns >= flows.buckets() / BUCKETS_PER_TURN, "{turns} turns");
    assert!(found.iter().all(|record| record.lifetime == Lifetime::Udp && record.idle == 0));
}

#[test]
fn a_filter_means_what_fits_all_of_it() {
    let mut flows = table(1_000);
    let mut count = |filter| {
        let mut scan = FlowScan::new(0, FlowTask::Count, filter, 3);
        run(&mut scan, &mut flows);
        (scan.matched(), scan.counts().to_vec())
    };
    let all = FlowFilter::default();
    assert_eq!(count(all.clone()), (1_000, vec![334, 333, 333]));
    let dns = FlowFilter { service: Some(service(53)), ..all.clone() };
    assert_eq!(count(dns.clone()).0, 500);
    assert_eq!(count(FlowFilter { service: Some(service(54)), ..all.clone() }).0, 0);
    let server = FlowFilter { server: Some(BackendIndex(1)), ..all.clone() };
    assert_eq!(count(server.clone()), (333, vec![0, 333, 0]));
    let client = FlowFilter { client: Some("10.0.0.0/28".parse().unwrap()), ..all };
    assert_eq!(count(client.clone()).0, 16);
    assert_eq!(count(FlowFilter { service: dns.service, server: server.server, ..client }).0, 2);
}

#[test]
fn forgetting_takes_clients_bonds_along_and_nothing_that_was_not_meant() {
    let mut flows = table(1_000);
    let filter = FlowFilter { service: Some(service(53)), ..FlowFilter::default() };
    let mut scan = FlowScan::new(0, FlowTask::Forget, filter, 3);
    run(&mut scan, &mut flows);
    assert_eq!(scan.matched(), 500);
    // 100 bonds, all of even clients.
    assert_eq!(flows.len(), 500);
    let mut rest = FlowScan::new(0, FlowTask::List, FlowFilter::default(), 0);
    let (found, _) = run(&mut rest, &mut flows);
    let ports: BTreeMap<u16, usize> = found.iter().fold(BTreeMap::new(), |mut ports, record| {
        *ports.entry(record.flow.key.destination_port).or_default() += 1;
        ports
    });
    assert_eq!(ports, BTreeMap::from([(443, 500)]));
}

#[test]
fn forgetting_a_tunnels_client_takes_its_peers_bonds_along_and_no_other_peers() {
    let peers: [ClientIdentity; 3] = [[9; 16], [5; 16], [7; 16]];
    let mut flows = table(0);
    for peer in peers {
        for port in [53, 443] {
            let key = FlowKey::of_client(peer, &service(port));
            flows.insert(flows.hash(&key), key, Decision::new(BackendIndex(1), 0), Lifetime::Client, NOW).unwrap();
        }
    }
    let client = Some("10.0.0.1/32".parse().unwrap());
    let filter = FlowFilter { client, peers: [[5; 16], [9; 16]].into(), ..FlowFilter::default() };
    let mut forget = |filter| {
        run(&mut FlowScan::new(0, FlowTask::Forget, filter, 3), &mut flows);
        flows.len()
    };
    assert_eq!(forget(FlowFilter { service: Some(service(53)), ..filter.clone() }), 4);
    assert_eq!(forget(FlowFilter { server: Some(BackendIndex(2)), ..filter.clone() }), 4);
    assert_eq!(forget(filter), 2, "the third peer's");
}

#[test]
fn one_flow_is_found_by_its_key_in_one_step() {
    let mut flows = table(100);
    let find = |key, flows: &mut FlowTable, now| {
        let mut scan = FlowScan::new(0, FlowTask::Find(key), FlowFilter::default(), 0);
        assert_eq!(scan.step(flows, now), Progress::Done);
        assert!(scan.is_finished());
        scan.take_found().next()
    };
    let record = find(key(FlowKind::Forward, 5, 443), &mut flows, Tick(NOW.0 + 8)).unwrap();
    assert_eq!((record.flow.decision.server, record.idle), (BackendIndex(2), 8));
    assert_eq!(find(key(FlowKind::Forward, 5, 53), &mut flows, NOW), None);
}
