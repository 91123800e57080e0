//! How long packets take while another core answers handshakes as fast as it can.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jetway_pipelines::buffer::HeapBuf;

use super::TOGETHER;
use super::responder::Responder;
use crate::interleave::Measurement;
use crate::line::refill;
use crate::result::{Part, Quantity};
use crate::sample::Effort;
use crate::system;
use crate::world::{NOW, World};

const BURST: usize = 32;
const LENGTH: usize = 1420;
/// No turn is counted as longer than this, in nanoseconds.
const LONGEST: u64 = 1_000_000_000;
/// Times are kept in so many digits.
const DIGITS: u8 = 3;

/// Percentiles of a worker's turn on a core, quiet and while another core is busy with handshakes.
///
/// A turn decrypts and forwards a burst. Rounds alternate, so that what else happens on the machine is in both.
pub struct Meanwhile {
    world: World,
    responder: Responder,
    /// The core that shakes hands.
    other: usize,
    quiet: Histogram<u64>,
    meanwhile: Histogram<u64>,
    answered: u64,
    time_busy: Duration,
}

impl Meanwhile {
    /// Turns on `core`.
    pub fn on(core: usize) -> Self {
        let histogram = || Histogram::<u64>::new_with_max(LONGEST, DIGITS).expect("these bounds are allowed");
        Self {
            world: World::new(1),
            responder: Responder::new(),
            other: usize::from(core == 0),
            quiet: histogram(),
            meanwhile: histogram(),
            answered: 0,
            time_busy: Duration::ZERO,
        }
    }
}

impl Measurement for Meanwhile {
    fn visit(&mut self, effort: Effort) {
        let Self { world, responder, other, quiet, meanwhile, answered: sum, time_busy } = self;
        let (busy, stop, answered) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
        turns(world, effort, &mut quiet.clone());
        thread::scope(|scope| {
            scope.spawn(|| {
                system::pin(*other);
                while !stop.load(Ordering::Relaxed) {
                    if busy.load(Ordering::Relaxed) {
                        responder.answer(TOGETHER);
                        answered.fetch_add(TOGETHER as u64, Ordering::Relaxed);
                    } else {
                        thread::yield_now();
                    }
                }
            });
            for _ in 0..effort.rounds {
                turns(world, effort, quiet);
                busy.store(true, Ordering::Relaxed);
                let idle = answered.load(Ordering::Relaxed);
                while answered.load(Ordering::Relaxed) == idle {
                    thread::yield_now();
                }
                let (start, before) = (Instant::now(), answered.load(Ordering::Relaxed));
                turns(world, effort, meanwhile);
                *time_busy += start.elapsed();
                *sum += answered.load(Ordering::Relaxed) - before;
                busy.store(false, Ordering::Relaxed);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    fn tell(&self, part: &mut Part) {
        let name = |when: &str, percentile| format!("turn of {BURST} packets of {LENGTH} B {when}, p{percentile}");
        for percentile in [50.0, 99.0] {
            for (when, histogram) in [("alone", &self.quiet), ("while another core shakes hands", &self.meanwhile)] {
                let microseconds = histogram.value_at_percentile(percentile) as f64 / 1e3;
                part.quantities.push(Quantity::new(name(when, percentile), microseconds, "us"));
            }
        }
        let rate = self.answered as f64 / self.time_busy.as_secs_f64().max(f64::MIN_POSITIVE);
        part.quantities.push(Quantity::new("handshakes begun and answered meanwhile", rate, "/s"));
    }
}

/// Sixteen times as many turns as there are pieces in a round, each timed.
fn turns(world: &mut World, effort: Effort, into: &mut Histogram<u64>) {
    let mut buffers: Vec<_> = (0..BURST).map(|_| HeapBuf::with_room(2048)).collect();
    for _ in 0..16 * effort.pieces {
        for buffer in &mut buffers {
            refill(buffer, &world.sealed_frame(0, LENGTH));
        }
        world.lines[0].lay(buffers.drain(..).rev());
        let start = Instant::now();
        world.worker.turn(NOW);
        into.saturating_record(start.elapsed().as_nanos() as u64);
        world.lines[1].take_sent(&mut buffers);
        assert_eq!(buffers.len(), BURST, "the worker dropped packets: this measures nothing");
    }
}
