//! The command `jetway-perf`.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use jetway_perf::result::Results;
use jetway_perf::sample::Effort;
use jetway_perf::{dispatch, engine, handshakes, micro, process, scale, system};

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
    /// Whole turns of a worker beside boringtun.
    Engine {
        /// Only what differs in size, burst, or number of peers; all of them without this.
        #[arg(long, value_enum)]
        vary: Option<engine::Vary>,
    },
    /// Whole turns of a worker that dispatches a service's packets to its servers.
    Dispatch,
    /// The parts of a packet's way, each alone.
    Micro,
    /// Handshakes a second.
    Handshakes,
    /// Everything that needs no root.
    All,
}

fn main() -> ExitCode {
    let Arguments { command, global } = Arguments::parse();
    let line: Vec<_> = std::env::args().skip(1).collect();
    let mut results = Results::new(format!("jetway-perf {}", line.join(" ")));
    let effort = Effort { rounds: global.rounds.max(1), pieces: global.pieces.max(1) };
    match run(command, &global, effort, &mut results).and_then(|()| show(&results, &global)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jetway-perf: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, global: &Global, effort: Effort, results: &mut Results) -> io::Result<()> {
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
        Command::Micro => {
            pinned();
            results.extend(micro::measure(effort));
        }
        Command::Handshakes => {
            pinned();
            results.extend(handshakes::measure(effort));
        }
        Command::All => {
            results.extend(scale::measure(100_000));
            pinned();
            results.extend(micro::measure(effort));
            results.extend(handshakes::measure(effort));
            results.extend(engine::measure(None, effort));
            results.extend(dispatch::measure(effort));
        }
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
