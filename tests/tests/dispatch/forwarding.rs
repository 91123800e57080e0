//! Ten thousand requests by every way of forwarding, of either IP version, through a tunnel and in clear.

use jetway_tests::world::{Decapsulator, Family, FleetPlan, Forward, Origin, VipConfig, World, apache_bench, backends};
use std::net::SocketAddr;

const REQUESTS: u32 = 10_000;
const PARALLEL: u32 = 8;

/// One service: what clients see, how packets get to servers, and by which addresses.
#[derive(Clone, Copy)]
struct Way {
    forward: Forward,
    client: Family,
    server: Family,
}

impl Way {
    fn name(self) -> String {
        let version = |family| match family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        format!("{}-{}-over-{}", self.forward.word(), version(self.client), version(self.server))
    }

    fn vip(self, number: usize) -> VipConfig {
        let address = match self.client {
            Family::V4 => format!("10.100.0.{}", 10 + number),
            Family::V6 => format!("fd00:100::{}", 10 + number),
        };
        VipConfig {
            name: self.name(),
            address,
            port: 80,
            protocol: "tcp",
            forward: self.forward,
            backends: backends(1..=3, self.server),
            more: vec!["health = { kind = \"tcp\", interval = \"2s\" }".into()],
        }
    }
}

/// Each of `ways` is asked through the tunnel, and in clear with answers past the node where servers answer themselves.
#[track_caller]
fn answers_every_request(ways: &[Way]) {
    let Some(world) = World::open() else { return };
    let vips: Vec<VipConfig> = ways.iter().enumerate().map(|(number, way)| way.vip(number)).collect();
    let fleet = FleetPlan::new(vips).build(&world);
    let _decapsulators: Vec<_> = fleet.servers.iter().map(|server| Decapsulator::start(&server.namespace)).collect();
    for (way, vip) in ways.iter().zip(&fleet.vips) {
        let in_clear = match way.forward {
            Forward::Nat => Origin::Plain,
            Forward::L2 | Forward::Ipip | Forward::Gre | Forward::Gue => Origin::DirectReturn,
        };
        let to = SocketAddr::new(vip.address.parse().expect("an address"), vip.port);
        for origin in [Origin::Tunnel, in_clear] {
            let before: Vec<usize> = fleet.servers.iter().map(|server| server.nginx.answered()).collect();
            let report = apache_bench(&fleet.client, origin.address(way.client), to, REQUESTS, PARALLEL);
            let answered = fleet.servers.iter().zip(before).map(|(server, before)| server.nginx.answered() - before);
            let answered: Vec<usize> = answered.collect();
            println!(
                "{} {origin:?}: {} requests, {} failed, {:.0}/s, longest {} ms, by server {answered:?}",
                way.name(),
                report.complete,
                report.failed,
                report.rate,
                report.longest_ms
            );
            if (report.complete, report.failed) != (u64::from(REQUESTS), 0) {
                panic!("{} {origin:?}: {}{}", way.name(), report.output, fleet.where_packets_were_lost());
            }
            assert!(answered.iter().sum::<usize>() >= REQUESTS as usize, "somebody else answered: {answered:?}");
            // Of 10,000 flows a third is 3,333, give or take 47 (one standard deviation) and what a table is uneven.
            assert!(answered.iter().all(|&count| count > 3_000), "servers are not used alike: {answered:?}");
        }
    }
    fleet.jetway.assert_every_packet_is_accounted_for();
}

fn same_version(forward: Forward) -> [Way; 2] {
    [Family::V4, Family::V6].map(|family| Way { forward, client: family, server: family })
}

fn every_version(forward: Forward) -> [Way; 4] {
    let [four, six] = same_version(forward);
    [four, six, Way { server: Family::V6, ..four }, Way { server: Family::V4, ..six }]
}

#[test]
fn translated_services_answer_every_request() {
    answers_every_request(&same_version(Forward::Nat));
}

#[test]
fn services_whose_servers_bear_their_address_answer_every_request() {
    answers_every_request(&same_version(Forward::L2));
}

#[test]
fn services_behind_ip_in_ip_answer_every_request() {
    answers_every_request(&every_version(Forward::Ipip));
}

#[test]
fn services_behind_gre_answer_every_request() {
    answers_every_request(&every_version(Forward::Gre));
}

#[test]
fn services_behind_gue_answer_every_request() {
    answers_every_request(&every_version(Forward::Gue));
}
