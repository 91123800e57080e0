//! What a difference makes of an intent.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use ipnet::IpNet;

use super::{AddressChange, Changes, Diff, PeerChange, TunnelChange};
use crate::intent::{Config, Peer, Tunnel};

impl Diff {
    /// Does to `config` all that needs no restart, as a reload does to the node.
    ///
    /// Control keeps the result as what the node runs, so that the next difference starts from the truth.
    pub fn apply(&self, config: &mut Config) {
        if let Some(punt) = self.punt {
            config.engine.punt = punt;
        }
        set(&mut config.decapsulate, &self.decapsulate);
        if let Some(metrics) = self.metrics {
            config.api.metrics = metrics;
        }
        for change in &self.ports {
            if let Some(port) = config.ports.iter_mut().find(|port| port.name == change.name) {
                change.addresses.apply(&mut port.addresses);
            }
        }
        let name = |change: &TunnelChange| change.name.clone();
        self.tunnels.apply(&mut config.tunnels, |tunnel| tunnel.name.clone(), name, apply_to_tunnel);
        let replace = |old: &mut _, new: &_| Clone::clone_from(old, new);
        self.vips.apply(&mut config.vips, |vip| vip.name.clone(), |vip| vip.name.clone(), replace);
    }
}

impl AddressChange {
    fn apply(&self, addresses: &mut Vec<IpNet>) {
        addresses.retain(|address| !self.removed.contains(address));
        addresses.extend(&self.added);
    }
}

impl<T: Clone, K: Eq + Hash, C> Changes<T, K, C> {
    fn apply(
        &self,
        members: &mut Vec<T>,
        key_of: impl Fn(&T) -> K,
        key_of_change: impl Fn(&C) -> K,
        change: impl Fn(&mut T, &C),
    ) {
        let removed: HashSet<&K> = self.removed.iter().collect();
        members.retain(|member| !removed.contains(&key_of(member)));
        let changed: HashMap<K, &C> = self.changed.iter().map(|change| (key_of_change(change), change)).collect();
        for member in members.iter_mut() {
            if let Some(how) = changed.get(&key_of(member)) {
                change(member, how);
            }
        }
        members.extend(self.added.iter().cloned());
    }
}

fn apply_to_tunnel(tunnel: &mut Tunnel, change: &TunnelChange) {
    set(&mut tunnel.listen_port, &change.listen_port);
    set(&mut tunnel.private_key, &change.private_key);
    change.addresses.apply(&mut tunnel.addresses);
    set(&mut tunnel.mtu, &change.mtu);
    set(&mut tunnel.copy_dscp, &change.copy_dscp);
    change.peers.apply(&mut tunnel.peers, |peer| peer.public_key, |change| change.public_key, apply_to_peer);
}

fn apply_to_peer(peer: &mut Peer, change: &PeerChange) {
    set(&mut peer.name, &change.name);
    set(&mut peer.preshared_key, &change.preshared_key);
    set(&mut peer.allowed_ips, &change.allowed_ips);
    set(&mut peer.endpoint, &change.endpoint);
    set(&mut peer.persistent_keepalive, &change.persistent_keepalive);
}

fn set<T: Clone>(own: &mut T, change: &Option<T>) {
    if let Some(value) = change {
        own.clone_from(value);
    }
}
