//! `jetway run`: a node from its start to its clean end.

use crate::cli::RunRequest;
use crate::node::{self, NodeError};

/// Runs the node until SIGTERM or SIGINT, and leaves nothing behind.
pub fn run(request: RunRequest) -> Result<(), NodeError> {
    let RunRequest { config, path, instance } = request;
    if let Some(predecessor) = instance.crashed_predecessor() {
        tracing::warn!(predecessor, "the node's last process did not end cleanly; what it left behind is taken over");
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let name = config.node.name.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let stop = stop_signal()?;
        let started = || tracing::info!(node = %name, "the node carries traffic");
        node::run(config, path, cpus, stop, started).await
    });
    drop(instance);
    outcome
}

/// Resolves when the process is asked to end.
fn stop_signal() -> Result<impl Future<Output = ()>, NodeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "stopping");
    })
}
