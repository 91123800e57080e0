//! Whole turns of a worker that dispatches: hot flows, a million flows, flows that are all new, each way of forwarding,
//! and decryption with dispatch behind it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jetway_aead::SealJob;
use jetway_config::{AllDown, Forward, OnDown, Persistence};
use jetway_pipelines::buffer::HeapBuf;
use jetway_pipelines::dispatch::Backend;
use jetway_pipelines::dispatch::flow_table::BYTES_PER_FLOW;
use jetway_pipelines::dispatch::maglev::{Identity, Maglev, Member};
use jetway_pipelines::dispatch::service::{Service, ServiceParts, Services, Socket};
use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::packet::Protocol;
use jetway_pipelines::wireguard::constants::DATA_HEADER_SIZE;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::line::refill;
use crate::result::{Part, Quantity, Row};
use crate::sample::{Contestant, Effort, compare, median_and_spread, ratio};
use crate::traffic::{self, OUTER};
use crate::world::{NOW, World};

/// The service of every case.
const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 100, 0, 10)), 80);
const SERVERS: u32 = 100;
const BURST: usize = 32;

/// What the packets of a case are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flows {
    /// Of so many flows that are known, in random order.
    Known(usize),
    /// Each of a flow of its own that nobody has seen.
    New,
}

/// Measures every case.
pub fn measure(effort: Effort) -> Part {
    let mut part = Part::default();
    for forward in [Forward::Nat, Forward::L2, Forward::Ipip, Forward::Gre, Forward::Gue] {
        part.rows.push(in_clear(forward, Flows::Known(1), effort));
    }
    for flows in [Flows::Known(1_000_000), Flows::Known(10_000_000), Flows::New] {
        part.rows.push(in_clear(Forward::Ipip, flows, effort));
    }
    part.rows.push(in_clear(Forward::Nat, Flows::Known(1_000_000), effort));
    behind_decryption(effort, &mut part);
    part.rows.push(table(effort));
    let memory = Quantity::new("memory of a flow", BYTES_PER_FLOW as f64, "B");
    part.quantities.push(Quantity { goal: Some(128.0), ..memory });
    part
}

fn services(forward: Forward) -> Services {
    let servers: Box<[_]> = (0..SERVERS)
        .map(|number| {
            let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100 + number as u8));
            Arc::new(Backend::new(BackendIndex(number), address, 80, 1))
        })
        .collect();
    let service = Service::from(ServiceParts {
        socket: Socket { address: SERVICE.ip(), port: SERVICE.port(), protocol: Protocol::UDP },
        persistence: Persistence::Flow,
        forward,
        on_down: OnDown::Move,
        all_down: AllDown::Serve,
        table: Maglev::build(65_537, &members(SERVERS)).expect("a table of so many"),
        servers,
        gateways: None,
    });
    Services::new(vec![Arc::new(service)], [1, 2])
}

fn members(count: u32) -> Vec<Member> {
    (0..count).map(|number| Member { identity: Identity::of(&number.to_be_bytes()), weight: 1 }).collect()
}

/// The client of a flow.
fn client(flow: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0xcb00_0000 | flow >> 12)), 1024 + (flow & 0xfff) as u16)
}

/// A worker's turns over a service's datagrams of 64 bytes.
struct Turns {
    world: World,
    buffers: Vec<HeapBuf>,
    flows: Flows,
    next: u32,
    random: StdRng,
    turns: u64,
    sent: u64,
}

impl Turns {
    fn new(forward: Forward, flows: Flows) -> Self {
        let room = match flows {
            Flows::Known(flows) => flows,
            // More than there will be.
            Flows::New => 4_000_000,
        };
        let mut turns = Self {
            world: World::with_services(0, services(forward), room),
            buffers: (0..BURST).map(|_| HeapBuf::with_room(2048)).collect(),
            flows: Flows::New,
            next: 0,
            random: StdRng::seed_from_u64(7),
            turns: 0,
            sent: 0,
        };
        if let Flows::Known(count) = flows {
            while (turns.next as usize) < count {
                turns.run();
            }
        }
        turns.flows = flows;
        turns
    }

    fn flow(&mut self) -> u32 {
        match self.flows {
            Flows::Known(count) => self.random.random_range(0..count as u32),
            Flows::New => {
                self.next += 1;
                self.next - 1
            }
        }
    }

    fn run(&mut self) -> Duration {
        let mut buffers = std::mem::take(&mut self.buffers);
        for buffer in &mut buffers {
            let packet = traffic::datagram(client(self.flow()), SERVICE, &[7; 64 - 28]);
            refill(buffer, &traffic::frame(0, &packet));
        }
        self.world.lines[0].lay(buffers.drain(..).rev());
        let start = Instant::now();
        self.world.worker.turn(NOW);
        let took = start.elapsed();
        self.world.lines[1].take_sent(&mut buffers);
        self.turns += 1;
        self.sent += buffers.len() as u64;
        let missing = BURST - buffers.len();
        buffers.extend((0..missing).map(|_| HeapBuf::with_room(2048)));
        self.buffers = buffers;
        took
    }
}

fn in_clear(forward: Forward, flows: Flows, effort: Effort) -> Row {
    let mut turns = Turns::new(forward, flows);
    let run = Box::new(|| turns.run()) as Box<dyn FnMut() -> Duration>;
    let outcome = compare(&mut [Contestant { name: "jetway", packets: BURST, run }], effort).remove(0);
    assert_eq!(turns.sent, turns.turns * BURST as u64, "the worker dropped packets: this measures nothing");
    let (what, count) = match flows {
        Flows::Known(count) => ("dispatch", count),
        Flows::New => ("dispatch, all flows new", turns.next as usize),
    };
    Row::new(format!("{what}, {forward:?}").to_lowercase(), "jetway", outcome.nanoseconds, outcome.spread)
        .size("64", 64.0)
        .flows(count, Some(BURST))
}

/// Decrypt and dispatch beside decrypt and forward, the same messages in turn.
fn behind_decryption(effort: Effort, part: &mut Part) {
    let mut world = World::with_services(1, services(Forward::Nat), 1000);
    let world = std::cell::RefCell::new(&mut world);
    let room = || (0..BURST).map(|_| HeapBuf::with_room(2048)).collect::<Vec<_>>();
    let (mut direct, mut served) = (room(), room());
    let contestant = |name, run| Contestant { name, packets: BURST, run };
    let to_server = SocketAddr::from((traffic::SERVER, 6000));
    let outcomes = compare(
        &mut [
            contestant("decrypt and forward", Box::new(|| tunnelled(&mut world.borrow_mut(), to_server, &mut direct))),
            contestant("decrypt and dispatch", Box::new(|| tunnelled(&mut world.borrow_mut(), SERVICE, &mut served))),
        ],
        effort,
    );
    for outcome in &outcomes {
        let mut row = Row::new(outcome.name, "jetway", outcome.nanoseconds, outcome.spread)
            .size("1420", 1420.0)
            .flows(1, Some(BURST));
        row.ratio = Some(ratio(outcome, &outcomes[0]));
        part.rows.push(row);
    }
    let mut more: Vec<f64> =
        outcomes[1].rounds.iter().zip(&outcomes[0].rounds).map(|(served, direct)| served - direct).collect();
    let (median, spread) = median_and_spread(&mut more);
    part.rows.push(Row::new("dispatch beyond decrypt and forward", "jetway", median, spread).flows(1, Some(BURST)));
}

/// One turn over messages of a tunnel's client, whose packets are for `to`.
fn tunnelled(world: &mut World, to: SocketAddr, buffers: &mut Vec<HeapBuf>) -> Duration {
    let from = SocketAddr::from((traffic::client(0), 5000));
    for buffer in buffers.iter_mut() {
        let mut message = world.open_message(0, &traffic::datagram(from, to, &[7; 1420 - 28]));
        let counter = world.clients[0].counter - 1;
        let key = &world.clients[0].key;
        world.aead.seal_burst(&mut [SealJob { key, counter, buffer: &mut message[DATA_HEADER_SIZE..] }]);
        let datagram = traffic::datagram(traffic::endpoint(0), (OUTER, traffic::LISTEN_PORT).into(), &message);
        refill(buffer, &traffic::frame(0, &datagram));
    }
    world.lines[0].lay(buffers.drain(..).rev());
    let start = Instant::now();
    world.worker.turn(NOW);
    let took = start.elapsed();
    world.lines[1].take_sent(buffers);
    assert_eq!(buffers.len(), BURST, "the worker dropped packets: this measures nothing");
    took
}

/// Building the usual table for a thousand servers.
fn table(effort: Effort) -> Row {
    let members = members(1000);
    let mut times: Vec<f64> = (0..effort.rounds)
        .map(|_| {
            let start = Instant::now();
            let built = Maglev::build(65_537, &members);
            let took = start.elapsed();
            assert!(built.is_ok());
            took.as_nanos() as f64
        })
        .collect();
    let (median, spread) = median_and_spread(&mut times);
    Row::new("Maglev table of 65,537 slots built", "jetway", median, spread).flows(members.len(), None)
}
