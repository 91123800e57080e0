//! Commands from control to one worker: none is lost, all arrive in order, and control can see how far the worker is.
//!
//! The ring is bounded, since the worker's end must be. What finds it full waits on control's side, where memory may
//! grow, and goes out before anything newer. Commands are numbered from 1; the worker acknowledges by number.

use std::collections::VecDeque;

use crate::primitive::{Arc, AtomicU64, CachePadded, Ordering};
use crate::spsc::{self, Consumer, Producer};

/// A command channel whose ring holds at least `capacity` commands.
pub fn channel<T: Send>(capacity: usize) -> (CommandSender<T>, CommandReceiver<T>) {
    let (producer, consumer) = spsc::channel(capacity);
    let acknowledged = Arc::new(CachePadded::new(AtomicU64::new(0)));
    let sender =
        CommandSender { ring: producer, backlog: VecDeque::new(), sent: 0, acknowledged: Arc::clone(&acknowledged) };
    (sender, CommandReceiver { ring: consumer, taken: 0, acknowledged })
}

/// Control's end.
#[derive(Debug)]
pub struct CommandSender<T: Send> {
    ring: Producer<T>,
    /// What found the ring full, oldest first.
    backlog: VecDeque<T>,
    sent: u64,
    acknowledged: Arc<CachePadded<AtomicU64>>,
}

/// The worker's end.
#[derive(Debug)]
pub struct CommandReceiver<T: Send> {
    ring: Consumer<T>,
    taken: u64,
    acknowledged: Arc<CachePadded<AtomicU64>>,
}

impl<T: Send> CommandSender<T> {
    /// Sends `command` after all before it. Returns its number. If the ring is full, the command waits here until
    /// [`CommandSender::flush`] finds room.
    pub fn send(&mut self, command: T) -> u64 {
        self.backlog.push_back(command);
        self.flush();
        self.sent += 1;
        self.sent
    }

    /// Moves waiting commands into the ring. Returns how many still wait; while that is not 0, call this again soon.
    pub fn flush(&mut self) -> usize {
        let backlog = &mut self.backlog;
        self.ring.push_from(&mut std::iter::from_fn(|| backlog.pop_front()));
        self.backlog.len()
    }

    /// The number of the last command sent; 0 before the first.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The number of the last command that the worker has carried out, as all before it; 0 before the first.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// How many commands the worker has not yet carried out.
    pub fn outstanding(&self) -> u64 {
        self.sent - self.acknowledged()
    }

    /// Whether the worker's end is gone: nothing more will be acknowledged.
    pub fn is_closed(&self) -> bool {
        self.ring.is_closed()
    }
}

impl<T: Send> CommandReceiver<T> {
    /// The next command. It counts as carried out only with the next [`CommandReceiver::acknowledge`].
    pub fn receive(&mut self) -> Option<T> {
        let command = self.ring.pop()?;
        self.taken += 1;
        Some(command)
    }

    /// Tells control that all commands received so far have been carried out: their effects are visible to who sees it.
    pub fn acknowledge(&mut self) {
        self.acknowledged.store(self.taken, Ordering::Release);
    }

    /// Carries out at most `max` commands with `carry_out` and acknowledges them together. Returns how many.
    pub fn process(&mut self, max: usize, mut carry_out: impl FnMut(T)) -> usize {
        let mut count = 0;
        while count < max
            && let Some(command) = self.receive()
        {
            carry_out(command);
            count += 1;
        }
        if count > 0 {
            self.acknowledge();
        }
        count
    }

    /// Whether control's end is gone. What it sent before can still be received.
    pub fn is_closed(&self) -> bool {
        self.ring.is_closed()
    }
}

#[cfg(test)]
#[path = "command/tests.rs"]
mod tests;
