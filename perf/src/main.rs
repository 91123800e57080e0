//! The command `jetway-perf`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use jetway_perf::result::Results;
use jetway_perf::sample::Effort;
use jetway_perf::{
    acceptance, compare, dispatch, dpdk, engine, handshakes, micro, plot, process, publish, scale, system,
};

/// Measures Jetway, beside other implementations where there are any, in one run on one core.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Args)]
struct Global {
    /// Writes the results as JSON to this file too.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The core on which everything is measured.
    #[arg(long, global = true, default_value_t = 1)]
    core: usize,
    /// Rounds of each comparison: more take longer and say more.
    #[arg(long, global = true, default_value_t = 15)]
    rounds: usize,
    /// Pieces of work (mostly bursts) in a round, whose median is the round's figure.
    #[arg(long, global = true, default_value_t = 64)]
    pieces: usize,
}

#[derive(Subcommand)]
enum Command {
    /// What a node holds for many configured peers, and what adding one costs.
    Scale {
        /// How many peers.
        #[arg(long, default_value_t = 100_000)]
        peers: usize,
    },
    /// The same with the process `jetway`, in a network namespace of its own (needs root).
    Process {
        /// How many peers.
        #[arg(long, default_value_t = 100_000)]
        peers: usize,
        /// The binary to measure.
        #[arg(long, default_value = "target/release/jetway")]
        jetway: PathBuf,
    },
    /// Whole turns of a worker beside boringtun and gotatun.
    Engine {
        /// Only what differs in size, burst, or number of peers; all of them without this.
        #[arg(long, value_enum)]
        vary: Option<engine::Vary>,
    },
    /// Whole turns of a worker that dispatches a service's packets to its servers.
    Dispatch,
    /// Whole turns on DPDK ports in memory, above testpmd's own forwarding.
    Dpdk,
    /// The parts of a packet's way, each alone.
    Micro,
    /// Handshakes a second beside boringtun, their parts, and what packets notice of them.
    Handshakes,
    /// Everything that needs no root.
    All,
    /// Says what got slower between two runs, beyond noise; fails if something did.
    Compare {
        /// Results of the earlier run.
        before: PathBuf,
        /// Results of the later run.
        after: PathBuf,
    },
    /// Draws results as SVG files beside their own.
    Plot {
        /// The results.
        results: PathBuf,
    },
    /// Keeps results as the newest known of their CPU, and writes them into the README.
    Publish {
        /// The results.
        results: PathBuf,
        /// The folder of the checkout.
        #[arg(long, default_value = ".")]
        root: PathBuf,
    },
}

fn main() -> ExitCode {
    let Arguments { command, global } = Arguments::parse();
    let line: Vec<_> = std::env::args().skip(1).collect();
    let mut results = Results::new(format!("jetway-perf {}", line.join(" ")));
    let effort = Effort { rounds: global.rounds.max(1), pieces: global.pieces.max(1) };
    match run(command, &global, effort, &mut results) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("jetway-perf: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, global: &Global, effort: Effort, results: &mut Results) -> io::Result<ExitCode> {
    match command {
        Command::Compare { before, after } => {
            let comparison = compare::compare(&Results::read_json(&before)?, &Results::read_json(&after)?);
            comparison.write(&mut io::stdout().lock())?;
            return Ok(if comparison.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Plot { results } => {
            let folder = results.parent().unwrap_or(Path::new("."));
            let stem = results.file_stem().unwrap_or_default().to_string_lossy();
            for file in plot::draw(&Results::read_json(&results)?, folder, &stem)? {
                println!("{}", file.display());
            }
        }
        Command::Publish { results, root } => {
            let results = Results::read_json(&results)?;
            publish::publish(&results, &root.join("perf/results"), &root.join("README.md"))?;
        }
        measurement => {
            measure(measurement, global, effort, results)?;
            let goals = acceptance::goals(results);
            results.quantities.extend(goals);
            show(results, global)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(command: Command, global: &Global, effort: Effort, results: &mut Results) -> io::Result<()> {
    let pinned = || {
        if !system::pin(global.core) {
            eprintln!("jetway-perf: cannot pin to core {}: contestants may be moved between cores", global.core);
        }
    };
    match command {
        // It has threads of its own, which the kernel shall spread.
        Command::Scale { peers } => results.extend(scale::measure(peers)),
        Command::Process { peers, jetway } => results.extend(process::measure(&jetway, peers)?),
        Command::Engine { vary } => {
            pinned();
            results.extend(engine::measure(vary, effort));
        }
        Command::Dispatch => {
            pinned();
            results.extend(dispatch::measure(effort));
        }
        Command::Dpdk => {
            pinned();
            results.extend(dpdk::measure(global.core, effort)?);
        }
        Command::Micro => {
            pinned();
            results.extend(micro::measure(effort));
        }
        Command::Handshakes => {
            pinned();
            results.extend(handshakes::measure(effort, global.core));
        }
        Command::All => {
            results.extend(scale::measure(100_000));
            pinned();
            results.extend(micro::measure(effort));
            results.extend(handshakes::measure(effort, global.core));
            results.extend(engine::measure(None, effort));
            results.extend(dispatch::measure(effort));
        }
        // `run` sees to what measures nothing.
        Command::Compare { .. } | Command::Plot { .. } | Command::Publish { .. } => {}
    }
    Ok(())
}

fn show(results: &Results, global: &Global) -> io::Result<()> {
    results.write_table(&mut io::stdout().lock())?;
    let Some(path) = &global.json else { return Ok(()) };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    results.write_json(&mut File::create(path)?)
}
