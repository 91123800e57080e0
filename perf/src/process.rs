//! What the process `jetway` needs for many configured peers: start, memory, and `wg set`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::result::{Part, Quantity};
use crate::sample;
use crate::scale::{configuration, private_key_file, public_key};
use crate::system;
use crate::traffic;

/// How long a start may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Peers that `wg set` adds and removes.
const CHANGES: usize = 50;

/// Measures the binary with one peer and with `peers` peers, in a network namespace that is removed at the end.
pub fn measure(jetway: &Path, peers: usize) -> io::Result<Part> {
    let mut part = Part::default();
    let one = run(jetway, 1)?;
    let many = run(jetway, peers)?;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let named = |what: &str| format!("process, {peers} peers: {what}");
    part.quantities = vec![
        Quantity::new("process, 1 peer: start to ready", one.start.as_secs_f64(), "s"),
        Quantity::new("process, 1 peer: resident", mebibytes(one.resident), "MiB"),
        Quantity::new(named("start to ready"), many.start.as_secs_f64(), "s").at_most(5.0),
        Quantity::new(named("resident"), mebibytes(many.resident), "MiB"),
        Quantity::new(
            named("resident beyond that with 1 peer"),
            mebibytes(many.resident.saturating_sub(one.resident)),
            "MiB",
        )
        .at_most(200.0),
        Quantity::new("process, 1 peer: wg set, whole command, median", one.set, "ms"),
        Quantity::new(named("wg set, whole command, median"), many.set, "ms"),
        Quantity::new(named("wg set, beyond that with 1 peer"), many.set - one.set, "ms").at_most(1.0),
    ];
    Ok(part)
}

struct Figures {
    start: Duration,
    resident: u64,
    /// Milliseconds.
    set: f64,
}

fn run(jetway: &Path, peers: usize) -> io::Result<Figures> {
    let namespace = Namespace::new()?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("perf.toml");
    let ports = "[[port]]\nname = \"wan\"\ndevice = \"net_tap0,iface=jwp-wan\"\naddresses = [\"198.51.100.1/24\"]\n\n";
    let socket = folder.path().join("api.sock");
    let text = configuration(peers, ports).replacen(
        "[engine]\ncores = [1]\n",
        "[engine]\ncores = [1]\nmemory = \"ordinary\"\n",
        1,
    );
    fs::write(&config, format!("{text}\n[api]\nsocket = \"{}\"\n", socket.display()))?;
    let mut key = OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.path().join("server.key"))?;
    writeln!(key, "{}", private_key_file())?;

    let start = Instant::now();
    let log = fs::File::create(folder.path().join("log"))?;
    let mut command = namespace.command(jetway);
    command.arg("run").arg("--config").arg(&config).stdout(Stdio::null()).stderr(log);
    let mut process = Process(command.spawn()?);
    loop {
        let ready = namespace.command(jetway).arg("ready").arg("--config").arg(&config).output()?;
        if ready.status.success() {
            break;
        }
        if start.elapsed() > PATIENCE || process.0.try_wait()?.is_some() {
            let log = fs::read_to_string(folder.path().join("log"))?;
            return Err(io::Error::other(format!("jetway did not become ready:\n{log}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    let start = start.elapsed();
    let resident = system::resident(&process.0.id().to_string()).unwrap_or_default();
    let mut times = Vec::new();
    for number in peers..peers + CHANGES {
        let (client, key) = (traffic::client(number), public_key(number).to_string());
        let begun = Instant::now();
        let allowed = format!("{client}/32");
        let status = namespace.command("wg").args(["set", "jw0", "peer", &key, "allowed-ips", &allowed]).status()?;
        times.push(begun.elapsed());
        if !status.success() {
            return Err(io::Error::other("`wg set` failed"));
        }
    }
    Ok(Figures { start, resident, set: sample::median_nanoseconds(&mut times) / 1e6 })
}

/// A network namespace of our own; removed when dropped.
struct Namespace(String);

impl Namespace {
    fn new() -> io::Result<Self> {
        let name = format!("jw-perf-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).status()?;
        if !made.success() {
            return Err(io::Error::other("cannot make a network namespace: run as root"));
        }
        let namespace = Self(name);
        namespace.command("ip").args(["link", "set", "lo", "up"]).status()?;
        Ok(namespace)
    }

    fn command(&self, program: impl Into<PathBuf>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program.into());
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left of it after a failure is told by `ip` itself.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A process that is asked to end when dropped, and waited for. `ip netns exec` becomes the program, so the id is its own.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: the child was not waited for yet, so its id is still its own.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        let _ = self.0.wait();
    }
}
