//! What is remembered of the probes of a server and of a service.

use std::time::Duration;

use hdrhistogram::Histogram;
use jetway_pipelines::time::Instant;

use super::probe::{Answer, ProbeError};

/// How the probes of one server went.
#[derive(Clone, Debug)]
pub struct Record {
    /// Probes that ended.
    pub probes: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Why the last one failed, until one is answered.
    pub trouble: Option<ProbeError>,
    /// How long the last answer took.
    pub latency: Option<Duration>,
    /// When the last one ended; `None` before the first.
    pub last: Option<Instant>,
    /// Since when the server's health is what it is.
    pub since: Instant,
}

impl Record {
    /// Of a server that is asked from now on.
    pub fn new(now: Instant) -> Self {
        Self { probes: 0, failures: 0, trouble: None, latency: None, last: None, since: now }
    }

    /// Takes in what a probe came to.
    pub fn add(&mut self, result: &Result<Answer, ProbeError>, now: Instant) {
        self.probes += 1;
        self.last = Some(now);
        match result {
            Ok(answer) => (self.latency, self.trouble) = (Some(answer.took), None),
            Err(error) => {
                self.failures += 1;
                self.trouble = Some(error.clone());
            }
        }
    }
}

/// How long the servers of one service take to answer.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        // Microseconds to two digits, and as much memory as the longest one needs.
        let histogram = Histogram::<u64>::new(2);
        // PROOF: it fails only for more than five digits.
        Self(histogram.unwrap_or_else(|_| unreachable!("two digits are fewer than five")))
    }
}

impl Latencies {
    /// The longest that is told from longer ones.
    const LONGEST: Duration = Duration::from_secs(3_600);

    /// Takes in an answer.
    pub fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.min(Self::LONGEST).as_micros()).unwrap_or(u64::MAX);
        // It grows as it needs, up to the longest.
        let _ = self.0.record(micros);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// What this share of them did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }
}
