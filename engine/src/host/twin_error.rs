//! Why a twin could not be made, and what to do about it.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;

/// Why a twin could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// The name is none that the kernel accepts.
    #[error("`{name}` cannot be an interface's name: it takes 1 to 15 characters without space, `/`, `:` or `%`")]
    Name {
        /// The name.
        name: String,
    },
    /// The kernel has no TUN/TAP driver, or this system does not show it.
    #[error(
        "cannot make the interface {name}: /dev/net/tun is not there ({cause}); load the driver with `modprobe tun`, \
         and give a container the device /dev/net/tun"
    )]
    NoDriver {
        /// The interface.
        name: String,
        /// What the system said.
        cause: io::Error,
    },
    /// We may not make interfaces.
    #[error(
        "cannot make the interface {name}: {cause}; run as root, or with the capability CAP_NET_ADMIN and access to \
         /dev/net/tun"
    )]
    NotPermitted {
        /// The interface.
        name: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The name is in use.
    #[error("cannot make the interface {name}: the name is taken by {holder}")]
    Taken {
        /// The interface.
        name: String,
        /// Who has it, and how to get it back.
        holder: String,
    },
    /// The system refused for another reason.
    #[error("cannot make the interface {name}: {cause}")]
    System {
        /// The interface.
        name: String,
        /// What the system said.
        cause: io::Error,
    },
}

impl TwinError {
    /// What an error of the system means when a TUN or TAP is made.
    pub(super) fn from_system(name: &str, cause: io::Error) -> Self {
        let name = name.to_owned();
        match cause.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => Self::NoDriver { name, cause },
            Some(Errno::EPERM | Errno::EACCES) => Self::NotPermitted { name, cause },
            Some(Errno::EBUSY | Errno::EEXIST) => Self::taken(&name),
            _ => Self::System { name, cause },
        }
    }

    /// The name is taken: says by whom.
    pub(super) fn taken(name: &str) -> Self {
        let holder = match holders(name).as_slice() {
            [] => format!(
                "an interface that is there already; see `ip -d link show {name}`, remove it with `ip link delete {name}` \
                 or choose another name"
            ),
            processes => {
                format!("a TUN/TAP interface of {}; stop that process or choose another name", processes.join(", "))
            }
        };
        Self::Taken { name: name.into(), holder }
    }
}

/// The processes in this network namespace that hold the TUN or TAP `name` open, as far as we may see them.
fn holders(name: &str) -> Vec<String> {
    let namespace = fs::read_link("/proc/thread-self/ns/net").ok();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut holders = Vec::new();
    for process in processes.flatten().map(|entry| entry.path()) {
        let Some(pid) = process.file_name().and_then(|pid| pid.to_str()?.parse::<u32>().ok()) else { continue };
        if holds(&process, name) && same_namespace(&process, namespace.as_deref()) {
            let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
            holders.push(format!("process {pid} ({})", command.trim_end()));
        }
    }
    holders
}

/// Whether any thread of the process is in `namespace`, as far as we may know.
fn same_namespace(process: &Path, namespace: Option<&Path>) -> bool {
    let Ok(threads) = fs::read_dir(process.join("task")) else { return false };
    threads.flatten().any(|thread| fs::read_link(thread.path().join("ns/net")).ok().as_deref() == namespace)
}

/// Whether the process has an open TUN/TAP file whose `fdinfo` names the interface.
fn holds(process: &Path, name: &str) -> bool {
    let Ok(files) = fs::read_dir(process.join("fdinfo")) else { return false };
    files.flatten().any(|file| {
        let info = fs::read_to_string(file.path()).unwrap_or_default();
        info.lines().any(|line| line.strip_prefix("iff:").is_some_and(|interface| interface.trim() == name))
    })
}
