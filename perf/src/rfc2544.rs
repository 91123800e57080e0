//! RFC 2544 on a device under test between two devices, with a generator on another core: throughput, latency, back-to-back.
//!
//! ```text
//!   core b: generator ══ net_memif ══ WAN  jetway or testpmd  LAN ══ net_memif ══ generator     (one process)
//!                                          core a
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::engine::Direction;
use crate::generator::{Order, PERCENTILES, Report};
use crate::result::{Part, Quantity, Row};
use crate::search::{Outcome, Search};
use crate::system;
use crate::testpmd::{self, Testpmd};
use crate::traffic::Size;

/// What the measurement needs to know of the machine.
pub struct Site {
    /// The core of the device under test.
    pub core: usize,
    /// The generator's.
    pub generator_core: usize,
    /// Devices of the device under test and of the generator, towards clients and towards servers; joined by net_memif if none.
    pub devices: Option<[[String; 2]; 2]>,
    /// How long a trial sends.
    pub seconds: f64,
}

/// The share that may be lost at the partial drop rate, as FD.io's CSIT has it.
const PARTIAL_DROP: f64 = 0.005;
/// The searches end when their bounds are within this share of each other.
const PRECISION: f64 = 0.02;
/// Below this share of its core, a process was disturbed.
const FREE: f64 = 0.97;
const SIZES: [Size; 3] = [Size::Fixed(64), Size::Fixed(1420), Size::Imix];

/// The device under test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Subject {
    Jetway(Direction),
    Testpmd,
}

/// Measures the engine in both directions, and testpmd's forwarding on the same devices.
pub fn measure(site: &Site) -> io::Result<Part> {
    let mut part = Part::default();
    let version = testpmd::version();
    if version.is_none() {
        part.lacks("testpmd beside the engine on devices", testpmd::MISSING);
    }
    for size in SIZES {
        for subject in [Subject::Jetway(Direction::Encrypt), Subject::Jetway(Direction::Decrypt), Subject::Testpmd] {
            let (peer, scenario) = match (subject, &version) {
                (Subject::Jetway(direction), _) => ("jetway".to_owned(), direction.name()),
                (Subject::Testpmd, Some(version)) => (format!("testpmd {version}"), "io"),
                (Subject::Testpmd, None) => continue,
            };
            eprintln!("pktgen: {scenario} {}, {peer}", size.name());
            let mut bench = Bench::start(site, subject, size)?;
            let names = Names { peer, scenario, size };
            let before = bench.cpu_times();
            let begun = Instant::now();
            bench.measure(site, &names, &mut part)?;
            let share = bench.share_of_cores(before, begun.elapsed());
            if share < FREE {
                let (what, taken) = (names.what(), (1.0 - share) * 100.0);
                part.lacks(&format!("{what} undisturbed"), &format!("a free core: others had {taken:.0} % of one"));
            }
        }
    }
    Ok(part)
}

/// As what the figures of a subject are told.
struct Names {
    peer: String,
    scenario: &'static str,
    size: Size,
}

impl Names {
    fn what(&self) -> String {
        format!("{} {}, {}", self.scenario, self.size.name(), self.peer)
    }
}

/// A device under test with its generator. The order of the fields is that in which they end: net_memif's server must not be
/// polled when its client goes, so the device under test goes first.
struct Bench {
    subject: Running,
    generator: Process,
    _sockets: tempfile::TempDir,
}

/// What runs between the devices until it is dropped.
enum Running {
    Jetway(Process),
    Testpmd(Testpmd),
}

impl Running {
    fn id(&self) -> u32 {
        match self {
            Self::Jetway(process) => process.child.id(),
            Self::Testpmd(process) => process.id(),
        }
    }
}

impl Bench {
    fn start(site: &Site, subject: Subject, size: Size) -> io::Result<Self> {
        let sockets = tempfile::tempdir()?;
        let [devices, generators] = match &site.devices {
            Some(devices) => devices.clone(),
            None => ["server", "client"].map(|role| memif(role, sockets.path())),
        };
        let running = match subject {
            Subject::Jetway(_) => {
                let mut arguments = vec!["under-test".to_owned(), format!("--core={}", site.core)];
                arguments.extend(named(&devices));
                Running::Jetway(Process::start(&arguments)?)
            }
            Subject::Testpmd => {
                let mut testpmd = Testpmd::start(site.core, &devices, &["--forward-mode=io", "--stats-period=2"])?;
                testpmd.wait_until_it_forwards()?;
                Running::Testpmd(testpmd)
            }
        };
        let direction = match subject {
            Subject::Jetway(direction) => direction,
            Subject::Testpmd => Direction::Encrypt,
        };
        let mut arguments = vec!["generator".to_owned(), format!("--core={}", site.generator_core)];
        arguments.extend(named(&generators));
        arguments.extend([format!("--direction={}", direction.name()), format!("--size={}", size.name())]);
        Ok(Self { subject: running, generator: Process::start(&arguments)?, _sockets: sockets })
    }

    /// The CPU times of the device under test and of the generator: both poll, and the latter waits only for its orders.
    fn cpu_times(&self) -> [Duration; 2] {
        [self.subject.id(), self.generator.child.id()].map(|id| system::cpu_time(id).unwrap_or_default())
    }

    /// The least share of its core that one of both had during `time`.
    fn share_of_cores(&self, before: [Duration; 2], time: Duration) -> f64 {
        let used = self.cpu_times().into_iter().zip(before).map(|(after, before)| after.saturating_sub(before));
        used.map(|used| used.as_secs_f64() / time.as_secs_f64()).fold(f64::INFINITY, f64::min)
    }

    fn measure(&mut self, site: &Site, names: &Names, part: &mut Part) -> io::Result<()> {
        let Names { peer, scenario, size } = names;
        let what = names.what();
        // The first warms up.
        self.trial(None, u64::MAX, site.seconds)?;
        let full = self.trial(None, u64::MAX, site.seconds)?;
        let (offered, forwarded) = (full.offered as f64 / full.seconds, full.received as f64 / full.until_last);
        if forwarded <= 0.0 {
            return Err(io::Error::other(format!("{what}: nothing came through")));
        }
        let (no_drop, partial) = if Outcome::of(full.offered, full.received, 0.0) == Outcome::Passed {
            part.lacks(&format!("{what}: more than {offered:.0} packets a second"), "a faster generator");
            (offered, offered)
        } else {
            // What is refused at full load costs the device too, so without it more may pass; twice as much never does.
            let limit = offered.min(forwarded * 2.0);
            let no_drop = self.search(0.0, limit, 0.0, site)?;
            (no_drop, self.search(no_drop, limit, PARTIAL_DROP, site)?)
        };
        for (name, rate) in [("NDR", no_drop), ("PDR", partial), ("at full load", forwarded)] {
            let row = Row::new(format!("throughput {scenario} {name}"), peer, 1e9 / rate, PRECISION);
            part.rows.push(row.size(size.name(), size.mean()).flows(1, None));
        }
        self.latency(no_drop / 2.0, site, &what, part)?;
        let most = (offered * site.seconds).floor();
        let burst = Search::between(0.0, most, 0.05).run(|packets| {
            let report = self.trial(None, packets as u64, f64::MAX)?;
            Ok(Outcome::of(report.offered, report.received, 0.0))
        })?;
        part.quantities.push(Quantity::new(format!("back-to-back, {what}"), burst.floor(), "packets"));
        Ok(())
    }

    fn latency(&mut self, rate: f64, site: &Site, what: &str, part: &mut Part) -> io::Result<()> {
        for _ in 0..3 {
            let Some(latency) = self.trial(Some(rate), u64::MAX, site.seconds * 2.0)?.latency else { continue };
            for ((name, _), microseconds) in PERCENTILES.into_iter().zip(latency) {
                part.quantities.push(Quantity::new(format!("latency at half NDR, {what}: {name}"), microseconds, "us"));
            }
            return Ok(());
        }
        part.lacks(&format!("latency at half NDR, {what}"), "a machine that keeps a third of a second to itself");
        Ok(())
    }

    fn search(&mut self, passed: f64, failed: f64, tolerated: f64, site: &Site) -> io::Result<f64> {
        Search::between(passed, failed, PRECISION).run(|rate| {
            // A machine that others use too takes the core away for longer than a queue lasts: what fails is tried again.
            for _ in 0..2 {
                let report = self.trial(Some(rate), u64::MAX, site.seconds)?;
                // A generator that cannot keep the rate shows nothing of the rate.
                let kept = report.offered as f64 >= rate * report.seconds * 0.99;
                if kept && Outcome::of(report.offered, report.received, tolerated) == Outcome::Passed {
                    return Ok(Outcome::Passed);
                }
            }
            Ok(Outcome::Failed)
        })
    }

    fn trial(&mut self, rate: Option<f64>, packets: u64, seconds: f64) -> io::Result<Report> {
        let order = serde_json::to_string(&Order { rate, packets, seconds })?;
        Ok(serde_json::from_str(&self.generator.ask(&order)?)?)
    }
}

/// Two memif devices whose other ends have the other role.
fn memif(role: &str, folder: &Path) -> [String; 2] {
    [(0, "wan"), (1, "lan")].map(|(number, name)| {
        let socket = folder.join(name);
        format!("net_memif{number},role={role},id=0,bsize=2048,rsize=13,socket={},socket-abstract=no", socket.display())
    })
}

fn named([wan, lan]: &[String; 2]) -> [String; 2] {
    [format!("--wan={wan}"), format!("--lan={lan}")]
}

/// This program again, as another process; it ends when its standard input does.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it, and waits until it is ready.
    fn start(arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = BufReader::new(output.ok_or_else(|| io::Error::other("a process without output"))?);
        let mut process = Self { child, input, output };
        match process.line()?.as_str() {
            "ready" => Ok(process),
            other => Err(io::Error::other(format!("`{}` says \"{other}\"", arguments.join(" ")))),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.output.read_line(&mut line)? {
            0 => Err(io::Error::other("a process of the measurement has ended")),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn ask(&mut self, question: &str) -> io::Result<String> {
        if let Some(input) = &mut self.input {
            writeln!(input, "{question}")?;
            input.flush()?;
        }
        self.line()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        // How it ended, it has said itself.
        let _ = self.child.wait();
    }
}
