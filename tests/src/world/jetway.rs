//! The node under test: its configuration as text, and the running binary.

use super::command::finish;
use super::{KeyPair, Namespace, PeerState, Process, Stats, World, wait_until, wireguard_go};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a node may take until it answers: a debug build on a loaded machine of two cores.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The configuration of a node, written as the TOML text that an operator would write.
#[derive(Clone)]
pub struct NodeConfig {
    /// Its name; unique on the machine.
    pub name: String,
    /// Its number in a cluster.
    pub id: u32,
    /// The key that receiver indices are made with, base64, if a cluster shares one.
    pub index_key: Option<String>,
    /// CPUs of its workers.
    pub cores: Vec<u32>,
    /// Its ports.
    pub ports: Vec<PortConfig>,
    /// Its tunnels.
    pub tunnels: Vec<TunnelConfig>,
    /// More text at the end.
    pub more: String,
}

/// One `[[port]]`.
#[derive(Clone)]
pub struct PortConfig {
    /// Its name.
    pub name: String,
    /// DPDK device.
    pub device: String,
    /// Addresses with prefix lengths.
    pub addresses: Vec<String>,
    /// Largest IP packet.
    pub mtu: u32,
}

/// One `[[tunnel]]`.
#[derive(Clone)]
pub struct TunnelConfig {
    /// Its name; unique on the machine, because wg(8) finds it by its name.
    pub name: String,
    /// UDP port.
    pub listen_port: u16,
    /// The node's key pair.
    pub key: KeyPair,
    /// Addresses with prefix lengths.
    pub addresses: Vec<String>,
    /// Largest inner IP packet.
    pub mtu: u32,
    /// Its peers.
    pub peers: Vec<PeerConfig>,
}

/// One `[[tunnel.peer]]`.
#[derive(Clone, Default)]
pub struct PeerConfig {
    /// Its name.
    pub name: String,
    /// Its public key, base64.
    pub public_key: String,
    /// A preshared key, base64.
    pub preshared_key: Option<String>,
    /// Inner networks.
    pub allowed_ips: Vec<String>,
    /// Where it is, if the node is to begin.
    pub endpoint: Option<String>,
    /// Seconds between keepalives.
    pub persistent_keepalive: Option<u16>,
}

/// A running node.
pub struct Jetway {
    folder: PathBuf,
    file: PathBuf,
    namespace: String,
    process: Process,
}

impl Jetway {
    /// Writes the configuration and its key files, starts the binary in a namespace and waits until it answers.
    #[track_caller]
    pub fn start(world: &World, namespace: &Namespace, config: &NodeConfig) -> Self {
        let mut node = Self::launch(world, namespace, config);
        node.wait_until_ready();
        node
    }

    /// Like [`Jetway::start`], without waiting.
    #[track_caller]
    pub fn launch(world: &World, namespace: &Namespace, config: &NodeConfig) -> Self {
        let file = write(world, config);
        let process = spawn(world, namespace, &file);
        Jetway { folder: world.folder().to_owned(), file, namespace: namespace.name().to_owned(), process }
    }

    /// Starts the binary again on the same file, as an operator does after a crash.
    #[track_caller]
    pub fn restart(&mut self, world: &World, namespace: &Namespace) {
        self.process = spawn(world, namespace, &self.file);
        self.wait_until_ready();
    }

    /// Waits until it answers on its socket.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        wait_until("the node answers on its socket", READY_LIMIT, || {
            assert!(self.process.is_running(), "the node ended while it started:\n{}", self.process.output());
            self.command(&["ready"]).is_ok()
        });
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Replaces the configuration file; `jetway reload` makes the node read it.
    #[track_caller]
    pub fn rewrite(&self, config: &NodeConfig) {
        write_into(&self.folder, config);
    }

    /// Runs `jetway SUBCOMMAND... --config FILE` beside the node.
    pub fn command(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(binary()).args(arguments).arg("--config").arg(&self.file);
        finish(command)
    }

    /// `jetway stats --json`.
    #[track_caller]
    pub fn stats(&self) -> Stats {
        Stats(self.json(&["stats", "--json"]))
    }

    /// Asserts that every packet that the node took or made was sent, dropped for a reason, punted or is held.
    #[track_caller]
    pub fn assert_every_packet_is_accounted_for(&self) {
        let mut last = Vec::new();
        // What is under way while the counters are read is in neither column.
        wait_until("every packet is accounted for", Duration::from_secs(30), || {
            last = self.stats().unaccounted();
            last.iter().all(|&packets| packets == 0)
        });
        assert!(!last.is_empty(), "the node has no worker");
    }

    /// `jetway peers --json`.
    #[track_caller]
    pub fn peers(&self) -> Value {
        self.json(&["peers", "--json"])
    }

    /// What `wg show` says of a tunnel's peers.
    #[track_caller]
    pub fn wg_peers(&self, tunnel: &str) -> Vec<PeerState> {
        wireguard_go::parse_dump(&super::run("ip", &["netns", "exec", &self.namespace, "wg", "show", tunnel, "dump"]))
    }

    /// Kills it as a crash would.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(Duration::from_secs(30));
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.command(arguments).unwrap_or_else(|error| panic!("{error}"));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("jetway {arguments:?} printed no JSON: {error}\n{text}"))
    }
}

impl NodeConfig {
    /// The text of a file in `folder`, where its key files and its socket are too.
    pub fn to_toml_in(&self, folder: &str) -> String {
        let mut text = format!("[node]\nname = \"{}\"\nid = {}\n", self.name, self.id);
        let mut line = |line: String| text.write_str(&(line + "\n")).expect("a string takes any line");
        if self.index_key.is_some() {
            line(format!("index_key_file = \"{folder}/{}.index\"", self.name));
        }
        line(format!("\n[engine]\ncores = {:?}\nidle = \"backoff\"", self.cores));
        for port in &self.ports {
            line(format!("\n[[port]]\nname = \"{}\"\ndevice = \"{}\"", port.name, port.device));
            line(format!("addresses = {:?}\nmtu = {}", port.addresses, port.mtu));
        }
        for tunnel in &self.tunnels {
            line(format!("\n[[tunnel]]\nname = \"{}\"\nlisten_port = {}", tunnel.name, tunnel.listen_port));
            line(format!("private_key_file = \"{folder}/{}.key\"", tunnel.name));
            line(format!("addresses = {:?}\nmtu = {}", tunnel.addresses, tunnel.mtu));
            for peer in &tunnel.peers {
                line(peer.to_toml_in(folder));
            }
        }
        line(format!("\n[api]\nsocket = \"{folder}/{}.sock\"", self.name));
        text + &self.more
    }
}

impl PeerConfig {
    fn to_toml_in(&self, folder: &str) -> String {
        let mut text = format!("\n[[tunnel.peer]]\nname = \"{}\"\npublic_key = \"{}\"", self.name, self.public_key);
        let mut line = |line: String| text.write_str(&("\n".to_owned() + &line)).expect("a string takes any line");
        line(format!("allowed_ips = {:?}", self.allowed_ips));
        if self.preshared_key.is_some() {
            line(format!("preshared_key_file = \"{folder}/{}.psk\"", self.name));
        }
        if let Some(endpoint) = &self.endpoint {
            line(format!("endpoint = \"{endpoint}\""));
        }
        if let Some(seconds) = self.persistent_keepalive {
            line(format!("persistent_keepalive = {seconds}"));
        }
        text
    }
}

/// The binary under test: `JETWAY_BIN`, or the one beside this test's own, as `cargo build -p jetway` puts it.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("JETWAY_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    let path = test.parent().and_then(Path::parent).expect("tests are built in <profile>/deps").join("jetway");
    assert!(path.exists(), "{} is not built; run `cargo build -p jetway` with the profile of the test", path.display());
    path
}

fn spawn(world: &World, namespace: &Namespace, file: &Path) -> Process {
    let mut command = namespace.command(&binary().to_string_lossy());
    command.args(["run", "--config", &file.to_string_lossy()]);
    Process::spawn(world, "jetway", command)
}

fn write(world: &World, config: &NodeConfig) -> PathBuf {
    write_into(world.folder(), config)
}

fn write_into(folder: &Path, config: &NodeConfig) -> PathBuf {
    if let Some(key) = &config.index_key {
        super::write_secret(&folder.join(format!("{}.index", config.name)), key);
    }
    for tunnel in &config.tunnels {
        super::write_secret(&folder.join(format!("{}.key", tunnel.name)), &tunnel.key.private);
        for peer in &tunnel.peers {
            if let Some(key) = &peer.preshared_key {
                super::write_secret(&folder.join(format!("{}.psk", peer.name)), key);
            }
        }
    }
    let file = folder.join(format!("{}.toml", config.name));
    std::fs::write(&file, config.to_toml_in(&folder.to_string_lossy()))
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    file
}
