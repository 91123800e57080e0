//! Results as rows: a table for people, JSON with stable keys for programs.

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::system;

/// Packets that go together where nothing else is said.
pub const USUAL_BURST: usize = 32;

/// One figure. Keys of the JSON are stable; a key without a meaning for a row is `null`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What was done, such as `decrypt`.
    pub scenario: String,
    /// Bytes of the (inner) IP packet, `imix`, or empty.
    pub size: String,
    /// Packets that went together.
    pub burst: Option<usize>,
    /// How many peers, in random order, or entries of a table.
    pub flows: Option<usize>,
    /// Who did it: `jetway`, or a peer beside which it is measured.
    pub peer: String,
    /// Nanoseconds a packet, or for an operation.
    pub ns_per_packet: f64,
    /// Millions of packets or operations a second.
    pub mpps: f64,
    /// Gigabits of (inner) IP packets a second.
    pub gbps: Option<f64>,
    /// This row's time by Jetway's in the same rounds: above 1, Jetway is so many times as fast.
    pub ratio: Option<f64>,
    /// Distance of the quartiles over the rounds, as a share of the median.
    pub spread: f64,
}

impl Row {
    /// A row of `nanoseconds` for each thing that `peer` did.
    pub fn new(scenario: impl Into<String>, peer: &str, nanoseconds: f64, spread: f64) -> Self {
        Self {
            scenario: scenario.into(),
            size: String::new(),
            burst: None,
            flows: None,
            peer: peer.to_owned(),
            ns_per_packet: nanoseconds,
            mpps: if nanoseconds > 0.0 { 1e3 / nanoseconds } else { 0.0 },
            gbps: None,
            ratio: None,
            spread,
        }
    }

    /// With the packets' name for their size, and their mean length in bytes.
    pub fn size(mut self, name: impl Into<String>, mean_bytes: f64) -> Self {
        self.size = name.into();
        self.gbps = (self.ns_per_packet > 0.0).then(|| mean_bytes * 8.0 / self.ns_per_packet);
        self
    }

    /// With the number of flows, and of packets that go together.
    pub fn flows(mut self, flows: usize, burst: Option<usize>) -> Self {
        (self.flows, self.burst) = (Some(flows), burst);
        self
    }
}

/// A quantity that is no time per packet, such as memory, with the goal it has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Quantity {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// In what.
    pub unit: String,
    /// What it should not pass.
    pub goal: Option<f64>,
    /// On which side of the goal it should be.
    #[serde(default)]
    pub better: Better,
}

/// Which way a quantity gets better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// By shrinking.
    #[default]
    Less,
    /// By growing.
    More,
}

impl Quantity {
    /// A quantity without a goal.
    pub fn new(name: impl Into<String>, value: f64, unit: &str) -> Self {
        Self { name: name.into(), value, unit: unit.to_owned(), goal: None, better: Better::Less }
    }

    /// The same with a goal that it should not exceed.
    pub fn at_most(mut self, goal: f64) -> Self {
        (self.goal, self.better) = (Some(goal), Better::Less);
        self
    }

    /// The same with a goal that it should reach.
    pub fn at_least(mut self, goal: f64) -> Self {
        (self.goal, self.better) = (Some(goal), Better::More);
        self
    }

    /// Whether it is on the right side of its goal; `None` without one.
    pub fn is_met(&self) -> Option<bool> {
        self.goal.map(|goal| match self.better {
            Better::Less => self.value <= goal,
            Better::More => self.value >= goal,
        })
    }
}

/// Everything that a run found out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// The CPU.
    pub cpu: String,
    /// The AEAD that Jetway chose on it.
    pub aead: String,
    /// The commit of the sources.
    pub commit: String,
    /// The command that makes the same again.
    pub command: String,
    /// Times.
    pub rows: Vec<Row>,
    /// Other quantities.
    pub quantities: Vec<Quantity>,
    /// What this machine could not measure, and what it lacks.
    #[serde(default)]
    pub unmeasured: Vec<String>,
}

impl Results {
    /// No results yet of `command` on this machine.
    pub fn new(command: String) -> Self {
        let aead = crate::aead::chosen().backend().name().to_owned();
        Self { cpu: system::cpu(), aead, commit: system::commit(), command, ..Self::default() }
    }

    /// Appends what another part found.
    pub fn extend(&mut self, part: Part) {
        self.rows.extend(part.rows);
        self.quantities.extend(part.quantities);
        self.unmeasured.extend(part.unmeasured);
    }

    /// Notes that `what` could not be measured, because this machine lacks `lacking`.
    pub fn lacks(&mut self, what: &str, lacking: &str) {
        self.unmeasured.push(lack(what, lacking));
    }

    /// Reads what [`Results::write_json`] wrote.
    pub fn read_json(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        serde_json::from_str(&text).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
    }

    /// The only row with these properties, if there is one.
    pub fn row(&self, scenario: &str, size: &str, flows: Option<usize>, peer: &str) -> Option<&Row> {
        let usual = |row: &Row| row.burst.is_none_or(|burst| burst == USUAL_BURST);
        let matches = |row: &&Row| {
            row.scenario == scenario && row.size == size && row.flows == flows && row.peer == peer && usual(row)
        };
        self.rows.iter().find(matches)
    }

    /// Writes JSON: each row carries the CPU and the commit too, so that rows can be taken out of their file.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        #[derive(Serialize)]
        struct Full<'a> {
            #[serde(flatten)]
            row: &'a Row,
            cpu: &'a str,
            commit: &'a str,
        }
        let rows: Vec<_> = self.rows.iter().map(|row| Full { row, cpu: &self.cpu, commit: &self.commit }).collect();
        let all = serde_json::json!({
            "cpu": self.cpu, "aead": self.aead, "commit": self.commit, "command": self.command,
            "rows": rows, "quantities": self.quantities, "unmeasured": self.unmeasured,
        });
        serde_json::to_writer_pretty(&mut *out, &all)?;
        writeln!(out)
    }

    /// Writes a table for people.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}, AEAD {}, commit {}\n{}\n", self.cpu, self.aead, self.commit, self.command)?;
        if !self.rows.is_empty() {
            writeln!(
                out,
                "{:<34} {:>5} {:>5} {:>8} {:<22} {:>9} {:>8} {:>7} {:>6} {:>7}",
                "scenario", "size", "burst", "flows", "peer", "ns", "Mpps", "Gbit/s", "ratio", "spread"
            )?;
        }
        let text = |value: Option<usize>| value.map_or(String::new(), |value| value.to_string());
        let decimals = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        for row in &self.rows {
            let (burst, flows) = (text(row.burst), text(row.flows));
            let (gbps, ratio) = (decimals(row.gbps), decimals(row.ratio));
            writeln!(
                out,
                "{:<34} {:>5} {burst:>5} {flows:>8} {:<22} {:>9.1} {:>8.3} {gbps:>7} {ratio:>6} {:>6.1}%",
                row.scenario,
                row.size,
                row.peer,
                row.ns_per_packet,
                row.mpps,
                row.spread * 100.0,
            )?;
        }
        for quantity in &self.quantities {
            let side = match quantity.better {
                Better::Less => "at most",
                Better::More => "at least",
            };
            let goal = match (quantity.goal, quantity.is_met()) {
                (Some(goal), Some(true)) => format!("(goal: {side} {goal}: met)"),
                (Some(goal), _) => format!("(goal: {side} {goal}: MISSED)"),
                (None, _) => String::new(),
            };
            writeln!(out, "{:<72} {:>12.3} {:<6} {goal}", quantity.name, quantity.value, quantity.unit)?;
        }
        for line in &self.unmeasured {
            writeln!(out, "NOT MEASURED: {line}")?;
        }
        Ok(())
    }
}

/// What one part of a run found out.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Times.
    pub rows: Vec<Row>,
    /// Other quantities.
    pub quantities: Vec<Quantity>,
    /// What could not be measured, and what for the want of.
    pub unmeasured: Vec<String>,
}

impl Part {
    /// Notes that `what` could not be measured, because this machine lacks `lacking`.
    pub fn lacks(&mut self, what: &str, lacking: &str) {
        self.unmeasured.push(lack(what, lacking));
    }

    /// Appends what another part found.
    pub fn extend(&mut self, part: Self) {
        self.rows.extend(part.rows);
        self.quantities.extend(part.quantities);
        self.unmeasured.extend(part.unmeasured);
    }
}

fn lack(what: &str, lacking: &str) -> String {
    format!("{what} (lacking: {lacking})")
}
