//! Whole turns of a worker that dispatches: hot flows, a million flows, flows that are all new, each way of forwarding,
//! and decryption with dispatch behind it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use jetway_aead::SealJob;
use jetway_config::{AllDown, Forward, OnDown, Persistence};
use jetway_engine::dpdk::mbuf::{Mbuf, free_burst};
use jetway_engine::dpdk::pool::Allocator;
use jetway_engine::dpdk::port::DpdkPort;
use jetway_engine::port::{Burst, PortQueue};
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

use crate::aead;
use crate::devices::{Devices, SharedQueue, filled};
use crate::floors::{Driver, Floors};
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
    /// Each of a flow of its own that nobody has seen, beside [`OLD_FLOWS`] others.
    New,
}

/// Flows that are known where the others are new: the kernel has given the table its memory by then.
const OLD_FLOWS: u32 = 1_000_000;

/// Measures every case on ports that cost nothing.
pub fn measure(effort: Effort) -> Part {
    let mut part = Part::default();
    let mut in_clear = |forward, flows| {
        let medium = Memory::new(forward, flows);
        part.rows.push(turns("", medium, (forward, flows), effort));
    };
    for forward in [Forward::Nat, Forward::L2, Forward::Ipip, Forward::Gre, Forward::Gue] {
        in_clear(forward, Flows::Known(1));
    }
    for flows in [Flows::Known(1_000_000), Flows::Known(10_000_000), Flows::New] {
        in_clear(Forward::Ipip, flows);
    }
    in_clear(Forward::Nat, Flows::Known(1_000_000));
    behind_decryption(effort, &mut part);
    part.rows.extend([65_537, 655_373].map(|slots| table(slots, effort)));
    let memory = Quantity::new("memory of a flow", BYTES_PER_FLOW as f64, "B");
    part.quantities.push(memory.at_most(128.0));
    part
}

/// Measures the cases that have goals on DPDK's devices in memory, in turns with testpmd's `macswap` on the same devices.
pub fn measure_on_devices(devices: &mut Devices, floors: &mut Floors, effort: Effort) -> io::Result<Part> {
    let mut part = Part::default();
    let encapsulated = [Flows::Known(1), Flows::Known(1_000_000), Flows::New].map(|flows| (Forward::Ipip, flows));
    for (forward, flows) in [(Forward::Nat, Flows::Known(1))].into_iter().chain(encapsulated) {
        let medium = OnDevices::new(devices, Driver::Ring, forward, flows)?;
        part.rows.push(turns(" on net_ring", medium, (forward, flows), effort));
        floors.sample_macswap(&mut part)?;
    }
    let medium = OnDevices::new(devices, Driver::Null, Forward::Ipip, Flows::Known(1))?;
    part.rows.push(turns(" on net_null", medium, (Forward::Ipip, Flows::Known(1)), effort));
    Ok(part)
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

impl Flows {
    /// How many a worker has to have room for.
    fn room(self) -> usize {
        match self {
            Self::Known(flows) => flows,
            // More than there will be.
            Self::New => 4_000_000,
        }
    }
}

/// A worker whose first port can be given frames, and whose second says what came of them.
trait Medium {
    /// Lays a burst of frames before the worker.
    fn lay(&mut self, frames: &[Vec<u8>]);
    /// One turn.
    fn turn(&mut self);
    /// Takes back what the turn sent.
    fn take_sent(&mut self);
    /// All packets that the worker sent.
    fn sent(&self) -> u64;
}

/// Ports that are lists.
struct Memory {
    world: World,
    buffers: Vec<HeapBuf>,
}

impl Memory {
    fn new(forward: Forward, flows: Flows) -> Self {
        let buffers = (0..BURST).map(|_| HeapBuf::with_room(2048)).collect();
        Self { world: World::with_services(0, services(forward), flows.room()), buffers }
    }
}

impl Medium for Memory {
    fn lay(&mut self, frames: &[Vec<u8>]) {
        for (buffer, frame) in self.buffers.iter_mut().zip(frames) {
            refill(buffer, frame);
        }
        self.world.lines[0].lay(self.buffers.drain(..).rev());
    }

    fn turn(&mut self) {
        self.world.worker.turn(NOW);
    }

    fn take_sent(&mut self) {
        self.world.lines[1].take_sent(&mut self.buffers);
        let missing = BURST - self.buffers.len();
        self.buffers.extend((0..missing).map(|_| HeapBuf::with_room(2048)));
    }

    fn sent(&self) -> u64 {
        self.world.counters.sent.get()
    }
}

/// DPDK's devices in memory.
struct OnDevices {
    world: World<Mbuf, [SharedQueue; 2]>,
    allocator: Allocator,
    driver: Driver,
    _ports: [DpdkPort; 2],
}

impl OnDevices {
    fn new(devices: &mut Devices, driver: Driver, forward: Forward, flows: Flows) -> io::Result<Self> {
        let [from, to] = devices.open_in_memory(driver)?;
        let queues = [SharedQueue::new(from.queue), SharedQueue::new(to.queue)];
        let ends = queues.clone().map(|queue| Box::new(queue) as Box<dyn PortQueue<Mbuf>>);
        let world = World::on_ports(0, aead::chosen(), (services(forward), flows.room()), ends, queues);
        Ok(Self { world, allocator: devices.allocator()?, driver, _ports: [from.port, to.port] })
    }
}

impl Medium for OnDevices {
    fn lay(&mut self, frames: &[Vec<u8>]) {
        let mut burst: Burst<Mbuf> = frames.iter().filter_map(|frame| filled(&mut self.allocator, frame)).collect();
        self.world.lines[0].transmit(&mut burst);
    }

    fn turn(&mut self) {
        self.world.worker.turn(NOW);
    }

    fn take_sent(&mut self) {
        if self.driver == Driver::Ring {
            let mut sent = Burst::new();
            self.world.lines[1].receive(&mut sent);
            free_burst(&mut sent);
        }
    }

    fn sent(&self) -> u64 {
        self.world.counters.sent.get()
    }
}

/// A worker's turns over a service's datagrams of 64 bytes.
struct Turns<M> {
    medium: M,
    flows: Flows,
    next: u32,
    random: StdRng,
    turns: u64,
}

impl<M: Medium> Turns<M> {
    fn new(medium: M, flows: Flows) -> Self {
        let mut turns = Self { medium, flows: Flows::New, next: 0, random: StdRng::seed_from_u64(7), turns: 0 };
        let known = match flows {
            Flows::Known(count) => count as u32,
            Flows::New => OLD_FLOWS,
        };
        while turns.next < known {
            turns.run();
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
        let frame = |flow| traffic::frame(0, &traffic::datagram(client(flow), SERVICE, &[7; 64 - 28]));
        let frames: ArrayVec<_, BURST> = (0..BURST).map(|_| frame(self.flow())).collect();
        self.medium.lay(&frames);
        let start = Instant::now();
        self.medium.turn();
        let took = start.elapsed();
        self.medium.take_sent();
        self.turns += 1;
        took
    }
}

/// The row of a case; `on` says where, if that is no list.
fn turns(on: &str, medium: impl Medium, (forward, flows): (Forward, Flows), effort: Effort) -> Row {
    let mut turns = Turns::new(medium, flows);
    let run = Box::new(|| turns.run()) as Box<dyn FnMut() -> Duration>;
    let outcome = compare(&mut [Contestant { name: "jetway", packets: BURST, run }], effort).remove(0);
    let sent = turns.medium.sent();
    assert_eq!(sent, turns.turns * BURST as u64, "the worker dropped packets: this measures nothing");
    let (what, count) = match flows {
        Flows::Known(count) => ("dispatch", count),
        Flows::New => ("dispatch, all flows new", (turns.next - OLD_FLOWS) as usize),
    };
    let name = format!("{what}, {forward:?}").to_lowercase();
    Row::new(format!("{name}{on}"), "jetway", outcome.nanoseconds, outcome.spread)
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

/// Building a table of so many slots for a thousand servers.
fn table(slots: u32, effort: Effort) -> Row {
    let members = members(1000);
    let mut times: Vec<f64> = (0..effort.rounds)
        .map(|_| {
            let start = Instant::now();
            let built = Maglev::build(slots, &members);
            let took = start.elapsed();
            assert!(built.is_ok());
            took.as_nanos() as f64
        })
        .collect();
    let (median, spread) = median_and_spread(&mut times);
    Row::new(format!("Maglev table of {slots} slots built"), "jetway", median, spread).flows(members.len(), None)
}
