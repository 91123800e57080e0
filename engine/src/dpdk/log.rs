//! DPDK's log lines on their way into `tracing`, and the last complaints kept for error messages.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{c_char, c_int};
use std::sync::{Mutex, PoisonError};

use dpdk_sys as sys;

/// Complaints kept; an error message shows at most so many lines of DPDK's own.
const KEPT: usize = 6;

static COMPLAINTS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// How much DPDK may say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogLevel {
    /// Errors alone.
    Error,
    /// Errors and warnings.
    #[default]
    Warning,
    /// What it tells about its start as well (at `tracing`'s level `debug`).
    Info,
    /// Everything (at `tracing`'s level `trace`).
    Debug,
}

impl LogLevel {
    /// DPDK's name of the level, for `--log-level`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

thread_local! {
    /// Whether complaints of this thread's calls are worth no more than `debug`.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// While this lives, complaints of this thread's calls are logged at `debug`: drivers also complain of features that
/// they can do without, and if the operation fails its error says what they complained of ([`said`]).
pub(super) struct Quiet(());

impl Quiet {
    pub(super) fn begin() -> Self {
        QUIET.set(true);
        Self(())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.set(false);
    }
}

/// Sends what DPDK logs from now on into `tracing`, under the target `dpdk`.
pub(super) fn forward() {
    // SAFETY: the sink lives as long as the process, and takes any bytes from any thread.
    let result = unsafe { sys::shim_log_to(Some(take_text)) };
    if result != 0 {
        tracing::warn!("DPDK's log could not be redirected: it writes to standard error");
    }
}

/// Forgets the complaints so far; what comes next belongs to a new operation.
pub(super) fn clear_complaints() {
    complaints().clear();
}

/// What DPDK complained of since [`clear_complaints`], for the end of an error message: empty, or `; DPDK says: ...`.
pub(super) fn said() -> String {
    let lines: Vec<_> = complaints().drain(..).collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!("; DPDK says: {}", lines.join(" / ")),
    }
}

fn complaints() -> std::sync::MutexGuard<'static, VecDeque<String>> {
    COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called by the shim with each piece of text that DPDK logs, on the thread that logs it.
extern "C" fn take_text(level: c_int, text: *const c_char, length: usize) {
    if text.is_null() {
        return;
    }
    // SAFETY: the C library hands its stream's buffer over, `length` bytes long, for the time of this call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    for line in String::from_utf8_lossy(bytes).lines().map(str::trim).filter(|line| !line.is_empty()) {
        emit(level.unsigned_abs(), line);
    }
}

/// A level of DPDK's is one of `tracing`; that EAL started well is worth no more than `debug`.
fn emit(level: u32, line: &str) {
    if level <= sys::RTE_LOG_WARNING {
        let mut kept = complaints();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(line.to_owned());
    }
    if level <= sys::RTE_LOG_WARNING && QUIET.get() {
        tracing::debug!(target: "dpdk", "{line}");
    } else if level <= sys::RTE_LOG_ERR {
        tracing::error!(target: "dpdk", "{line}");
    } else if level == sys::RTE_LOG_WARNING {
        tracing::warn!(target: "dpdk", "{line}");
    } else if level <= sys::RTE_LOG_INFO {
        tracing::debug!(target: "dpdk", "{line}");
    } else {
        tracing::trace!(target: "dpdk", "{line}");
    }
}
