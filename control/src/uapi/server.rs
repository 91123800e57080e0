//! Serves one tunnel's UAPI socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use zeroize::{Zeroize, Zeroizing};

use super::{SetRequest, TunnelStatus, UapiError, parse_set, write_get};
use crate::local_socket::{LocalSocket, LocalSocketError};

/// Where `wg` looks for the sockets of userspace implementations.
const FOLDER: &str = "/var/run/wireguard";
/// A request's length at most, in bytes: some 200,000 peers.
const REQUEST_LIMIT: u64 = 64 << 20;

/// What the server needs of the node.
pub trait TunnelControl: Send + Sync {
    /// How the tunnel is now.
    fn status<'a>(&'a self, tunnel: &'a str) -> BoxFuture<'a, Result<TunnelStatus, UapiError>>;
    /// Does what the request says, all of it or nothing.
    fn apply<'a>(&'a self, tunnel: &'a str, request: SetRequest) -> BoxFuture<'a, Result<(), UapiError>>;
}

/// The socket at which `wg` finds a tunnel of this name.
pub fn socket_path(tunnel: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{tunnel}.sock"))
}

/// The socket of one tunnel; its file goes when it is dropped.
pub struct UapiServer {
    socket: LocalSocket,
    tunnel: Arc<str>,
    control: Arc<dyn TunnelControl>,
}

impl UapiServer {
    /// Listens where `wg` looks. Must be called on a tokio runtime.
    pub fn bind(tunnel: &str, control: Arc<dyn TunnelControl>) -> Result<Self, LocalSocketError> {
        let socket = LocalSocket::bind(&socket_path(tunnel))?;
        Ok(Self { socket, tunnel: tunnel.into(), control })
    }

    /// Serves clients until the future is dropped.
    pub async fn run(self) {
        loop {
            match self.socket.listener().accept().await {
                Ok((stream, _)) => {
                    let (tunnel, control) = (self.tunnel.clone(), self.control.clone());
                    tokio::spawn(async move {
                        if let Err(error) = serve(stream, &tunnel, control.as_ref()).await {
                            tracing::debug!(%tunnel, %error, "a client of the WireGuard socket went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(tunnel = %self.tunnel, %error, "cannot accept a client of the WireGuard socket");
                    // Out of file descriptors, most likely: what is open must end first.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn serve(stream: UnixStream, tunnel: &str, control: &dyn TunnelControl) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(request) = read_request(&mut reader).await? {
        match answer(&request, tunnel, control).await {
            Ok(text) => writer.write_all(text.as_bytes()).await?,
            Err(error) => {
                tracing::warn!(%tunnel, %error, errno = error.errno, "refused a request at the WireGuard socket");
                writer.write_all(format!("errno={}\n\n", error.errno).as_bytes()).await?;
            }
        }
    }
    Ok(())
}

async fn answer(request: &str, tunnel: &str, control: &dyn TunnelControl) -> Result<Zeroizing<String>, UapiError> {
    match request.split_once('\n') {
        Some(("get=1", "")) => Ok(write_get(&control.status(tunnel).await?)),
        Some(("set=1", body)) => {
            control.apply(tunnel, parse_set(body)?).await?;
            Ok(Zeroizing::new("errno=0\n\n".to_owned()))
        }
        _ => Err(UapiError::invalid("a request that begins neither with get=1 nor with set=1")),
    }
}

/// Reads lines up to an empty one, which is left out; `None` when the client is done.
async fn read_request(reader: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> io::Result<Option<Zeroizing<String>>> {
    let mut reader = reader.take(REQUEST_LIMIT);
    let mut request = Zeroizing::new(String::with_capacity(1 << 16));
    let mut line = Zeroizing::new(String::with_capacity(1 << 10));
    loop {
        line.zeroize();
        let length = reader.read_line(&mut line).await?;
        match line.as_str() {
            "\n" => return Ok(Some(request)),
            _ if length == 0 && request.is_empty() => return Ok(None),
            text if length == 0 || !text.ends_with('\n') => return Err(io::ErrorKind::UnexpectedEof.into()),
            text => append(&mut request, text),
        }
    }
}

/// Appends without leaving a copy of what was there when the text has to move.
fn append(request: &mut Zeroizing<String>, line: &str) {
    if request.capacity() - request.len() < line.len() {
        let mut larger = Zeroizing::new(String::with_capacity(2 * (request.len() + line.len())));
        larger.push_str(request);
        std::mem::swap(request, &mut larger);
    }
    request.push_str(line);
}

#[cfg(test)]
mod tests;
