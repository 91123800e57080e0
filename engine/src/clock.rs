//! The clock of the process: where [`Instant`]s and the wall clock come from.

use std::time::{SystemTime, UNIX_EPOCH};

use jetway_pipelines::time::Instant;

/// A monotonic clock whose origin is a second before it was made, so that no reading is zero.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

const HEAD_START: u64 = 1_000_000_000;

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        let nanos = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Instant::from_nanos(nanos.saturating_add(HEAD_START))
    }

    /// The wall clock, since 1970.
    pub fn wall(&self) -> std::time::Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
