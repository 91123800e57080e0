//! How long packets take while another core answers handshakes as fast as it can.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jetway_pipelines::buffer::HeapBuf;

use super::TOGETHER;
use super::responder::Responder;
use crate::line::refill;
use crate::result::Quantity;
use crate::sample::Effort;
use crate::system;
use crate::world::{NOW, World};

const BURST: usize = 32;
const LENGTH: usize = 1420;
/// No turn is counted as longer than this, in nanoseconds.
const LONGEST: u64 = 1_000_000_000;
/// Times are kept in so many digits.
const DIGITS: u8 = 3;

/// Percentiles of a worker's turn on `core`, quiet and while the other core is busy with handshakes.
///
/// A turn decrypts and forwards a burst. Rounds alternate, so that what else happens on the machine is in both.
pub fn measure(effort: Effort, core: usize) -> Vec<Quantity> {
    let mut world = World::new(1);
    let histogram = || Histogram::<u64>::new_with_max(LONGEST, DIGITS).expect("these bounds are allowed");
    let [mut quiet, mut meanwhile] = [histogram(), histogram()];
    let (busy, stop, answered) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let mut time_busy = Duration::ZERO;
    thread::scope(|scope| {
        scope.spawn(|| {
            system::pin(usize::from(core == 0));
            let mut responder = Responder::new();
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
            turns(&mut world, effort, &mut quiet);
            busy.store(true, Ordering::Relaxed);
            let before = answered.load(Ordering::Relaxed);
            while answered.load(Ordering::Relaxed) == before {
                thread::yield_now();
            }
            let start = Instant::now();
            turns(&mut world, effort, &mut meanwhile);
            time_busy += start.elapsed();
            busy.store(false, Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let name = |when: &str, percentile| format!("turn of {BURST} packets of {LENGTH} B {when}, p{percentile}");
    let mut quantities = Vec::new();
    for percentile in [50.0, 99.0] {
        for (when, histogram) in [("alone", &quiet), ("while another core shakes hands", &meanwhile)] {
            let microseconds = histogram.value_at_percentile(percentile) as f64 / 1e3;
            quantities.push(Quantity::new(name(when, percentile), microseconds, "us"));
        }
    }
    let begun_and_answered = answered.load(Ordering::Relaxed) as f64 / time_busy.as_secs_f64();
    quantities.push(Quantity::new("handshakes begun and answered meanwhile", begun_and_answered, "/s"));
    quantities
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
