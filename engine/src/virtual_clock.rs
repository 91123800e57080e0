//! A clock that stands still until somebody advances it: the time of ports on plain memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jetway_pipelines::time::Instant;

/// A clock shared by its clones. It starts at [`Instant::ZERO`] and never goes back.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock(Arc<AtomicU64>);

impl VirtualClock {
    /// What time it is.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Acquire))
    }

    /// Makes it `now`; no effect if it is later already.
    pub fn advance_to(&self, now: Instant) {
        self.0.fetch_max(now.as_nanos(), Ordering::AcqRel);
    }

    /// Moves it forward by `duration`.
    pub fn advance_by(&self, duration: Duration) {
        self.advance_to(self.now() + duration);
    }
}
