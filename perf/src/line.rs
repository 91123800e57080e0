//! Ports that cost next to nothing: the harness lays packets before a worker's queue and takes them from behind it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jetway_engine::heap_pool::{HeapPool, PooledBuf};
use jetway_engine::port::{Burst, PortQueue};
use jetway_pipelines::buffer::{BufferPool, HEADROOM, HeapBuf, PacketBuf};
use jetway_pipelines::ids::QueueId;

/// The frames that wait before a queue and those that it sent.
#[derive(Debug, Default)]
struct Frames {
    inbound: Vec<HeapBuf>,
    outbound: Vec<HeapBuf>,
}

/// The harness's end of a queue. Clones share it; the lock is taken once a burst.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Mutex<Frames>>);

impl Line {
    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays frames before the queue; a worker takes the last first.
    pub fn lay(&self, frames: impl IntoIterator<Item = HeapBuf>) {
        self.frames().inbound.extend(frames);
    }

    /// Takes what the queue has sent.
    pub fn take_sent(&self, into: &mut Vec<HeapBuf>) {
        into.append(&mut self.frames().outbound);
    }

    /// The worker's end.
    pub fn queue(&self) -> Box<dyn PortQueue<HeapBuf>> {
        Box::new(LineQueue(self.clone()))
    }
}

struct LineQueue(Line);

impl PortQueue<HeapBuf> for LineQueue {
    fn id(&self) -> QueueId {
        QueueId(0)
    }

    fn receive(&mut self, burst: &mut Burst<HeapBuf>) -> usize {
        let mut frames = self.0.frames();
        let before = burst.len();
        while !burst.is_full()
            && let Some(frame) = frames.inbound.pop()
        {
            burst.push(frame);
        }
        burst.len() - before
    }

    fn transmit(&mut self, burst: &mut Burst<HeapBuf>) -> usize {
        let count = burst.len();
        self.0.frames().outbound.extend(burst.drain(..));
        count
    }
}

/// Makes `buffer` hold `packet` behind the usual headroom, as a NIC would.
pub fn refill(buffer: &mut HeapBuf, packet: &[u8]) {
    buffer.truncate(0);
    let moved = match buffer.headroom() {
        more if more > HEADROOM => buffer.grow_front(more - HEADROOM),
        less => buffer.grow_back(HEADROOM - less).map(|()| buffer.trim_front(HEADROOM - less)),
    };
    buffer.truncate(0);
    moved.and_then(|()| buffer.grow_back(packet.len())).expect("the harness's buffers have room for its packets");
    buffer.data_mut().copy_from_slice(packet);
}

/// A queue that receives the same frame again and again, and forgets what it sends: steady traffic without a harness.
pub struct Fountain {
    pool: HeapPool,
    frame: Vec<u8>,
    per_turn: usize,
}

impl Fountain {
    /// Gives `per_turn` copies of `frame` at each receive, in buffers of `pool`.
    pub fn new(pool: HeapPool, frame: Vec<u8>, per_turn: usize) -> Self {
        Self { pool, frame, per_turn }
    }
}

impl PortQueue<PooledBuf> for Fountain {
    fn id(&self) -> QueueId {
        QueueId(0)
    }

    fn receive(&mut self, burst: &mut Burst<PooledBuf>) -> usize {
        let mut count = 0;
        while count < self.per_turn
            && !burst.is_full()
            && let Some(mut buffer) = self.pool.allocate()
            && buffer.grow_back(self.frame.len()).is_ok()
        {
            buffer.data_mut().copy_from_slice(&self.frame);
            burst.push(buffer);
            count += 1;
        }
        count
    }

    fn transmit(&mut self, burst: &mut Burst<PooledBuf>) -> usize {
        let count = burst.len();
        burst.clear();
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_buffer_is_as_a_fresh_one_after_it_was_refilled() {
        let mut buffer = HeapBuf::with_room(256);
        for step in [0, 40, 128, 200] {
            buffer.grow_back(200).unwrap();
            buffer.trim_front(step);
            refill(&mut buffer, b"packet");
            assert_eq!((buffer.data(), buffer.headroom(), buffer.tailroom()), (&b"packet"[..], HEADROOM, 250));
            buffer.grow_front(100).unwrap();
            refill(&mut buffer, b"packet");
            assert_eq!((buffer.data(), buffer.headroom(), buffer.tailroom()), (&b"packet"[..], HEADROOM, 250));
        }
    }
}
