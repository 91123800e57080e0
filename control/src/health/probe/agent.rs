//! Asks a server's agent how busy the server is: who connects is sent a line.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;

use super::{ProbeError, load, tcp};

/// Bytes of a line at most.
const LINE: usize = 256;

/// Reads an agent's line, to its end or the connection's.
pub async fn ask(agent: SocketAddr) -> Result<Option<f64>, ProbeError> {
    let stream = tcp::connect(agent).await?;
    let mut line = Vec::with_capacity(LINE);
    let mut stream = stream.take(LINE as u64);
    while !line.contains(&b'\n') && stream.read_buf(&mut line).await? > 0 {}
    Ok(load::in_line(&line))
}
