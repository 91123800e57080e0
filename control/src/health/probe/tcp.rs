//! Opens a TCP connection and leaves it without a trace.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::ProbeError;

/// A connection to the server.
pub async fn connect(to: SocketAddr) -> Result<TcpStream, ProbeError> {
    let stream = TcpStream::connect(to).await?;
    // Closed by a reset: thousands of probes a second would otherwise leave a minute of TIME-WAIT each.
    stream.set_zero_linger()?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
