//! How a tunnel that stays differs between two intents.

use std::collections::HashSet;

use super::{AddressChange, PeerChange, TunnelChange, changed, changes};
use crate::intent::{Peer, Tunnel};

/// What changes from `old` to `new`, two intents for one tunnel; `None` if nothing does.
pub(super) fn change(old: &Tunnel, new: &Tunnel) -> Option<TunnelChange> {
    let change = TunnelChange {
        name: new.name.clone(),
        listen_port: changed(&old.listen_port, &new.listen_port),
        private_key: changed(&old.private_key, &new.private_key),
        addresses: AddressChange::between(&old.addresses, &new.addresses),
        mtu: changed(&old.mtu, &new.mtu),
        copy_dscp: changed(&old.copy_dscp, &new.copy_dscp),
        peers: changes(&old.peers, &new.peers, |peer| peer.public_key, peer),
    };
    let settings = change.listen_port.is_none()
        && change.private_key.is_none()
        && change.addresses.is_empty()
        && change.mtu.is_none()
        && change.copy_dscp.is_none();
    (!settings || !change.peers.is_empty()).then_some(change)
}

fn peer(old: &Peer, new: &Peer) -> Option<PeerChange> {
    // The order of networks means nothing.
    let same_networks = old.allowed_ips == new.allowed_ips
        || old.allowed_ips.iter().collect::<HashSet<_>>() == new.allowed_ips.iter().collect();
    let change = PeerChange {
        public_key: new.public_key,
        name: changed(&old.name, &new.name),
        preshared_key: changed(&old.preshared_key, &new.preshared_key),
        allowed_ips: (!same_networks).then(|| new.allowed_ips.clone()),
        endpoint: changed(&old.endpoint, &new.endpoint),
        persistent_keepalive: changed(&old.persistent_keepalive, &new.persistent_keepalive),
    };
    let same = change.name.is_none()
        && change.preshared_key.is_none()
        && change.allowed_ips.is_none()
        && change.endpoint.is_none()
        && change.persistent_keepalive.is_none();
    (!same).then_some(change)
}
