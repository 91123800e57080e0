//! Whole turns of a worker on DPDK ports in memory: what drivers and mbufs cost, above testpmd's own forwarding as the floor.
//!
//! `net_ring` loops: the harness puts a burst into the ring of the port by which packets come, and takes it out of the other
//! port's. On `net_null` packets leave for nowhere: the driver gives their buffers back to the pool within the turn.

use jetway_pipelines::dispatch::service::Services;
use std::cell::RefCell;
use std::io;
use std::time::{Duration, Instant};

use jetway_engine::dpdk::mbuf::{Mbuf, free_burst};
use jetway_engine::dpdk::pool::Allocator;
use jetway_engine::dpdk::port::DpdkPort;
use jetway_engine::port::{Burst, PortQueue};

use crate::aead;
use crate::devices::{Devices, SharedQueue, filled};
use crate::engine::{Case, Direction, Packets, Turns};
use crate::floors::{Driver, Floors};
use crate::result::{Part, Row, USUAL_BURST};
use crate::sample::{Contestant, Effort, compare, median_and_spread};
use crate::traffic::Size;
use crate::world::{NOW, World};

/// Measures turns on both drivers beside memory ports, in turns with testpmd on the same core.
pub fn measure(devices: &mut Devices, floors: &mut Floors, effort: Effort) -> io::Result<Part> {
    let mut part = Part::default();
    for direction in Direction::BOTH {
        for size in [Size::Fixed(64), Size::Fixed(1420)] {
            let case = Case { direction, size, burst: USUAL_BURST, peers: 1 };
            let rigs = [Rig::new(devices, Driver::Ring, case)?, Rig::new(devices, Driver::Null, case)?];
            turns(rigs, case, effort, &mut part);
            floors.sample(&mut part)?;
        }
    }
    Ok(part)
}

fn turns(rigs: [Rig; 2], case: Case, effort: Effort, part: &mut Part) {
    let [ring, null] = rigs.map(RefCell::new);
    let (mut memory, mut turns, mut packets) = (World::new(1), Turns::new(case), Packets::new(case));
    let contestant = |name, run| Contestant { name, packets: case.burst, run };
    let mut contestants = [
        contestant("memory", Box::new(|| turns.run(&mut memory, &mut packets)) as Box<dyn FnMut() -> Duration>),
        contestant("net_ring", Box::new(|| ring.borrow_mut().run())),
        contestant("net_null", Box::new(|| null.borrow_mut().run())),
    ];
    let outcomes = compare(&mut contestants, effort);
    drop(contestants);
    let passed = turns.passed() && ring.borrow().passed() && null.borrow().passed();
    assert!(passed, "{case:?}: the worker dropped packets: this measures nothing");
    let direction = case.direction.name();
    for outcome in &outcomes {
        let row = Row::new(format!("{direction} on {}", outcome.name), "jetway", outcome.nanoseconds, outcome.spread);
        part.rows.push(row.size(case.size.name(), case.size.mean()).flows(1, Some(case.burst)));
    }
    for outcome in &outcomes[1..] {
        let mut beyond: Vec<_> =
            outcome.rounds.iter().zip(&outcomes[0].rounds).map(|(one, other)| one - other).collect();
        let (median, spread) = median_and_spread(&mut beyond);
        let row = Row::new(format!("{direction} on {}, beyond memory", outcome.name), "jetway", median, spread);
        let mut row = row.size(case.size.name(), case.size.mean()).flows(1, Some(case.burst));
        row.gbps = None;
        part.rows.push(row);
    }
}

/// A worker between two DPDK ports, one turn at a time.
struct Rig {
    world: World<Mbuf, [SharedQueue; 2]>,
    packets: Packets,
    allocator: Allocator,
    case: Case,
    driver: Driver,
    turns: u64,
    _ports: [DpdkPort; 2],
}

impl Rig {
    fn new(devices: &mut Devices, driver: Driver, case: Case) -> io::Result<Self> {
        let (from, to) = case.direction.ports();
        let [first, second] = devices.open_in_memory(driver)?;
        let (wan, lan) = if from < to { (first, second) } else { (second, first) };
        let queues = [SharedQueue::new(wan.queue), SharedQueue::new(lan.queue)];
        let ends = queues.clone().map(|queue| Box::new(queue) as Box<dyn PortQueue<Mbuf>>);
        Ok(Self {
            world: World::on_ports(case.peers, aead::chosen(), (Services::default(), 0), ends, queues),
            packets: Packets::new(case),
            allocator: devices.allocator()?,
            case,
            driver,
            turns: 0,
            _ports: [wan.port, lan.port],
        })
    }

    fn run(&mut self) -> Duration {
        let (from, to) = self.case.direction.ports();
        let mut burst = Burst::new();
        for _ in 0..self.case.burst {
            let (_, frame) = self.packets.frame(&mut self.world);
            burst.extend(filled(&mut self.allocator, &frame));
        }
        self.world.lines[from].transmit(&mut burst);
        let start = Instant::now();
        self.world.worker.turn(NOW);
        let took = start.elapsed();
        self.turns += 1;
        if self.driver == Driver::Ring {
            let mut sent = Burst::new();
            self.world.lines[to].receive(&mut sent);
            free_burst(&mut sent);
        }
        took
    }

    fn passed(&self) -> bool {
        self.world.counters.sent.get() == self.turns * self.case.burst as u64
    }
}
