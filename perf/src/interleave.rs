//! The order of a run: passes over all its measurements, so that a slow spell of the machine meets each of them alike.
//!
//! A shared host has spells of seconds to minutes in which some code runs a third slower. What is measured in one go lies
//! within such a spell or without; what has a few rounds in each pass sees as much of it as everything else.

use std::time::{Duration, Instant};

use crate::result::Part;
use crate::sample::{Comparison, Contestant, Effort, Outcome};

/// Rounds that a measurement has in one pass at least.
const ROUNDS: usize = 4;
/// Passes at most: before each, what many rounds keep in the caches has to be brought there again.
const PASSES: usize = 20;

/// Something that is measured a few rounds at a time.
pub trait Measurement {
    /// Makes the rounds of a pass, after one that warms caches and predictors and is not counted.
    fn visit(&mut self, effort: Effort);
    /// Tells what all rounds so far came to.
    fn tell(&self, part: &mut Part);
}

/// Measurements that are ready to begin, in the order in which they are told.
#[derive(Default)]
pub struct Interleaved(Vec<Box<dyn Measurement>>);

impl Interleaved {
    /// Adds a measurement.
    pub fn add(&mut self, measurement: impl Measurement + 'static) {
        self.0.push(Box::new(measurement));
    }

    /// Adds contestants that take turns, and what is told of their outcomes, which are in the same order.
    pub fn compare(&mut self, contestants: Vec<Contestant>, tell: impl Fn(&[Outcome], &mut Part) + 'static) {
        self.add(Compared { comparison: Comparison::new(contestants), tell });
    }

    /// Adds what is told of no measurement, in its place among the others.
    pub fn told(&mut self, tell: impl Fn(&mut Part) + 'static) {
        self.compare(Vec::new(), move |_, part| tell(part));
    }

    /// Passes over all of them until each has had the rounds of `effort`, or, as soon as there was one pass, no time of `within`
    /// is left. What is known after a pass goes to `known`.
    pub fn measure<E>(
        &mut self,
        effort: Effort,
        within: Duration,
        mut known: impl FnMut(Part) -> Result<(), E>,
    ) -> Result<(), E> {
        let begun = Instant::now();
        let in_a_pass = effort.rounds.div_ceil(PASSES).max(ROUNDS);
        let mut rounds = 0;
        while rounds < effort.rounds && (rounds == 0 || begun.elapsed() < within) {
            let pass = Effort { rounds: in_a_pass.min(effort.rounds - rounds), ..effort };
            self.0.iter_mut().for_each(|measurement| measurement.visit(pass));
            rounds += pass.rounds;
            let mut part = Part::default();
            self.0.iter().for_each(|measurement| measurement.tell(&mut part));
            if rounds < effort.rounds && begun.elapsed() >= within {
                part.lacks(&format!("more than {rounds} of {} rounds", effort.rounds), "time");
            }
            known(part)?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Interleaved {
    /// What all of them come to with this effort.
    pub fn measure_all(mut self, effort: Effort) -> Part {
        let mut last = Part::default();
        let known = |part| {
            last = part;
            Ok::<_, std::convert::Infallible>(())
        };
        self.measure(effort, Duration::MAX, known).unwrap_or_else(|never| match never {});
        last
    }
}

struct Compared<F> {
    comparison: Comparison,
    tell: F,
}

impl<F: Fn(&[Outcome], &mut Part)> Measurement for Compared<F> {
    fn visit(&mut self, effort: Effort) {
        self.comparison.visit(effort);
    }

    fn tell(&self, part: &mut Part) {
        (self.tell)(&self.comparison.outcomes(), part);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;
    use std::rc::Rc;

    use super::*;
    use crate::result::Quantity;

    /// Writes down that it had a turn.
    fn contestant(name: &'static str, seen: &Rc<RefCell<Vec<&'static str>>>) -> Contestant {
        let seen = Rc::clone(seen);
        let run = move || {
            seen.borrow_mut().push(name);
            Duration::from_micros(1)
        };
        Contestant::new(name, 1, run)
    }

    fn all_parts(interleaved: &mut Interleaved, rounds: usize, within: Duration) -> Vec<Part> {
        let mut parts = Vec::new();
        let known = |part| {
            parts.push(part);
            Ok::<_, Infallible>(())
        };
        interleaved
            .measure(Effort { rounds, pieces: 1, settling: Duration::ZERO }, within, known)
            .unwrap_or_else(|never| match never {});
        parts
    }

    #[test]
    fn each_measurement_has_a_few_rounds_before_any_has_more() {
        let seen = Rc::default();
        let mut interleaved = Interleaved::default();
        for name in ["a", "b"] {
            let count = move |outcomes: &[Outcome], part: &mut Part| {
                part.quantities.push(Quantity::new(name, outcomes[0].rounds.len() as f64, ""));
            };
            interleaved.compare(vec![contestant(name, &seen)], count);
        }
        let parts = all_parts(&mut interleaved, ROUNDS + 1, Duration::MAX);
        // Each visit has a round that does not count.
        let visits = [("a", ROUNDS + 1), ("b", ROUNDS + 1), ("a", 2), ("b", 2)];
        let expected: Vec<_> = visits.into_iter().flat_map(|(name, runs)| vec![name; runs]).collect();
        assert_eq!(*seen.borrow(), expected);
        let rounds: Vec<Vec<_>> =
            parts.iter().map(|part| part.quantities.iter().map(|rounds| rounds.value as usize).collect()).collect();
        assert_eq!(rounds, [vec![ROUNDS; 2], vec![ROUNDS + 1; 2]]);
        assert!(parts.iter().all(|part| part.unmeasured.is_empty()));
    }

    #[test]
    fn without_time_there_is_one_pass_and_it_is_said_what_is_lacking() {
        let mut interleaved = Interleaved::default();
        interleaved.compare(vec![contestant("a", &Rc::default())], |_, _| {});
        let parts = all_parts(&mut interleaved, ROUNDS * 2, Duration::ZERO);
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].unmeasured.len(), 1, "{parts:?}");
    }
}
