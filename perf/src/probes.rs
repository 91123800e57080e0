//! What health checks of many servers take of a core: the node's health thread asks servers on the loopback device.
//!
//! The kernel does a packet's way to the server and what it does there in the time of the thread that sent it, so that the
//! share is one too high rather than too low.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jetway::health::probe::Question;
use jetway::health::{Check, Findings, HealthThread, Policy, Target};
use jetway_engine::clock::Clock;
use jetway_pipelines::dispatch::{Backend, Health};
use jetway_pipelines::ids::BackendIndex;

use crate::result::{Part, Quantity, Row};
use crate::sample::median_and_spread;

/// What a configuration that says nothing of health checks comes to.
const POLICY: Policy = Policy { interval: Duration::from_secs(5), timeout: Duration::from_secs(1), fall: 3, rise: 2 };
/// How long all servers together may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections that the servers keep open, so that their answers arrive before they close.
const KEPT: usize = 1024;
/// How often an interval is measured.
const WINDOWS: usize = 3;
/// The share of the probes that are due which there have to be at least: intervals are jittered.
const PUNCTUAL: f64 = 0.95;
/// What is counted, in words.
const COUNTED: &str = "share of a core by the health thread, the kernel's work for node and servers included";
/// The name of the health thread.
const THREAD: &str = "jw-health";

/// Measures checks of `servers` servers by ICMP, TCP and HTTP.
pub fn measure(servers: u32) -> io::Result<Part> {
    let mut part = Part::default();
    let http = Question::Http { path: "/".into() };
    for (kind, question) in [("ICMP", Question::Icmp), ("TCP", Question::Tcp), ("HTTP", http)] {
        eprintln!("probes: {servers} servers by {kind}");
        run(kind, &question, (servers, WINDOWS), &mut part)?;
    }
    Ok(part)
}

fn run(kind: &str, question: &Question, (servers, windows): (u32, usize), part: &mut Part) -> io::Result<()> {
    let farm = Farm::start()?;
    let health = HealthThread::start(Clock::start())?;
    let backends: Vec<_> = (0..servers).map(|number| backend(number, farm.port)).collect();
    health.watch(backends.iter().map(|backend| check(backend, question)).collect());
    let what = format!("health checks of {servers} servers every {} s by {kind}", POLICY.interval.as_secs());
    let is_up = |backend: &Arc<Backend>| backend.health() == Health::Up;
    let begun = Instant::now();
    while !backends.iter().all(is_up) {
        if begun.elapsed() > PATIENCE {
            let up = backends.iter().filter(|backend| is_up(backend)).count();
            let trouble = findings(&health)?.servers.into_values().find_map(|finding| finding.record.trouble);
            let trouble = trouble.map_or("no answer at all".to_owned(), |trouble| trouble.to_string());
            part.lacks(&what, &format!("servers that all answer: {up} did; {trouble}"));
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    // From here on they come one by one, as on a node that has run for a while.
    thread::sleep(POLICY.interval);
    let first = counted(&findings(&health)?);
    let (mut shares, mut costs) = (Vec::new(), Vec::new());
    let (begun, mut before) = (Instant::now(), first);
    for _ in 0..windows {
        let (begun, cpu) = (Instant::now(), cpu_time_of(THREAD)?);
        thread::sleep(POLICY.interval);
        let (took, cpu) = (begun.elapsed(), cpu_time_of(THREAD)?.saturating_sub(cpu));
        let after = counted(&findings(&health)?);
        shares.push(cpu.as_secs_f64() / took.as_secs_f64() * 100.0);
        costs.push(cpu.as_nanos() as f64 / ((after.0 - before.0) as f64).max(1.0));
        before = after;
    }
    let took = begun.elapsed().as_secs_f64();
    let [probes, failures] = [before.0 - first.0, before.1 - first.1].map(|count| count as f64);
    let (cost, spread) = median_and_spread(&mut costs);
    part.rows.push(Row::new(format!("health check, {kind}"), "jetway", cost, spread));
    // A node that falls behind takes less of a core, but not by being cheaper.
    let due = f64::from(servers) / POLICY.interval.as_secs_f64();
    part.quantities.extend([
        Quantity::new(format!("{what}: {COUNTED}"), median_and_spread(&mut shares).0, "%").at_most(10.0),
        Quantity::new(format!("{what}: probes"), probes / took, "/s").at_least(due * PUNCTUAL),
        Quantity::new(format!("{what}: failed"), failures, "").at_most(0.0),
    ]);
    Ok(())
}

/// Each has an address of its own.
fn backend(number: u32, port: u16) -> Arc<Backend> {
    let address = IpAddr::V4(Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number));
    Arc::new(Backend::new(BackendIndex(number), address, port, 1))
}

fn check(backend: &Arc<Backend>, question: &Question) -> Check {
    Check {
        backend: Arc::clone(backend),
        names: ("perf".into(), format!("perf-{}", backend.index.0).into()),
        target: Target { address: backend.address, port: backend.port, question: question.clone(), load: None },
        policy: POLICY,
        load: Arc::default(),
    }
}

fn findings(health: &HealthThread) -> io::Result<Findings> {
    health.findings().blocking_recv().map_err(|_| io::Error::other("the health thread is gone"))
}

/// Probes that ended, and those of them that failed.
fn counted(findings: &Findings) -> (u64, u64) {
    let add = |sum: (u64, u64), record: &jetway::health::Record| (sum.0 + record.probes, sum.1 + record.failures);
    findings.servers.values().fold((0, 0), |sum, finding| add(sum, &finding.record))
}

/// The CPU time of this process's thread of this name, to the nanosecond.
fn cpu_time_of(name: &str) -> io::Result<Duration> {
    for task in fs::read_dir("/proc/self/task")? {
        let folder = task?.path();
        if fs::read_to_string(folder.join("comm"))?.trim_end() == name {
            let text = fs::read_to_string(folder.join("schedstat"))?;
            let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
            return nanoseconds
                .map(Duration::from_nanos)
                .ok_or_else(|| io::Error::other("a schedstat without a number"));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no thread {name}")))
}

/// All servers at once: one socket at every address, which answers whoever connects.
struct Farm {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Farm {
    fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = listener.local_addr()?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut kept = VecDeque::with_capacity(KEPT);
            while let Ok((client, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                answer(client, &mut kept);
            }
        });
        Ok(Self { port, stop, thread: Some(thread) })
    }
}

/// Answers before it was asked: who only wants to see that the port is open has gone already.
fn answer(mut client: TcpStream, kept: &mut VecDeque<TcpStream>) {
    if client.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").is_ok() {
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(client);
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it; without it there is nothing to wait for.
        let woken = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_the_loopback_device_are_asked_and_the_threads_time_is_counted() {
        let mut part = Part::default();
        run("HTTP", &Question::Http { path: "/".into() }, (20, 1), &mut part).unwrap();
        assert!(part.unmeasured.is_empty(), "{part:?}");
        let values: Vec<_> = part.quantities.iter().map(|quantity| quantity.value).collect();
        // Twenty probes in five seconds, give or take what the interval is jittered by.
        assert!(values[0] > 0.0 && (2.0..7.0).contains(&values[1]) && values[2] == 0.0, "{part:?}");
    }
}
