//! The difference of two intents: what a reload must do.

mod apply;
mod restart;
#[cfg(test)]
mod tests;
mod tunnel;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::intent::{Config, Decapsulate, InterfaceName, Name, Peer, PublicKey, PuntLimit, Tunnel, Vip};
use crate::secret::Secret;

pub use restart::RestartNeeded;

/// What must be done to a node that runs one intent so that it runs another.
///
/// What only a restart can do is listed in `restart` and in nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Settings that keep their old value until the node is started anew.
    pub restart: Vec<RestartNeeded>,
    /// The new limit on packets to the kernel.
    pub punt: Option<PuntLimit>,
    /// Ports that both intents have, with what changes; ports that appear or go need a restart.
    pub ports: Vec<PortChange>,
    /// What happens to tunnels.
    pub tunnels: Changes<Tunnel, InterfaceName, TunnelChange>,
    /// What happens to virtual services.
    pub vips: Changes<Vip, Name, Vip>,
    /// From whom packets inside others are taken from now on.
    pub decapsulate: Option<Option<Decapsulate>>,
    /// The new address for metrics.
    pub metrics: Option<Option<SocketAddr>>,
}

/// What happens to a set of things of type `T`, known by `K`, when `C` says how one changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes<T, K, C> {
    /// Which go. To be done first: what they have, others may get.
    pub removed: Vec<K>,
    /// Which stay, but differently.
    pub changed: Vec<C>,
    /// Which are new.
    pub added: Vec<T>,
}

/// How a port changes while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortChange {
    /// The port.
    pub name: Name,
    /// Its addresses.
    pub addresses: AddressChange,
}

/// How the addresses of an interface change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressChange {
    /// Which go.
    pub removed: Vec<IpNet>,
    /// Which come.
    pub added: Vec<IpNet>,
}

/// How a tunnel changes while it runs; `None` is unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelChange {
    /// The tunnel.
    pub name: InterfaceName,
    /// The new UDP port; sessions stay.
    pub listen_port: Option<u16>,
    /// The new private key; every session of the tunnel ends.
    pub private_key: Option<Secret>,
    /// The node's own addresses in the tunnel.
    pub addresses: AddressChange,
    /// The new MTU in bytes.
    pub mtu: Option<u16>,
    /// Whether DSCP is copied from now on.
    pub copy_dscp: Option<bool>,
    /// What happens to peers. A network that moves from one peer to another is in the changes of both.
    pub peers: Changes<Peer, PublicKey, PeerChange>,
}

/// How a peer changes while it is connected; `None` is unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerChange {
    /// The peer.
    pub public_key: PublicKey,
    /// Its new name.
    pub name: Option<Name>,
    /// Its new preshared key, or that it has none now; the session stays until the next handshake.
    pub preshared_key: Option<Option<Secret>>,
    /// All its inner networks from now on.
    pub allowed_ips: Option<Vec<IpNet>>,
    /// Its new endpoint. If the file now has none, the learned one stays.
    pub endpoint: Option<Option<SocketAddr>>,
    /// Its new keepalive in seconds, or that it has none now.
    pub persistent_keepalive: Option<Option<u16>>,
}

/// What must be done to a node that runs `old` so that it runs `new`.
///
/// Takes time in proportion to both together, also with a million peers.
pub fn diff(old: &Config, new: &Config) -> Diff {
    Diff {
        restart: restart::needed(old, new),
        punt: changed(&old.engine.punt, &new.engine.punt),
        ports: ports(old, new),
        tunnels: changes(&old.tunnels, &new.tunnels, |tunnel| tunnel.name.clone(), tunnel::change),
        vips: changes(&old.vips, &new.vips, |vip| vip.name.clone(), changed),
        decapsulate: changed(&old.decapsulate, &new.decapsulate),
        metrics: changed(&old.api.metrics, &new.api.metrics),
    }
}

impl Diff {
    /// Whether there is nothing to do and nothing that waits for a restart.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl AddressChange {
    /// Whether the addresses stay as they are.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }

    fn between(old: &[IpNet], new: &[IpNet]) -> Self {
        let had: HashSet<_> = old.iter().collect();
        let has: HashSet<_> = new.iter().collect();
        Self {
            removed: old.iter().filter(|address| !has.contains(address)).copied().collect(),
            added: new.iter().filter(|address| !had.contains(address)).copied().collect(),
        }
    }
}

impl<T, K, C> Changes<T, K, C> {
    /// Whether everything stays as it is.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.changed.is_empty() && self.added.is_empty()
    }
}

impl<T, K, C> Default for Changes<T, K, C> {
    fn default() -> Self {
        Self { removed: Vec::new(), changed: Vec::new(), added: Vec::new() }
    }
}

fn ports(old: &Config, new: &Config) -> Vec<PortChange> {
    let both = new.ports.iter().filter_map(|port| Some((old.port(port.name.as_str())?, port)));
    let changes = both.map(|(old, new)| PortChange {
        name: new.name.clone(),
        addresses: AddressChange::between(&old.addresses, &new.addresses),
    });
    changes.filter(|change| !change.addresses.is_empty()).collect()
}

/// The changes from `old` to `new`, whose members are told apart by `key`; `compare` gives `None` for equal members.
fn changes<T: Clone, K: Eq + Hash, C>(
    old: &[T],
    new: &[T],
    key: impl Fn(&T) -> K,
    compare: impl Fn(&T, &T) -> Option<C>,
) -> Changes<T, K, C> {
    let mut before: HashMap<K, &T> = old.iter().map(|member| (key(member), member)).collect();
    let mut changes = Changes::default();
    for member in new {
        match before.remove(&key(member)) {
            Some(old) => changes.changed.extend(compare(old, member)),
            None => changes.added.push(member.clone()),
        }
    }
    // What is left in the map is gone; the order of the file makes the result the same on every run.
    changes.removed = old.iter().map(key).filter(|key| before.contains_key(key)).collect();
    changes
}

/// The new value, if it is another.
fn changed<T: Clone + PartialEq>(old: &T, new: &T) -> Option<T> {
    (old != new).then(|| new.clone())
}
