//! A worker's thread: pinned to its core, known to the EAL, turning until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use jetway_pipelines::buffer::PacketBuf;
use jetway_pipelines::ids::WorkerId;

use crate::clock::Clock;
use crate::idle::{self, Idle, IdlePolicy};
use crate::worker::Worker;

/// What a worker's thread needs besides the worker.
pub struct ThreadSettings {
    /// The worker's number, for the thread's name.
    pub id: WorkerId,
    /// The core to run on; `None` to let the kernel choose, for tests.
    pub core: Option<usize>,
    /// How it waits for work.
    pub idle: IdlePolicy,
    /// The clock of the process.
    pub clock: Clock,
    /// Ends the thread when it becomes true.
    pub stop: Arc<AtomicBool>,
}

/// Starts the worker's thread. `register` runs on it first, and what it returns lives as long as the thread turns:
/// the thread's registration with the EAL.
pub fn start<B, R>(
    mut worker: Worker<B>,
    settings: ThreadSettings,
    register: impl FnOnce() -> R + Send + 'static,
) -> std::io::Result<JoinHandle<Worker<B>>>
where
    B: PacketBuf + 'static,
{
    thread::Builder::new().name(format!("jw-worker-{}", settings.id)).spawn(move || {
        if let Some(core) = settings.core
            && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
        {
            tracing::warn!(
                worker = settings.id.0,
                core,
                "cannot pin the worker to its core: it runs where the kernel puts it"
            );
        }
        idle::tighten_timer();
        let registration = register();
        turn_until_stopped(&mut worker, &settings);
        drop(registration);
        worker
    })
}

fn turn_until_stopped<B: PacketBuf>(worker: &mut Worker<B>, settings: &ThreadSettings) {
    let mut idle = Idle::new(settings.idle);
    while !settings.stop.load(Ordering::Relaxed) {
        let turn = worker.turn(settings.clock.now());
        if let Some(duration) = idle.after(turn) {
            worker.sleep_while_idle(|| idle::sleep(duration));
        }
    }
}
