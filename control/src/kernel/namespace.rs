//! Network namespaces for tests: made for one test, gone with it.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

/// Runs `test` on a thread and a tokio runtime of its own in a fresh network namespace that ends with it.
///
/// Without the right to make a namespace it says so, loudly, and passes.
pub fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: this test needs root to make a network namespace ({error})");
            return;
        }
        ip("link set lo up");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these arguments in the namespace of this thread.
#[track_caller]
pub fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split_whitespace()));
}

/// Another namespace, held open by a process of ours.
pub struct Peer(Child);

impl Peer {
    /// Makes it, with a veth pair between it (`there`) and us (`here`).
    pub fn with_veth(here: &str, there: &str) -> Self {
        let child = Command::new("unshare").args(["-n", "sleep", "300"]).stdin(Stdio::null()).spawn().unwrap();
        let peer = Self(child);
        let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let path = format!("/proc/{}/ns/net", peer.0.id());
        wait_for(|| std::fs::read_link(&path).is_ok_and(|theirs| theirs != ours));
        ip(&format!("link add {here} type veth peer name {there} netns {}", peer.0.id()));
        ip(&format!("link set {here} up"));
        peer.ip("link set lo up");
        peer.ip(&format!("link set {there} up"));
        peer
    }

    /// Runs `ip` with these arguments there.
    #[track_caller]
    pub fn ip(&self, arguments: &str) {
        let target = self.0.id().to_string();
        run(Command::new("nsenter").args(["-t", &target, "-n", "ip"]).args(arguments.split_whitespace()));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The kernel's index of an interface in the namespace of this thread.
pub fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

#[track_caller]
fn run(command: &mut Command) {
    let output: io::Result<_> = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn wait_for(mut condition: impl FnMut() -> bool) {
    for _ in 0..5_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("what was waited for did not come in 5 s");
}
