//! Serves the local socket of the command line.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{Failure, NodeControl, Request, Response};
use crate::local_socket::{LocalSocket, LocalSocketError};

/// A request's length at most, in bytes.
const REQUEST_LIMIT: u64 = 64 << 10;

/// The local socket; its file goes when it is dropped.
pub struct ApiServer {
    socket: LocalSocket,
    node: Arc<dyn NodeControl>,
}

impl ApiServer {
    /// Listens at `path`, for the owner alone. Must be called on a tokio runtime.
    pub fn bind(path: &Path, node: Arc<dyn NodeControl>) -> Result<Self, LocalSocketError> {
        Ok(Self { socket: LocalSocket::bind(path)?, node })
    }

    /// Serves clients until the future is dropped.
    pub async fn run(self) {
        loop {
            match self.socket.listener().accept().await {
                Ok((stream, _)) => {
                    let node = self.node.clone();
                    tokio::spawn(async move {
                        if let Err(error) = serve(stream, node.as_ref()).await {
                            tracing::debug!(%error, "a client of the local socket went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client of the local socket");
                    // Out of file descriptors, most likely: what is open must end first.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn serve(stream: UnixStream, node: &dyn NodeControl) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        (&mut reader).take(REQUEST_LIMIT).read_line(&mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        let response = match serde_json::from_str(&line) {
            Ok(request) => answer(request, node).await,
            Err(error) => Response::Failed(Failure::new(
                format!("the request was not understood: {error}"),
                "use the jetway of the same version as the running node",
            )),
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        writer.write_all(&text).await?;
    }
}

async fn answer(request: Request, node: &dyn NodeControl) -> Response {
    let result = match request {
        Request::Stats => Ok(Response::Stats(Box::new(node.stats().await))),
        Request::Peers(query) => node.peers(query).await.map(|peers| Response::Peers { peers }),
        Request::Vips(query) => node.vips(query).await.map(|vips| Response::Vips { vips }),
        Request::Backend(order) => node.order_backend(order).await.map(|()| Response::Ordered),
        Request::Flows(query) => node.flows(query).await.map(Response::Flows),
        Request::Explain(query) => node.explain(query).await.map(|report| Response::Explained(Box::new(report))),
        Request::DryRun(order) => node.dry_run(order).await.map(|vips| Response::WouldChange { vips }),
        Request::Reload => node.reload().await.map(Response::Reloaded),
        Request::Drain => node.drain().await.map(|()| Response::Draining),
        Request::Ready => Ok(Response::Readiness(node.readiness().await)),
    };
    result.unwrap_or_else(Response::Failed)
}

#[cfg(test)]
mod tests;
