//! The AEAD alone, by the burst: every implementation that this CPU can run, in turns.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jetway_aead::{Aead, Backend, Key, OpenJob, SealJob, Unsupported};
use jetway_pipelines::wireguard::constants::TAG_SIZE;

use crate::interleave::Interleaved;
use crate::result::{Row, USUAL_BURST};
use crate::sample::{Contestant, ratio};
use crate::traffic::Size;

/// What Jetway has in this run.
static CHOSEN: OnceLock<Aead> = OnceLock::new();

/// The AEAD that Jetway has in this run: the fastest of this CPU, unless something else was chosen.
pub fn chosen() -> Aead {
    *CHOSEN.get_or_init(Aead::best)
}

/// Has Jetway use `backend` in this run, as on a CPU that has no better one.
///
/// # Errors
/// When this CPU cannot run it.
pub fn choose(backend: Backend) -> Result<(), Unsupported> {
    CHOSEN.get_or_init(|| Aead::with_backend(backend).unwrap_or_else(|_| Aead::best()));
    Aead::with_backend(backend).map(drop)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    Open,
    Seal,
}

/// Prepares to open and seal bursts of each size under one key and under sixteen.
pub fn prepare(run: &mut Interleaved) {
    for size in Size::ALL {
        for direction in [Direction::Open, Direction::Seal] {
            add(run, direction, size);
        }
    }
}

/// Jetway's choice comes first; what others' code does is in the backends that are theirs.
fn contestants() -> impl Iterator<Item = (&'static str, Aead)> {
    let others = [("aws-lc-rs", Backend::AwsLc), ("chacha20poly1305", Backend::RustCrypto)];
    let others = others.into_iter().filter_map(|(name, backend)| Some((name, Aead::with_backend(backend).ok()?)));
    std::iter::once(("jetway", chosen())).chain(others)
}

fn add(run: &mut Interleaved, direction: Direction, size: Size) {
    let (mut contestants, mut flows) = (Vec::new(), Vec::new());
    for (name, aead) in self::contestants() {
        for keys in if name == "jetway" { &[1, 16][..] } else { &[1][..] } {
            let mut bursts = Bursts::new(aead, direction, size, *keys);
            contestants.push(Contestant::new(name, USUAL_BURST, move || bursts.run()));
            flows.push(*keys);
        }
    }
    let scenario = match direction {
        Direction::Open => "open",
        Direction::Seal => "seal",
    };
    run.compare(contestants, move |outcomes, part| {
        for (outcome, flows) in outcomes.iter().zip(&flows) {
            let mut row = Row::new(scenario, outcome.name, outcome.nanoseconds, outcome.spread)
                .size(size.name(), size.mean())
                .flows(*flows, Some(USUAL_BURST));
            row.ratio = Some(ratio(outcome, &outcomes[0]));
            part.rows.push(row);
        }
    });
}

/// Bursts for one contestant: sealed and opened again and again, as their content makes no difference to the time.
struct Bursts {
    aead: Aead,
    direction: Direction,
    keys: Vec<Key>,
    /// As they are before the work; the last burst was made of them.
    fresh: Vec<Vec<u8>>,
}

impl Bursts {
    fn new(aead: Aead, direction: Direction, size: Size, flows: usize) -> Self {
        let keys: Vec<_> = (0..flows).map(|number| aead.key(&[number as u8 + 7; 32])).collect();
        let mut fresh: Vec<_> = (0..USUAL_BURST).map(|number| vec![0x5a; size.of(number) + TAG_SIZE]).collect();
        if direction == Direction::Open {
            let numbered = fresh.iter_mut().enumerate();
            let job = |(number, buffer)| SealJob { key: &keys[number % flows], counter: number as u64, buffer };
            let mut jobs: Vec<_> = numbered.map(|(number, buffer)| job((number, buffer.as_mut_slice()))).collect();
            aead.seal_burst(&mut jobs);
        }
        Self { aead, direction, keys, fresh }
    }

    fn run(&mut self) -> Duration {
        let mut buffers = self.fresh.clone();
        let numbered = buffers.iter_mut().enumerate();
        let key = |number: usize| &self.keys[number % self.keys.len()];
        match self.direction {
            Direction::Open => {
                let mut jobs: Vec<_> = numbered
                    .map(|(number, buffer)| {
                        let counter = number as u64;
                        OpenJob { key: key(number), counter, buffer, authentic: false }
                    })
                    .collect();
                let start = Instant::now();
                self.aead.open_burst(&mut jobs);
                let took = start.elapsed();
                assert!(jobs.iter().all(|job| job.authentic), "the AEAD refuses its own packets");
                took
            }
            Direction::Seal => {
                let mut jobs: Vec<_> = numbered
                    .map(|(number, buffer)| SealJob { key: key(number), counter: number as u64, buffer })
                    .collect();
                let start = Instant::now();
                self.aead.seal_burst(&mut jobs);
                start.elapsed()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Effort;

    #[test]
    fn every_backend_of_this_cpu_takes_part_with_its_own_packets() {
        let mut run = Interleaved::default();
        for direction in [Direction::Open, Direction::Seal] {
            add(&mut run, direction, Size::Imix);
        }
        let part = run.measure_all(Effort { rounds: 1, pieces: 1, settling: Duration::ZERO });
        assert_eq!(part.rows.len(), 2 * 4);
        assert!(part.rows.iter().all(|row| row.ns_per_packet > 0.0), "{:#?}", part.rows);
    }
}
