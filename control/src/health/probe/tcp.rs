//! Opens a TCP connection and leaves it without a trace.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use super::ProbeError;

/// A connection to the server.
pub async fn connect(to: SocketAddr) -> Result<TcpStream, ProbeError> {
    Ok(socket(to)?.connect(to).await?)
}

/// A connection on which we say something at once: that carries the acknowledgement which ends the handshake, and saves the
/// packet that would carry nothing else.
pub async fn connect_to_speak(to: SocketAddr) -> Result<TcpStream, ProbeError> {
    let socket = socket(to)?;
    SockRef::from(&socket).set_tcp_quickack(false)?;
    Ok(socket.connect(to).await?)
}

fn socket(to: SocketAddr) -> Result<TcpSocket, ProbeError> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Closed by a reset: thousands of probes a second would otherwise leave a minute of TIME-WAIT each.
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    Ok(socket)
}
