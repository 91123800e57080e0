//! Servers that fail, are drained, go and come back, against a map of who is where, by random operations.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jetway_config::AllDown;
use jetway_pipelines::dispatch::flow_table::{Lifetime, Tick};
use jetway_pipelines::dispatch::{Administration, Backend, Health};
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::packet::Protocol;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use crate::bench::packets::{datagram, frame, packet_of, parse_datagram};
use crate::bench::services::{SERVICE_PORT, ServicePlan, servers, service_address};
use crate::bench::{Family, LAN, MACS, WAN, World, address, neighbour_mac};

/// Packets and changes in all.
const OPERATIONS: usize = 1_000_000;
/// Clients: fewer than the flow table has places.
const CLIENTS: u16 = 300;

/// What the map knows of a client.
#[derive(Clone, Copy)]
struct Known {
    server: IpAddr,
    seen: Tick,
}

struct Upkeep {
    world: World,
    /// All servers that there ever are, in the service or not.
    all: Vec<Arc<Backend>>,
    /// Those that are in the service.
    pool: Vec<Arc<Backend>>,
    all_down: AllDown,
    model: HashMap<u16, Known>,
    refused: u64,
    /// Packets of flows that stayed, of flows that had to move, of new flows, and packets that nobody could take.
    seen: [usize; 4],
}

/// What the service promises for one packet.
enum Due {
    /// It goes to this server, as those before it.
    Stays(IpAddr),
    /// It goes to any server of these.
    OneOf(Vec<IpAddr>),
    /// It goes nowhere.
    Nowhere,
}

impl Upkeep {
    fn new() -> Self {
        let all = servers(Family::V4, 1..=6);
        let pool = all.clone();
        let world = World::new(1, &[]);
        let (model, all_down) = (HashMap::new(), AllDown::Serve);
        let mut upkeep = Self { world, all, pool, all_down, model, refused: 0, seen: [0; 4] };
        upkeep.offer();
        upkeep
    }

    /// The node takes up the pool and the policy as they are now.
    fn offer(&mut self) {
        let plan = ServicePlan { all_down: self.all_down, ..ServicePlan::nat(Family::V4, Protocol::UDP) };
        self.world.offer([plan.service(&self.pool)]);
    }

    /// The client's flow, if it is not forgotten yet.
    fn flow(&self, client: u16) -> Option<&Known> {
        let now = Tick::from(self.world.now);
        self.model.get(&client).filter(|known| now.since(known.seen) <= Lifetime::Udp.ticks())
    }

    fn due(&self, client: u16) -> Due {
        let server = self.flow(client).and_then(|known| self.pool.iter().find(|server| server.address == known.server));
        if let Some(server) = server.filter(|server| server.state().keeps_flows()) {
            return Due::Stays(server.address);
        }
        let fit = |fits: fn(&Backend) -> bool| -> Vec<IpAddr> {
            self.pool.iter().filter(|server| fits(server)).map(|server| server.address).collect()
        };
        let takers = fit(|server| server.state().takes_new_flows());
        let last_resort = fit(|server| server.administration() != Administration::Disabled);
        match self.all_down {
            _ if !takers.is_empty() => Due::OneOf(takers),
            AllDown::Serve if !last_resort.is_empty() => Due::OneOf(last_resort),
            AllDown::Serve | AllDown::Refuse => Due::Nowhere,
        }
    }

    /// Some clients send a packet each, in one burst.
    fn packets(&mut self, random: &mut SmallRng) -> usize {
        let to = SocketAddr::new(service_address(Family::V4), SERVICE_PORT);
        let clients: Vec<u16> = (0..random.random_range(1..=32)).map(|_| random.random_range(0..CLIENTS)).collect();
        let gateway = neighbour_mac(address("198.51.100.254"));
        let frames = clients.iter().map(|client| {
            let from = SocketAddr::new(address("203.0.114.7"), 2000 + client);
            frame(MACS[0], gateway, &datagram(from, to, 0, b"question"))
        });
        self.world.receive(0, WAN, frames.collect::<Vec<_>>());
        self.world.settle();
        let mut went: HashMap<u16, Vec<IpAddr>> = HashMap::new();
        for (port, frame) in std::mem::take(&mut self.world.sent) {
            if port != LAN {
                continue;
            }
            let (from, server, _) = parse_datagram(packet_of(&frame)).expect("a datagram");
            went.entry(from.port() - 2000).or_default().push(server.ip());
        }
        let now = Tick::from(self.world.now);
        for client in &clients {
            let due = self.due(*client);
            let went = went.get_mut(client).and_then(Vec::pop);
            let kind = match (due, went) {
                (Due::Stays(server), Some(to)) => {
                    assert_eq!(to, server, "client {client} was moved");
                    0
                }
                (Due::OneOf(servers), Some(to)) => {
                    assert!(servers.contains(&to), "client {client} went to {to}, which takes no flows");
                    if self.flow(*client).is_some() { 1 } else { 2 }
                }
                (Due::Nowhere, None) => {
                    self.refused += 1;
                    3
                }
                (Due::Nowhere, Some(to)) => panic!("client {client} went to {to} though nobody may take it"),
                (Due::Stays(_) | Due::OneOf(_), None) => panic!("a packet of client {client} is missing"),
            };
            self.seen[kind] += 1;
            if let Some(server) = went {
                self.model.insert(*client, Known { server, seen: now });
            }
        }
        assert!(went.values().all(Vec::is_empty), "more packets left than came");
        assert_eq!(self.world.drops(DropReason::ServiceDown), self.refused);
        clients.len()
    }

    fn change(&mut self, random: &mut SmallRng) {
        let server = self.all.choose(random).expect("there are servers");
        match random.random_range(0..100) {
            0..40 => {
                server.set_health(*[Health::Up, Health::Up, Health::Suspect, Health::Down].choose(random).unwrap())
            }
            40..75 => {
                let kinds = [Administration::Enabled, Administration::Draining, Administration::Disabled];
                server.set_administration(*[kinds[0], kinds[0], kinds[1], kinds[1], kinds[2]].choose(random).unwrap());
            }
            75..85 => {
                // Others are there, in another order.
                self.pool = self.all.clone();
                self.pool.shuffle(random);
                self.pool.truncate(random.random_range(1..=self.all.len()));
                self.offer();
            }
            85..88 => {
                self.all_down = if random.random() { AllDown::Serve } else { AllDown::Refuse };
                self.offer();
            }
            88..98 => self.world.now += Duration::from_millis(random.random_range(0..60_000)),
            _ => self.world.now += Duration::from_secs(random.random_range(0..400)),
        }
    }
}

#[test]
fn a_million_random_operations_move_only_the_flows_that_must_move() {
    let seed = std::env::var("JETWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("JETWAY_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut upkeep = Upkeep::new();
    let mut done = 0;
    while done < OPERATIONS {
        done += match random.random_range(0..4) {
            0 => {
                upkeep.change(&mut random);
                1
            }
            _ => upkeep.packets(&mut random),
        };
    }
    println!("packets that stayed, moved, were new, and went nowhere: {:?}", upkeep.seen);
    assert!(upkeep.seen.iter().all(|count| *count > OPERATIONS / 200), "{:?}", upkeep.seen);
}
