//! Budgets of the hot stages in instructions, which callgrind counts alike on every machine.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// How often each stage runs; turns handle as many packets.
pub const CALLS: usize = 4096;
/// Prefixes in the table of the stage that looks them up.
pub const ENTRIES: usize = 10_000;

/// What each stage may cost, from `perf/budgets.toml`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Budgets {
    /// The share above its budget that a stage may have: compilers lay code out differently from build to build.
    pub tolerance: f64,
    /// Instructions a call or packet, by stage.
    pub instructions: BTreeMap<String, f64>,
}

/// The stages by their functions in `jetway-perf-stages`, and what is taken off them.
const STAGES: [(&str, &str, Option<&str>); 9] = [
    ("parse", "stage_parse", None),
    ("parse and verify checksum", "stage_verify_checksum", None),
    ("index decode", "stage_index_decode", None),
    ("replay check", "stage_replay", None),
    ("allowed IPs lookup", "stage_allowed_ips", None),
    ("forward turn", "stage_forward_turn", None),
    ("dispatch turn", "stage_dispatch_turn", None),
    ("decrypt turn beyond the AEAD", "stage_decrypt_turn", Some("stage_open")),
    ("encrypt turn beyond the AEAD", "stage_encrypt_turn", Some("stage_seal")),
];

const HEADING: &str = "# Instructions a packet of the hot stages, as callgrind counts them: `jetway-perf budgets` checks them,\n\
                       # `jetway-perf budgets --update` writes them anew. 64-byte packets, bursts of 32, portable AEAD.\n";

/// What became of a check.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// Every stage is within its budget.
    Kept,
    /// These are not, or have none.
    Exceeded(Vec<String>),
    /// Nothing was counted for want of something.
    Skipped(&'static str),
}

/// Counts the instructions of each stage; `None` without valgrind.
pub fn count(stages: &Path) -> io::Result<Option<BTreeMap<String, f64>>> {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let profile = folder.path().join("callgrind");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", profile.display()));
    let output = command.arg(stages).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{} under valgrind: {}\n{said}", stages.display(), output.status)));
    }
    let mut command = Command::new("callgrind_annotate");
    let output = command.args(["--inclusive=yes", "--threshold=100", "--auto=no"]).arg(&profile).output()?;
    counted(&String::from_utf8_lossy(&output.stdout)).map(Some)
}

/// Instructions a call or packet by stage, of what `callgrind_annotate` says.
fn counted(report: &str) -> io::Result<BTreeMap<String, f64>> {
    let of = |function: &str| {
        let total = report.lines().find_map(|line| inclusive(line, function));
        total.ok_or_else(|| io::Error::other(format!("callgrind has not seen {function}")))
    };
    let stage = |(name, function, less): (&str, &str, Option<&str>)| {
        let less = less.map_or(Ok(0), of)?;
        let instructions = (of(function)? as f64 - less as f64) / CALLS as f64;
        Ok((name.to_owned(), (instructions * 10.0).round() / 10.0))
    };
    STAGES.into_iter().map(stage).collect()
}

/// The instructions of a line `1,234 ( 5.6%)  file.rs:crate::function [object]`, if it is about `function`.
fn inclusive(line: &str, function: &str) -> Option<u64> {
    let (number, rest) = line.trim_start().split_once(' ')?;
    let name = rest.split(" [").next()?.rsplit(':').next()?;
    (name.trim() == function).then(|| number.replace(',', "").parse().ok()).flatten()
}

/// Checks the stages against the budgets in `file`, and says what each costs.
pub fn check(stages: &Path, file: &Path, out: &mut impl Write) -> io::Result<Verdict> {
    let Some(counted) = count(stages)? else { return Ok(Verdict::Skipped("valgrind (Debian package valgrind)")) };
    let text = std::fs::read_to_string(file)?;
    let budgets: Budgets = toml::from_str(&text).map_err(io::Error::other)?;
    compare(&budgets, &counted, out)
}

fn compare(budgets: &Budgets, counted: &BTreeMap<String, f64>, out: &mut impl Write) -> io::Result<Verdict> {
    let mut exceeded = Vec::new();
    for (name, instructions) in counted {
        let (word, budget) = match budgets.instructions.get(name) {
            Some(budget) if *instructions > budget * (1.0 + budgets.tolerance) => ("EXCEEDED", *budget),
            Some(budget) if *instructions < budget * (1.0 - 2.0 * budgets.tolerance) => ("cheaper: update it", *budget),
            Some(budget) => ("kept", *budget),
            None => ("NO BUDGET", f64::NAN),
        };
        writeln!(out, "{name:<32} {instructions:>8.1} instructions, budget {budget:>8.1}: {word}")?;
        if word == "EXCEEDED" || word == "NO BUDGET" {
            exceeded.push(name.clone());
        }
    }
    Ok(if exceeded.is_empty() { Verdict::Kept } else { Verdict::Exceeded(exceeded) })
}

/// Writes what the stages cost now into `file`.
pub fn update(stages: &Path, file: &Path) -> io::Result<Verdict> {
    let Some(instructions) = count(stages)? else { return Ok(Verdict::Skipped("valgrind (Debian package valgrind)")) };
    let budgets = Budgets { tolerance: 0.03, instructions };
    let text = toml::to_string(&budgets).map_err(io::Error::other)?;
    std::fs::write(file, format!("{HEADING}{text}"))?;
    Ok(Verdict::Kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_over_its_budget_or_without_one_is_named() {
        let instructions = |stages: &[(&str, f64)]| stages.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let budgets = Budgets { tolerance: 0.03, instructions: instructions(&[("a", 100.0), ("b", 100.0)]) };
        let compare = |stages: &[(&str, f64)]| compare(&budgets, &instructions(stages), &mut Vec::new()).unwrap();
        assert_eq!(compare(&[("a", 102.9), ("b", 50.0)]), Verdict::Kept);
        let exceeded = Verdict::Exceeded(vec!["b".into(), "c".into()]);
        assert_eq!(compare(&[("a", 100.0), ("b", 103.1), ("c", 1.0)]), exceeded);
    }

    #[test]
    fn inclusive_counts_are_read_from_callgrinds_report() {
        let line = "1,234,567 ( 5.60%)  perf/src/bin/stages.rs:jetway_perf_stages::stage_open [/x/jetway-perf-stages]";
        assert_eq!(inclusive(line, "stage_open"), Some(1_234_567));
        assert_eq!(inclusive(line, "stage_ope"), None);
        assert_eq!(inclusive("PROGRAM TOTALS", "stage_open"), None);
    }

    #[test]
    fn the_kept_budgets_name_the_stages_that_are_counted() {
        let text = include_str!("../budgets.toml");
        let budgets: Budgets = toml::from_str(text).expect("the file of budgets");
        let names: std::collections::BTreeSet<_> = STAGES.iter().map(|(name, _, _)| (*name).to_owned()).collect();
        assert_eq!(budgets.instructions.keys().cloned().collect::<std::collections::BTreeSet<_>>(), names);
    }
}
