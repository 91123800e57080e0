//! The thread that moves packets between workers and twins.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use jetway_pipelines::buffer::{BufferPool, PacketBuf};
use jetway_pipelines::tables::Twin;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

use super::counters::HostCounters;
use super::twin::TwinDevice;
use crate::flow_spread::{FlowSpread, Symmetry};
use crate::links::{HostLink, Inject, Punt};

/// Packets that one turn moves at most from one worker, or from one twin.
const MAX_PER_TURN: usize = 64;

/// Turns without work before the thread sleeps at all: the answer to a punt is often there at once.
const BUSY_TURNS: u32 = 8;

/// The first sleep, and the longest. Packets of the kernel end a sleep; only what workers punt waits for its end.
const SLEEPS: (Duration, Duration) = (Duration::from_micros(50), Duration::from_micros(500));

/// What a host thread works with.
pub struct HostOptions<B: PacketBuf> {
    /// The twins at the start.
    pub twins: Vec<TwinDevice>,
    /// The links to the workers, in the order of their numbers.
    pub workers: Vec<HostLink<B>>,
    /// Where buffers for the kernel's packets come from.
    pub pool: Box<dyn BufferPool<B>>,
    /// The key by which flows are spread over the workers.
    pub spread_key: [u64; 4],
}

/// The running host thread. Dropping it stops the thread and, with it, removes the twins.
#[derive(Debug)]
pub struct HostThread {
    counters: Arc<HostCounters>,
    orders: Sender<Order>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<Vec<TwinDevice>>>,
}

/// What the thread is told.
enum Order {
    Add(TwinDevice),
    Remove(Twin, Sender<TwinDevice>),
    Stop,
}

impl HostThread {
    /// Starts the thread. `register` runs on it first, and what it returns is dropped last: a registration with the
    /// EAL, say.
    pub fn start<B: PacketBuf + 'static, R>(
        options: HostOptions<B>,
        register: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<Self> {
        let counters = Arc::new(HostCounters::default());
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (sender, orders) = mpsc::channel();
        let spread = FlowSpread::new(options.spread_key, Symmetry::Directional, options.workers.len());
        let twins = options.twins;
        let mut turns = HostTurns {
            twins: BTreeMap::new(),
            workers: options.workers,
            pool: options.pool,
            spread,
            counters: Arc::clone(&counters),
            orders,
            wake: Arc::clone(&wake),
        };
        let thread = std::thread::Builder::new().name("jetway-host".into()).spawn(move || {
            let _registration = register();
            twins.into_iter().for_each(|device| turns.serve(device));
            turns.run();
            let twins = std::mem::take(&mut turns.twins);
            // Before the registration ends: buffers go back to their pool.
            drop(turns);
            twins.into_values().collect()
        })?;
        Ok(Self { counters, orders: sender, wake, thread: Some(thread) })
    }

    /// What the thread counts.
    pub fn counters(&self) -> &Arc<HostCounters> {
        &self.counters
    }

    /// Serves one more twin from now on, instead of one for the same port or tunnel if there is one.
    pub fn add_twin(&self, device: TwinDevice) {
        self.order(Order::Add(device));
    }

    /// Removes a twin: when this returns the interface is gone. Takes about as long as the kernel needs for that, while
    /// the thread goes on serving the others.
    pub fn remove_twin(&self, twin: Twin) {
        let (sender, removed) = mpsc::channel();
        self.order(Order::Remove(twin, sender));
        // An error means that there is no such twin, or that the thread has ended, and all twins with it.
        if let Ok(device) = removed.recv() {
            device.close();
        }
    }

    /// Writes what workers have punted until now, stops the thread and removes the twins.
    pub fn stop(mut self) {
        self.end();
    }

    fn order(&self, order: Order) {
        // Neither can fail in a way that matters: the thread takes orders until it ends, and a full event counter
        // wakes it as well.
        let _ = self.orders.send(order);
        let _ = self.wake.write(1);
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.order(Order::Stop);
            match thread.join() {
                Ok(twins) => twins.into_iter().for_each(TwinDevice::close),
                Err(_panic) => {
                    tracing::error!(
                        "the host thread had panicked: nothing was passed between kernel and workers since"
                    );
                }
            }
        }
    }
}

impl Drop for HostThread {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread's own state.
struct HostTurns<B: PacketBuf> {
    twins: BTreeMap<Twin, TwinDevice>,
    workers: Vec<HostLink<B>>,
    pool: Box<dyn BufferPool<B>>,
    spread: FlowSpread,
    counters: Arc<HostCounters>,
    orders: Receiver<Order>,
    wake: Arc<EventFd>,
}

/// Whether the thread goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Turn,
    Stop,
}

/// What `ppoll` found.
#[derive(Default)]
struct Ready {
    orders: bool,
    readable: Vec<Twin>,
    lost: Vec<Twin>,
}

/// What reading from one twin led to.
enum Reading {
    /// The kernel had nothing (more), or this turn's share was read.
    Done(usize),
    /// No buffer was free; packets wait in the kernel.
    PoolEmpty,
}

impl<B: PacketBuf> HostTurns<B> {
    fn run(&mut self) {
        let mut idle = 0_u32;
        let mut pool_empty = false;
        loop {
            self.counters.turns.add(1);
            let punts = self.write_punts(MAX_PER_TURN);
            idle = if punts > 0 { 0 } else { idle.saturating_add(1) };
            let ready = self.wait(sleep_after(idle), pool_empty);
            if ready.orders && self.obey() == Next::Stop {
                self.write_punts(usize::MAX);
                return;
            }
            for twin in ready.lost {
                self.forget(twin);
            }
            pool_empty = false;
            for twin in ready.readable {
                match self.read(twin) {
                    Reading::Done(0) => {}
                    Reading::Done(_) => idle = 0,
                    Reading::PoolEmpty => pool_empty = true,
                }
            }
            if pool_empty {
                self.counters.pool_empty.add(1);
            }
        }
    }

    /// Writes at most `max` punts of each worker, and none that come after this call. Returns how many.
    fn write_punts(&mut self, max: usize) -> usize {
        let mut count = 0;
        for worker in &mut self.workers {
            for Punt { to, buffer } in worker.punts.drain(max) {
                count += 1;
                match self.twins.get(&to).map(|twin| twin.write(buffer.data())) {
                    Some(Ok(())) => self.counters.punts_written.add(1),
                    Some(Err(error)) => self.counters.punt_failed(&error),
                    None => self.counters.punts_without_twin.add(1),
                }
            }
        }
        count
    }

    /// Waits until a twin has something to read, there is an order, or `sleep` is over. While the pool is empty it
    /// looks at no twin: they would end every sleep, for nothing.
    fn wait(&self, sleep: Duration, pool_empty: bool) -> Ready {
        if !sleep.is_zero() {
            self.counters.sleeps.add(1);
        }
        let mut waited: Vec<_> = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        if !pool_empty {
            waited.extend(self.twins.values().map(|twin| PollFd::new(twin.as_fd(), PollFlags::POLLIN)));
        }
        let mut ready = Ready::default();
        // An interrupted wait (the only error that can happen here) is a short one.
        if ppoll(&mut waited, Some(TimeSpec::from_duration(sleep)), None).unwrap_or(0) == 0 {
            return ready;
        }
        let mut events = waited.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        ready.orders = events.next().is_some_and(|events| !events.is_empty());
        for (twin, events) in self.twins.keys().zip(events) {
            if events.contains(PollFlags::POLLIN) {
                ready.readable.push(*twin);
            } else if !events.is_empty() {
                ready.lost.push(*twin);
            }
        }
        ready
    }

    /// Carries out all orders.
    fn obey(&mut self) -> Next {
        // Only an empty counter fails to be read, and then there is nothing to reset.
        let _ = self.wake.read();
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Add(device) => self.serve(device),
                Order::Remove(twin, sender) => {
                    if let Some(device) = self.twins.remove(&twin) {
                        // Should nobody wait any more, the device is dropped here.
                        let _ = sender.send(device);
                    }
                }
                Order::Stop => return Next::Stop,
            }
        }
        Next::Turn
    }

    /// Serves a twin from now on. Says so if its packets do not all fit into our buffers.
    fn serve(&mut self, device: TwinDevice) {
        let longest = device.longest_packet();
        // One byte more, by which a packet that was cut is told from one that fits.
        if let Some(buffer) = self.pool.allocate()
            && buffer.tailroom() <= longest
        {
            let (interface, room) = (device.name(), buffer.tailroom());
            tracing::error!(
                interface,
                longest,
                room,
                "the MTU is too big for our buffers: the kernel's long packets will be lost"
            );
        }
        self.twins.insert(device.twin(), device);
    }

    /// Stops serving a twin that somebody deleted in the kernel.
    fn forget(&mut self, twin: Twin) {
        if let Some(device) = self.twins.remove(&twin) {
            tracing::error!(interface = device.name(), "the interface was deleted; restart jetway to get it back");
        }
    }

    /// Gives a bounded number of a twin's packets to workers.
    fn read(&mut self, twin: Twin) -> Reading {
        let Some(device) = self.twins.get(&twin) else { return Reading::Done(0) };
        for count in 0..MAX_PER_TURN {
            let Some(mut buffer) = self.pool.allocate() else { return Reading::PoolEmpty };
            let room = buffer.tailroom();
            if buffer.grow_back(room).is_err() {
                return Reading::PoolEmpty;
            }
            match device.read(buffer.data_mut()) {
                // It may have been longer: the kernel does not say.
                Ok(length) if length == room => self.counters.read_oversized.add(1),
                Ok(length) => {
                    buffer.truncate(length);
                    inject(&mut self.workers, &self.spread, &self.counters, Inject { from: twin, buffer });
                }
                Err(error) => {
                    match error.kind() {
                        ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                        _ => self.counters.read_failed.add(1),
                    }
                    return Reading::Done(count);
                }
            }
        }
        Reading::Done(MAX_PER_TURN)
    }
}

/// Gives a packet to the worker of its flow, so that a flow's packets keep their order.
fn inject<B: PacketBuf>(workers: &mut [HostLink<B>], spread: &FlowSpread, counters: &HostCounters, packet: Inject<B>) {
    let worker = match packet.from {
        Twin::Port(_) => spread.of_frame(packet.buffer.data()),
        Twin::Tunnel(_) => spread.of_ip(packet.buffer.data()),
    };
    match workers.get_mut(worker) {
        Some(worker) if !worker.injects.is_closed() => match worker.injects.push(packet) {
            Ok(()) => counters.injected.add(1),
            Err(_lost) => counters.inject_ring_full.add(1),
        },
        Some(_) | None => counters.inject_worker_gone.add(1),
    }
}

/// How long to sleep after so many turns without work.
fn sleep_after(idle: u32) -> Duration {
    let (first, longest) = SLEEPS;
    match idle.checked_sub(BUSY_TURNS) {
        None => Duration::ZERO,
        Some(doublings) => first.saturating_mul(1 << doublings.min(8)).min(longest),
    }
}
