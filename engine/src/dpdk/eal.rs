//! The start and end of DPDK's environment (EAL) in this process, and the registration of threads with it.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dpdk_sys as sys;

use super::device::{Device, DeviceError};
use super::log;
pub use super::log::LogLevel;

/// What kind of pages DPDK's memory is to come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Memory {
    /// Hugepages when enough of them are free, ordinary pages otherwise.
    #[default]
    Automatic,
    /// Hugepages or nothing.
    HugePages,
    /// Ordinary pages. Drivers of PCI devices then need vfio-pci.
    OrdinaryPages,
}

/// How to start the EAL.
#[derive(Clone, Debug)]
pub struct EalOptions {
    /// The node's name; it distinguishes this engine's files from those of others on the machine.
    pub node: String,
    /// Where memory comes from.
    pub memory: Memory,
    /// How much memory pools and drivers may use, in MiB.
    pub memory_mib: u32,
    /// The cores of the calling thread and of DPDK's own threads; those that the calling thread may use if empty.
    pub control_cores: Vec<usize>,
    /// The devices of all ports. PCI devices among them are the only ones that DPDK touches, and have to be named here;
    /// virtual devices come to life with their port, and are checked here.
    pub devices: Vec<Device>,
    /// How much DPDK may log.
    pub log: LogLevel,
}

/// The EAL could not be started or used.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// It was started before: DPDK can be started once in the life of a process.
    #[error("DPDK was started before in this process, which it allows once: restart the process")]
    AlreadyStarted,
    /// Too few free hugepages.
    #[error(
        "{wanted} MiB of hugepages are wanted and {free} MiB are free: reserve some \
         (`dpdk-hugepages.py --setup {wanted}M`), or allow ordinary pages with `memory = \"auto\"`"
    )]
    HugePagesMissing {
        /// MiB wanted.
        wanted: u32,
        /// MiB free.
        free: u64,
    },
    /// A device is malformed or missing.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The core does not exist here, or may not be used.
    #[error("no core of {0:?} can be used by this process: see `nproc --all` and `taskset -p $$`")]
    CoresUnusable(Vec<usize>),
    /// The EAL gave up.
    #[error("DPDK did not start ({reason}), with the arguments `{arguments}`{said}{hint}")]
    Refused {
        /// What it says of its reason.
        reason: String,
        /// What it was called with.
        arguments: String,
        /// Its last log lines.
        said: String,
        /// What to do.
        hint: &'static str,
    },
    /// A thread could not be registered.
    #[error("this thread could not be registered with DPDK ({0}): it knows at most 127 workers")]
    ThreadRefused(String),
}

/// DPDK's environment, alive as long as one clone of this, one port, pool or registered thread is.
#[derive(Clone)]
pub struct Eal(Arc<Environment>);

struct Environment {
    huge_pages: bool,
}

static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts the EAL: with ordinary or huge pages, without files that could stay behind or meet another engine's,
    /// and without touching any PCI device that is not named. Pins the calling thread to the control cores.
    pub fn start(options: &EalOptions) -> Result<Self, EalError> {
        for device in &options.devices {
            device.check_present()?;
        }
        let huge_pages = use_huge_pages(options)?;
        let cores = control_cores(options)?;
        let arguments = arguments(options, huge_pages, &cores);
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::AlreadyStarted);
        }
        log::forward();
        log::clear_complaints();
        tracing::debug!(arguments = arguments.join(" "), "starting DPDK");
        match initialise(&arguments) {
            Ok(()) => {
                remove_runtime_folder();
                Ok(Self(Arc::new(Environment { huge_pages })))
            }
            Err(reason) => Err(EalError::Refused {
                reason,
                arguments: arguments.join(" "),
                said: log::said(),
                hint: match huge_pages {
                    true => ". Hugepages need root or CAP_IPC_LOCK; `memory = \"ordinary\"` does without them",
                    false => ". Ordinary pages are in use: PCI devices on uio_pci_generic need hugepages and root",
                },
            }),
        }
    }

    /// Whether its memory is on hugepages.
    pub fn huge_pages(&self) -> bool {
        self.0.huge_pages
    }

    /// Makes the calling thread known to DPDK, so that its pools keep a cache for it. For workers, once each.
    pub fn register_thread(&self) -> Result<RegisteredThread, EalError> {
        // SAFETY: the EAL is running.
        match unsafe { sys::rte_thread_register() } {
            0 => Ok(RegisteredThread { _environment: self.clone(), _not_send: PhantomData }),
            _ => Err(EalError::ThreadRefused(last_error())),
        }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // SAFETY: the last port, pool and registered thread is gone; each of them held a clone of `Eal`.
        let result = unsafe { sys::rte_eal_cleanup() };
        if result != 0 {
            tracing::warn!("DPDK did not clean up ({})", error_text(-result));
        }
    }
}

/// The calling thread is known to DPDK until this is dropped.
#[must_use = "the thread is unregistered when this is dropped"]
pub struct RegisteredThread {
    _environment: Eal,
    /// Only the thread itself can unregister.
    _not_send: PhantomData<*const ()>,
}

impl Drop for RegisteredThread {
    fn drop(&mut self) {
        // SAFETY: this thread registered itself, and the EAL is running.
        unsafe { sys::rte_thread_unregister() };
    }
}

/// DPDK's words for an errno.
pub(super) fn error_text(code: c_int) -> String {
    // SAFETY: rte_strerror takes any number, and returns a string of this thread or a static one.
    let text = unsafe { CStr::from_ptr(sys::rte_strerror(code)) };
    text.to_string_lossy().into_owned()
}

/// DPDK's words for the calling thread's last error.
pub(super) fn last_error() -> String {
    // SAFETY: it reads a variable of this thread.
    error_text(unsafe { sys::shim_errno() })
}

fn use_huge_pages(options: &EalOptions) -> Result<bool, EalError> {
    let free = free_huge_mib();
    let enough = free >= u64::from(options.memory_mib);
    match options.memory {
        Memory::OrdinaryPages => Ok(false),
        Memory::Automatic => Ok(enough),
        Memory::HugePages if enough => Ok(true),
        Memory::HugePages => Err(EalError::HugePagesMissing { wanted: options.memory_mib, free }),
    }
}

/// MiB of free hugepages of all sizes.
fn free_huge_mib() -> u64 {
    let Ok(folders) = fs::read_dir("/sys/kernel/mm/hugepages") else { return 0 };
    let free = |folder: &Path| {
        let name = folder.file_name()?.to_str()?;
        let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()?;
        let count = fs::read_to_string(folder.join("free_hugepages")).ok()?.trim().parse::<u64>().ok()?;
        Some(kib * count / 1024)
    };
    folders.flatten().filter_map(|folder| free(&folder.path())).sum()
}

fn control_cores(options: &EalOptions) -> Result<Vec<usize>, EalError> {
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).map_err(|_| {
        // The call cannot fail for the calling thread on a kernel with at most 1,024 cores.
        EalError::CoresUnusable(options.control_cores.clone())
    })?;
    let usable = |core: &usize| allowed.is_set(*core).unwrap_or(false);
    let all = 0..nix::sched::CpuSet::count();
    let cores: Vec<_> = match options.control_cores.as_slice() {
        [] => all.filter(usable).collect(),
        wanted => wanted.iter().copied().filter(usable).collect(),
    };
    match cores.is_empty() {
        true => Err(EalError::CoresUnusable(options.control_cores.clone())),
        false => Ok(cores),
    }
}

/// The EAL's command line. `--in-memory` keeps everything in anonymous memory, as `--no-shconf` does with ordinary
/// pages, which EAL does not let it go with: nothing is left by a crash, and engines cannot meet. Both exclude DPDK's
/// secondary processes, which Jetway has none of.
fn arguments(options: &EalOptions, huge_pages: bool, cores: &[usize]) -> Vec<String> {
    let cores = cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut arguments = vec![
        "jetway".to_owned(),
        format!("--lcores=0@({cores})"),
        format!("--file-prefix=jetway-{}", file_name(&options.node)),
        "--no-telemetry".to_owned(),
        format!("--log-level=*:{}", options.log.name()),
        format!("-m{}", options.memory_mib),
    ];
    match huge_pages {
        true => arguments.push("--in-memory".to_owned()),
        false => arguments.extend(["--no-huge".to_owned(), "--no-shconf".to_owned()]),
    }
    let pci = options.devices.iter().filter(|device| matches!(device, Device::Pci { .. }));
    let allowed: Vec<_> = pci.map(|device| format!("--allow={device}")).collect();
    if allowed.is_empty() {
        // Without a device that wants physical addresses, nobody needs the right to read them.
        arguments.extend(["--no-pci".to_owned(), "--iova-mode=va".to_owned()]);
    }
    arguments.extend(allowed);
    arguments
}

/// The node's name with only what a file name and DPDK's option parser take.
fn file_name(node: &str) -> String {
    node.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).take(32).collect()
}

fn initialise(arguments: &[String]) -> Result<(), String> {
    // The EAL keeps pointers into its arguments, so they stay for the life of the process.
    let arguments = arguments.iter().map(|argument| CString::new(argument.as_str()).unwrap_or_default());
    let mut pointers: Vec<*mut c_char> = arguments.map(CString::into_raw).collect();
    let count = c_int::try_from(pointers.len()).unwrap_or(c_int::MAX);
    pointers.push(std::ptr::null_mut());
    let pointers = pointers.leak();
    // SAFETY: `count` writable strings that live on, and a null behind them; nobody else starts the EAL.
    match unsafe { sys::rte_eal_init(count, pointers.as_mut_ptr()) } {
        result if result >= 0 => Ok(()),
        _ => Err(last_error()),
    }
}

/// The EAL makes a folder that nothing of ours uses, and leaves it behind. If a driver put something in, it stays.
fn remove_runtime_folder() {
    // SAFETY: the EAL is running; the path is a static string of it.
    let path = unsafe { CStr::from_ptr(sys::rte_eal_get_runtime_dir()) };
    if let Err(error) = path.to_str().map_or(Ok(()), fs::remove_dir) {
        tracing::debug!("DPDK's folder {} stays: {error}", path.to_string_lossy());
    }
}

#[cfg(test)]
mod tests {
    use super::{EalOptions, LogLevel, Memory, arguments};

    fn options(devices: &[&str]) -> EalOptions {
        EalOptions {
            node: "edge 1/a".into(),
            memory: Memory::Automatic,
            memory_mib: 64,
            control_cores: Vec::new(),
            devices: devices.iter().map(|device| device.parse().expect("a device")).collect(),
            log: LogLevel::default(),
        }
    }

    #[test]
    fn the_machines_own_nics_stay_untouched_unless_they_are_named() {
        let without = arguments(&options(&["net_tap0,iface=x"]), false, &[0, 1]);
        assert!(without.contains(&"--no-pci".to_owned()));
        assert!(without.contains(&"--no-huge".to_owned()));
        assert!(without.contains(&"--lcores=0@(0,1)".to_owned()));
        assert!(without.contains(&"--file-prefix=jetway-edge_1_a".to_owned()));
        let with = arguments(&options(&["0000:3b:00.0,rx=1", "net_null0"]), true, &[0]);
        assert!(with.contains(&"--allow=0000:3b:00.0,rx=1".to_owned()));
        assert!(!with.iter().any(|argument| argument == "--no-pci" || argument == "--no-huge"));
    }
}
