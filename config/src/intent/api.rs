//! Where a node's own interfaces listen.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The interfaces for the CLI and for monitoring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The Unix socket of the CLI; an absolute path.
    pub socket: PathBuf,
    /// Where Prometheus fetches metrics; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}
