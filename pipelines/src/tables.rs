//! The tables by which workers decide: one immutable snapshot, replaced as a whole by pointer swap.
//!
//! A change clones the snapshot, which is cheap because every part is shared or a persistent trie, and
//! publishes the clone. Workers see either all of a change or nothing of it.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::dispatch::decapsulation::Decapsulation;
use crate::dispatch::service::Services;
use crate::ids::{PortId, TunnelId};
use crate::lpm::Lpm;
use crate::packet::MacAddress;
use crate::packet::ecn::Dscp;
use crate::wireguard::Peer;
use crate::wireguard::cookie::CookieChecker;

/// Everything a worker looks up.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Counts the snapshots; a decision made under another epoch is stale.
    pub epoch: u64,
    /// The ports, by [`PortId`].
    pub ports: Arc<[PortEntry]>,
    /// The tunnels, by [`TunnelId`].
    pub tunnels: Vec<Arc<TunnelEntry>>,
    /// The tunnel that listens on a UDP port.
    pub listeners: Arc<HashMap<u16, TunnelId, ahash::RandomState>>,
    /// Addresses of the node itself, with the broadcast addresses of its networks.
    pub local: Arc<HashSet<IpAddr, ahash::RandomState>>,
    /// Virtual services.
    pub services: Arc<Services>,
    /// From whom packets inside others are taken, if from anybody.
    pub decapsulation: Option<Arc<Decapsulation>>,
    /// Routes, mirrored from the kernel.
    pub routes: Lpm<Route>,
    /// How much of what is addressed to the node itself goes to the kernel, for each worker.
    pub punt_limit: PuntLimit,
    /// Link-layer addresses of next hops, mirrored from the kernel.
    pub neighbours: Arc<HashMap<(PortId, IpAddr), MacAddress, ahash::RandomState>>,
}

impl Tables {
    /// The port's entry.
    pub fn port(&self, id: PortId) -> Option<&PortEntry> {
        self.ports.get(id.index())
    }

    /// The tunnel's entry.
    pub fn tunnel(&self, id: TunnelId) -> Option<&TunnelEntry> {
        self.tunnels.get(id.index()).map(Arc::as_ref)
    }

    /// Whether `address` is one of the node's own.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.local.contains(&address)
    }
}

/// How many packets a worker gives to the kernel, besides neighbour discovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PuntLimit {
    /// In a second.
    pub rate: u32,
    /// At once.
    pub burst: u32,
}

impl Default for PuntLimit {
    fn default() -> Self {
        Self { rate: 10_000, burst: 1_000 }
    }
}

/// The kernel's end of a port or a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Twin {
    /// The TAP twin of a port: whole frames.
    Port(PortId),
    /// The TUN twin of a tunnel: bare IP packets.
    Tunnel(TunnelId),
}

/// What workers know of a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortEntry {
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// The longest IP packet it carries.
    pub mtu: u16,
    /// Who computes UDP checksums on transmit.
    pub l4_checksum: ChecksumBy,
    /// The addresses we speak from on this port.
    pub source: Source,
}

/// Who computes a checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChecksumBy {
    /// The NIC, on transmit.
    Nic,
    /// The worker.
    Software,
}

/// Our preferred addresses on a port or tunnel, for packets that we make.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Source {
    /// For IPv4.
    pub v4: Option<Ipv4Addr>,
    /// For IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Source {
    /// The address to speak from to `destination`.
    pub fn towards(&self, destination: IpAddr) -> Option<IpAddr> {
        match destination {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }
}

/// What workers know of a tunnel.
#[derive(Clone, Debug)]
pub struct TunnelEntry {
    /// The UDP port on which it listens, on every address of the node.
    pub listen_port: u16,
    /// The longest inner packet.
    pub mtu: u16,
    /// Our inner addresses.
    pub source: Source,
    /// Whether the inner DSCP shows on the outer packet.
    pub dscp: Dscp,
    /// Which peer an inner address belongs to.
    pub allowed_ips: Lpm<Arc<Peer>>,
    /// Checks mac1 and mac2 of handshake messages.
    pub checker: Arc<CookieChecker>,
}

/// Where a route leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Out of a port.
    Port {
        /// The port.
        port: PortId,
        /// The next hop; `None` if the destination is on the link.
        gateway: Option<IpAddr>,
        /// The address to speak from, if the route has one.
        source: Option<IpAddr>,
        /// The longest packet the route carries, if it says so.
        mtu: Option<u16>,
    },
    /// Into a tunnel; its allowed IPs choose the peer.
    Tunnel(TunnelId),
    /// Nowhere: dropped in silence.
    Blackhole,
    /// Nowhere: the sender is told that the destination cannot be reached.
    Unreachable,
    /// Nowhere: the sender is told that it is forbidden.
    Prohibit,
}
