//! A worker: takes packets from its queues and rings through the stages, one turn after the other.

use std::sync::Arc;

use arrayvec::ArrayVec;
use jetway_pipelines::buffer::{BufferPool, PacketBuf};
use jetway_pipelines::counters::WorkerCounters;
use jetway_pipelines::dispatch::flow_scan::Progress;
use jetway_pipelines::ids::PortId;
use jetway_pipelines::path::{Command, Order, Pipeline, Scene};
use jetway_pipelines::tables::Tables;
use jetway_pipelines::time::Instant;
use jetway_sync::command::CommandReceiver;
use jetway_sync::published::Reader;
use jetway_sync::spsc::{Consumer, Producer};

use crate::exits::{Exits, Lost, PortShare};
use crate::links::{Handoff, Inject, WorkerLinks};
use crate::port::{BURST, Burst};

/// Commands that one turn carries out.
const COMMANDS_PER_TURN: usize = 32;
/// Packets that one turn takes from each ring.
const RING_BURST: usize = BURST;

/// A worker with everything that it owns.
pub struct Worker<B: PacketBuf> {
    tables: Reader<Tables>,
    pipeline: Pipeline<B>,
    exits: Exits<B>,
    commands: CommandReceiver<Command>,
    orders: Orders,
    injects: Consumer<Inject<B>>,
    handoffs: Vec<Consumer<Handoff<B>>>,
    counters: Arc<WorkerCounters>,
    burst: Burst<B>,
}

/// What control has the worker do.
struct Orders {
    given: CommandReceiver<Order>,
    done: Producer<Order>,
    current: Option<Order>,
}

impl Orders {
    /// Goes on with the current order. Returns how much it did.
    fn go_on<B: PacketBuf>(&mut self, pipeline: &mut Pipeline<B>, scene: &Scene<'_>) -> usize {
        let Some(mut order) = self.current.take().or_else(|| self.given.receive()) else { return 0 };
        if pipeline.carry_out(&mut order, scene) == Progress::GoesOn {
            self.current = Some(order);
            return 1;
        }
        match self.done.push(order) {
            Ok(()) => self.given.acknowledge(),
            // Control gives no more orders than find room here; if it did, this one waits.
            Err(order) => self.current = Some(order),
        }
        1
    }
}

/// How much one turn did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// There was something to do.
    Busy,
    /// There was nothing.
    Idle,
}

impl<B: PacketBuf> Worker<B> {
    /// A worker that is ready to turn.
    pub fn new(
        tables: Reader<Tables>,
        pipeline: Pipeline<B>,
        links: WorkerLinks<B>,
        ports: Vec<PortShare<B>>,
        pool: Box<dyn BufferPool<B>>,
        counters: Arc<WorkerCounters>,
    ) -> Self {
        let WorkerLinks {
            commands,
            handshake_events,
            control_events,
            orders,
            orders_done,
            punts,
            injects,
            handoffs_out,
            handoffs_in,
        } = links;
        let orders = Orders { given: orders, done: orders_done, current: None };
        let exits = Exits {
            ports,
            pool,
            punts,
            handoffs: handoffs_out,
            handshake_events,
            control_events,
            counters: Arc::clone(&counters),
            lost: Lost::new(),
        };
        Self {
            tables,
            pipeline,
            exits,
            commands,
            orders,
            injects,
            handoffs: handoffs_in,
            counters,
            burst: Burst::new(),
        }
    }

    /// One turn: tables and quiescence, commands and orders, what waited, other workers, the kernel, the ports, transmit, counters.
    pub fn turn(&mut self, now: Instant) -> Turn {
        self.tables.refresh();
        let scene = Scene { tables: self.tables.get(), now };
        let (pipeline, exits) = (&mut self.pipeline, &mut self.exits);
        pipeline.begin_turn(&scene, exits);

        // A command may have an answer: carry out no more than can be answered.
        let answers = exits.handshake_events.capacity() - exits.handshake_events.len();
        let mut work =
            self.commands.process(answers.min(COMMANDS_PER_TURN), |command| pipeline.command(command, &scene, exits));
        work += self.orders.go_on(pipeline, &scene);
        pipeline.release_held(&scene, exits);
        for ring in &mut self.handoffs {
            work += take_over(ring, &mut self.burst, pipeline, &scene, exits);
            pipeline.lose(exits.take_lost(), &scene);
        }
        for Inject { from, buffer } in self.injects.drain(RING_BURST) {
            pipeline.from_kernel(from, buffer, &scene, exits);
            work += 1;
        }
        for port in (0..exits.ports.len()).map(|number| PortId(number as u16)) {
            let received = exits.receive(port, &mut self.burst);
            if received > 0 {
                self.counters.received.add(received as u64);
                pipeline.frames(port, &mut self.burst, &scene, exits);
                pipeline.lose(exits.take_lost(), &scene);
                work += received;
            }
        }
        exits.flush();
        pipeline.lose(exits.take_lost(), &scene);

        self.counters.turns.add(1);
        if work == 0 {
            return Turn::Idle;
        }
        self.counters.busy_turns.add(1);
        Turn::Busy
    }

    /// Runs `sleep` without holding anything that control may want to free.
    pub fn sleep_while_idle(&mut self, sleep: impl FnOnce()) {
        self.tables.offline_while(sleep);
    }
}

/// Takes what another worker handed over. Frames of one port stay together, so that they go as a burst.
fn take_over<B: PacketBuf>(
    ring: &mut Consumer<Handoff<B>>,
    burst: &mut Burst<B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'_>,
    exits: &mut Exits<B>,
) -> usize {
    let mut handoffs: ArrayVec<Handoff<B>, BURST> = ArrayVec::new();
    let count = ring.pop_burst(&mut handoffs);
    pipeline.counters().taken_over.add(count as u64);
    let mut current = None;
    for handoff in handoffs {
        match handoff {
            Handoff::Received(port, frame) => {
                if current.is_some_and(|current| current != port)
                    && let Some(port) = current
                {
                    pipeline.frames(port, burst, scene, exits);
                }
                current = Some(port);
                burst.push(frame);
            }
            Handoff::Transmit(port, frame, server) => pipeline.transmit(port, frame, server, scene, exits),
        }
    }
    if let Some(port) = current {
        pipeline.frames(port, burst, scene, exits);
    }
    count
}

#[cfg(test)]
mod tests;
