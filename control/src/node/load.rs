//! How busy the node is: its workers, its machine, its memory, between one look and the next.

use std::path::Path;
use std::time::Duration;

use jetway_pipelines::counters::WorkerCounters;

use crate::api::LoadReport;

/// From one look to the next.
pub const EVERY: Duration = Duration::from_secs(5);

/// What was seen at the last look, and what it said together with the one before.
#[derive(Debug, Default)]
pub struct Load {
    last: Sample,
    report: Option<LoadReport>,
}

#[derive(Debug, Default)]
struct Sample {
    /// Turns and busy turns of each worker.
    turns: Vec<(u64, u64)>,
    processor: Option<Processor>,
}

/// The time of all processors so far, in clock ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Processor {
    busy: u64,
    all: u64,
}

impl Load {
    /// Looks at the workers' counters and at `/proc`.
    pub fn look<'a>(&mut self, workers: impl Iterator<Item = &'a WorkerCounters>) {
        // What cannot be read is left out of the report.
        let read = |name: &str| std::fs::read_to_string(Path::new("/proc").join(name)).unwrap_or_default();
        let turns = workers.map(|counters| (counters.turns.get(), counters.busy_turns.get())).collect();
        let sample = Sample { turns, processor: processor(&read("stat")) };
        self.take(sample, &read("meminfo"), &read("self/status"));
    }

    fn take(&mut self, sample: Sample, memory: &str, status: &str) {
        let last = std::mem::replace(&mut self.last, sample);
        let (Some(before), Some(now)) = (last.processor, self.last.processor) else { return };
        let turns = self.last.turns.iter().zip(&last.turns);
        self.report = Some(LoadReport {
            workers_busy: turns.map(|(now, last)| share(now.1, last.1, now.0, last.0)).collect(),
            system_busy: share(now.busy, before.busy, now.all, before.all),
            memory_total: kibibytes(memory, "MemTotal:") << 10,
            memory_available: kibibytes(memory, "MemAvailable:") << 10,
            process_memory: kibibytes(status, "VmRSS:") << 10,
        });
    }

    /// What the last two looks say; `None` before the second.
    pub fn report(&self) -> Option<LoadReport> {
        self.report.clone()
    }
}

/// The share of a part in a whole that both grew.
fn share(part: u64, part_before: u64, whole: u64, whole_before: u64) -> f64 {
    let (part, whole) = (part.saturating_sub(part_before), whole.saturating_sub(whole_before));
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The first line of `/proc/stat` (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal, and guests, who are
/// counted under user already.
fn processor(stat: &str) -> Option<Processor> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
    let [_, _, _, idle, waiting, ..] = ticks.as_slice() else { return None };
    let all: u64 = ticks.iter().sum();
    Some(Processor { busy: all - idle - waiting, all })
}

/// A line of `/proc/meminfo` or `/proc/self/status`; 0 if it is not there.
fn kibibytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 0 50 800 50 0 0 0 77 0\ncpu0 1 2 3 4\n";

    #[test]
    fn the_load_is_what_grew_between_two_looks() {
        let mut load = Load::default();
        let (memory, status) = ("MemTotal:  4096 kB\nMemFree: 1 kB\nMemAvailable:  1024 kB\n", "VmRSS:\t  100 kB\n");
        load.take(Sample { turns: vec![(100, 10)], processor: processor(STAT) }, memory, status);
        assert_eq!(load.report(), None);
        let later = processor("cpu  130 0 60 850 60 0 0 0 99 0\n");
        load.take(Sample { turns: vec![(300, 60)], processor: later }, memory, status);
        let expected = LoadReport {
            workers_busy: vec![0.25],
            system_busy: 0.4,
            memory_total: 4 << 20,
            memory_available: 1 << 20,
            process_memory: 100 << 10,
        };
        assert_eq!(load.report(), Some(expected));
    }

    #[test]
    fn a_machine_without_proc_has_no_report_and_nothing_panics() {
        let mut load = Load::default();
        for stat in ["", "cpu", "cpu  1 2", "cpu  a b c d e"] {
            load.take(Sample { turns: vec![], processor: processor(stat) }, "", "");
            assert_eq!(load.report(), None, "{stat:?}");
        }
        assert_eq!(kibibytes("MemTotal: many kB", "MemTotal:"), 0);
    }

    #[test]
    fn this_machine_can_be_read() {
        let mut load = Load::default();
        let counters = WorkerCounters::default();
        load.look(std::iter::once(&counters));
        load.look(std::iter::once(&counters));
        let report = load.report().unwrap();
        assert!(report.memory_total > report.memory_available && report.memory_available > 0, "{report:?}");
        assert!(report.process_memory > 0 && (0.0..=1.0).contains(&report.system_busy), "{report:?}");
    }
}
