//! How busy the node is: its workers, its ports, its machine, its memory, between one look and the next.

use std::path::Path;
use std::time::Duration;

use jetway_pipelines::counters::WorkerCounters;

use crate::api::{LoadReport, PortLoadReport, PortReport};

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
    ports: Vec<PortSample>,
    processor: Option<Processor>,
}

/// What a port counted so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct PortSample {
    name: String,
    /// Packets that got through, and that did not: on their way in, and on their way out.
    received: Passage,
    transmitted: Passage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Passage {
    passed: u64,
    lost: u64,
}

/// The time of all processors so far, in clock ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Processor {
    busy: u64,
    all: u64,
}

impl Load {
    /// Looks at the counters of workers and ports, and at `/proc`.
    pub fn look<'a>(&mut self, workers: impl Iterator<Item = &'a WorkerCounters>, ports: &[PortReport]) {
        // What cannot be read is left out of the report.
        let read = |name: &str| std::fs::read_to_string(Path::new("/proc").join(name)).unwrap_or_default();
        let turns = workers.map(|counters| (counters.turns.get(), counters.busy_turns.get())).collect();
        let ports = ports.iter().map(PortSample::of).collect();
        let sample = Sample { turns, ports, processor: processor(&read("stat")) };
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
            ports: self.last.ports.iter().zip(&last.ports).map(|(now, last)| now.since(last)).collect(),
        });
    }

    /// What the last two looks say; `None` before the second.
    pub fn report(&self) -> Option<LoadReport> {
        self.report.clone()
    }
}

impl PortSample {
    fn of(port: &PortReport) -> Self {
        let came_to_nothing = ["missed_packets", "receive_errors", "no_buffer"];
        // Some drivers count what their queue had no room for as errors, too.
        let transmit_lost = port.lost().max(port.counter("transmit_errors"));
        Self {
            name: port.name.clone(),
            received: Passage {
                passed: port.counter("received_packets"),
                lost: came_to_nothing.iter().map(|name| port.counter(name)).sum(),
            },
            transmitted: Passage { passed: port.counter("transmitted_packets"), lost: transmit_lost },
        }
    }

    fn since(&self, before: &Self) -> PortLoadReport {
        PortLoadReport {
            name: self.name.clone(),
            receive_loss: self.received.loss_since(before.received),
            transmit_loss: self.transmitted.loss_since(before.transmitted),
        }
    }
}

impl Passage {
    fn loss_since(self, before: Self) -> f64 {
        share(self.lost, before.lost, self.passed + self.lost, before.passed + before.lost)
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
    use jetway_engine::port::{PortInfo, PortStatistics};

    use super::*;
    use crate::api::PortLossReport;

    const STAT: &str = "cpu  100 0 50 800 50 0 0 0 77 0\ncpu0 1 2 3 4\n";

    #[test]
    fn the_load_is_what_grew_between_two_looks() {
        let mut load = Load::default();
        let (memory, status) = ("MemTotal:  4096 kB\nMemFree: 1 kB\nMemAvailable:  1024 kB\n", "VmRSS:\t  100 kB\n");
        let sample = |turns, processor| Sample { turns: vec![turns], processor, ..Sample::default() };
        load.take(sample((100, 10), processor(STAT)), memory, status);
        assert_eq!(load.report(), None);
        let later = processor("cpu  130 0 60 850 60 0 0 0 99 0\n");
        load.take(sample((300, 60), later), memory, status);
        let expected = LoadReport {
            workers_busy: vec![0.25],
            system_busy: 0.4,
            memory_total: 4 << 20,
            memory_available: 1 << 20,
            process_memory: 100 << 10,
            ports: vec![],
        };
        assert_eq!(load.report(), Some(expected));
    }

    #[test]
    fn a_port_s_loss_is_the_share_of_packets_that_got_lost_since_the_last_look_by_direction() {
        let port = |missed, queue_full: u64| {
            let statistics = PortStatistics {
                received_packets: 1_000 + 9 * missed,
                missed,
                transmitted_packets: 500 + 3 * queue_full,
                // As net_tap counts them: again.
                transmit_errors: queue_full,
                ..PortStatistics::default()
            };
            let losses = PortLossReport { worker: 0, transmit_queue_full: queue_full - 1, handoff_queue_full: 1 };
            PortReport { losses: vec![losses], ..PortReport::new("wan", "jw-wan", &info(), "up", statistics) }
        };
        let mut load = Load::default();
        load.look(std::iter::empty(), &[port(50, 20)]);
        load.look(std::iter::empty(), &[port(60, 40)]);
        let loss = PortLoadReport { name: "wan".to_owned(), receive_loss: 0.1, transmit_loss: 0.25 };
        assert_eq!(load.report().unwrap().ports, [loss]);
        // Nothing was lost since.
        load.look(std::iter::empty(), &[port(60, 40)]);
        let none = PortLoadReport { name: "wan".to_owned(), receive_loss: 0.0, transmit_loss: 0.0 };
        assert_eq!(load.report().unwrap().ports, [none]);
    }

    fn info() -> PortInfo {
        PortInfo {
            mac: [2, 0, 0, 0, 0, 1],
            driver: "net_ring".to_owned(),
            queues: 1,
            transmit_l4_checksum: false,
            receive_checksum: false,
            receive_side_scaling: false,
            numa_node: None,
        }
    }

    #[test]
    fn a_machine_without_proc_has_no_report_and_nothing_panics() {
        let mut load = Load::default();
        for stat in ["", "cpu", "cpu  1 2", "cpu  a b c d e"] {
            load.take(Sample { processor: processor(stat), ..Sample::default() }, "", "");
            assert_eq!(load.report(), None, "{stat:?}");
        }
        assert_eq!(kibibytes("MemTotal: many kB", "MemTotal:"), 0);
    }

    #[test]
    fn this_machine_can_be_read() {
        let mut load = Load::default();
        let counters = WorkerCounters::default();
        load.look(std::iter::once(&counters), &[]);
        load.look(std::iter::once(&counters), &[]);
        let report = load.report().unwrap();
        assert!(report.memory_total > report.memory_available && report.memory_available > 0, "{report:?}");
        assert!(report.process_memory > 0 && (0.0..=1.0).contains(&report.system_busy), "{report:?}");
    }
}
