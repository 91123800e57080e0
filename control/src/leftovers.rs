//! Removes what a crashed predecessor of this node left on the machine.
//!
//! Its twins went with it, because the kernel drops a TUN or TAP device with its last descriptor, and its rules
//! that keep the kernel quiet are found and removed by the host path, which made them.

use std::io;
use std::path::{Path, PathBuf};

use jetway_config::Config;

use crate::local_socket::remove_stale;
use crate::uapi::socket_path;

/// What a node makes outside of its own memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leftovers {
    /// Unix sockets.
    pub sockets: Vec<PathBuf>,
    /// The folder of DPDK's runtime files.
    pub runtime_folder: PathBuf,
    /// What the names of its hugepage files begin with; digits follow.
    pub hugepage_prefix: String,
}

impl Leftovers {
    /// What a node of this configuration, with this file prefix of DPDK (`--file-prefix`), may leave behind. Only
    /// who holds its [`crate::single_instance::SingleInstance`] knows that nothing of it is in use.
    pub fn of(config: &Config, file_prefix: &str) -> Self {
        let sockets = config.tunnels.iter().map(|tunnel| socket_path(tunnel.name.as_str()));
        Self {
            sockets: sockets.chain([config.api.socket.clone()]).collect(),
            runtime_folder: Path::new("/var/run/dpdk").join(file_prefix),
            hugepage_prefix: format!("{file_prefix}map_"),
        }
    }

    /// Removes everything that is there, and says what it removed. What cannot be removed is logged; whoever needs
    /// its place will fail with a message of its own.
    pub fn remove(&self) -> Vec<String> {
        let mut removed = Vec::new();
        for socket in self.sockets.iter().filter(|socket| socket.exists()) {
            match remove_stale(socket) {
                Ok(()) => removed.push(socket.display().to_string()),
                Err(error) => tracing::warn!(%error, "a socket of a former process stays"),
            }
        }
        note(&mut removed, &self.runtime_folder, std::fs::remove_dir_all(&self.runtime_folder));
        for mount in hugepage_mounts() {
            self.remove_hugepages(&mount, &mut removed);
        }
        removed
    }

    fn remove_hugepages(&self, mount: &Path, removed: &mut Vec<String>) {
        let Ok(entries) = std::fs::read_dir(mount) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(&self.hugepage_prefix));
            let is_ours = number.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
            if is_ours {
                note(removed, &entry.path(), std::fs::remove_file(entry.path()));
            }
        }
    }
}

fn note(removed: &mut Vec<String>, path: &Path, result: io::Result<()>) {
    match result {
        Ok(()) => removed.push(path.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "a file of a former process stays"),
    }
}

fn hugepage_mounts() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mounted = fields.filter(|fields| fields.get(2) == Some(&"hugetlbfs"));
    mounted.filter_map(|fields| fields.get(1).map(PathBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_is_removed_and_what_others_own_stays() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let live = folder.path().join("live.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&live).unwrap();
        let runtime = folder.path().join("jetway-edge-1");
        std::fs::create_dir(&runtime).unwrap();
        std::fs::write(runtime.join("config"), "").unwrap();
        for name in ["jetway-edge-1map_0", "jetway-edge-1map_12", "jetway-edge-10map_0", "jetway-edge-1map_x"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let leftovers = Leftovers {
            sockets: vec![socket, live],
            runtime_folder: runtime,
            hugepage_prefix: "jetway-edge-1map_".to_owned(),
        };
        let mut removed = leftovers.remove();
        leftovers.remove_hugepages(folder.path(), &mut removed);
        assert_eq!(removed.len(), 4, "{removed:?}");
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["jetway-edge-10map_0", "jetway-edge-1map_x", "live.sock"]);
        assert!(leftovers.remove().is_empty(), "the second time there is nothing");
    }
}
