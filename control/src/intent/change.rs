//! What the engine has to do after the intent changed.

use std::net::SocketAddr;

use ipnet::IpNet;
use jetway_config::{PublicKey, Secret};
use jetway_pipelines::ids::{PeerIndex, TunnelId};

/// What changed, to be carried out in this order: first tunnels, then peers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Tunnels that came, went or changed.
    pub tunnels: Vec<TunnelChange>,
    /// Peers that came, went or changed. Everything that takes networks away stands before everything that gives
    /// them, so that a network that moves between peers is never lost.
    pub peers: Vec<PeerChange>,
}

impl Changes {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.tunnels.is_empty() && self.peers.is_empty()
    }
}

/// A change of a tunnel. Its addresses, MTU and the like are in the configuration and concern its twin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TunnelChange {
    /// There is a new tunnel; look at the intent for what it is.
    Added {
        /// Its number.
        tunnel: TunnelId,
        /// Its name.
        name: String,
    },
    /// The tunnel is gone, and its peers with it (each has its own [`PeerChange::Remove`]).
    Removed {
        /// Its number, free for another tunnel after this.
        tunnel: TunnelId,
    },
    /// It has another private key: its sessions end.
    PrivateKey {
        /// The tunnel.
        tunnel: TunnelId,
        /// The key.
        private_key: Secret,
    },
    /// It listens on another UDP port.
    ListenPort {
        /// The tunnel.
        tunnel: TunnelId,
        /// The port; never 0.
        listen_port: u16,
    },
}

/// A change of a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerChange {
    /// There is a new peer.
    Add {
        /// Its tunnel.
        tunnel: TunnelId,
        /// Its number in this process.
        index: PeerIndex,
        /// Its public key.
        public_key: PublicKey,
        /// What is known of it.
        spec: PeerSpec,
    },
    /// The peer is gone: its sessions end at once. Its number is to be given back by [`super::Intent::release`]
    /// when no thread knows it any more.
    Remove {
        /// Its tunnel.
        tunnel: TunnelId,
        /// Its number in this process.
        index: PeerIndex,
        /// Its public key.
        public_key: PublicKey,
        /// The networks that it had.
        allowed_ips: Vec<IpNet>,
    },
    /// The peer changed. Its sessions stay.
    Update {
        /// Its tunnel.
        tunnel: TunnelId,
        /// Its number in this process.
        index: PeerIndex,
        /// Its public key.
        public_key: PublicKey,
        /// What is different.
        update: PeerUpdate,
    },
}

/// What the operator said of a peer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerSpec {
    /// The key mixed into every handshake.
    pub preshared_key: Option<Secret>,
    /// Where it was last said to be; where it really is, the engine knows.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives; 0 for none.
    pub persistent_keepalive: u16,
    /// Its inner networks, without host bits, sorted.
    pub allowed_ips: Vec<IpNet>,
}

/// What is different of a peer; what is `None` or empty stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerUpdate {
    /// The key mixed into every handshake from now on; `Some(None)`: none.
    pub preshared_key: Option<Option<Secret>>,
    /// Where to send to from now on.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives from now on; 0 for none.
    pub persistent_keepalive: Option<u16>,
    /// Networks that are its own from now on.
    pub allowed_ips_added: Vec<IpNet>,
    /// Networks that are not its own any more.
    pub allowed_ips_removed: Vec<IpNet>,
}
