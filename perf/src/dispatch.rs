//! Whole turns of a worker that dispatches: hot flows, a million flows, flows that are all new, each way of forwarding,
//! and decryption with dispatch behind it.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
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
use crate::floors::Driver;
use crate::interleave::{Interleaved, Measurement};
use crate::line::refill;
use crate::result::{Part, Quantity, Row};
use crate::sample::{Comparison, Contestant, Effort, Outcome, difference, ratio, time};
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
/// Packets after which caches hold of a table what they hold of it while its flows go on.
const WARMTH: usize = 1_000_000;

/// Prepares every case on ports that cost nothing.
pub fn prepare(run: &mut Interleaved) {
    for forward in [Forward::Nat, Forward::L2, Forward::Ipip, Forward::Gre, Forward::Gue] {
        let flows = Flows::Known(1);
        add("", Memory::new(forward, flows), (forward, flows), run);
    }
    for flows in [Flows::Known(1_000_000), Flows::Known(10_000_000), Flows::New] {
        add("", Memory::new(Forward::Ipip, flows), (Forward::Ipip, flows), run);
    }
    let million = Flows::Known(1_000_000);
    add("", Memory::new(Forward::Nat, million), (Forward::Nat, million), run);
    behind_decryption(run);
    for slots in [65_537, 655_373] {
        run.add(Building::of(slots));
    }
    let memory = Quantity::new("memory of a flow", BYTES_PER_FLOW as f64, "B").at_most(128.0);
    run.told(move |part| part.quantities.push(memory.clone()));
}

/// Prepares the cases that have goals on DPDK's devices in memory.
pub fn prepare_on_devices(devices: &mut Devices, run: &mut Interleaved) -> io::Result<()> {
    let encapsulated = [Flows::Known(1), Flows::Known(1_000_000), Flows::New].map(|flows| (Forward::Ipip, flows));
    for (forward, flows) in [(Forward::Nat, Flows::Known(1))].into_iter().chain(encapsulated) {
        let medium = OnDevices::new(devices, Driver::Ring, forward, flows)?;
        add(" on net_ring", medium, (forward, flows), run);
    }
    let medium = OnDevices::new(devices, Driver::Null, Forward::Ipip, Flows::Known(1))?;
    add(" on net_null", medium, (Forward::Ipip, Flows::Known(1)), run);
    Ok(())
}

/// One service on a hundred servers.
pub fn services(forward: Forward) -> Services {
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

/// A frame with a datagram of 64 bytes for the service, of a flow.
pub fn frame(flow: u32) -> Vec<u8> {
    traffic::frame(0, &traffic::datagram(client(flow), SERVICE, &[7; 64 - 28]))
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

    /// Packets of flows that are known, as many as there are flows unless that is more than caches have room for.
    fn warm(&mut self) {
        let known = match self.flows {
            Flows::Known(flows) => flows,
            Flows::New => OLD_FLOWS as usize,
        };
        let flows = std::mem::replace(&mut self.flows, Flows::Known(known));
        (0..known.min(WARMTH) / BURST).for_each(|_| _ = self.run());
        self.flows = flows;
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

/// Adds a case; `on` says where, if that is no list.
fn add(on: &'static str, medium: impl Medium + 'static, (forward, flows): (Forward, Flows), run: &mut Interleaved) {
    let turns = Rc::new(RefCell::new(Turns::new(medium, flows)));
    let [running, warming] = [&turns, &turns].map(Rc::clone);
    let contestant = Contestant::new("jetway", BURST, move || running.borrow_mut().run());
    let contestant = contestant.warmed(move || warming.borrow_mut().warm());
    run.compare(vec![contestant], move |outcomes, part| {
        let turns = turns.borrow();
        let sent = turns.medium.sent();
        assert_eq!(sent, turns.turns * BURST as u64, "the worker dropped packets: this measures nothing");
        // How many new ones there were is a matter of how many rounds.
        let (what, count) = match flows {
            Flows::Known(count) => ("dispatch", Some(count)),
            Flows::New => ("dispatch, all flows new", None),
        };
        let name = format!("{what}, {forward:?}").to_lowercase();
        let row = |outcome: &Outcome| {
            let row = Row::new(format!("{name}{on}"), outcome.name, outcome.nanoseconds, outcome.spread);
            Row { flows: count, burst: Some(BURST), ..row.size("64", 64.0) }
        };
        part.rows.extend(outcomes.iter().map(row));
    });
}

/// Decrypt and dispatch beside decrypt and forward, the same messages in turn.
fn behind_decryption(run: &mut Interleaved) {
    let world = Rc::new(RefCell::new(World::with_services(1, services(Forward::Nat), 1000)));
    let contestant = |name, to| {
        let world = Rc::clone(&world);
        let mut buffers: Vec<_> = (0..BURST).map(|_| HeapBuf::with_room(2048)).collect();
        Contestant::new(name, BURST, move || tunnelled(&mut world.borrow_mut(), to, &mut buffers))
    };
    let to_server = SocketAddr::from((traffic::SERVER, 6000));
    let contestants = vec![contestant("decrypt and forward", to_server), contestant("decrypt and dispatch", SERVICE)];
    run.compare(contestants, |outcomes, part| {
        for outcome in outcomes {
            let mut row = Row::new(outcome.name, "jetway", outcome.nanoseconds, outcome.spread)
                .size("1420", 1420.0)
                .flows(1, Some(BURST));
            row.ratio = Some(ratio(outcome, &outcomes[0]));
            part.rows.push(row);
        }
        let (median, spread) = difference(&outcomes[1], &outcomes[0]);
        part.rows.push(Row::new("dispatch beyond decrypt and forward", "jetway", median, spread).flows(1, Some(BURST)));
    });
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

/// Building a table of so many slots for a thousand servers, once a round.
struct Building {
    slots: u32,
    comparison: Comparison,
}

impl Building {
    /// For how many servers.
    const SERVERS: u32 = 1000;

    fn of(slots: u32) -> Self {
        let members = members(Self::SERVERS);
        let build = move || {
            let (built, took) = time(|| Maglev::build(slots, &members));
            assert!(built.is_ok());
            took
        };
        Self { slots, comparison: Comparison::new(vec![Contestant::new("jetway", 1, build)]) }
    }
}

impl Measurement for Building {
    fn visit(&mut self, effort: Effort) {
        self.comparison.visit(Effort { pieces: 1, ..effort });
    }

    fn tell(&self, part: &mut Part) {
        let name = format!("Maglev table of {} slots built", self.slots);
        let row = |outcome: &Outcome| Row::new(&name, outcome.name, outcome.nanoseconds, outcome.spread);
        let rows = self.comparison.outcomes();
        part.rows.extend(rows.iter().map(|outcome| row(outcome).flows(Self::SERVERS as usize, None)));
    }
}
