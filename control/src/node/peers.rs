//! Carries changes of peers to the tables and to the handshaker.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use jetway_pipelines::ids::PeerIndex;
use jetway_pipelines::wireguard::{Endpoint, Peer};
use zeroize::Zeroizing;

use super::Node;
use crate::intent::{PeerChange, PeerSpec, PeerUpdate};

/// Gives a peer's number back once every worker has passed a quiescent point.
struct Release {
    to: Sender<PeerIndex>,
    peer: Arc<Peer>,
}

impl Drop for Release {
    fn drop(&mut self) {
        // The node's end is gone only when the node ends.
        let _ = self.to.send(self.peer.index);
    }
}

/// A peer that the handshaker has to know, with its preshared key.
type NewPeer = (Arc<Peer>, Option<Zeroizing<[u8; 32]>>);

impl Node {
    /// Carries out changes in their order. New peers reach the handshaker in one request, however many they are.
    pub(super) fn change_peers(&mut self, changes: Vec<PeerChange>) {
        let mut new: Vec<NewPeer> = Vec::new();
        for change in changes {
            match change {
                PeerChange::Add { tunnel, index, public_key, spec } => {
                    let peer = Arc::new(Peer::new(index, tunnel, public_key.0));
                    new.push(self.add_peer(peer, spec));
                }
                PeerChange::Remove { tunnel, index, public_key: _, allowed_ips } => {
                    for net in &allowed_ips {
                        self.tables.disallow(tunnel, net);
                    }
                    self.remove_peer(index);
                }
                PeerChange::Update { tunnel: _, index, public_key: _, update } => self.update_peer(index, update),
            }
        }
        if new.is_empty() {
            return;
        }
        self.engine.handshakes.tell(move |handshaker, now| {
            for (peer, preshared_key) in new {
                if let Err(error) = handshaker.add_peer(peer, preshared_key.map(|key| *key), now) {
                    tracing::error!(%error, "the handshaker refused a peer that the configuration's check let pass");
                }
            }
        });
    }

    fn add_peer(&mut self, peer: Arc<Peer>, spec: PeerSpec) -> NewPeer {
        peer.persistent_keepalive.store(spec.persistent_keepalive, Ordering::Relaxed);
        if let Some(endpoint) = spec.endpoint {
            peer.endpoint.store(Endpoint::configured(endpoint));
        }
        for net in spec.allowed_ips {
            self.tables.allow(peer.tunnel, net, Arc::clone(&peer));
        }
        self.peers.insert(peer.index, Arc::clone(&peer));
        (peer, spec.preshared_key.map(|key| Zeroizing::new(*key.expose())))
    }

    fn remove_peer(&mut self, index: PeerIndex) {
        let Some(peer) = self.peers.remove(&index) else { return };
        // Workers look at this before they use a session: from here on nothing goes or comes.
        peer.remove();
        // The number may be given out again only when the handshaker has forgotten it, and no worker has it at hand.
        let forgotten = self.forgotten.0.clone();
        self.engine.handshakes.tell(move |handshaker, now| {
            handshaker.remove_peer(index, now);
            // The node's end is gone only when the node ends.
            let _ = forgotten.send(peer);
        });
    }

    /// Gives back the numbers of removed peers that nobody knows any more.
    pub(super) fn release_removed_peers(&mut self) {
        while let Ok(peer) = self.forgotten.1.try_recv() {
            self.engine.publisher.retire(Release { to: self.released.0.clone(), peer });
        }
        self.engine.publisher.reclaim();
        while let Ok(index) = self.released.1.try_recv() {
            self.intent.release(index);
        }
    }

    fn update_peer(&mut self, index: PeerIndex, update: PeerUpdate) {
        let Some(peer) = self.peers.get(&index).cloned() else { return };
        if let Some(endpoint) = update.endpoint {
            peer.endpoint.store(Endpoint::configured(endpoint));
        }
        if let Some(seconds) = update.persistent_keepalive {
            peer.persistent_keepalive.store(seconds, Ordering::Relaxed);
        }
        for net in &update.allowed_ips_removed {
            self.tables.disallow(peer.tunnel, net);
        }
        for net in update.allowed_ips_added {
            self.tables.allow(peer.tunnel, net, Arc::clone(&peer));
        }
        let preshared_key = update.preshared_key.map(|key| key.map(|key| Zeroizing::new(*key.expose())));
        self.engine.handshakes.tell(move |handshaker, now| {
            if let Some(key) = preshared_key {
                handshaker.set_preshared_key(index, key.map(|key| *key));
            }
            handshaker.handle_peer_changed(now, index);
        });
    }
}
