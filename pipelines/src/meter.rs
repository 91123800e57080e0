//! A token bucket over packets, as the virtual scheduling form of the generic cell rate algorithm (ITU-T I.371):
//! one number of state, no division per packet.

use crate::time::Instant;

/// Lets so many packets pass in a second, and so many at once.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Nanoseconds that one packet stands for.
    interval: u64,
    /// How far ahead of time the bucket may be filled, in nanoseconds.
    tolerance: u64,
    /// When the bucket will be empty of what has passed.
    empty_at: u64,
}

impl Meter {
    /// A meter of `rate` packets a second and `burst` at once; at least one of each.
    pub fn new(rate: u32, burst: u32) -> Self {
        let interval = 1_000_000_000 / u64::from(rate.max(1));
        Self { interval, tolerance: interval * u64::from(burst.max(1) - 1), empty_at: 0 }
    }

    /// Whether a packet may pass now. If it may, it is counted.
    pub fn allow(&mut self, now: Instant) -> bool {
        let now = now.as_nanos();
        let from = self.empty_at.max(now);
        if from - now > self.tolerance {
            return false;
        }
        self.empty_at = from + self.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn passed(meter: &mut Meter, offered: u32, every: Duration) -> u32 {
        (0..offered).filter(|i| meter.allow(Instant::ZERO + every * *i)).count() as u32
    }

    #[test]
    fn a_burst_passes_at_once_and_no_more() {
        assert_eq!(passed(&mut Meter::new(1000, 10), 100, Duration::ZERO), 10);
        assert_eq!(passed(&mut Meter::new(1000, 1), 100, Duration::ZERO), 1);
    }

    #[test]
    fn what_comes_too_fast_passes_at_the_rate() {
        // 10,000 packets over one second through 1,000/s with a burst of 10.
        let count = passed(&mut Meter::new(1000, 10), 10_000, Duration::from_micros(100));
        assert!((1008..=1011).contains(&count), "{count}");
    }

    #[test]
    fn what_comes_slowly_passes_whole() {
        assert_eq!(passed(&mut Meter::new(1000, 1), 500, Duration::from_millis(1)), 500);
    }
}
