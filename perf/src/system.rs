//! What the machine says of itself and of this process.

use std::fs;
use std::process::Command;
use std::time::Duration;

/// The CPU's name, as `/proc/cpuinfo` has it.
pub fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")).and_then(|rest| rest.split_once(':'));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// The commit that the sources are of, with a mark if they were changed since; `unknown` outside a checkout.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    match git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| changes.is_empty()) {
        true => commit,
        false => commit + "+changes",
    }
}

/// A process's resident memory in bytes, from `/proc`; `None` if there is no such process.
pub fn resident(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?;
    kibibytes.trim().parse::<u64>().ok().map(|number| number * 1024)
}

/// This process's resident memory once freed memory was given back.
pub fn resident_of_this() -> u64 {
    jetway_engine::heap::give_back();
    resident("self").unwrap_or_default()
}

/// Bytes of memory that can be used without others having to give theirs back; 0 if the kernel does not say.
pub fn available_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    kibibytes.and_then(|number| number.parse().ok()).map_or(0, |number: u64| number * 1024)
}

/// The CPU time that this thread has used: unlike the wall clock it stands still while another program has the core.
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the call to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// What a process's threads had of the cores, and how long they waited for one while others had it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CoreTime {
    /// Time that they ran.
    pub ran: Duration,
    /// Time that they could have run.
    pub waited: Duration,
}

impl CoreTime {
    /// Of a process up to now; nothing if there is no such process, or the kernel does not count.
    pub fn of(process: u32) -> Self {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
        texts.fold(Self::default(), |sum, text| {
            let mut numbers = text.split_whitespace().map(|word| Duration::from_nanos(word.parse().unwrap_or(0)));
            let mut next = || numbers.next().unwrap_or_default();
            Self { ran: sum.ran + next(), waited: sum.waited + next() }
        })
    }

    /// What was added since `before`.
    pub fn since(self, before: Self) -> Self {
        Self { ran: self.ran.saturating_sub(before.ran), waited: self.waited.saturating_sub(before.waited) }
    }

    /// The share of the time in which they wanted to run in which they did not.
    pub fn share_of_others(self) -> f64 {
        let wanted = self.ran + self.waited;
        if wanted.is_zero() { 0.0 } else { self.waited.as_secs_f64() / wanted.as_secs_f64() }
    }
}

/// Binds this thread to a core, so that contestants share its caches and clock. Says whether that worked.
pub fn pin(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_seen_to_have_run() {
        let this = std::process::id();
        let before = CoreTime::of(this);
        let begun = thread_cpu_time();
        while thread_cpu_time() < begun + Duration::from_millis(20) {}
        let used = CoreTime::of(this).since(before);
        // The kernel brings its figure up to date at its next tick.
        assert!(used.ran >= Duration::from_millis(10), "{used:?}");
        assert!((0.0..1.0).contains(&used.share_of_others()));
        assert_eq!(CoreTime::of(u32::MAX), CoreTime::default());
    }
}
