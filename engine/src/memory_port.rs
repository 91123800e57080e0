//! Two ports on plain memory with a wire between them that loses, delays, reorders and doubles frames by a script.
//!
//! ```text
//!   end A: queue 0..n --transmit--> script: how many, when, overtaken by whom? --spread by flow--> receive queue 0..m of B
//! ```
//!
//! The time is virtual: a delayed frame arrives when somebody advances the clock. A frame is received into a fresh buffer
//! of the receiver's pool, as with a NIC; the sender's buffer returns to the sender's pool at that moment. Both ends may
//! live on different threads; the short locks inside are the price for that, and the reason why no real port is built so.

mod script;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jetway_pipelines::buffer::{BufferPool, PacketBuf};
use jetway_pipelines::ids::QueueId;
use jetway_pipelines::time::Instant;

pub use self::script::{Chance, Fate, Script, SeededScript};
use crate::flow_spread::{FlowSpread, Symmetry};
use crate::port::{Burst, Port, PortInfo, PortQueue, PortStatistics};
use crate::virtual_clock::VirtualClock;

/// What one end of a wire is.
pub struct End<B> {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// One pool per queue: as many pools, as many queues.
    pub pools: Vec<Box<dyn BufferPool<B>>>,
    /// How arriving flows are spread over its queues.
    pub symmetry: Symmetry,
    /// The key of that spread.
    pub spread_key: [u64; 4],
    /// How many frames each of its receive queues holds, under way or waiting.
    pub depth: usize,
}

/// A direction of a wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the first end to the second.
    AToB,
    /// From the second end to the first.
    BToA,
}

/// What became of the frames of one direction:
/// `accepted + doubled = delivered + lost + no_buffer + under_way`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WireCounts {
    /// Frames that the wire took from the sender.
    pub accepted: u64,
    /// Copies that the script added.
    pub doubled: u64,
    /// Frames that the receiver got.
    pub delivered: u64,
    /// Frames that the script, or a cut wire, swallowed.
    pub lost: u64,
    /// Frames for which the receiver had no buffer.
    pub no_buffer: u64,
    /// Frames on the wire now.
    pub under_way: u64,
}

/// The wire between two [`MemoryPort`]s: where a test pulls the strings.
pub struct Wire<B: PacketBuf> {
    clock: VirtualClock,
    lanes: [Arc<Lane<B>>; 2],
}

/// One end of a [`Wire`].
pub struct MemoryPort<B: PacketBuf> {
    mac: [u8; 6],
    queue_count: u16,
    queues: Vec<Box<dyn PortQueue<B>>>,
    inbound: Arc<Lane<B>>,
    outbound: Arc<Lane<B>>,
}

impl<B: PacketBuf + 'static> Wire<B> {
    /// A perfect wire between two new ports. Delays are measured by `clock`.
    pub fn connect(a: End<B>, b: End<B>, clock: VirtualClock) -> (Self, MemoryPort<B>, MemoryPort<B>) {
        let (a_to_b, b_to_a) = (Arc::new(Lane::to(&b)), Arc::new(Lane::to(&a)));
        let port_a = MemoryPort::new(a, &clock, &b_to_a, &a_to_b);
        let port_b = MemoryPort::new(b, &clock, &a_to_b, &b_to_a);
        (Self { clock, lanes: [a_to_b, b_to_a] }, port_a, port_b)
    }

    /// The clock that delays are measured by.
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// Lets `script` decide over what is sent in `direction` from now on.
    pub fn set_script(&self, direction: Direction, script: impl Script + 'static) {
        let lane = self.lane(direction);
        *lock(&lane.script) = Some(Box::new(script));
        lane.scripted.store(true, Ordering::Release);
    }

    /// Makes `direction` perfect again.
    pub fn clear_script(&self, direction: Direction) {
        let lane = self.lane(direction);
        lane.scripted.store(false, Ordering::Release);
        *lock(&lane.script) = None;
    }

    /// Cuts the wire: what is sent is lost, both ends see their link go down.
    pub fn cut(&self) {
        self.lanes.iter().for_each(|lane| lane.up.store(false, Ordering::Release));
    }

    /// Joins the wire again after [`Wire::cut`].
    pub fn join(&self) {
        self.lanes.iter().for_each(|lane| lane.up.store(true, Ordering::Release));
    }

    /// What became of the frames of `direction`.
    pub fn counts(&self, direction: Direction) -> WireCounts {
        let lane = self.lane(direction);
        let get = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        WireCounts {
            accepted: get(&lane.accepted),
            doubled: get(&lane.doubled),
            delivered: get(&lane.delivered),
            lost: get(&lane.lost),
            no_buffer: get(&lane.no_buffer),
            under_way: lane.queues.iter().map(|queue| lock(queue).frames()).sum(),
        }
    }

    /// When the next frame that is still delayed arrives, in either direction.
    pub fn next_arrival(&self) -> Option<Instant> {
        let queues = self.lanes.iter().flat_map(|lane| &lane.queues);
        queues.filter_map(|queue| lock(queue).waiting.front().map(|frame| frame.at)).min()
    }

    fn lane(&self, direction: Direction) -> &Lane<B> {
        let [a_to_b, b_to_a] = &self.lanes;
        match direction {
            Direction::AToB => a_to_b,
            Direction::BToA => b_to_a,
        }
    }
}

impl<B: PacketBuf + 'static> MemoryPort<B> {
    fn new(end: End<B>, clock: &VirtualClock, inbound: &Arc<Lane<B>>, outbound: &Arc<Lane<B>>) -> Self {
        let queues: Vec<Box<dyn PortQueue<B>>> = (0..)
            .zip(end.pools)
            .map(|(number, pool)| {
                let (inbound, outbound) = (Arc::clone(inbound), Arc::clone(outbound));
                let id = QueueId(number);
                Box::new(MemoryQueue { id, pool, clock: clock.clone(), inbound, outbound }) as Box<dyn PortQueue<B>>
            })
            .collect();
        Self {
            mac: end.mac,
            queue_count: queues.len() as u16,
            queues,
            inbound: Arc::clone(inbound),
            outbound: Arc::clone(outbound),
        }
    }
}

impl<B: PacketBuf> Port<B> for MemoryPort<B> {
    fn info(&self) -> PortInfo {
        PortInfo {
            mac: self.mac,
            driver: "memory".into(),
            queues: self.queue_count,
            transmit_l4_checksum: false,
            receive_checksum: false,
            receive_side_scaling: self.queue_count > 1,
            numa_node: None,
        }
    }

    fn take_queues(&mut self) -> Vec<Box<dyn PortQueue<B>>> {
        std::mem::take(&mut self.queues)
    }

    fn statistics(&self) -> PortStatistics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        PortStatistics {
            received_packets: get(&self.inbound.delivered),
            received_bytes: get(&self.inbound.delivered_bytes),
            transmitted_packets: get(&self.outbound.accepted),
            transmitted_bytes: get(&self.outbound.accepted_bytes),
            no_buffer: get(&self.inbound.no_buffer),
            ..PortStatistics::default()
        }
    }

    fn link_up(&self) -> bool {
        self.inbound.up.load(Ordering::Acquire)
    }
}

/// One queue pair of a [`MemoryPort`].
struct MemoryQueue<B: PacketBuf> {
    id: QueueId,
    pool: Box<dyn BufferPool<B>>,
    clock: VirtualClock,
    inbound: Arc<Lane<B>>,
    outbound: Arc<Lane<B>>,
}

impl<B: PacketBuf> PortQueue<B> for MemoryQueue<B> {
    fn id(&self) -> QueueId {
        self.id
    }

    fn receive(&mut self, burst: &mut Burst<B>) -> usize {
        let now = self.clock.now();
        let mut count = 0;
        let Some(queue) = self.inbound.queues.get(self.id.index()) else { return 0 };
        let mut queue = lock(queue);
        while !burst.is_full()
            && let Some(frame) = queue.next(now)
        {
            let Some(buffer) = self.pool.allocate().and_then(|buffer| filled(buffer, frame.buffer.data())) else {
                add(&self.inbound.no_buffer, 1);
                queue.done();
                continue;
            };
            add(&self.inbound.delivered, 1);
            add(&self.inbound.delivered_bytes, buffer.data().len() as u64);
            burst.push(buffer);
            queue.done();
            count += 1;
        }
        count
    }

    fn transmit(&mut self, burst: &mut Burst<B>) -> usize {
        let now = self.clock.now();
        let offered = std::mem::take(burst);
        let mut count = 0;
        for buffer in offered {
            // After the first that found its queue full all others stay too: a transmit queue keeps its order.
            if !burst.is_empty() {
                burst.push(buffer);
                continue;
            }
            match self.outbound.send(buffer, now) {
                Ok(()) => count += 1,
                Err(refused) => burst.push(refused),
            }
        }
        count
    }
}

/// `buffer` with `packet` in it, if there is room.
fn filled<B: PacketBuf>(mut buffer: B, packet: &[u8]) -> Option<B> {
    buffer.grow_back(packet.len()).ok()?;
    buffer.data_mut().copy_from_slice(packet);
    Some(buffer)
}

/// One direction of a wire.
struct Lane<B> {
    spread: FlowSpread,
    depth: usize,
    up: AtomicBool,
    scripted: AtomicBool,
    script: Mutex<Option<Box<dyn Script>>>,
    sequence: AtomicU64,
    queues: Vec<Mutex<LaneQueue<B>>>,
    accepted: AtomicU64,
    accepted_bytes: AtomicU64,
    doubled: AtomicU64,
    delivered: AtomicU64,
    delivered_bytes: AtomicU64,
    lost: AtomicU64,
    no_buffer: AtomicU64,
}

impl<B: PacketBuf> Lane<B> {
    fn to(end: &End<B>) -> Self {
        let queue = || Mutex::new(LaneQueue { waiting: VecDeque::with_capacity(end.depth) });
        let counter = || AtomicU64::new(0);
        Self {
            spread: FlowSpread::new(end.spread_key, end.symmetry, end.pools.len()),
            depth: end.depth,
            up: AtomicBool::new(true),
            scripted: AtomicBool::new(false),
            script: Mutex::new(None),
            sequence: counter(),
            queues: end.pools.iter().map(|_| queue()).collect(),
            accepted: counter(),
            accepted_bytes: counter(),
            doubled: counter(),
            delivered: counter(),
            delivered_bytes: counter(),
            lost: counter(),
            no_buffer: counter(),
        }
    }

    /// Puts a frame on the wire, or gives it back if the queue at the other end is full.
    fn send(&self, buffer: B, now: Instant) -> Result<(), B> {
        let Some(queue) = self.queues.get(self.spread.of_frame(buffer.data())) else { return Err(buffer) };
        let mut queue = lock(queue);
        if queue.waiting.len() >= self.depth {
            return Err(buffer);
        }
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        add(&self.accepted, 1);
        add(&self.accepted_bytes, buffer.data().len() as u64);
        let fate = self.fate(buffer.data(), sequence);
        let Some(more_copies) = fate.copies.checked_sub(1) else {
            add(&self.lost, 1);
            return Ok(());
        };
        add(&self.doubled, u64::from(more_copies));
        let rank = sequence + u64::from(fate.overtaken_by);
        queue.insert(WireFrame { at: now + fate.delay, rank, sequence, copies: fate.copies, buffer });
        Ok(())
    }

    fn fate(&self, frame: &[u8], sequence: u64) -> Fate {
        if !self.up.load(Ordering::Acquire) {
            return Fate::LOST;
        }
        if !self.scripted.load(Ordering::Acquire) {
            return Fate::DELIVERED;
        }
        lock(&self.script).as_mut().map_or(Fate::DELIVERED, |script| script.fate(frame, sequence))
    }
}

/// The frames on their way to one receive queue, in the order in which they arrive.
struct LaneQueue<B> {
    waiting: VecDeque<WireFrame<B>>,
}

struct WireFrame<B> {
    at: Instant,
    rank: u64,
    sequence: u64,
    copies: u8,
    buffer: B,
}

impl<B> WireFrame<B> {
    /// Frames arrive by time, then by the place that the script gave them, then as they were sent (who overtakes goes first).
    fn order(&self) -> (Instant, u64, std::cmp::Reverse<u64>) {
        (self.at, self.rank, std::cmp::Reverse(self.sequence))
    }
}

impl<B> LaneQueue<B> {
    fn insert(&mut self, frame: WireFrame<B>) {
        let place = self.waiting.partition_point(|other| other.order() < frame.order());
        self.waiting.insert(place, frame);
    }

    /// The next frame that has arrived by `now`.
    fn next(&mut self, now: Instant) -> Option<&WireFrame<B>> {
        self.waiting.front().filter(|frame| frame.at <= now)
    }

    /// Takes one copy of the next frame off the wire.
    fn done(&mut self) {
        if let Some(frame) = self.waiting.front_mut() {
            frame.copies -= 1;
            if frame.copies == 0 {
                self.waiting.pop_front();
            }
        }
    }

    /// How many frames wait, copies counted.
    fn frames(&self) -> u64 {
        self.waiting.iter().map(|frame| u64::from(frame.copies)).sum()
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::AcqRel);
}

/// Locks even when another thread's test has failed while it held the lock: the frames are still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "memory_port/tests.rs"]
mod tests;
