//! One tunnel and its peers as they shall be.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jetway_config::{Peer, PublicKey, Secret, Tunnel};
use jetway_pipelines::ids::{PeerIndex, TunnelId};
use jetway_pipelines::wireguard::x25519::KeyPair;

use super::change::{Changes, PeerChange, PeerSpec, PeerUpdate, TunnelChange};
use super::index::PeerIndices;
use super::is_same_secret;
use crate::uapi::{AllowedIpChange, PeerSet, SecretChange, SetRequest};

/// A tunnel as it shall be.
#[derive(Debug)]
pub struct TunnelIntent {
    id: TunnelId,
    private_key: Secret,
    listen_port: u16,
    fwmark: u32,
    peers: BTreeMap<PublicKey, PeerIntent>,
    owners: BTreeMap<IpNet, PublicKey>,
}

/// A peer as it shall be.
#[derive(Clone, Debug)]
pub struct PeerIntent {
    /// Its number in this process.
    pub index: PeerIndex,
    /// Its name in the configuration; `None` for one that only `wg` knows.
    pub name: Option<Box<str>>,
    /// Who wants it.
    pub origin: Origin,
    /// What is known of it.
    pub spec: PeerSpec,
}

/// Who wants a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The configuration file.
    File,
    /// Somebody who used `wg` while the node ran.
    Runtime,
}

/// Peers before they were touched; `None` where there was none.
type Touched = BTreeMap<PublicKey, Option<(PeerIndex, PeerSpec)>>;

impl TunnelIntent {
    pub(super) fn new(id: TunnelId, wanted: &Tunnel) -> Self {
        Self {
            id,
            private_key: wanted.private_key.clone(),
            listen_port: wanted.listen_port,
            fwmark: 0,
            peers: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }

    /// Its number; it stays the same over reloads.
    pub fn id(&self) -> TunnelId {
        self.id
    }

    /// Its private key.
    pub fn private_key(&self) -> &Secret {
        &self.private_key
    }

    /// Its public key.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(*KeyPair::new(self.private_key.expose()).public())
    }

    /// The UDP port on which it listens.
    pub fn listen_port(&self) -> u16 {
        self.listen_port
    }

    /// The mark that `wg` set; it is only shown again.
    pub fn fwmark(&self) -> u32 {
        self.fwmark
    }

    /// The peer of this key.
    pub fn peer(&self, public_key: &PublicKey) -> Option<&PeerIntent> {
        self.peers.get(public_key)
    }

    /// Every peer, by key.
    pub fn peers(&self) -> impl Iterator<Item = (&PublicKey, &PeerIntent)> {
        self.peers.iter()
    }

    /// Makes everything of the file as the file says; but a tunnel is no peer of itself.
    pub(super) fn reload(&mut self, wanted: &Tunnel, indices: &mut PeerIndices, changes: &mut Changes) {
        self.set_private_key(wanted.private_key.clone(), changes);
        self.set_listen_port(wanted.listen_port, changes);
        let mut touched = Touched::new();
        let own = self.public_key();
        let wanted_peers = || wanted.peers.iter().filter(|peer| peer.public_key != own);
        let in_file: BTreeSet<&PublicKey> = wanted_peers().map(|peer| &peer.public_key).collect();
        let gone = self.peers.iter().filter(|(key, peer)| peer.origin == Origin::File && !in_file.contains(key));
        for key in gone.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.remove_peer(&key, &mut touched);
        }
        for peer in wanted_peers() {
            if !self.is_as_in_file(peer) {
                self.reload_peer(peer, indices, &mut touched);
            }
        }
        self.report(touched, changes);
    }

    /// Does what a request of `wg` says; nothing of it can fail any more.
    pub(super) fn set(&mut self, request: SetRequest, indices: &mut PeerIndices, changes: &mut Changes) {
        let mut touched = Touched::new();
        if let Some(SecretChange::Set(private_key)) = request.private_key {
            self.set_private_key(private_key, changes);
        }
        // Port 0 leaves the choice to us: the one that it has is as good as any.
        if let Some(listen_port) = request.listen_port.filter(|port| *port != 0) {
            self.set_listen_port(listen_port, changes);
        }
        self.fwmark = request.fwmark.unwrap_or(self.fwmark);
        if request.replace_peers {
            for key in self.peers.keys().copied().collect::<Vec<_>>() {
                self.remove_peer(&key, &mut touched);
            }
        }
        let own = self.public_key();
        for peer in request.peers {
            // As in the kernel: a tunnel is no peer of itself.
            if peer.public_key != own {
                self.set_peer(peer, indices, &mut touched);
            }
        }
        self.report(touched, changes);
    }

    pub(super) fn remove_all_peers(&mut self, changes: &mut Changes) {
        let mut touched = Touched::new();
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            self.remove_peer(&key, &mut touched);
        }
        self.report(touched, changes);
    }

    fn set_private_key(&mut self, private_key: Secret, changes: &mut Changes) {
        if self.private_key != private_key {
            self.private_key = private_key.clone();
            changes.tunnels.push(TunnelChange::PrivateKey { tunnel: self.id, private_key });
        }
    }

    fn set_listen_port(&mut self, listen_port: u16, changes: &mut Changes) {
        if self.listen_port != listen_port {
            self.listen_port = listen_port;
            changes.tunnels.push(TunnelChange::ListenPort { tunnel: self.id, listen_port });
        }
    }

    /// Whether a peer needs no work, so that a reload of many peers touches only those that changed.
    fn is_as_in_file(&self, wanted: &Peer) -> bool {
        self.peers.get(&wanted.public_key).is_some_and(|peer| {
            let PeerSpec { preshared_key, endpoint, persistent_keepalive, allowed_ips } = &peer.spec;
            peer.origin == Origin::File
                && peer.name.as_deref() == Some(wanted.name.as_str())
                && is_same_secret(preshared_key.as_ref(), wanted.preshared_key.as_ref())
                && (wanted.endpoint.is_none() || *endpoint == wanted.endpoint)
                && *persistent_keepalive == wanted.persistent_keepalive.unwrap_or(0)
                && *allowed_ips == sorted(&wanted.allowed_ips)
        })
    }

    fn reload_peer(&mut self, wanted: &Peer, indices: &mut PeerIndices, touched: &mut Touched) {
        let key = wanted.public_key;
        let peer = self.find_or_make(key, indices, touched);
        peer.origin = Origin::File;
        peer.name = Some(wanted.name.as_str().into());
        peer.spec.preshared_key = wanted.preshared_key.clone();
        peer.spec.endpoint = wanted.endpoint.or(peer.spec.endpoint);
        peer.spec.persistent_keepalive = wanted.persistent_keepalive.unwrap_or(0);
        self.clear_allowed_ips(&key);
        for net in &wanted.allowed_ips {
            self.give(*net, key, touched);
        }
    }

    fn set_peer(&mut self, request: PeerSet, indices: &mut PeerIndices, touched: &mut Touched) {
        let key = request.public_key;
        if request.remove {
            self.remove_peer(&key, touched);
            return;
        }
        if request.update_only && !self.peers.contains_key(&key) {
            return;
        }
        let peer = self.find_or_make(key, indices, touched);
        match request.preshared_key {
            Some(SecretChange::Set(secret)) => peer.spec.preshared_key = Some(secret),
            Some(SecretChange::Clear) => peer.spec.preshared_key = None,
            None => {}
        }
        peer.spec.endpoint = request.endpoint.or(peer.spec.endpoint);
        peer.spec.persistent_keepalive = request.persistent_keepalive.unwrap_or(peer.spec.persistent_keepalive);
        if request.replace_allowed_ips {
            self.clear_allowed_ips(&key);
        }
        for change in request.allowed_ips {
            match change {
                AllowedIpChange::Add(net) => self.give(net, key, touched),
                AllowedIpChange::Remove(net) => self.take(net, &key),
            }
        }
    }

    /// A peer that is removed and made again within one change keeps its number and endpoint: it only changed.
    fn find_or_make(&mut self, key: PublicKey, indices: &mut PeerIndices, touched: &mut Touched) -> &mut PeerIntent {
        self.touch(&key, touched);
        self.peers.entry(key).or_insert_with(|| {
            let before = touched.get(&key).and_then(|before| before.as_ref());
            PeerIntent {
                index: before.map_or_else(|| indices.take(), |(index, _)| *index),
                name: None,
                origin: Origin::Runtime,
                spec: PeerSpec { endpoint: before.and_then(|(_, spec)| spec.endpoint), ..PeerSpec::default() },
            }
        })
    }

    fn remove_peer(&mut self, key: &PublicKey, touched: &mut Touched) {
        self.touch(key, touched);
        self.clear_allowed_ips(key);
        self.peers.remove(key);
    }

    /// Remembers how a peer was before its first change.
    fn touch(&self, key: &PublicKey, touched: &mut Touched) {
        touched.entry(*key).or_insert_with(|| self.peers.get(key).map(|peer| (peer.index, peer.spec.clone())));
    }

    /// Makes a network this peer's, and no other's.
    fn give(&mut self, net: IpNet, key: PublicKey, touched: &mut Touched) {
        if let Some(before) = self.owners.insert(net, key).filter(|before| *before != key) {
            self.touch(&before, touched);
            if let Some(loser) = self.peers.get_mut(&before) {
                loser.spec.allowed_ips.retain(|own| *own != net);
            }
        }
        if let Some(peer) = self.peers.get_mut(&key)
            && let Err(place) = peer.spec.allowed_ips.binary_search(&net)
        {
            peer.spec.allowed_ips.insert(place, net);
        }
    }

    fn take(&mut self, net: IpNet, key: &PublicKey) {
        if self.owners.get(&net) == Some(key) {
            self.owners.remove(&net);
        }
        if let Some(peer) = self.peers.get_mut(key) {
            peer.spec.allowed_ips.retain(|own| *own != net);
        }
    }

    fn clear_allowed_ips(&mut self, key: &PublicKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        for net in std::mem::take(&mut peer.spec.allowed_ips) {
            self.owners.remove(&net);
        }
    }

    /// Says what became of the touched peers: what is taken away first, then what is given.
    fn report(&self, touched: Touched, changes: &mut Changes) {
        let tunnel = self.id;
        let mut given = Vec::new();
        for (public_key, before) in touched {
            match (before, self.peers.get(&public_key)) {
                (None, None) => {}
                (Some((index, spec)), None) => {
                    let allowed_ips = spec.allowed_ips;
                    changes.peers.push(PeerChange::Remove { tunnel, index, public_key, allowed_ips });
                }
                (None, Some(peer)) => {
                    let spec = peer.spec.clone();
                    given.push(PeerChange::Add { tunnel, index: peer.index, public_key, spec });
                }
                (Some((index, before)), Some(peer)) => {
                    let (taken, update) = difference(&before, &peer.spec);
                    let say = |update| PeerChange::Update { tunnel, index, public_key, update };
                    changes.peers.extend(taken.map(say));
                    given.extend(update.map(say));
                }
            }
        }
        changes.peers.extend(given);
    }
}

/// What is to be taken away, and everything else that is different.
fn difference(before: &PeerSpec, now: &PeerSpec) -> (Option<PeerUpdate>, Option<PeerUpdate>) {
    let without = |these: &[IpNet], others: &[IpNet]| -> Vec<IpNet> {
        these.iter().filter(|net| others.binary_search(net).is_err()).copied().collect()
    };
    let taken =
        PeerUpdate { allowed_ips_removed: without(&before.allowed_ips, &now.allowed_ips), ..PeerUpdate::default() };
    let changed_key = !is_same_secret(before.preshared_key.as_ref(), now.preshared_key.as_ref());
    let update = PeerUpdate {
        preshared_key: changed_key.then(|| now.preshared_key.clone()),
        endpoint: now.endpoint.filter(|_| before.endpoint != now.endpoint),
        persistent_keepalive: (before.persistent_keepalive != now.persistent_keepalive)
            .then_some(now.persistent_keepalive),
        allowed_ips_added: without(&now.allowed_ips, &before.allowed_ips),
        allowed_ips_removed: Vec::new(),
    };
    let some = |update: PeerUpdate| (update != PeerUpdate::default()).then_some(update);
    (some(taken), some(update))
}

fn sorted(nets: &[IpNet]) -> Vec<IpNet> {
    let mut nets = nets.to_vec();
    nets.sort_unstable();
    nets.dedup();
    nets
}
