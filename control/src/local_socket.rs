//! Unix sockets that only their owner may use, and that a crashed predecessor cannot block.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LocalSocketError {
    /// A living process serves it.
    #[error("{} is in use by another process; stop it first, or give this node another name or socket", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket stands in its place.
    #[error("{} exists and is not a socket; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The file system refused.
    #[error("cannot make the socket {}: {source}; check that its folder exists and is writable for this user", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
}

/// A listening Unix socket of mode 600; its file goes when it is dropped.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl LocalSocket {
    /// Listens at `path`, making its folder (mode 700) if need be, and taking the place of a socket that nobody
    /// serves any more. Must be called on a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, LocalSocketError> {
        remove_stale(path)?;
        let io_error = |source| LocalSocketError::Io { path: path.to_owned(), source };
        Self::bind_free(path).map_err(io_error)
    }

    fn bind_free(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // Made under another name first, so that there is no moment at which others may connect.
        let mut early = path.as_os_str().to_owned();
        early.push(format!(".{}", std::process::id()));
        let early = PathBuf::from(early);
        let _ = std::fs::remove_file(&early);
        let listener = UnixListener::bind(&early)?;
        let placed = std::fs::set_permissions(&early, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::rename(&early, path))
            .and_then(|()| std::fs::metadata(path));
        match placed {
            Ok(metadata) => Ok(Self { listener, path: path.to_owned(), inode: (metadata.dev(), metadata.ino()) }),
            Err(error) => {
                let _ = std::fs::remove_file(&early);
                Err(error)
            }
        }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Accepts connections.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        let is_ours = std::fs::metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode);
        if is_ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket of a process that is gone.
pub fn remove_stale(path: &Path) -> Result<(), LocalSocketError> {
    let io_error = |source| LocalSocketError::Io { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(LocalSocketError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(io_error),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(error)),
        Ok(_) => Err(LocalSocketError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_for_its_owner_alone_and_goes_with_its_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/node.sock");
        let socket = LocalSocket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        drop(socket);
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a crashed process leaves its socket");
        let socket = LocalSocket::bind(&path).unwrap();
        let error = LocalSocket::bind(&path).unwrap_err();
        assert!(matches!(error, LocalSocketError::InUse(_)), "{error}");
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(matches!(LocalSocket::bind(&path), Err(LocalSocketError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }
}
