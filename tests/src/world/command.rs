//! Commands that run to their end, and waiting for a condition with a deadline.

use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Debian's own interpreter: a version manager's shim in front of it may be slow or elsewhere.
pub const PYTHON: &str = "/usr/bin/python3";

/// Runs a command and returns what it printed.
///
/// # Panics
/// If it cannot be started or exits with an error; the message has the command and all it said.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    try_run(program, arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a command; the error has the command, its exit status and all it said.
pub fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command)
}

/// Whether a command exits with success; it runs silently.
pub fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let status =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Runs a prepared command to its end.
pub(super) fn finish(mut command: Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{shown}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{shown}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Polls `condition` until it holds.
///
/// # Panics
/// After `limit`, saying `what` was waited for.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Repeats a read that a signal ended before anything came.
///
/// A machine that stops all processes for a moment and lets them go on ends every read with a timeout so: signal(7),
/// "Interruption of system calls and library functions by stop signals".
pub(super) fn uninterrupted<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            ended => return ended,
        }
    }
}
