//! A process that runs beside the test and ends with it.

use super::{Namespace, World, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to end after it was asked to.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A running process with its output in a log; asked to end, then killed, when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` inside a namespace.
    #[track_caller]
    pub fn start(world: &World, namespace: &Namespace, program: &str, arguments: &[&str]) -> Self {
        let mut command = namespace.command(program);
        command.args(arguments);
        Self::spawn(world, program, command)
    }

    /// Starts a prepared command; `name` is for its log.
    #[track_caller]
    pub fn spawn(world: &World, name: &str, command: Command) -> Self {
        let name = Path::new(name).file_name().map_or(name.to_owned(), |name| name.to_string_lossy().into_owned());
        Self::spawn_into(&name, world.log(&name), command)
    }

    /// Starts a prepared command whose output goes to a file that no failure needs to show.
    #[track_caller]
    pub fn spawn_into(name: &str, log: PathBuf, mut command: Command) -> Self {
        let file = File::create(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let both = file.try_clone().expect("a second handle on the log");
        command.stdin(Stdio::null()).stdout(file).stderr(both);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process { name: name.to_owned(), child, log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// All it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it has printed `text`.
    #[track_caller]
    pub fn wait_for_output(&mut self, text: &str, limit: Duration) {
        let what = format!("{} prints {text:?}", self.name);
        wait_until(&what, limit, || {
            let said = self.output().contains(text);
            assert!(said || self.is_running(), "{} ended before it printed {text:?}:\n{}", self.name, self.output());
            said
        });
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // A process that ended in between is as good as signalled; its id is not reused before it is waited for.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        let what = format!("{} ends", self.name);
        wait_until(&what, limit, || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("it ended")
    }

    /// Asks it to end by SIGTERM and waits.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(STOP_LIMIT)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + STOP_LIMIT;
        while self.is_running() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
