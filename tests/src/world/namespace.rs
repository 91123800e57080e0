//! Network namespaces, the links between them, and what runs inside.

use super::command::finish;
use super::{next_number, run, try_run};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

const PREFIX: &str = "jwt-";

/// A network namespace of its own; removed, with the links in it, when dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub(super) fn new(role: &str) -> Self {
        let name = format!("{PREFIX}{}-{}-{role}", std::process::id(), next_number());
        run("ip", &["netns", "add", &name]);
        let namespace = Namespace { name };
        // Frames that nobody sent disturb counts: no duplicate address detection, no router solicitations.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0");
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.accept_ra"), "0");
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.router_solicitations"), "0");
        }
        // Any user of the namespace may ping, and old reverse-path habits do not hide a packet.
        namespace.sysctl("net.ipv4.conf.all.rp_filter", "0");
        namespace.sysctl("net.ipv4.conf.default.rp_filter", "0");
        namespace.ip(&["link set lo up"]);
        namespace
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets a sysctl inside.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        self.run("sysctl", &["-qw", &format!("{key}={value}")]);
    }

    /// Datagrams over IPv4 and IPv6 that found the buffer of their reader full so far.
    #[track_caller]
    pub fn receive_buffer_overflows(&self) -> u64 {
        let v4 = self.run("cat", &["/proc/net/snmp"]);
        let mut lines = v4.lines().filter(|line| line.starts_with("Udp:"));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let column = names.split(' ').position(|name| name == "RcvbufErrors").expect("the kernel counts it");
        let v6 = self.run("cat", &["/proc/net/snmp6"]);
        let v6 = v6.lines().find(|line| line.starts_with("Udp6RcvbufErrors")).unwrap_or_default();
        let values = [values.split(' ').nth(column), v6.split_whitespace().nth(1)];
        values.iter().map(|value| value.and_then(|text| text.parse::<u64>().ok()).expect("a number")).sum()
    }

    /// Runs lines of `ip` inside, as one batch.
    #[track_caller]
    pub fn ip(&self, lines: &[&str]) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip can be started");
        let mut input = child.stdin.take().expect("standard input is piped");
        input.write_all((lines.join("\n") + "\n").as_bytes()).expect("ip reads its batch");
        drop(input);
        let output = child.wait_with_output().expect("ip ends");
        assert!(
            output.status.success(),
            "ip in {}: {}\n{}{}",
            self.name,
            lines.join("; "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// A command that will run inside and die with the thread that starts it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "ip", "netns", "exec", &self.name, program]);
        command
    }

    /// Runs a command inside to its end.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.try_run(program, arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a command inside; the error has the command and all it said.
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command(program);
        command.args(arguments);
        finish(command)
    }

    /// Runs `work` on a thread of its own inside the namespace; sockets it makes stay in the namespace wherever they go.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = self.file();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts `work` on a thread of its own inside the namespace.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let file = self.file();
        std::thread::spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            work()
        })
    }

    fn file(&self) -> File {
        File::open(Path::new("/run/netns").join(&self.name)).expect("the namespace exists")
    }

    /// Connects two namespaces by a virtual cable; both ends are up, and compute their own checksums.
    ///
    /// A kernel that leaves checksums to a virtual cable would send frames to a DPDK port that no NIC would have sent.
    #[track_caller]
    pub fn connect(&self, interface: &str, other: &Namespace, other_interface: &str) {
        run(
            "ip",
            &[
                "link",
                "add",
                interface,
                "netns",
                &self.name,
                "type",
                "veth",
                "peer",
                "name",
                other_interface,
                "netns",
                &other.name,
            ],
        );
        for (namespace, interface) in [(self, interface), (other, other_interface)] {
            namespace.offload_off(interface);
            namespace.ip(&[&format!("link set {interface} up")]);
        }
    }

    /// Has the kernel finish checksums and segments itself on an interface.
    #[track_caller]
    pub fn offload_off(&self, interface: &str) {
        self.run("ethtool", &["-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"]);
    }

    /// Adds addresses to an interface; IPv6 ones are usable at once.
    #[track_caller]
    pub fn addresses(&self, interface: &str, addresses: &[&str]) {
        let lines: Vec<String> = addresses
            .iter()
            .map(|address| {
                let at_once = if address.contains(':') { " nodad" } else { "" };
                format!("addr add {address} dev {interface}{at_once}")
            })
            .collect();
        self.ip(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Whether an interface exists inside.
    pub fn has_interface(&self, interface: &str) -> bool {
        super::succeeds("ip", &["-n", &self.name, "link", "show", "dev", interface])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = try_run("ip", &["netns", "del", &self.name]) {
            eprintln!("{error}");
        }
    }
}

/// Removes namespaces that a killed test process left behind.
pub(super) fn remove_leftovers_of_dead_tests() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            // Another test process may sweep at the same time; either may remove it.
            let _ = try_run("ip", &["netns", "del", &name]);
        }
    }
}
