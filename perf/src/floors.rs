//! testpmd's own forwarding on the devices of a run, in turns with what is measured there: the floor under it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::interleave::Measurement;
use crate::result::{Part, Row};
use crate::sample::{Effort, median_and_spread};
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

/// What testpmd does with packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Hands them on.
    Io,
    /// Exchanges their Ethernet addresses as well: what is beside a dispatcher, which writes these too.
    MacSwap,
}

impl Kind {
    /// testpmd's name for it.
    fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::MacSwap => "macswap",
        }
    }
}

/// How long one sample of testpmd runs.
const SAMPLE: Duration = Duration::from_secs(1);

/// testpmd's own forwarding between two devices of each driver: one sample at each visit, of each kind on each driver in turn.
pub struct Floors {
    core: usize,
    version: Option<String>,
    floors: Vec<Floor>,
    next: usize,
    /// What went wrong.
    troubles: BTreeSet<String>,
}

struct Floor {
    driver: Driver,
    kind: Kind,
    /// Nanoseconds a packet.
    samples: Vec<f64>,
}

impl Floors {
    /// No sample yet; they will be taken on `core`.
    pub fn new(core: usize, kinds: &[Kind]) -> Self {
        let floor = |driver, kind| Floor { driver, kind, samples: Vec::new() };
        let floors = kinds.iter().flat_map(|kind| Driver::BOTH.map(|driver| floor(driver, *kind))).collect();
        Self { core, version: testpmd::version(), floors, next: 0, troubles: BTreeSet::new() }
    }
}

impl Measurement for Floors {
    fn visit(&mut self, _: Effort) {
        if self.version.is_none() {
            return;
        }
        let next = self.next % self.floors.len();
        let Floor { driver, kind, samples } = &mut self.floors[next];
        self.next += 1;
        let devices = [0, 1].map(|number| format!("{}{number}", driver.name()));
        match testpmd::forward_for(SAMPLE, self.core, &devices, kind.name()) {
            Ok(Some(rate)) => samples.push(1e9 / rate),
            Ok(None) => drop(self.troubles.insert("it forwards nothing".to_owned())),
            Err(error) => drop(self.troubles.insert(error.to_string())),
        }
    }

    fn tell(&self, part: &mut Part) {
        let Some(version) = &self.version else {
            return part.lacks("testpmd's own forwarding", testpmd::MISSING);
        };
        for Floor { driver, kind, samples } in &self.floors {
            let name = format!("{} on {}", kind.name(), driver.name());
            if samples.is_empty() {
                let troubles: Vec<_> = self.troubles.iter().map(String::as_str).collect();
                let why = if troubles.is_empty() { "a pass with time for it".to_owned() } else { troubles.join("; ") };
                part.lacks(&format!("{name}, testpmd {version}"), &why);
                continue;
            }
            let (nanoseconds, spread) = median_and_spread(&mut samples.clone());
            part.rows.push(Row::new(name, &format!("testpmd {version}"), nanoseconds, spread));
        }
    }
}
