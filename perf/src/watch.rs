//! A worker on a thread of its own, whose longest turn can be asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jetway_engine::clock::Clock;
use jetway_engine::heap_pool::PooledBuf;
use jetway_engine::worker::Worker;
use jetway_pipelines::counters::WorkerCounters;

use crate::system;

/// The longest turn of a worker.
#[derive(Clone, Copy, Default, Debug)]
pub struct Longest {
    /// In its own CPU time: other programs on the core do not count, what the turn itself did does.
    pub cpu: Duration,
    /// By the wall clock: with every interruption.
    pub wall: Duration,
}

/// A worker that turns on its own thread, and whose longest turn can be asked for.
pub struct Watch {
    cpu: Arc<AtomicU64>,
    wall: Arc<AtomicU64>,
    counters: Arc<WorkerCounters>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Watch {
    /// Starts the thread.
    pub fn start(mut worker: Worker<PooledBuf>, clock: Clock, counters: &Arc<WorkerCounters>) -> Self {
        let cells: [Arc<AtomicU64>; 2] = Default::default();
        let [cpu, wall] = cells.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let (began, began_cpu) = (Instant::now(), system::thread_cpu_time());
                worker.turn(clock.now());
                let took = system::thread_cpu_time().saturating_sub(began_cpu);
                cpu.fetch_max(took.as_nanos() as u64, Ordering::Relaxed);
                wall.fetch_max(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
            }
        });
        let [cpu, wall] = cells;
        Self { cpu, wall, counters: Arc::clone(counters), stop, thread }
    }

    /// The longest turn while `work` is done.
    pub fn longest_during(&self, work: impl FnOnce()) -> Longest {
        self.cpu.store(0, Ordering::Relaxed);
        self.wall.store(0, Ordering::Relaxed);
        work();
        let take = |cell: &AtomicU64| Duration::from_nanos(cell.load(Ordering::Relaxed));
        Longest { cpu: take(&self.cpu), wall: take(&self.wall) }
    }

    /// Ends the thread, and says how many packets it encrypted.
    pub fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no turn panics");
        self.counters.sealed.get()
    }
}
