//! DPDK's own forwarder, `dpdk-testpmd` of the distribution, as the floor and as a device under test.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::sample::median_and_spread;

/// What to say where there is none.
pub const MISSING: &str = "dpdk-testpmd, which Debian has in the package dpdk-dev";
/// The MiB that its pools need.
const MEMORY: u32 = 320;
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Its version, if it is installed.
pub fn version() -> Option<String> {
    // Without a port it says its version and ends.
    let arguments = ["-v", "--no-huge", "--no-pci", "--no-shconf", "--no-telemetry", "-m", "64"];
    let prefix = format!("jetway-testpmd-{}-v", std::process::id());
    let mut command = Command::new("dpdk-testpmd");
    command.args(arguments).arg(format!("--file-prefix={prefix}")).stdin(Stdio::null());
    let output = command.output().ok()?;
    remove_folder(&prefix);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let number = text.lines().find_map(|line| line.split_once("RTE Version: 'DPDK "))?.1.trim_end_matches('\'');
    Some(number.to_owned())
}

/// A testpmd that forwards; ended when dropped.
pub struct Testpmd {
    process: Child,
    output: BufReader<ChildStdout>,
    prefix: String,
    ports: usize,
}

impl Testpmd {
    /// Starts it on `core` with `devices` (its `--vdev` or `--allow`), told `arguments` after the EAL's own. They have to have
    /// a `--stats-period`: without one it wants a keyboard.
    pub fn start(core: usize, devices: &[String], arguments: &[&str]) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("jetway-testpmd-{}-{number}", std::process::id());
        let mut command = Command::new("dpdk-testpmd");
        // Its own thread only prints: it may share the core.
        command.arg(format!("--lcores=(0-1)@{core}")).args(["--no-huge", "--no-shconf", "--no-telemetry"]);
        command.arg(format!("-m{MEMORY}")).arg(format!("--file-prefix={prefix}"));
        if devices.iter().all(|device| device.starts_with("net_")) {
            command.arg("--no-pci");
        }
        let kind = |device: &String| if device.starts_with("net_") { "vdev" } else { "allow" };
        command.args(devices.iter().map(|device| format!("--{}={device}", kind(device))));
        command.arg("--").args(["--auto-start", "--total-num-mbufs=65536"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn()?;
        let output = process.stdout.take().ok_or_else(|| io::Error::other("testpmd has no output"))?;
        Ok(Self { process, output: BufReader::new(output), prefix, ports: devices.len() })
    }

    /// Waits for its first word on what its ports do: from then on it forwards.
    pub fn wait_until_it_forwards(&mut self) -> io::Result<()> {
        self.port_rates().map(drop)
    }

    /// The next line that says how many packets its ports receive in a second, for all its ports.
    fn port_rates(&mut self) -> io::Result<f64> {
        let start = Instant::now();
        let (mut sum, mut seen) = (0.0, 0);
        let mut line = String::new();
        while seen < self.ports {
            line.clear();
            let ended = self.output.read_line(&mut line)? == 0;
            if ended || start.elapsed() > PATIENCE {
                return Err(io::Error::other("testpmd ended, or said nothing of its ports"));
            }
            if let Some(rate) = received(&line) {
                (sum, seen) = (sum + rate, seen + 1);
            }
        }
        Ok(sum)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // SAFETY: the child was not waited for yet, so its id is still its own. On this signal it stops forwarding first.
        unsafe { libc::kill(self.id() as i32, libc::SIGINT) };
        // What it still says must be taken, or it waits for us.
        let _ = io::copy(&mut self.output, &mut io::sink());
        let _ = self.process.wait();
        remove_folder(&self.prefix);
    }
}

/// It leaves an empty folder behind.
fn remove_folder(prefix: &str) {
    // Another user's DPDK keeps it elsewhere, where it harms nobody.
    let _ = fs::remove_dir(format!("/var/run/dpdk/{prefix}"));
}

/// Packets a second of a line `Rx-pps: 123 Rx-bps: 456`.
fn received(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once("Rx-pps:")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Packets a second that testpmd hands on between two devices that keep packets to themselves, in mode `kind`; `None` if none.
pub fn forward_for(time: Duration, core: usize, devices: &[String], kind: &str) -> io::Result<Option<f64>> {
    let mode = format!("--forward-mode={kind}");
    let mut testpmd = Testpmd::start(core, devices, &[&mode, "--stats-period=1", "--tx-first"])?;
    // The first second has the start in it.
    testpmd.wait_until_it_forwards()?;
    let mut rates = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        rates.push(testpmd.port_rates()?);
    }
    let (rate, _) = median_and_spread(&mut rates);
    Ok((rate > 0.0).then_some(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_from_what_testpmd_prints() {
        assert_eq!(received("  Rx-pps:     14880952          Rx-bps:   7619047424"), Some(14_880_952.0));
        assert_eq!(received("  Tx-pps:            7          Tx-bps:          448"), None);
        assert_eq!(received("  RX-packets: 4271426240     RX-dropped: 0"), None);
    }
}
