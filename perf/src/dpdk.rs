//! Whole turns of a worker on DPDK ports in memory: what drivers and mbufs cost, above testpmd's own forwarding as the floor.
//!
//! `net_ring` loops: the harness puts a burst into the ring of the port by which packets come, and takes it out of the other
//! port's. On `net_null` packets leave for nowhere: the driver gives their buffers back to the pool within the turn.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use jetway_engine::dpdk::mbuf::{Mbuf, free_burst};
use jetway_engine::dpdk::pool::Allocator;
use jetway_engine::dpdk::port::DpdkPort;
use jetway_engine::port::{Burst, PortQueue};
use jetway_pipelines::dispatch::service::Services;

use crate::aead;
use crate::devices::{Devices, SharedQueue, filled};
use crate::engine::{Case, Direction, Packets, Turns};
use crate::floors::Driver;
use crate::interleave::Interleaved;
use crate::result::{Row, USUAL_BURST};
use crate::sample::{Contestant, difference};
use crate::traffic::Size;
use crate::world::{NOW, World};

/// Prepares turns on both drivers beside memory ports.
pub fn prepare(devices: &mut Devices, run: &mut Interleaved) -> io::Result<()> {
    for direction in Direction::BOTH {
        for size in [Size::Fixed(64), Size::Fixed(1420)] {
            let case = Case { direction, size, burst: USUAL_BURST, peers: 1 };
            add([Rig::new(devices, Driver::Ring, case)?, Rig::new(devices, Driver::Null, case)?], case, run);
        }
    }
    Ok(())
}

fn add(rigs: [Rig; 2], case: Case, run: &mut Interleaved) {
    let (rigs, turns) = (rigs.map(|rig| Rc::new(RefCell::new(rig))), Rc::new(RefCell::new(Turns::new(case))));
    let mut contestants = Vec::new();
    {
        let (turns, mut world, mut packets) = (Rc::clone(&turns), World::new(1), Packets::new(case));
        let run = move || turns.borrow_mut().run(&mut world, &mut packets);
        contestants.push(Contestant::new("memory", case.burst, run));
    }
    for rig in &rigs {
        let (name, rig) = (rig.borrow().driver.name(), Rc::clone(rig));
        contestants.push(Contestant::new(name, case.burst, move || rig.borrow_mut().run()));
    }
    run.compare(contestants, move |outcomes, part| {
        let passed = turns.borrow().passed() && rigs.iter().all(|rig| rig.borrow().passed());
        assert!(passed, "{case:?}: the worker dropped packets: this measures nothing");
        let direction = case.direction.name();
        let row = |scenario, nanoseconds, spread| {
            let row = Row::new(scenario, "jetway", nanoseconds, spread);
            row.size(case.size.name(), case.size.mean()).flows(1, Some(case.burst))
        };
        for outcome in outcomes {
            part.rows.push(row(format!("{direction} on {}", outcome.name), outcome.nanoseconds, outcome.spread));
        }
        for outcome in &outcomes[1..] {
            let (median, spread) = difference(outcome, &outcomes[0]);
            let beyond = row(format!("{direction} on {}, beyond memory", outcome.name), median, spread);
            part.rows.push(Row { gbps: None, ..beyond });
        }
    });
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
