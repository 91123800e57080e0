//! Asks a running node through its local socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Failure, Request, Response};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody serves the socket.
    #[error("no node answers at {}: {source}; is it running? start it with `jetway run`, or name its socket with --socket", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The user may not use the socket.
    #[error("you may not use {}; run this as the user who runs the node, usually root", .0.display())]
    Forbidden(PathBuf),
    /// The connection broke, or the answer was not understood.
    #[error("the node's answer could not be read: {0}; is the running node of the same version as this program?")]
    Broken(#[source] io::Error),
    /// The node answered that it could not do it.
    #[error(transparent)]
    Failed(Failure),
}

/// Sends one request and waits for its answer; [`Response::Failed`] becomes an error.
pub fn ask(socket: &Path, request: &Request) -> Result<Response, ApiError> {
    let mut stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ApiError::Forbidden(socket.to_owned()),
        _ => ApiError::NotRunning { path: socket.to_owned(), source },
    })?;
    match exchange(&mut stream, request).map_err(ApiError::Broken)? {
        Response::Failed(failure) => Err(ApiError::Failed(failure)),
        response => Ok(response),
    }
}

fn exchange(stream: &mut UnixStream, request: &Request) -> io::Result<Response> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&answer)?)
}
