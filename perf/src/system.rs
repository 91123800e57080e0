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

/// The CPU time that this thread has used: unlike the wall clock it stands still while another program has the core.
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the call to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// The CPU time of a process, to the kernel's tick of mostly 10 ms; `None` if there is no such process.
pub fn cpu_time(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which is in brackets and may hold anything: state is field 3, user and system time are 14 and 15.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum();
    // SAFETY: it reads a constant of the kernel.
    let second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Some(Duration::from_secs_f64(ticks as f64 / second.max(1) as f64))
}

/// Binds this thread to a core, so that contestants share its caches and clock. Says whether that worked.
pub fn pin(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}
