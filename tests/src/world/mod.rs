//! End-to-end worlds: network namespaces, stock peers and a running node, made by a test and gone when it ends.
//!
//! A test opens a [`World`], builds namespaces and links in it, starts processes, and asserts on what comes through.
//! Everything is a guard: an ordinary failure leaves no namespace, process or file behind, and prints the ends of all logs.
//! Building blocks panic with the command, its output and the place in the test, because a world that cannot be built is a
//! failed test.

mod capture;
mod command;
mod decapsulator;
mod fleet;
mod flood;
mod gateways;
mod http;
mod iperf;
mod jetway;
mod keys;
mod load_teller;
pub mod mac1;
mod machine;
mod namespace;
mod nginx;
mod ping;
mod process;
mod servers;
mod site;
mod stats;
mod stock_peer;
mod udp;
mod vip;
mod wireguard_go;

pub use capture::Capture;
pub use command::{PYTHON, run, succeeds, try_run, wait_until};
pub use decapsulator::Decapsulator;
pub use fleet::{Family, Fleet, FleetPlan, Origin, Server, backends, server_address, server_name, with_services};
pub use flood::Flood;
pub use gateways::{Gateways, GatewaysPlan, SERVICE_ADDRESS};
pub use http::{Ask, BenchReport, Kept, KeptConnections, Request, RequestStream, answers, apache_bench, ask, failures};
pub use iperf::{Iperf3Server, StreamReport, Transport, Way, iperf3, iperf3_with};
pub use jetway::{Jetway, NodeConfig, PeerConfig, PortConfig, TunnelConfig, binary};
pub use keys::{KeyPair, preshared_key};
pub use load_teller::LoadTeller;
pub use machine::{Booting, Contents, Image, Machine, MachinePlan};
pub use namespace::Namespace;
pub use nginx::Nginx;
pub use ping::{Fragmentation, Ping, PingReport, RunningPing};
pub use process::Process;
pub use servers::{HttpServer, download};
pub use site::{Attachment, Gateway, Initiator, LISTEN_PORT, Outer, Site, SiteBuilder};
pub use stats::Stats;
pub use stock_peer::{StockPeer, echo_request};
pub use udp::{UdpClient, UdpEcho};
pub use vip::{BackendConfig, Forward, VipConfig};
pub use wireguard_go::{PeerState, WireguardGo, WireguardPeer};

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once};

/// Names are unique on the machine, because UAPI sockets of WireGuard are global by interface name across namespaces.
static SEQUENCE: AtomicU32 = AtomicU32::new(0);

/// One test's world: its folder of configurations, keys and logs, and the names that are its own.
pub struct World {
    folder: Option<tempfile::TempDir>,
    logs: Mutex<Vec<PathBuf>>,
}

impl World {
    /// Opens a world, or says in one line what this machine lacks and returns `None`: the test then returns, skipped.
    pub fn open() -> Option<World> {
        if let Some(lack) = first_lack() {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            // Past the capture of libtest, so that a skipped test is loud.
            let _ = writeln!(std::io::stderr(), "\nSKIPPED: {test}: {lack}");
            return None;
        }
        static SWEEP: Once = Once::new();
        SWEEP.call_once(namespace::remove_leftovers_of_dead_tests);
        let folder =
            tempfile::Builder::new().prefix("jetway-world-").tempdir().expect("a folder under the temporary folder");
        Some(World { folder: Some(folder), logs: Mutex::new(Vec::new()) })
    }

    /// The folder of this world's files; removed at its end unless the test failed and `JETWAY_KEEP_WORLD` is set.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().map(|folder| folder.path()).expect("the folder lives as long as the world")
    }

    /// A new namespace; `role` makes its name readable.
    pub fn namespace(&self, role: &str) -> Namespace {
        Namespace::new(role)
    }

    /// An interface name that no other test uses, of at most 15 bytes; `prefix` has at most 3.
    pub fn interface(&self, prefix: &str) -> String {
        unique_interface(prefix)
    }

    /// A path for a log that is shown if the test fails.
    pub fn log(&self, name: &str) -> PathBuf {
        let path = self.path(&format!("{name}.log"));
        self.logs.lock().expect("no test thread panics while it names a log").push(path.clone());
        path
    }

    /// A path in the folder that nothing else has.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{}-{name}", next_number()))
    }

    /// Writes a file that only its owner can read, as key files must be.
    pub fn secret_file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        write_secret(&path, text);
        path
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let logs = std::mem::take(self.logs.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()));
        for log in logs {
            println!("---- end of {}", log.display());
            println!("{}", tail(&log, 40));
        }
        if std::env::var_os("JETWAY_KEEP_WORLD").is_some()
            && let Some(folder) = self.folder.take()
        {
            println!("the world's files are kept in {}", folder.keep().display());
        }
    }
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// The last `lines` lines of a file, or why it cannot be read.
fn tail(path: &Path, lines: usize) -> String {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({error})"),
    }
}

fn next_number() -> u32 {
    SEQUENCE.fetch_add(1, Ordering::Relaxed)
}

fn unique_interface(prefix: &str) -> String {
    // A pid has at most 7 digits, so that 3 + 7 + 1 + 4 is within IFNAMSIZ.
    let name = format!("{prefix}{}x{}", std::process::id(), next_number());
    assert!(name.len() <= 15, "interface name {name} is longer than the kernel takes");
    name
}

/// What an end-to-end test needs and this machine has not, in words that say what to do.
fn first_lack() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root for network namespaces; run it as root".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("needs /dev/net/tun; load the kernel's tun module".into());
    }
    ["ip", "wg", "wireguard-go", "ping", "ethtool", "iperf3", "setpriv", "nft", "nginx", "ab", "traceroute", "tshark"]
        .iter()
        .find(|tool| !succeeds("sh", &["-c", &format!("command -v {tool}")]))
        .map(|tool| format!("needs {tool}; run `make deps`"))
}
