//! Two runs beside each other: what got slower beyond noise.

use std::io::{self, Write};

use crate::engine::AEAD_ALONE;
use crate::result::{Quantity, Results, Row};
use crate::sample::median_and_spread;

/// A change below this share is never called one: rounds of one run agree better than two runs do.
const LEAST: f64 = 0.03;

/// How the figures of two runs differ.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// How many times as long others' code took in the later run: the machine's own change. 1 where there are no others.
    pub drift: f64,
    /// What got slower beyond noise.
    pub slower: Vec<Change>,
    /// What got faster beyond noise.
    pub faster: Vec<Change>,
    /// Goals that the earlier run met and the later one missed.
    pub goals_lost: Vec<String>,
    /// How many figures of both runs stayed within noise.
    pub steady: usize,
    /// Figures and goals that only the earlier run has.
    pub gone: Vec<String>,
    /// The AEADs of both runs, if they differ: then much of what changed is theirs.
    pub aeads: Option<[String; 2]>,
}

/// A figure that changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose figure it is.
    pub name: String,
    /// Nanoseconds before and after.
    pub nanoseconds: [f64; 2],
    /// The later by the earlier, the machine's change taken out.
    pub factor: f64,
    /// The distance from 1 that noise explains.
    pub noise: f64,
}

/// Compares an earlier run with a later one.
///
/// Code of others, which is the same in both runs, shows how the machine changed; that is taken out of ours. Noise is the sum of
/// both spreads and three per cent. Between different CPUs only what Jetway is beside others of its own run can be compared.
pub fn compare(before: &Results, after: &Results) -> Comparison {
    let same_machine = before.cpu == after.cpu;
    let pairs: Vec<_> = before.rows.iter().filter_map(|row| Some((row, counterpart(row, after)?))).collect();
    let others = pairs.iter().filter(|(row, _)| !is_ours(row) && same_machine);
    let mut drifts: Vec<f64> = others.map(|(one, other)| other.ns_per_packet / one.ns_per_packet).collect();
    let drift = if drifts.is_empty() { 1.0 } else { median_and_spread(&mut drifts).0 };
    let mut comparison = Comparison { drift, ..Comparison::default() };
    for (one, other) in pairs {
        let factor = match (same_machine, one.ratio, other.ratio) {
            (true, _, _) if is_ours(one) => other.ns_per_packet / one.ns_per_packet / drift,
            // The others' time by ours: it shrinks when we get slower.
            (false, Some(one_ratio), Some(other_ratio)) if !is_ours(one) => one_ratio / other_ratio,
            _ => continue,
        };
        let noise = one.spread + other.spread + LEAST;
        let nanoseconds = [one.ns_per_packet, other.ns_per_packet];
        let change = Change { name: name(one), nanoseconds, factor, noise };
        match factor {
            factor if factor > 1.0 + noise => comparison.slower.push(change),
            factor if factor < 1.0 / (1.0 + noise) => comparison.faster.push(change),
            _ => comparison.steady += 1,
        }
    }
    comparison.gone = before.rows.iter().filter(|row| counterpart(row, after).is_none()).map(name).collect();
    comparison.aeads = (before.aead != after.aead).then(|| [before.aead.clone(), after.aead.clone()]);
    for quantity in before.quantities.iter().filter(|quantity| quantity.is_met() == Some(true)) {
        let Quantity { name, value, unit, goal, better } = quantity;
        let later = after.quantities.iter().find(|later| later.name == *name && later.goal.is_some());
        let Some(later) = later else {
            comparison.gone.push(format!("the goal of {name}"));
            continue;
        };
        // A goal that was moved meanwhile excuses nothing.
        if (Quantity { goal: *goal, better: *better, ..later.clone() }).is_met() == Some(false) {
            comparison.goals_lost.push(format!("{name}: {value:.3} -> {:.3} {unit}", later.value));
        }
    }
    comparison
}

impl Comparison {
    /// Whether nothing got worse.
    pub fn is_good(&self) -> bool {
        self.slower.is_empty() && self.goals_lost.is_empty()
    }

    /// Writes it for people.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if let Some([one, other]) = &self.aeads {
            writeln!(out, "ANOTHER AEAD: {one} -> {other}")?;
        }
        writeln!(out, "the machine itself: others' code takes {:.3} times as long", self.drift)?;
        for (word, changes) in [("SLOWER", &self.slower), ("faster", &self.faster)] {
            for Change { name, nanoseconds: [one, other], factor, noise } in changes {
                let (change, noise) = ((factor - 1.0) * 100.0, noise * 100.0);
                writeln!(out, "{word} {name}: {one:.1} -> {other:.1} ns ({change:+.1} %, noise {noise:.1} %)")?;
            }
        }
        for lost in &self.goals_lost {
            writeln!(out, "GOAL LOST {lost}")?;
        }
        for name in &self.gone {
            writeln!(out, "only in the earlier run: {name}")?;
        }
        let (slower, faster) = (self.slower.len(), self.faster.len());
        writeln!(out, "{slower} slower, {faster} faster, {} within noise", self.steady)
    }
}

/// Whether it is a figure of our code, which the AEAD alone is too.
fn is_ours(row: &Row) -> bool {
    row.peer.starts_with("jetway") || row.peer == AEAD_ALONE
}

fn key(row: &Row) -> (&str, &str, Option<usize>, Option<usize>, &str) {
    (&row.scenario, &row.size, row.burst, row.flows, &row.peer)
}

/// The row of the same thing in another run.
fn counterpart<'a>(row: &Row, run: &'a Results) -> Option<&'a Row> {
    run.rows.iter().find(|other| key(other) == key(row) && other.ns_per_packet > 0.0 && row.ns_per_packet > 0.0)
}

fn name(row: &Row) -> String {
    let number = |word: &str, value: Option<usize>| value.map_or(String::new(), |value| format!(", {word} {value}"));
    let size = if row.size.is_empty() { String::new() } else { format!(" {}", row.size) };
    format!("{}{size} by {}{}{}", row.scenario, row.peer, number("burst", row.burst), number("flows", row.flows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rows: &[(&str, &str, f64, f64)]) -> Results {
        let row = |(scenario, peer, ns, spread): &(&str, &str, f64, f64)| Row::new(*scenario, peer, *ns, *spread);
        Results { cpu: "one".into(), rows: rows.iter().map(row).collect(), ..Results::default() }
    }

    fn names(changes: &[Change]) -> Vec<&str> {
        changes.iter().map(|change| change.name.as_str()).collect()
    }

    #[test]
    fn only_what_leaves_the_noise_of_both_runs_is_slower() {
        let before = run(&[("a", "jetway", 100.0, 0.01), ("b", "jetway", 100.0, 0.10), ("c", "jetway", 100.0, 0.0)]);
        let after = run(&[("a", "jetway", 106.0, 0.01), ("b", "jetway", 106.0, 0.01), ("c", "jetway", 90.0, 0.0)]);
        let comparison = compare(&before, &after);
        assert_eq!((names(&comparison.slower), names(&comparison.faster)), (vec!["a by jetway"], vec!["c by jetway"]));
        assert_eq!((comparison.steady, comparison.is_good()), (1, false));
    }

    #[test]
    fn a_slower_machine_is_no_slower_code() {
        let before = run(&[("a", "jetway", 100.0, 0.0), ("a", "boringtun", 200.0, 0.0), ("b", "jetway", 10.0, 0.0)]);
        let after = run(&[("a", "jetway", 120.0, 0.0), ("a", "boringtun", 240.0, 0.0), ("b", "jetway", 15.0, 0.0)]);
        let comparison = compare(&before, &after);
        assert_eq!(names(&comparison.slower), ["b by jetway"]);
        assert!((comparison.drift - 1.2).abs() < 1e-9);
    }

    #[test]
    fn an_aead_of_ours_that_got_slower_is_no_slower_machine() {
        let before = run(&[("a", "jetway", 100.0, 0.0), ("a", AEAD_ALONE, 50.0, 0.0), ("a", "boringtun", 200.0, 0.0)]);
        let after = run(&[("a", "jetway", 150.0, 0.0), ("a", AEAD_ALONE, 100.0, 0.0), ("a", "boringtun", 200.0, 0.0)]);
        assert_eq!(names(&compare(&before, &after).slower), ["a by jetway", "a by aead alone"]);
    }

    #[test]
    fn between_cpus_only_ratios_within_a_run_count() {
        let with_ratio = |cpu: &str, ours, others, ratio| {
            let mut run = run(&[("a", "jetway", ours, 0.0), ("a", "boringtun", others, 0.0)]);
            run.cpu = cpu.into();
            run.rows[1].ratio = Some(ratio);
            run
        };
        let (old, same) = (with_ratio("one", 100.0, 200.0, 2.0), with_ratio("two", 300.0, 600.0, 2.0));
        assert!(compare(&old, &same).is_good());
        let worse = with_ratio("two", 100.0, 150.0, 1.5);
        assert_eq!(names(&compare(&old, &worse).slower), ["a by boringtun"]);
    }

    #[test]
    fn a_goal_that_is_met_no_more_is_told() {
        let with = |value| Results { quantities: vec![Quantity::new("q", value, "x").at_least(2.0)], ..run(&[]) };
        assert!(!compare(&with(2.5), &with(1.9)).is_good());
        assert!(compare(&with(2.5), &with(2.0)).is_good());
        assert!(compare(&with(1.0), &with(0.9)).is_good(), "it was missed before");
    }

    #[test]
    fn a_goal_that_was_lowered_is_lost_and_one_that_is_no_longer_judged_is_told() {
        let with = |quantities| Results { quantities, ..run(&[]) };
        let met = || with(vec![Quantity::new("q", 2.5, "x").at_least(2.0)]);
        let lowered = with(vec![Quantity::new("q", 1.9, "x").at_least(1.0)]);
        assert_eq!(compare(&met(), &lowered).goals_lost.len(), 1);
        for after in [vec![], vec![Quantity::new("q", 2.5, "x")]] {
            assert_eq!(compare(&met(), &with(after)).gone, ["the goal of q"]);
        }
        assert!(compare(&met(), &met()).gone.is_empty());
    }

    #[test]
    fn a_figure_that_is_no_longer_measured_is_told() {
        let (before, after) = (run(&[("a", "jetway", 1.0, 0.0)]), run(&[]));
        assert_eq!(compare(&before, &after).gone, ["a by jetway"]);
    }
}
