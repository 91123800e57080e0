//! Sends a datagram and waits for an objection.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::ProbeError;

/// A socket that exchanges datagrams with the server alone, and is told when they cannot be delivered.
pub async fn connect(to: SocketAddr) -> Result<UdpSocket, ProbeError> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Sends an empty datagram; returns with an answer, or with the error that says there is nobody. Silence never returns.
pub async fn ask(to: SocketAddr) -> Result<(), ProbeError> {
    let socket = connect(to).await?;
    socket.send(&[]).await?;
    socket.recv(&mut [0; 1]).await?;
    Ok(())
}
