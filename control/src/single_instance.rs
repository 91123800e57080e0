//! One process per node name: a lock that a second start meets.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Where locks and sockets of nodes are.
pub const RUN_FOLDER: &str = "/run/jetway";

/// Why a node may not start.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// A living process runs it.
    #[error(
        "node {node} is already run by process {pid}; stop that first (kill {pid}), or give this node another [node] name"
    )]
    Running {
        /// The node's name.
        node: String,
        /// The process.
        pid: String,
    },
    /// The lock could not be made.
    #[error("cannot lock {}: {source}; run as root, or make its folder writable for this user", path.display())]
    Lock {
        /// The lock.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
}

/// The right to run a node, for as long as this lives. The kernel takes it back when the process dies.
#[derive(Debug)]
pub struct SingleInstance {
    lock: Flock<File>,
    path: PathBuf,
    crashed: Option<String>,
}

impl SingleInstance {
    /// Takes the lock of the node of this name, or says who has it.
    pub fn acquire(node: &str) -> Result<Self, InstanceError> {
        Self::acquire_in(Path::new(RUN_FOLDER), node)
    }

    /// As [`SingleInstance::acquire`], with the lock in another folder.
    pub fn acquire_in(folder: &Path, node: &str) -> Result<Self, InstanceError> {
        let path = folder.join(format!("{node}.lock"));
        let failed = |source| InstanceError::Lock { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        loop {
            let file = open(&path).map_err(failed)?;
            let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                    let pid = read_pid(&mut file).unwrap_or_else(|| "unknown".to_owned());
                    return Err(InstanceError::Running { node: node.to_owned(), pid });
                }
                Err((_, error)) => return Err(failed(error.into())),
            };
            // Its former holder may have removed the file between our opening and our locking it.
            if !is_still_at(&lock, &path) {
                continue;
            }
            let crashed = read_pid(&mut lock);
            write_pid(&mut lock).map_err(failed)?;
            return Ok(Self { lock, path, crashed });
        }
    }

    /// The process that ran this node before and did not stop in order, if there was one.
    pub fn crashed_predecessor(&self) -> Option<&str> {
        self.crashed.as_deref()
    }
}

impl Drop for SingleInstance {
    fn drop(&mut self) {
        // While the lock is held, so that nobody else can have taken the file over.
        if is_still_at(&self.lock, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn is_still_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => identity(ours) == identity(theirs),
        (Err(_), Ok(_)) | (Ok(_), Err(_)) | (Err(_), Err(_)) => false,
    }
}

fn read_pid(file: &mut File) -> Option<String> {
    const LONGEST: u64 = 20;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    let pid = text.trim();
    (!pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit())).then(|| pid.to_owned())
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    io::Seek::rewind(file)?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_is_refused_and_told_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = SingleInstance::acquire_in(folder.path(), "edge-1").unwrap();
        assert_eq!(first.crashed_predecessor(), None);
        let error = SingleInstance::acquire_in(folder.path(), "edge-1").unwrap_err().to_string();
        assert!(error.contains("edge-1") && error.contains(&std::process::id().to_string()), "{error}");
        let other = SingleInstance::acquire_in(folder.path(), "edge-2");
        assert!(other.is_ok(), "another node may run beside it");
    }

    #[test]
    fn a_clean_stop_leaves_nothing_and_a_crash_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        drop(SingleInstance::acquire_in(folder.path(), "edge-1").unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(folder.path().join("edge-1.lock"), "4711\n").unwrap();
        let next = SingleInstance::acquire_in(folder.path(), "edge-1").unwrap();
        assert_eq!(next.crashed_predecessor(), Some("4711"));
    }
}
