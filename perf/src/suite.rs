//! The suites of measurements that take turns in one run, each on its own or all together.

use std::io;
use std::time::{Duration, Instant};

use crate::devices::Devices;
use crate::engine::Vary;
use crate::floors::{Floors, Kind};
use crate::interleave::Interleaved;
use crate::result::Part;
use crate::sample::Effort;
use crate::{dispatch, dpdk, engine, handshakes, micro, system, workers};

/// Measurements that belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    /// Two workers beside one.
    Workers,
    /// The parts of a packet's way, each alone.
    Micro,
    /// Handshakes beside boringtun.
    Handshakes,
    /// Whole turns of a worker beside boringtun and gotatun; only what differs in this.
    Engine(Option<Vary>),
    /// Whole turns of a worker that dispatches, on ports that cost nothing and on DPDK's.
    Dispatch,
    /// Whole turns on DPDK ports in memory.
    Dpdk,
}

/// What all of them together take of memory, with room for what else there is.
const MEMORY: u64 = 8 << 30;

impl Suite {
    /// All of them. Those with DPDK come last: others are prepared without it.
    pub const ALL: [Self; 6] =
        [Self::Workers, Self::Micro, Self::Handshakes, Self::Engine(None), Self::Dispatch, Self::Dpdk];

    /// All of them, in groups that fit into memory together.
    pub fn groups() -> Vec<Vec<Self>> {
        match system::available_memory() >= MEMORY {
            true => vec![Self::ALL.into()],
            false => Self::ALL.into_iter().map(|suite| vec![suite]).collect(),
        }
    }

    /// What testpmd does beside it.
    fn floors(self) -> &'static [Kind] {
        match self {
            Self::Dispatch => &[Kind::MacSwap],
            Self::Dpdk => &[Kind::Io, Kind::MacSwap],
            Self::Workers | Self::Micro | Self::Handshakes | Self::Engine(_) => &[],
        }
    }

    fn prepare(self, core: usize, run: &mut Interleaved) {
        match self {
            Self::Workers => workers::prepare(core, run),
            Self::Micro => micro::prepare(run),
            Self::Handshakes => handshakes::prepare(run, core),
            Self::Engine(vary) => engine::prepare(vary, run),
            Self::Dispatch => dispatch::prepare(run),
            Self::Dpdk => {}
        }
    }

    fn prepare_on_devices(self, devices: &mut Devices, run: &mut Interleaved) -> io::Result<()> {
        match self {
            Self::Dispatch => dispatch::prepare_on_devices(devices, run),
            Self::Dpdk => dpdk::prepare(devices, run),
            Self::Workers | Self::Micro | Self::Handshakes | Self::Engine(_) => Ok(()),
        }
    }
}

/// Measures these suites on `core` in passes over all that is in them, of which none begins when `within` is over. What is known
/// after each pass goes to `known`, in place of what was known before.
pub fn measure(
    suites: &[Suite],
    core: usize,
    effort: Effort,
    within: Duration,
    known: impl FnMut(Part) -> io::Result<()>,
) -> io::Result<()> {
    let begun = Instant::now();
    // It goes after everything that has its ports and buffers.
    let mut devices = None;
    let mut run = Interleaved::default();
    suites.iter().for_each(|suite| suite.prepare(core, &mut run));
    // Not before: who is bound to a core sees no other.
    if !system::pin(core) {
        let lacking = format!("the right to use core {core}");
        run.told(move |part| part.lacks("anything on one core alone", &lacking));
    }
    let most = suites.iter().map(|suite| suite.floors()).max_by_key(|kinds| kinds.len());
    if let Some(kinds) = most.filter(|kinds| !kinds.is_empty()) {
        let prepared = Devices::start(core, &[]).and_then(|started| {
            let devices = devices.insert(started);
            suites.iter().try_for_each(|suite| suite.prepare_on_devices(devices, &mut run))
        });
        match prepared {
            Ok(()) => run.add(Floors::new(core, kinds)),
            Err(error) => {
                let lacking = format!("something that works: {error}");
                run.told(move |part| part.lacks("turns on DPDK's devices", &lacking));
            }
        }
    }
    eprintln!("{suites:?}: ready after {} s", begun.elapsed().as_secs());
    run.measure(effort, within.saturating_sub(begun.elapsed()), known)
}
