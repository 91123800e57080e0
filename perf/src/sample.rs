//! How figures are made of times: contestants take turns, medians, spread.

use std::time::{Duration, Instant};

/// The median of `values`, and the distance of its quartiles as a share of it; zeros for none.
pub fn median_and_spread(values: &mut [f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    let median = at(0.5);
    (median, if median > 0.0 { (at(0.75) - at(0.25)) / median } else { 0.0 })
}

/// The median of durations in nanoseconds.
pub fn median_nanoseconds(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_nanos() as f64)
}

/// Runs `work` and says how long that took.
pub fn time<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// What reading the clock twice costs, which is in every time.
pub fn clock_cost() -> Duration {
    let mut times: Vec<_> = (0..1001).map(|_| time(|| ()).1).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// One contestant of a comparison: does a piece of work on so many packets and says how long it took.
pub struct Contestant {
    /// Its name in the results.
    pub name: &'static str,
    /// Packets of one piece of work.
    pub packets: usize,
    /// Prepares a piece of work, does it, and returns how long only the work took.
    run: Box<dyn FnMut() -> Duration>,
    /// Brings into the caches what pieces that were long ago left there.
    warm: Box<dyn FnMut()>,
}

impl Contestant {
    /// A contestant of this name.
    pub fn new(name: &'static str, packets: usize, run: impl FnMut() -> Duration + 'static) -> Self {
        Self { name, packets, run: Box::new(run), warm: Box::new(|| ()) }
    }

    /// The same, whose memory is too large for one round to warm it: `warm` does.
    pub fn warmed(self, warm: impl FnMut() + 'static) -> Self {
        Self { warm: Box::new(warm), ..self }
    }
}

/// What a contestant needed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// The median over the rounds.
    pub nanoseconds: f64,
    /// The distance of the quartiles over the rounds, as a share of the median.
    pub spread: f64,
    /// Each round's figure.
    pub rounds: Vec<f64>,
}

/// How long a comparison goes.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds; in each, every contestant has its turn.
    pub rounds: usize,
    /// Pieces of work of a contestant in one round. Their median is the round's figure, so that a piece during which
    /// another program had the core does not count.
    pub pieces: usize,
    /// How long a contestant works before its pieces count, if another had the core before: [`SETTLING`], but for tests.
    pub settling: Duration,
}

/// A core takes one to three milliseconds to come to the speed that it keeps, once code begins to use vectors of 512 bits after code
/// that did not: until then the AEAD takes up to half as long again (IMIX: 229 ns a packet at first, 155 from 1 ms on). A worker under
/// load is never in that state.
pub const SETTLING: Duration = Duration::from_millis(3);

/// Contestants that take turns.
pub struct Comparison {
    contestants: Vec<Contestant>,
    /// Nanoseconds a packet in each round, for each contestant.
    rounds: Vec<Vec<f64>>,
}

impl Comparison {
    /// No round yet.
    pub fn new(contestants: Vec<Contestant>) -> Self {
        Self { rounds: contestants.iter().map(|_| Vec::new()).collect(), contestants }
    }

    /// Makes more rounds, after one that warms caches and predictors and is not counted.
    pub fn visit(&mut self, effort: Effort) {
        let clock = clock_cost();
        let mut times = Vec::with_capacity(effort.pieces);
        self.contestants.iter_mut().for_each(|contestant| (contestant.warm)());
        let settling = if self.contestants.len() > 1 { effort.settling } else { Duration::ZERO };
        for round in 0..=effort.rounds {
            for (contestant, rounds) in self.contestants.iter_mut().zip(&mut self.rounds) {
                let begun = Instant::now();
                while begun.elapsed() < settling {
                    let _ = (contestant.run)();
                }
                times.clear();
                times.extend((0..effort.pieces).map(|_| (contestant.run)().saturating_sub(clock)));
                if round > 0 {
                    rounds.push(median_nanoseconds(&mut times) / contestant.packets as f64);
                }
            }
        }
    }

    /// What each contestant needed in all rounds so far.
    pub fn outcomes(&self) -> Vec<Outcome> {
        let outcome = |(contestant, rounds): (&Contestant, &Vec<f64>)| {
            let (nanoseconds, spread) = median_and_spread(&mut rounds.clone());
            Outcome { name: contestant.name, nanoseconds, spread, rounds: rounds.clone() }
        };
        self.contestants.iter().zip(&self.rounds).map(outcome).collect()
    }
}

/// The median over the rounds of how much longer one contestant needs than another, and its spread.
pub fn difference(of: &Outcome, from: &Outcome) -> (f64, f64) {
    median_and_spread(&mut of.rounds.iter().zip(&from.rounds).map(|(of, from)| of - from).collect::<Vec<_>>())
}

/// The median over the rounds of one contestant's time by another's.
pub fn ratio(of: &Outcome, by: &Outcome) -> f64 {
    let mut ratios: Vec<_> = of.rounds.iter().zip(&by.rounds).map(|(of, by)| of / by.max(f64::MIN_POSITIVE)).collect();
    median_and_spread(&mut ratios).0
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_few_interrupted_pieces_do_not_move_a_figure() {
        let mut number = 0;
        let run = move || {
            number += 1;
            if number % 5 == 0 { Duration::from_millis(4) } else { Duration::from_micros(64) }
        };
        let mut comparison = Comparison::new(vec![Contestant::new("steady", 64, run)]);
        for rounds in [3, 2] {
            comparison.visit(Effort { rounds, pieces: 11, settling: Duration::ZERO });
        }
        let outcome = comparison.outcomes().remove(0);
        assert!((900.0..=1000.0).contains(&outcome.nanoseconds), "{outcome:?}");
        assert_eq!(outcome.rounds.len(), 5);
    }

    #[test]
    fn who_has_the_core_after_another_works_for_a_while_before_it_counts() {
        const SETTLING: Duration = Duration::from_millis(2);
        // Whose core it is, and since when: who has it anew is slow.
        let owner = Rc::new(Cell::new(("nobody", Instant::now())));
        let contestant = |name| {
            let owner = Rc::clone(&owner);
            let run = move || {
                if owner.get().0 != name {
                    owner.set((name, Instant::now()));
                }
                let is_new = owner.get().1.elapsed() < SETTLING / 2;
                Duration::from_micros(if is_new { 300 } else { 100 })
            };
            Contestant::new(name, 1, run)
        };
        let mut comparison = Comparison::new(vec![contestant("one"), contestant("other")]);
        comparison.visit(Effort { rounds: 3, pieces: 5, settling: SETTLING });
        for outcome in comparison.outcomes() {
            assert!(outcome.nanoseconds < 200_000.0, "{outcome:?}");
        }
    }

    #[test]
    fn the_spread_is_the_distance_of_the_quartiles_by_the_median() {
        let mut values = [8.0, 9.0, 10.0, 11.0, 12.0];
        assert_eq!(median_and_spread(&mut values), (10.0, 0.2));
        assert_eq!(median_and_spread(&mut []), (0.0, 0.0));
    }
}
