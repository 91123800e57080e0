//! Packets on an interface, captured by tcpdump and read back by tshark.

use super::{Namespace, Process, World, run};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::Duration;

/// A running capture.
pub struct Capture {
    file: PathBuf,
    process: Process,
}

impl Capture {
    /// Captures what matches `filter` (pcap syntax) on an interface; returns once tcpdump listens.
    #[track_caller]
    pub fn start(world: &World, namespace: &Namespace, interface: &str, filter: &str) -> Self {
        let file = world.path("capture.pcap");
        let path = file.to_string_lossy().into_owned();
        let arguments = ["-n", "-U", "--immediate-mode", "-B", "16384", "-i", interface, "-w", &path, filter];
        let mut process = Process::start(world, namespace, "tcpdump", &arguments);
        process.wait_for_output("listening on", Duration::from_secs(10));
        Capture { file, process }
    }

    /// Ends the capture and returns `fields` (tshark names) of every packet that matches `display`, a row each.
    #[track_caller]
    pub fn finish(mut self, display: &str, fields: &[&str]) -> Vec<Vec<String>> {
        self.process.signal(Signal::SIGINT);
        self.process.wait(Duration::from_secs(10));
        let path = self.file.to_string_lossy().into_owned();
        let mut arguments = vec!["-n", "-r", &path, "-Y", display, "-T", "fields"];
        // Its judgement of checksums is off by default, and GUE's variant 1 is an IP packet right after the UDP header.
        arguments.extend(["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-d", "udp.port==6080,ip"]);
        arguments.extend(fields.iter().flat_map(|field| ["-e", field]));
        run("tshark", &arguments).lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }
}
