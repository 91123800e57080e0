//! testpmd's own forwarding on the devices of a run, in turns with what is measured there: the floor under it.

use std::io;
use std::time::Duration;

use crate::result::{Part, Row};
use crate::sample::median_and_spread;
use crate::testpmd;

/// A driver whose devices keep packets within a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// Packets that leave by a device come back by it.
    Ring,
    /// Packets come from nowhere and leave for nowhere; the driver gives their buffers back to the pool.
    Null,
}

impl Driver {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::Ring, Self::Null];

    /// DPDK's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "net_ring",
            Self::Null => "net_null",
        }
    }
}

/// What testpmd does with packets: hands them on, or exchanges their Ethernet addresses as well.
const KINDS: [&str; 2] = ["io", "macswap"];
/// How long one sample of testpmd runs.
const SAMPLE: Duration = Duration::from_secs(1);

/// testpmd's own forwarding between two devices of each driver, a sample at a time.
pub struct Floors {
    core: usize,
    version: Option<String>,
    /// Nanoseconds a packet, by driver and kind.
    samples: Vec<(Driver, &'static str, Vec<f64>)>,
}

impl Floors {
    /// No sample yet; they will be taken on `core`.
    pub fn new(core: usize) -> Self {
        let each = Driver::BOTH.into_iter().flat_map(|driver| KINDS.map(|kind| (driver, kind, Vec::new())));
        Self { core, version: testpmd::version(), samples: each.collect() }
    }

    /// Takes a sample of each kind on each driver.
    pub fn sample(&mut self, part: &mut Part) -> io::Result<()> {
        self.sample_some(part, |_, _| true)
    }

    /// Takes a sample of what is beside a dispatcher, which writes Ethernet addresses too.
    pub fn sample_macswap(&mut self, part: &mut Part) -> io::Result<()> {
        self.sample_some(part, |_, kind| kind == "macswap")
    }

    fn sample_some(&mut self, part: &mut Part, wanted: impl Fn(Driver, &str) -> bool) -> io::Result<()> {
        if self.version.is_none() {
            return Ok(());
        }
        for (driver, kind, samples) in self.samples.iter_mut().filter(|(driver, kind, _)| wanted(*driver, kind)) {
            let devices = [0, 1].map(|number| format!("{}{number}", driver.name()));
            match testpmd::forward_for(SAMPLE, self.core, &devices, kind)? {
                Some(rate) => samples.push(1e9 / rate),
                None => part.lacks(&format!("{kind} on {}", driver.name()), "a testpmd that forwards"),
            }
        }
        Ok(())
    }

    /// Makes rows of the samples.
    pub fn finish(self, part: &mut Part) {
        let Some(version) = self.version else {
            return part.lacks("testpmd's own forwarding", testpmd::MISSING);
        };
        for (driver, kind, mut samples) in self.samples {
            if samples.is_empty() {
                continue;
            }
            let (nanoseconds, spread) = median_and_spread(&mut samples);
            let name = format!("testpmd {version}");
            part.rows.push(Row::new(format!("{kind} on {}", driver.name()), &name, nanoseconds, spread));
        }
    }
}
