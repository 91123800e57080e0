//! The health thread: makes the probes that are due, and has what they come to written where workers read it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use jetway_engine::clock::Clock;
use jetway_pipelines::dispatch::{Backend, Health};
use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::time::Instant;
use tokio::sync::{mpsc, oneshot};

use super::load::LoadCell;
use super::machine::{Order, Outcome, Policy};
use super::probe::{Answer, ProbeError, Prober, Target};
use super::record::{Latencies, Record};
use super::schedule::{Limits, Schedule};

/// Regular probes under way at most: what 10,000 servers that answer nothing take at the default interval and timeout.
const REGULAR_PROBES: usize = 4_096;
/// Early probes under way at most, beside the regular ones.
const EARLY_PROBES: usize = 512;
/// File descriptors that are left to the rest of the process.
const OTHER_DESCRIPTORS: u64 = 512;
/// Requests and results that are taken before probes are begun again.
const AT_ONCE: usize = 256;
/// How long the thread rests after what it did, so that what comes in the meantime is done together: waking for each
/// packet of each probe by itself costs more than the probes.
const REST: Duration = Duration::from_millis(4);
/// Between two turns of a clock that nobody reads. While the next timer that is known is nearer than those of probes, tokio
/// takes theirs without a system call for each.
const TICK: Duration = Duration::from_millis(100);

/// A server to be asked.
#[derive(Clone, Debug)]
pub struct Check {
    /// Where what is found is written.
    pub backend: Arc<Backend>,
    /// The names of service and server, for the log and for counting by service.
    pub names: (Arc<str>, Arc<str>),
    /// What is asked.
    pub target: Target,
    /// When, and what answers mean.
    pub policy: Policy,
    /// Where what the server says of its load is put.
    pub load: Arc<LoadCell>,
}

/// What is known of the servers that are asked.
#[derive(Debug, Default)]
pub struct Findings {
    /// By server.
    pub servers: HashMap<BackendIndex, ServerFinding>,
    /// How long answers took, by service.
    pub latencies: HashMap<Arc<str>, Latencies>,
    /// Probes that wait for their answers.
    pub under_way: usize,
}

/// What is known of a server that is asked.
#[derive(Debug)]
pub struct ServerFinding {
    /// How its probes went.
    pub record: Record,
    /// How long its health has been what it is.
    pub unchanged_for: Duration,
    /// How long ago its last probe ended; `None` before the first.
    pub last: Option<Duration>,
}

enum Request {
    Start(Vec<Check>),
    Change(Vec<Check>),
    Stop(Vec<BackendIndex>),
    Signal(BackendIndex),
    Report(oneshot::Sender<Findings>),
}

/// Control's end of the thread, which ends with it.
pub struct HealthThread {
    requests: Option<mpsc::UnboundedSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl HealthThread {
    /// Starts the thread, in the network namespace of the calling one.
    pub fn start(clock: Clock) -> io::Result<Self> {
        let (requests, requested) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("jw-health".into()).spawn(move || {
            runtime.block_on(async {
                match Service::open(clock) {
                    // As a task: waking what the runtime blocks on takes system calls, even from its own thread.
                    Ok(service) => {
                        let ended = tokio::spawn(service.run(requested)).await;
                        if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
                            std::panic::resume_unwind(panic);
                        }
                    }
                    Err(error) => tracing::error!(%error, "servers are not probed: restart the node"),
                }
            });
        })?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Asks these servers from now on. They are suspect until they have answered.
    pub fn watch(&self, checks: Vec<Check>) {
        checks.iter().for_each(|check| check.backend.set_health(Health::Suspect));
        self.tell(Request::Start(checks));
    }

    /// Asks these servers differently from now on; what is known of them stays.
    pub fn change(&self, checks: Vec<Check>) {
        self.tell(Request::Change(checks));
    }

    /// Asks these servers no more, and leaves them as they are.
    pub fn forget(&self, servers: Vec<BackendIndex>) {
        self.tell(Request::Stop(servers));
    }

    /// Takes in a sign of trouble that a worker saw.
    pub fn signal(&self, server: BackendIndex) {
        self.tell(Request::Signal(server));
    }

    /// Asks for what is known. The answer comes from the health thread; it does not come if that is gone.
    pub fn findings(&self) -> oneshot::Receiver<Findings> {
        let (reply, answer) = oneshot::channel();
        self.tell(Request::Report(reply));
        answer
    }

    fn tell(&self, request: Request) {
        if let Some(requests) = &self.requests {
            // The thread outlives this end, unless it panicked; then there is nobody to tell.
            let _ = requests.send(request);
        }
    }
}

impl Drop for HealthThread {
    fn drop(&mut self) {
        self.requests = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the health thread had panicked: please report this with the log above");
        }
    }
}

struct Server {
    check: Arc<Check>,
    record: Record,
}

struct Done {
    index: BackendIndex,
    order: Order,
    result: Result<Answer, ProbeError>,
}

struct Service {
    clock: Clock,
    prober: Arc<Prober>,
    schedule: Schedule,
    servers: HashMap<BackendIndex, Server>,
    latencies: HashMap<Arc<str>, Latencies>,
    done: (mpsc::UnboundedSender<Done>, mpsc::UnboundedReceiver<Done>),
}

impl Service {
    fn open(clock: Clock) -> Result<Self, ProbeError> {
        Ok(Self {
            clock,
            prober: Arc::new(Prober::open()?),
            schedule: Schedule::new(limits()),
            servers: HashMap::new(),
            latencies: HashMap::new(),
            done: mpsc::unbounded_channel(),
        })
    }

    async fn run(mut self, mut requested: mpsc::UnboundedReceiver<Request>) {
        let (mut requests, mut results) = (Vec::new(), Vec::new());
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            while let Some((index, order)) = self.schedule.begin(self.clock.now()) {
                self.ask(index, order);
            }
            let due = self.schedule.due();
            let wait = due.map_or(Duration::from_secs(3_600), |due| due.since(self.clock.now()).max(REST));
            tokio::select! {
                count = requested.recv_many(&mut requests, AT_ONCE) => match count {
                    0 => return,
                    _ => requests.drain(..).for_each(|request| self.take(request)),
                },
                _ = self.done.1.recv_many(&mut results, AT_ONCE) => {
                    results.drain(..).for_each(|done| self.finish(done));
                }
                () = tokio::time::sleep(wait) => {}
                _ = ticks.tick() => {}
            }
        }
    }

    fn take(&mut self, request: Request) {
        let now = self.clock.now();
        match request {
            Request::Start(checks) => checks.into_iter().for_each(|check| self.start(check, now)),
            Request::Change(checks) => {
                for check in checks {
                    let index = check.backend.index;
                    self.schedule.change(index, check.policy, now);
                    if let Some(server) = self.servers.get_mut(&index) {
                        server.check = Arc::new(check);
                    }
                }
            }
            Request::Stop(indices) => {
                for index in indices {
                    self.schedule.remove(index);
                    self.servers.remove(&index);
                }
                let services: Vec<_> = self.servers.values().map(|server| server.check.names.0.clone()).collect();
                self.latencies.retain(|name, _| services.contains(name));
            }
            Request::Signal(index) => {
                self.schedule.signal(index, now);
                // From here on workers tell of the next sign.
                if let Some(server) = self.servers.get(&index) {
                    server.check.backend.lower_signal();
                }
                self.tell(index, now);
            }
            Request::Report(reply) => {
                // Whoever asked may have gone away.
                let _ = reply.send(self.findings(now));
            }
        }
    }

    fn start(&mut self, check: Check, now: Instant) {
        let index = check.backend.index;
        self.schedule.add(index, check.policy, rand::random(), now);
        check.backend.lower_signal();
        self.servers.insert(index, Server { check: Arc::new(check), record: Record::new(now) });
    }

    fn ask(&mut self, index: BackendIndex, order: Order) {
        // A signal that waited makes a server suspect when its probe begins.
        self.tell(index, self.clock.now());
        let Some(server) = self.servers.get(&index) else {
            self.schedule.finish(index, order, Outcome::Unknown, self.clock.now());
            return;
        };
        let (check, prober, done) = (Arc::clone(&server.check), Arc::clone(&self.prober), self.done.0.clone());
        tokio::spawn(async move {
            let result = prober.ask(&check.target, order.timeout).await;
            // The other end is gone only when the thread ends.
            let _ = done.send(Done { index, order, result });
        });
    }

    fn finish(&mut self, done: Done) {
        let Done { index, order, result } = done;
        let now = self.clock.now();
        let outcome = match &result {
            Ok(answer) => Outcome::Answered(answer.took),
            Err(ProbeError::Own(_)) => Outcome::Unknown,
            Err(_) => Outcome::Failed,
        };
        self.schedule.finish(index, order, outcome, now);
        let Some(server) = self.servers.get_mut(&index) else { return };
        server.record.add(&result, now);
        if let (Err(error), Outcome::Unknown) = (&result, outcome) {
            let (service, name) = &server.check.names;
            tracing::warn!(%error, %service, server = %name, "a server could not be probed");
        }
        if let Ok(Answer { took, load }) = result {
            self.latencies.entry(Arc::clone(&server.check.names.0)).or_default().add(took);
            if let Some(load) = load {
                server.check.load.put(load);
            }
        }
        self.tell(index, now);
    }

    /// Writes a server's health to where workers read it, and to the log if it is another than before.
    fn tell(&mut self, index: BackendIndex, now: Instant) {
        let (Some(server), Some(machine)) = (self.servers.get_mut(&index), self.schedule.machine(index)) else {
            return;
        };
        let (before, health) = (server.check.backend.health(), machine.health());
        if before == health {
            return;
        }
        server.check.backend.set_health(health);
        let after = now.since(server.record.since);
        server.record.since = now;
        let (service, name) = (&*server.check.names.0, &*server.check.names.1);
        match health {
            Health::Up => tracing::info!(service, server = name, ?after, "the server is up"),
            Health::Suspect => tracing::info!(service, server = name, "the server gave a sign of trouble"),
            Health::Down => {
                let reason = server.record.trouble.as_ref().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(service, server = name, ?after, reason, "the server is down: its clients go to others");
            }
        }
    }

    fn findings(&self, now: Instant) -> Findings {
        let finding = |server: &Server| ServerFinding {
            record: server.record.clone(),
            unchanged_for: now.since(server.record.since),
            last: server.record.last.map(|last| now.since(last)),
        };
        Findings {
            servers: self.servers.iter().map(|(index, server)| (*index, finding(server))).collect(),
            latencies: self.latencies.clone(),
            under_way: self.schedule.under_way(),
        }
    }
}

/// As many probes as there are file descriptors for, after asking for more of those.
fn limits() -> Limits {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let wanted = (REGULAR_PROBES + EARLY_PROBES) as u64 + OTHER_DESCRIPTORS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1_024, 1_024));
    let mut granted = soft;
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard).is_ok() {
        granted = wanted.min(hard);
    }
    let probes = granted.saturating_sub(OTHER_DESCRIPTORS).max(64) as usize;
    let early = EARLY_PROBES.min(probes / 4);
    Limits { regular: REGULAR_PROBES.min(probes - early), early }
}

#[cfg(test)]
mod tests;
