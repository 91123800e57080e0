//! Packet buffers on the heap that return to their pool when they are dropped, as mbufs do.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use jetway_pipelines::buffer::{BufferPool, ChecksumState, HEADROOM, HeapBuf, L4Offload, NoRoom, PacketBuf};

/// A pool of a fixed number of buffers, allocated once. Clones share it, so that each thread can have its own end.
#[derive(Clone, Debug)]
pub struct HeapPool(Arc<ArrayQueue<HeapBuf>>);

impl HeapPool {
    /// A pool of `count` buffers, each with room for packets of `room` bytes behind its headroom.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn new(count: usize, room: usize) -> Self {
        let free = ArrayQueue::new(count);
        for _ in 0..count {
            let pushed = free.push(HeapBuf::with_room(room));
            debug_assert!(pushed.is_ok(), "the queue holds `count` buffers");
        }
        Self(Arc::new(free))
    }

    /// How many buffers the pool has in all.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// How many buffers are free now. When all packets are done with, this is [`HeapPool::capacity`].
    pub fn available(&self) -> usize {
        self.0.len()
    }
}

impl BufferPool<PooledBuf> for HeapPool {
    fn allocate(&mut self) -> Option<PooledBuf> {
        Some(PooledBuf { buffer: self.0.pop()?, home: Arc::clone(&self.0) })
    }
}

/// A buffer of a [`HeapPool`].
#[derive(Debug)]
pub struct PooledBuf {
    buffer: HeapBuf,
    home: Arc<ArrayQueue<HeapBuf>>,
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let pushed = empty(&mut buffer).is_ok() && self.home.push(buffer).is_ok();
        debug_assert!(pushed, "the buffer came out of this queue, so it fits into it");
    }
}

/// Makes `buffer` an empty packet behind the usual headroom.
fn empty(buffer: &mut HeapBuf) -> Result<(), NoRoom> {
    buffer.truncate(0);
    match buffer.headroom() {
        more if more > HEADROOM => {
            buffer.grow_front(more - HEADROOM)?;
            buffer.truncate(0);
        }
        less => {
            buffer.grow_back(HEADROOM - less)?;
            buffer.trim_front(HEADROOM - less);
        }
    }
    Ok(())
}

impl PacketBuf for PooledBuf {
    fn data(&self) -> &[u8] {
        self.buffer.data()
    }

    fn data_mut(&mut self) -> &mut [u8] {
        self.buffer.data_mut()
    }

    fn headroom(&self) -> usize {
        self.buffer.headroom()
    }

    fn tailroom(&self) -> usize {
        self.buffer.tailroom()
    }

    fn grow_front(&mut self, count: usize) -> Result<(), NoRoom> {
        self.buffer.grow_front(count)
    }

    fn grow_back(&mut self, count: usize) -> Result<(), NoRoom> {
        self.buffer.grow_back(count)
    }

    fn trim_front(&mut self, count: usize) {
        self.buffer.trim_front(count);
    }

    fn truncate(&mut self, length: usize) {
        self.buffer.truncate(length);
    }

    fn offload_l4_checksum(&mut self, layout: L4Offload) {
        self.buffer.offload_l4_checksum(layout);
    }

    fn ip_checksum(&self) -> ChecksumState {
        self.buffer.ip_checksum()
    }

    fn l4_checksum(&self) -> ChecksumState {
        self.buffer.l4_checksum()
    }

    fn forget_checksums(&mut self) {
        self.buffer.forget_checksums();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_pool_gives_nothing_until_a_buffer_comes_back() {
        let mut pool = HeapPool::new(2, 2048);
        let (first, _second) = (pool.allocate().unwrap(), pool.allocate().unwrap());
        assert!(pool.allocate().is_none());
        drop(first);
        assert_eq!(pool.available(), 1);
        assert!(pool.allocate().is_some());
    }

    #[test]
    fn a_buffer_outlives_all_ends_of_its_pool() {
        let mut pool = HeapPool::new(1, 64);
        let mut buffer = pool.allocate().unwrap();
        drop(pool);
        buffer.grow_back(64).unwrap();
        assert_eq!(buffer.data().len(), 64);
    }

    proptest! {
        #[test]
        fn whatever_was_done_to_a_buffer_it_comes_back_empty_with_all_its_room(
            steps in prop::collection::vec((0..4, 0..300_usize), 0..20)
        ) {
            let mut pool = HeapPool::new(1, 256);
            let mut buffer = pool.allocate().unwrap();
            for (step, count) in steps {
                match step {
                    0 => drop(buffer.grow_front(count)),
                    1 => drop(buffer.grow_back(count)),
                    2 => buffer.trim_front(count),
                    _ => buffer.truncate(count),
                }
            }
            drop(buffer);
            let buffer = pool.allocate().unwrap();
            prop_assert_eq!((buffer.data().len(), buffer.headroom(), buffer.tailroom()), (0, HEADROOM, 256));
        }
    }
}
