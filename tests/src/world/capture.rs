//! Packets on an interface, captured by tcpdump and read back by tshark.

use super::{Namespace, PYTHON, Process, World, run, wait_until};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::Duration;

/// How the frame begins that marks a capture's end, after its addresses: an EtherType for experiments (IEEE 802, 9.2.4).
const END: &[u8] = b"\x88\xb5end of the capture";

/// Sends a frame, given in hexadecimal digits, out of an interface.
const SEND_FRAME: &str = "
import socket, sys
interface, frame = sys.argv[1:]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((interface, 0))
s.send(bytes.fromhex(frame))
";

/// A running capture.
pub struct Capture<'a> {
    namespace: &'a Namespace,
    interface: &'a str,
    file: PathBuf,
    process: Process,
}

impl<'a> Capture<'a> {
    /// Captures what matches `filter` (pcap syntax) on an interface; returns once tcpdump listens.
    #[track_caller]
    pub fn start(world: &World, namespace: &'a Namespace, interface: &'a str, filter: &str) -> Self {
        let file = world.path("capture.pcap");
        let path = file.to_string_lossy().into_owned();
        let filter = format!("({filter}) or ether proto 0x88b5");
        let arguments = ["-n", "-U", "--immediate-mode", "-B", "16384", "-i", interface, "-w", &path, &filter];
        let mut process = Process::start(world, namespace, "tcpdump", &arguments);
        process.wait_for_output("listening on", Duration::from_secs(10));
        Capture { namespace, interface, file, process }
    }

    /// Ends the capture and returns `fields` (tshark names) of every packet that matches `display`, a row each.
    ///
    /// A signal ends tcpdump whatever still waits in the kernel's buffer, so a last frame is sent and waited for first.
    #[track_caller]
    pub fn finish(mut self, display: &str, fields: &[&str]) -> Vec<Vec<String>> {
        // From nobody to nobody: no bridge learns from it, no receiver takes it.
        let frame: String = [&[0; 12], END].concat().iter().map(|byte| format!("{byte:02x}")).collect();
        self.namespace.run(PYTHON, &["-c", SEND_FRAME, self.interface, &frame]);
        wait_until("tcpdump has written all it captured", Duration::from_secs(10), || {
            std::fs::read(&self.file).is_ok_and(|bytes| bytes.windows(END.len()).any(|bytes| bytes == END))
        });
        self.process.signal(Signal::SIGINT);
        self.process.wait(Duration::from_secs(10));
        let path = self.file.to_string_lossy().into_owned();
        let display = format!("({display}) && !(eth.type == 0x88b5)");
        let mut arguments = vec!["-n", "-r", &path, "-Y", &display, "-T", "fields"];
        // Its judgement of checksums is off by default, and GUE's variant 1 is an IP packet right after the UDP header.
        arguments.extend(["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-d", "udp.port==6080,ip"]);
        arguments.extend(fields.iter().flat_map(|field| ["-e", field]));
        run("tshark", &arguments).lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }
}
