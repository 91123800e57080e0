//! WireGuard interfaces and the peers behind them.

use std::fmt;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;

use super::{InterfaceName, Name};
use crate::secret::Secret;

/// One WireGuard interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The tunnel's name, which its twin in the kernel bears.
    pub name: InterfaceName,
    /// The UDP port on which it listens, on every address of every port; never 0, unique in the node.
    pub listen_port: u16,
    /// The static private key (Curve25519).
    pub private_key: Secret,
    /// The node's own addresses inside the tunnel, each with the prefix length of its network.
    pub addresses: Vec<IpNet>,
    /// The largest inner IP packet in bytes, 576 to 8920, and at least 1280 if the tunnel has IPv6 addresses.
    pub mtu: u16,
    /// Whether the inner packet's DSCP is copied to the outer header, where the path can see it.
    pub copy_dscp: bool,
    /// Who may connect, in the order of the file.
    pub peers: Vec<Peer>,
}

/// Who may connect to a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's name, unique in its tunnel.
    pub name: Name,
    /// The peer's static public key, unique in its tunnel.
    pub public_key: PublicKey,
    /// The key that is mixed into every handshake.
    pub preshared_key: Option<Secret>,
    /// The inner networks that belong to the peer, without host bits; none is shared by two peers of one tunnel.
    pub allowed_ips: Vec<IpNet>,
    /// Where the peer was last known to be; `None`: it calls us.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives, never 0; `None`: only those of the protocol.
    pub persistent_keepalive: Option<u16>,
}

/// A static public key (Curve25519); its `Display` is base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl Tunnel {
    /// The MTU when the file says nothing: what 1,500 bytes leave beside the largest outer headers.
    pub const DEFAULT_MTU: u16 = 1420;

    /// The bytes that WireGuard over IPv6 adds to an inner packet: 40 IPv6, 8 UDP, 16 header, 16 tag.
    pub const LARGEST_OVERHEAD: u16 = 80;

    /// The peer of this name.
    pub fn peer(&self, name: &str) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.name.as_str() == name)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
