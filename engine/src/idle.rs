//! What a worker does when there is nothing to do.

use std::thread;
use std::time::Duration;

use crate::worker::Turn;

/// How a worker waits for work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdlePolicy {
    /// Never sleeps: the least latency, a whole core.
    Poll,
    /// Pauses, then sleeps briefly: for machines whose cores have other work too.
    Backoff,
}

/// Empty turns that are only paused between.
const SPINS: u32 = 64;
/// Empty turns after which the sleep has its full length.
const PATIENCE: u32 = 1024;
/// The first sleeps, while traffic may come back any moment.
const SHORT_SLEEP: Duration = Duration::from_micros(20);
/// The sleeps of a worker that has been idle for a while.
const LONG_SLEEP: Duration = Duration::from_micros(200);

/// Counts empty turns and says how to wait.
#[derive(Debug)]
pub struct Idle {
    policy: IdlePolicy,
    empty_turns: u32,
}

impl Idle {
    /// Nothing waited for yet.
    pub fn new(policy: IdlePolicy) -> Self {
        Self { policy, empty_turns: 0 }
    }

    /// How long to sleep after a turn; `None` for not at all.
    pub fn after(&mut self, turn: Turn) -> Option<Duration> {
        if turn == Turn::Busy {
            self.empty_turns = 0;
            return None;
        }
        if self.policy == IdlePolicy::Poll {
            std::hint::spin_loop();
            return None;
        }
        self.empty_turns = self.empty_turns.saturating_add(1);
        if self.empty_turns <= SPINS {
            std::hint::spin_loop();
            return None;
        }
        Some(if self.empty_turns <= PATIENCE { SHORT_SLEEP } else { LONG_SLEEP })
    }
}

/// Sleeps as precisely as the kernel allows; [`tighten_timer`] makes that a microsecond.
pub fn sleep(duration: Duration) {
    thread::sleep(duration);
}

/// Lets this thread's sleeps end within a microsecond of their time instead of the usual 50.
pub fn tighten_timer() {
    // Best effort: without it, sleeps are longer and nothing else changes.
    let _ = nix::sys::prctl::set_timerslack(1000);
}
