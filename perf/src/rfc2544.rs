//! RFC 2544 on a device under test between two devices, with a generator on another core: throughput, latency, back-to-back.
//!
//! ```text
//!   core b: generator ══ net_memif ══ WAN  jetway or testpmd  LAN ══ net_memif ══ generator     (one process)
//!                                          core a
//! ```

use std::io;
use std::time::Duration;

use crate::engine::Direction;
use crate::generator::{Order, PERCENTILES, Report};
use crate::order_process::Process;
use crate::result::{Part, Quantity, Row};
use crate::search::{Outcome, Search};
use crate::subject::{Names, Running, Subject, memif, named};
use crate::system::CoreTime;
use crate::testpmd;
use crate::traffic::Size;
use crate::txonly;

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
/// Above this share of a core for others, figures are told to be disturbed.
const DISTURBED: f64 = 0.03;
/// A trial during which either process waited for its core longer than this says nothing when it loses packets: half of
/// what a ring lasts at a million packets a second.
const AWAY: Duration = Duration::from_millis(4);
/// How often the trials of one subject may be made again because they were disturbed, all together.
const PATIENCE: u32 = 40;
/// How often the latency is looked for in a trial without loss.
const LATENCY_TRIALS: usize = 6;
const SIZES: [Size; 3] = [Size::Fixed(64), Size::Fixed(1420), Size::Imix];

/// Measures the engine in both directions, and testpmd's forwarding on the same devices.
pub fn measure(site: &Site) -> io::Result<Part> {
    let mut part = Part::default();
    let version = testpmd::version();
    if version.is_none() {
        part.lacks("testpmd beside the engine on devices", testpmd::MISSING);
    }
    for size in SIZES {
        for subject in [Subject::Jetway(Direction::Encrypt), Subject::Jetway(Direction::Decrypt), Subject::Testpmd] {
            let Some(names) = Names::of(subject, size, version.as_deref()) else { continue };
            eprintln!("pktgen: {}", names.what());
            // Processes that did not find each other, or were starved, get a second chance; the others' figures do not wait.
            let measured = one(site, subject, &names).or_else(|error| {
                eprintln!("pktgen: {}: {error}: once more", names.what());
                one(site, subject, &names)
            });
            match measured {
                Ok(measured) => part.extend(measured),
                Err(error) => part.lacks(&names.what(), &format!("devices that work: {error}")),
            }
        }
    }
    if let Some(version) = version.filter(|_| site.devices.is_none()) {
        part.extend(txonly::measure(site, &version));
    }
    Ok(part)
}

fn one(site: &Site, subject: Subject, names: &Names) -> io::Result<Part> {
    let mut part = Part::default();
    let mut bench = Bench::start(site, subject, names.size)?;
    let before = bench.core_times();
    bench.measure(site, names, &mut part)?;
    let others =
        bench.core_times().into_iter().zip(before).map(|(after, before)| after.since(before).share_of_others());
    let others = others.fold(0.0, f64::max);
    if others > DISTURBED {
        let lacking =
            format!("a free core: others had {:.0} % of one; trials they spoilt were repeated", others * 100.0);
        part.lacks(&format!("{} undisturbed", names.what()), &lacking);
    }
    Ok(part)
}

/// A device under test with its generator. The order of the fields is that in which they end: net_memif's server must not be
/// polled when its client goes, so the device under test goes first.
struct Bench {
    subject: Running,
    generator: Process,
    /// Trials that may yet be made again.
    patience: u32,
    _sockets: tempfile::TempDir,
}

/// What a trial showed, and whether that is the subject's doing.
struct Trial {
    report: Report,
    /// Others had one of the cores for longer than queues last.
    was_disturbed: bool,
}

impl Bench {
    fn start(site: &Site, subject: Subject, size: Size) -> io::Result<Self> {
        let sockets = tempfile::tempdir()?;
        let [devices, generators] = match &site.devices {
            Some(devices) => devices.clone(),
            None => ["server", "client"].map(|role| memif(role, sockets.path())),
        };
        let running = Running::start(subject, site.core, &devices)?;
        let mut arguments = vec!["generator".to_owned(), format!("--core={}", site.generator_core)];
        arguments.extend(named(&generators));
        arguments.extend([format!("--direction={}", subject.direction().name()), format!("--size={}", size.name())]);
        Ok(Self { subject: running, generator: Process::start(&arguments)?, patience: PATIENCE, _sockets: sockets })
    }

    /// Of the device under test and of the generator: both poll, and the latter waits only for its orders.
    fn core_times(&self) -> [CoreTime; 2] {
        [self.subject.id(), self.generator.id()].map(CoreTime::of)
    }

    fn measure(&mut self, site: &Site, names: &Names, part: &mut Part) -> io::Result<()> {
        let Names { peer, scenario, size } = names;
        let what = names.what();
        // The first warms up.
        self.trial(None, u64::MAX, site.seconds)?;
        let full = self.trial(None, u64::MAX, site.seconds)?.report;
        let (offered, forwarded) = (full.offered as f64 / full.seconds, full.received as f64 / full.until_last);
        if forwarded.is_nan() || forwarded <= 0.0 {
            return Err(io::Error::other("nothing came through"));
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
        let burst = Search::between(0.0, most, 0.05)
            .run(|packets| self.outcome(0.0, |bench| bench.trial(None, packets as u64, f64::MAX)))?;
        part.quantities.push(Quantity::new(format!("back-to-back, {what}"), burst.floor(), "packets"));
        Ok(())
    }

    /// Times of arrival are known of trials that lost nothing; of those, an undisturbed one is better.
    fn latency(&mut self, rate: f64, site: &Site, what: &str, part: &mut Part) -> io::Result<()> {
        let mut found = None;
        for _ in 0..LATENCY_TRIALS {
            let trial = self.trial(Some(rate), u64::MAX, site.seconds * 2.0)?;
            found = trial.report.latency.or(found);
            if trial.report.latency.is_some() && !trial.was_disturbed {
                break;
            }
        }
        let Some(latency) = found else {
            part.lacks(&format!("latency at half NDR, {what}"), "a machine that keeps a half of a second to itself");
            return Ok(());
        };
        for ((name, _), microseconds) in PERCENTILES.into_iter().zip(latency) {
            part.quantities.push(Quantity::new(format!("latency at half NDR, {what}: {name}"), microseconds, "us"));
        }
        Ok(())
    }

    fn search(&mut self, passed: f64, failed: f64, tolerated: f64, site: &Site) -> io::Result<f64> {
        Search::between(passed, failed, PRECISION).run(|rate| {
            self.outcome(tolerated, |bench| {
                let mut trial = bench.trial(Some(rate), u64::MAX, site.seconds)?;
                // A generator that cannot keep the rate shows nothing of the rate.
                if (trial.report.offered as f64) < rate * trial.report.seconds * 0.99 {
                    trial.report.received = 0;
                }
                Ok(trial)
            })
        })
    }

    /// Whether a trial passes. One that fails is made once more, since a hypervisor may have taken a core away unseen; and
    /// again as long as it was others that had a core, while there is patience.
    fn outcome(&mut self, tolerated: f64, trial: impl Fn(&mut Self) -> io::Result<Trial>) -> io::Result<Outcome> {
        let mut failures = 0;
        loop {
            let Trial { report, was_disturbed } = trial(self)?;
            if Outcome::of(report.offered, report.received, tolerated) == Outcome::Passed {
                return Ok(Outcome::Passed);
            }
            if was_disturbed && self.patience > 0 {
                self.patience -= 1;
            } else {
                failures += 1;
            }
            if failures == 2 {
                return Ok(Outcome::Failed);
            }
        }
    }

    fn trial(&mut self, rate: Option<f64>, packets: u64, seconds: f64) -> io::Result<Trial> {
        let before = self.core_times();
        let order = serde_json::to_string(&Order { rate, packets, seconds })?;
        let report = serde_json::from_str(&self.generator.ask(&order)?)?;
        let waited = self.core_times().into_iter().zip(before).map(|(after, before)| after.since(before).waited);
        Ok(Trial { report, was_disturbed: waited.max().is_some_and(|waited| waited > AWAY) })
    }
}
