//! A bounded ring between one producing and one consuming thread.
//!
//! ```text
//!            head (written by the consumer)      tail (written by the producer)
//!              |                                   |
//!   slots: [ . | x | x | x | x | x | x | x | x | x | . | . ]     x = full
//! ```
//!
//! Both positions only ever grow (and wrap with `usize`); a slot's index is the position modulo the capacity.
//! Each side keeps a copy of the other's position and looks at the shared one only when the copy says that the
//! ring is full or empty, so that a burst costs at most one cache line from the other core.

use std::fmt;
use std::mem::MaybeUninit;

use arrayvec::ArrayVec;

use crate::primitive::{Arc, AtomicBool, AtomicUsize, CachePadded, Ordering, UnsafeCell};

/// A ring with room for at least `capacity` items (rounded up to a power of two, at least 2).
///
/// # Panics
/// If `capacity` is above `usize::MAX / 2`.
pub fn channel<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity <= usize::MAX / 2, "a ring of {capacity} slots");
    let slots: Box<[_]> =
        (0..capacity.next_power_of_two().max(2)).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let ring = Arc::new(Ring {
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        producer_gone: AtomicBool::new(false),
        consumer_gone: AtomicBool::new(false),
        slots,
    });
    (Producer { ring: Arc::clone(&ring), tail: 0, head: 0 }, Consumer { ring, head: 0, tail: 0 })
}

/// The end of a ring that items go into.
pub struct Producer<T: Send> {
    ring: Arc<Ring<T>>,
    /// Our position; ahead of the published one only inside a burst.
    tail: usize,
    /// The consumer's position when we last looked.
    head: usize,
}

/// The end of a ring that items come out of, in the order in which they went in.
pub struct Consumer<T: Send> {
    ring: Arc<Ring<T>>,
    /// Our position; ahead of the published one only inside a burst.
    head: usize,
    /// The producer's position when we last looked.
    tail: usize,
}

impl<T: Send> Producer<T> {
    /// How many items the ring holds at most.
    pub fn capacity(&self) -> usize {
        self.ring.slots.len()
    }

    /// How many items lie in the ring: at most this many, since the consumer may be taking some.
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.ring.head.load(Ordering::Relaxed))
    }

    /// Whether the consumer has taken everything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the consumer is gone: nobody will ever take what is pushed.
    pub fn is_closed(&self) -> bool {
        self.ring.consumer_gone.load(Ordering::Acquire)
    }

    /// Puts `item` into the ring, or gives it back if the ring is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.room(1) == 0 {
            return Err(item);
        }
        self.put(item);
        self.publish();
        Ok(())
    }

    /// Moves items from the front of `burst` into the ring as far as there is room; the rest stays in `burst`.
    /// Returns how many went in. The consumer sees them all at once.
    pub fn push_burst<const N: usize>(&mut self, burst: &mut ArrayVec<T, N>) -> usize {
        let count = self.room(burst.len()).min(burst.len());
        for item in burst.drain(..count) {
            self.put(item);
        }
        self.publish();
        count
    }

    /// Takes items from `items` for as long as there is room. Returns how many went in; what found no room was
    /// not taken from the iterator. The consumer sees them all at once.
    pub fn push_from(&mut self, items: &mut impl Iterator<Item = T>) -> usize {
        let room = self.room(self.capacity());
        let mut count = 0;
        while count < room
            && let Some(item) = items.next()
        {
            self.put(item);
            count += 1;
        }
        self.publish();
        count
    }

    /// How many slots are free, looking at the consumer's position only if `wanted` would not fit otherwise.
    fn room(&mut self, wanted: usize) -> usize {
        let known = self.capacity() - self.tail.wrapping_sub(self.head);
        if known >= wanted {
            return known;
        }
        // Acquire: the consumer has read the slots up to here before we write to them again.
        self.head = self.ring.head.load(Ordering::Acquire);
        self.capacity() - self.tail.wrapping_sub(self.head)
    }

    /// Writes the next slot; the caller has made sure of its room.
    fn put(&mut self, item: T) {
        self.ring.slot(self.tail).with_mut(|slot| {
            // SAFETY: `tail` is at most `capacity - 1` beyond the consumer's position (every caller asked `room`), so
            // the consumer has read this slot, and it will not look here again before `publish`. There is no second producer:
            // this end is not `Clone` and is used through `&mut`.
            unsafe { (*slot).write(item) };
        });
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the consumer see what was put in.
    fn publish(&mut self) {
        self.ring.tail.store(self.tail, Ordering::Release);
    }
}

impl<T: Send> Drop for Producer<T> {
    fn drop(&mut self) {
        // An iterator that panicked in `push_from` may have left items behind that nobody sees yet.
        self.publish();
        self.ring.producer_gone.store(true, Ordering::Release);
    }
}

impl<T: Send> Consumer<T> {
    /// How many items the ring holds at most.
    pub fn capacity(&self) -> usize {
        self.ring.slots.len()
    }

    /// How many items lie in the ring: at least this many, since the producer may be adding some.
    pub fn len(&self) -> usize {
        self.ring.tail.load(Ordering::Relaxed).wrapping_sub(self.head)
    }

    /// Whether nothing lies in the ring.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the producer is gone. What it pushed before can still be popped: the ring is finished when it was
    /// closed first and found empty afterwards.
    pub fn is_closed(&self) -> bool {
        self.ring.producer_gone.load(Ordering::Acquire)
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.drain(1).next()
    }

    /// Appends items to `burst` as far as it has room. Returns how many.
    pub fn pop_burst<const N: usize>(&mut self, burst: &mut ArrayVec<T, N>) -> usize {
        let before = burst.len();
        burst.extend(self.drain(burst.remaining_capacity()));
        burst.len() - before
    }

    /// Takes the oldest items one by one, at most `max`; their slots become free together when the iterator is dropped.
    pub fn drain(&mut self, max: usize) -> Drain<'_, T> {
        let known = self.tail.wrapping_sub(self.head);
        if known < max {
            // Acquire: the producer has written the slots up to here before we read them.
            self.tail = self.ring.tail.load(Ordering::Acquire);
        }
        let left = self.tail.wrapping_sub(self.head).min(max);
        Drain { consumer: self, left }
    }

    /// Reads the next slot; the caller has made sure that it is full.
    fn take(&mut self) -> T {
        let item = self.ring.slot(self.head).with(|slot| {
            // SAFETY: `head` is before the producer's position (`drain` counted), so the slot was written and published, and
            // the producer writes it again only after `publish`. It is read out once, since `head` moves on at once and there is no
            // second consumer: this end is not `Clone` and is used through `&mut`.
            unsafe { (*slot).assume_init_read() }
        });
        self.head = self.head.wrapping_add(1);
        item
    }

    /// Gives the slots of what was taken back to the producer.
    fn publish(&mut self) {
        self.ring.head.store(self.head, Ordering::Release);
    }
}

impl<T: Send> Drop for Consumer<T> {
    fn drop(&mut self) {
        // A `Drain` that was forgotten did not publish.
        self.publish();
        self.ring.consumer_gone.store(true, Ordering::Release);
    }
}

/// Items on their way out of a ring; made by [`Consumer::drain`].
pub struct Drain<'a, T: Send> {
    consumer: &'a mut Consumer<T>,
    left: usize,
}

impl<T: Send> Iterator for Drain<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        Some(self.consumer.take())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: Send> ExactSizeIterator for Drain<'_, T> {}

impl<T: Send> Drop for Drain<'_, T> {
    fn drop(&mut self) {
        self.consumer.publish();
    }
}

/// What both ends share.
struct Ring<T> {
    head: CachePadded<AtomicUsize>,
    tail: CachePadded<AtomicUsize>,
    producer_gone: AtomicBool,
    consumer_gone: AtomicBool,
    /// As many as a power of two.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: the ring moves values of `T` from one thread to another, which `T: Send` allows, and never shares a reference to
// one. Who may touch which slot is settled by `head` and `tail`, see `put` and `take`.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above; through a shared reference only the atomics and the slots governed by them are reached.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[position & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Ring<T> {
    /// Drops what nobody took. Both ends are gone, and published their positions as they went.
    fn drop(&mut self) {
        let mut head = self.head.load(Ordering::Relaxed);
        let tail = self.tail.load(Ordering::Relaxed);
        while head != tail {
            self.slot(head).with_mut(|slot| {
                // SAFETY: slots from `head` up to `tail` were written and not taken, and `&mut self` shows that no end is left.
                unsafe { (*slot).assume_init_drop() };
            });
            head = head.wrapping_add(1);
        }
    }
}

impl<T: Send> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("len", &self.len()).field("capacity", &self.capacity()).finish()
    }
}

impl<T: Send> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("len", &self.len()).field("capacity", &self.capacity()).finish()
    }
}

#[cfg(test)]
#[path = "spsc/tests.rs"]
mod tests;
