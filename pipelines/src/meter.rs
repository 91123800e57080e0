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

    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn in_no_interval_more_passes_than_burst_and_rate_allow_nor_is_anything_refused_that_they_do(
            rate in 1..1_000_000_u32,
            burst in 1..1000_u32,
            pauses in prop::collection::vec(prop_oneof![Just(0), 0..2_000_000_u64, 0..2_000_000_000_u64], 1..300),
        ) {
            let interval = u128::from(1_000_000_000 / rate);
            let mut meter = Meter::new(rate, burst);
            let mut now = Instant::from_nanos(1);
            let mut passed: Vec<Instant> = Vec::new();
            for pause in pauses {
                now += Duration::from_nanos(pause);
                // What has passed since any earlier moment may not exceed the burst and what the time since then earned.
                let fits = passed.iter().rev().zip(1_u128..).all(|(since, count)| {
                    (count + 1) * interval <= u128::from(burst) * interval + now.since(*since).as_nanos()
                });
                let allowed = meter.allow(now);
                prop_assert_eq!(allowed, fits, "{} after {:?}", passed.len(), now);
                if allowed {
                    passed.push(now);
                }
            }
        }
    }
}
