//! The command `jetway-perf`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use jetway_aead::Backend;
use jetway_engine::dpdk::device::Device;
use jetway_engine::heap::HugePageHeap;
use jetway_perf::result::{Part, Results};
use jetway_perf::rfc2544::Site;
use jetway_perf::sample::{Effort, SETTLING};
use jetway_perf::suite::{self, Suite};
use jetway_perf::traffic::Size;
use jetway_perf::{
    acceptance, aead, budgets, compare, engine, generator, plot, probes, process, publish, rfc2544, scale, sink,
    under_test,
};

/// As the process `jetway` has it.
#[global_allocator]
static HEAP: HugePageHeap = HugePageHeap;

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
    /// The AEAD backend that Jetway uses (avx512, aws-lc, rustcrypto), as on a CPU that has no better one.
    #[arg(long, global = true, value_name = "BACKEND")]
    aead: Option<Backend>,
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
    /// Two workers beside one.
    Workers,
    /// RFC 2544 through devices: the engine, and testpmd beside it, with a generator on another core.
    Pktgen {
        /// The generator's core.
        #[arg(long, default_value_t = 0)]
        generator_core: usize,
        /// Seconds that a trial sends.
        #[arg(long, default_value_t = 0.5)]
        trial: f64,
        /// The engine's devices towards clients and towards servers, such as PCI addresses; net_memif if none is named.
        #[arg(long, num_args = 2, requires = "generator_devices")]
        devices: Vec<String>,
        /// The generator's devices, cabled to those.
        #[arg(long, num_args = 2, requires = "devices")]
        generator_devices: Vec<String>,
    },
    /// The process with the engine that `pktgen` starts.
    UnderTest {
        /// Towards clients.
        #[arg(long)]
        wan: Device,
        /// Towards servers.
        #[arg(long)]
        lan: Device,
    },
    /// The generator that `pktgen` starts: it reads orders, a line of JSON each.
    Generator {
        /// Towards the engine's side of clients.
        #[arg(long)]
        wan: Device,
        /// Towards the engine's side of servers.
        #[arg(long)]
        lan: Device,
        /// Which of both it sends to: `decrypt` sends as a client does.
        #[arg(long, value_enum)]
        direction: engine::Direction,
        /// The inner packets' size.
        #[arg(long)]
        size: Size,
    },
    /// The process that `pktgen` starts to take packets away: it reads orders, a number of seconds each.
    Sink {
        /// Where packets come.
        #[arg(long)]
        device: Device,
    },
    /// Checks the hot stages against their budgets in instructions; fails if one is exceeded.
    Budgets {
        /// Writes the budgets anew instead.
        #[arg(long)]
        update: bool,
        /// Where they are.
        #[arg(long, default_value = "perf/budgets.toml")]
        file: PathBuf,
        /// A `jetway-perf-stages` of a release build; by default the one beside this program.
        #[arg(long)]
        stages: Option<PathBuf>,
    },
    /// The parts of a packet's way, each alone.
    Micro,
    /// Handshakes a second beside boringtun, their parts, and what packets notice of them.
    Handshakes,
    /// What health checks of many servers take of a core.
    Probes {
        /// How many servers.
        #[arg(long, default_value_t = 10_000)]
        servers: u32,
    },
    /// Everything that needs no namespace.
    All {
        /// Seconds after which no further pass begins.
        #[arg(long, default_value_t = 600)]
        within: u64,
    },
    /// Says what got slower between two runs, beyond noise; fails if something did.
    Compare {
        /// Results of the earlier run.
        before: PathBuf,
        /// Results of the later run.
        after: PathBuf,
    },
    /// Adds the rows of one file of results to another.
    Merge {
        /// The results that get them.
        into: PathBuf,
        /// The results that have them.
        from: PathBuf,
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
    if let Some(error) = global.aead.and_then(|backend| aead::choose(backend).err()) {
        eprintln!("jetway-perf: {error}");
        return ExitCode::FAILURE;
    }
    let line: Vec<_> = std::env::args().skip(1).collect();
    let mut results = Results::new(format!("jetway-perf {}", line.join(" ")));
    let effort = Effort { rounds: global.rounds.max(1), pieces: global.pieces.max(1), settling: SETTLING };
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
        Command::Merge { into, from } => {
            let (mut results, more) = (Results::read_json(&into)?, Results::read_json(&from)?);
            results.command = format!("{}; {}", results.command, more.command);
            results.rows.extend(more.rows);
            results.quantities.extend(more.quantities);
            results.unmeasured.extend(more.unmeasured);
            results.write_json(&mut File::create(into)?)?;
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
        Command::UnderTest { wan, lan } => under_test::run(global.core, [wan, lan])?,
        Command::Generator { wan, lan, direction, size } => {
            generator::run(global.core, [wan, lan], direction, size)?;
        }
        Command::Sink { device } => sink::run(global.core, device)?,
        Command::Budgets { update, file, stages } => {
            let stages = match stages {
                Some(stages) => stages,
                None => std::env::current_exe()?.with_file_name("jetway-perf-stages"),
            };
            let verdict = match update {
                true => budgets::update(&stages, &file)?,
                false => budgets::check(&stages, &file, &mut io::stdout().lock())?,
            };
            match verdict {
                budgets::Verdict::Kept => {}
                budgets::Verdict::Exceeded(stages) => {
                    eprintln!("jetway-perf: over budget: {}", stages.join(", "));
                    return Ok(ExitCode::FAILURE);
                }
                budgets::Verdict::Skipped(lacking) => eprintln!("SKIPPED: instruction budgets need {lacking}"),
            }
        }
        measurement => {
            measure(measurement, global, effort, results)?;
            acceptance::judge(results);
            show(results, global)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(command: Command, global: &Global, effort: Effort, results: &mut Results) -> io::Result<()> {
    let in_turns = |suite, results: &mut Results| take_turns(&[suite], global, effort, Duration::MAX, results);
    match command {
        // They have threads of their own, which the kernel shall spread.
        Command::Scale { peers } => results.extend(scale::measure(peers)),
        Command::Probes { servers } => results.extend(probes::measure(servers)?),
        Command::Process { peers, jetway } => results.extend(process::measure(&jetway, peers)?),
        Command::Engine { vary } => in_turns(Suite::Engine(vary), results)?,
        Command::Dispatch => in_turns(Suite::Dispatch, results)?,
        Command::Dpdk => in_turns(Suite::Dpdk, results)?,
        Command::Workers => in_turns(Suite::Workers, results)?,
        Command::Micro => in_turns(Suite::Micro, results)?,
        Command::Handshakes => in_turns(Suite::Handshakes, results)?,
        Command::Pktgen { generator_core, trial, devices, generator_devices } => {
            let pair = |names: Vec<String>| <[String; 2]>::try_from(names).ok();
            let devices = pair(devices).zip(pair(generator_devices)).map(|(engine, generator)| [engine, generator]);
            let site = Site { core: global.core, generator_core, devices, seconds: trial };
            results.extend(rfc2544::measure(&site)?);
        }
        Command::All { within } => all(global, effort, Duration::from_secs(within), results)?,
        // `run` sees to what measures nothing.
        Command::Compare { .. }
        | Command::Merge { .. }
        | Command::Plot { .. }
        | Command::Publish { .. }
        | Command::UnderTest { .. }
        | Command::Generator { .. }
        | Command::Sink { .. }
        | Command::Budgets { .. } => {}
    }
    Ok(())
}

/// Everything, within what `make perf` has for it. What starts threads of its own comes before this one is bound to a core.
fn all(global: &Global, effort: Effort, within: Duration, results: &mut Results) -> io::Result<()> {
    let begun = Instant::now();
    let mut part = |name: &str, measure: &mut dyn FnMut() -> io::Result<Part>| {
        if begun.elapsed() > within {
            results.lacks(name, &format!("time: {} s were over", within.as_secs()));
            return Ok(());
        }
        match measure() {
            Ok(part) => results.extend(part),
            Err(error) => results.lacks(name, &format!("something that works: {error}")),
        }
        eprintln!("{name}: done after {} s", begun.elapsed().as_secs());
        // If this is interrupted, what is known by then is kept.
        write_json(results, global)
    };
    part("scale", &mut || Ok(scale::measure(100_000)))?;
    part("probes", &mut || probes::measure(10_000))?;
    part("pktgen", &mut || pktgen_on_memif(global.core))?;
    let groups = Suite::groups();
    for (number, suites) in groups.iter().enumerate() {
        let left = within.saturating_sub(begun.elapsed()) / (groups.len() - number) as u32;
        take_turns(suites, global, effort, left, results)?;
    }
    Ok(())
}

/// Measures these suites, and adds to `results` what they found.
fn take_turns(
    suites: &[Suite],
    global: &Global,
    effort: Effort,
    within: Duration,
    results: &mut Results,
) -> io::Result<()> {
    let before = results.clone();
    suite::measure(suites, global.core, effort, within, |part| {
        *results = before.clone();
        results.extend(part);
        // If this is interrupted, what is known by then is kept.
        write_json(results, global)
    })
}

/// RFC 2544 with trials as short as this run has to have them, if there is another core for the generator.
fn pktgen_on_memif(core: usize) -> io::Result<Part> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    match cores.into_iter().map(|core| core.id).find(|other| *other != core) {
        Some(generator_core) => rfc2544::measure(&Site { core, generator_core, devices: None, seconds: 0.3 }),
        None => {
            let mut part = Part::default();
            part.lacks("RFC 2544 through devices", "a second core");
            Ok(part)
        }
    }
}

fn show(results: &Results, global: &Global) -> io::Result<()> {
    results.write_table(&mut io::stdout().lock())?;
    write_json(results, global)
}

fn write_json(results: &Results, global: &Global) -> io::Result<()> {
    let Some(path) = &global.json else { return Ok(()) };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    results.write_json(&mut File::create(path)?)
}
