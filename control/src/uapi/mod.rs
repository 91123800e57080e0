//! The cross-platform WireGuard interface, so that `wg show`, `wg set` and `wg syncconf` work on a running node.
//!
//! Protocol: <https://www.wireguard.com/xplatform/>. [`parse_set`] and [`write_get`] are pure; [`UapiServer`]
//! serves one tunnel's socket and calls a [`TunnelControl`].

mod request;
mod server;
mod status;

pub use request::{AllowedIpChange, PeerSet, SecretChange, SetRequest, parse_set};
pub use server::{TunnelControl, UapiServer, socket_path};
pub use status::{PeerStatus, TunnelStatus, write_get};

/// Why a request was refused; `wg` shows the error number's text to its user, the log has the reason.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct UapiError {
    /// The number that the client is told, one of `errno.h`.
    pub errno: i32,
    /// What is wrong, for people; never a key.
    pub reason: String,
}

impl UapiError {
    /// The request breaks the protocol's or the node's rules (`EINVAL`).
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self { errno: libc::EINVAL, reason: reason.into() }
    }

    /// Another tunnel listens on that UDP port (`EADDRINUSE`).
    pub fn port_in_use(other: &str) -> Self {
        Self { errno: libc::EADDRINUSE, reason: format!("tunnel {other} listens on this port already") }
    }

    /// There is no such tunnel, or no more (`ENODEV`).
    pub fn no_such_tunnel(tunnel: &str) -> Self {
        Self { errno: libc::ENODEV, reason: format!("there is no tunnel {tunnel}") }
    }
}
