//! The searches of RFC 2544: the highest rate, and the longest burst, of which no more than a share is lost.

use std::io;

/// How the search for a value goes: it halves the distance between what passed and what failed.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    passed: f64,
    failed: f64,
    precision: f64,
}

impl Search {
    /// Between a value that passes for certain, such as 0, and one that was seen to fail; ends when they are within a share
    /// `precision` of the latter.
    pub fn between(passed: f64, failed: f64, precision: f64) -> Self {
        Self { passed, failed, precision }
    }

    /// The next value to try; `None` when the search is over.
    pub fn next(&self) -> Option<f64> {
        let open = self.failed - self.passed > self.failed * self.precision;
        open.then(|| f64::midpoint(self.passed, self.failed))
    }

    /// Takes what a trial of `value` showed.
    pub fn learn(&mut self, value: f64, outcome: Outcome) {
        match outcome {
            Outcome::Passed => self.passed = self.passed.max(value),
            Outcome::Failed => self.failed = self.failed.min(value),
        }
    }

    /// The highest value that passed.
    pub fn found(&self) -> f64 {
        self.passed
    }

    /// Runs to its end with `trial`.
    pub fn run(mut self, mut trial: impl FnMut(f64) -> io::Result<Outcome>) -> io::Result<f64> {
        while let Some(value) = self.next() {
            self.learn(value, trial(value)?);
        }
        Ok(self.found())
    }
}

/// How a trial ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// No more was lost than may be.
    Passed,
    /// More was lost.
    Failed,
}

impl Outcome {
    /// Of `sent` packets so many came back, and a share `tolerated` may be lost.
    pub fn of(sent: u64, received: u64, tolerated: f64) -> Self {
        let lost = sent.saturating_sub(received) as f64;
        if sent > 0 && lost <= sent as f64 * tolerated { Self::Passed } else { Self::Failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_a_device_is_found_to_the_precision_that_is_asked_for() {
        for rate in [10.0, 123_456.0, 987_654.0] {
            let mut trials = 0;
            let found = Search::between(0.0, 1e6, 0.01)
                .run(|value| {
                    trials += 1;
                    Ok(if value <= rate { Outcome::Passed } else { Outcome::Failed })
                })
                .unwrap();
            assert!(found <= rate && rate - found <= rate * 0.011, "{found} for {rate}");
            // A halving each: 17 from a million down to ten, 7 for the precision there.
            assert!(trials <= 25, "{trials} trials for {rate}");
        }
    }

    #[test]
    fn nothing_is_lost_at_no_drop_and_half_a_per_cent_at_partial_drop() {
        assert_eq!(Outcome::of(1000, 999, 0.0), Outcome::Failed);
        assert_eq!(Outcome::of(1000, 995, 0.005), Outcome::Passed);
        assert_eq!(Outcome::of(1000, 994, 0.005), Outcome::Failed);
        assert_eq!(Outcome::of(0, 0, 0.5), Outcome::Failed, "nothing was tried");
    }
}
