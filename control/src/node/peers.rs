//! The peers that run: carries changes of them to the tables and to the handshaker.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};

use jetway_engine::handshake::Handshakes;
use jetway_pipelines::ids::PeerIndex;
use jetway_pipelines::tables::Tables;
use jetway_pipelines::wireguard::{Endpoint, Peer};
use jetway_sync::published::Publisher;
use zeroize::Zeroizing;

use super::tables::TablesBuilder;
use crate::intent::{Intent, PeerChange, PeerSpec, PeerUpdate};

/// The peers that run, and those on their way out.
///
/// It needs no device and no DPDK: whoever has tables, a handshake thread and a publisher can run peers.
#[derive(Debug)]
pub struct Peers {
    running: HashMap<PeerIndex, Arc<Peer>>,
    /// Removed peers that the handshaker has forgotten.
    forgotten: (Sender<Arc<Peer>>, Receiver<Arc<Peer>>),
    /// Numbers of removed peers that no thread knows any more.
    released: (Sender<PeerIndex>, Receiver<PeerIndex>),
}

impl Default for Peers {
    fn default() -> Self {
        Self { running: HashMap::new(), forgotten: channel(), released: channel() }
    }
}

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

impl Peers {
    /// The peer of this number.
    pub fn get(&self, index: PeerIndex) -> Option<&Arc<Peer>> {
        self.running.get(&index)
    }

    /// Carries out changes in their order. New peers reach the handshaker in one request, however many they are.
    pub fn carry_out(&mut self, changes: Vec<PeerChange>, tables: &mut TablesBuilder, handshakes: &Handshakes) {
        let mut new: Vec<NewPeer> = Vec::new();
        for change in changes {
            match change {
                PeerChange::Add { tunnel, index, public_key, spec } => {
                    let peer = Arc::new(Peer::new(index, tunnel, public_key.0));
                    new.push(self.add(peer, spec, tables));
                }
                PeerChange::Remove { tunnel, index, public_key: _, allowed_ips } => {
                    for net in &allowed_ips {
                        tables.disallow(tunnel, net);
                    }
                    self.remove(index, handshakes);
                }
                PeerChange::Update { tunnel: _, index, public_key: _, update } => {
                    self.update(index, update, tables, handshakes);
                }
            }
        }
        if new.is_empty() {
            return;
        }
        handshakes.tell(move |handshaker, now| {
            for (peer, preshared_key) in new {
                if let Err(error) = handshaker.add_peer(peer, preshared_key.map(|key| *key), now) {
                    tracing::error!(%error, "the handshaker refused a peer that the configuration's check let pass");
                }
            }
        });
    }

    fn add(&mut self, peer: Arc<Peer>, spec: PeerSpec, tables: &mut TablesBuilder) -> NewPeer {
        peer.persistent_keepalive.store(spec.persistent_keepalive, Ordering::Relaxed);
        if let Some(endpoint) = spec.endpoint {
            peer.endpoint.store(Endpoint::configured(endpoint));
        }
        for net in spec.allowed_ips {
            tables.allow(peer.tunnel, net, Arc::clone(&peer));
        }
        self.running.insert(peer.index, Arc::clone(&peer));
        (peer, spec.preshared_key.map(|key| Zeroizing::new(*key.expose())))
    }

    fn remove(&mut self, index: PeerIndex, handshakes: &Handshakes) {
        let Some(peer) = self.running.remove(&index) else { return };
        // Workers look at this before they use a session: from here on nothing goes or comes.
        peer.remove();
        // The number may be given out again only when the handshaker has forgotten it, and no worker has it at hand.
        let forgotten = self.forgotten.0.clone();
        handshakes.tell(move |handshaker, now| {
            handshaker.remove_peer(index, now);
            // The node's end is gone only when the node ends.
            let _ = forgotten.send(peer);
        });
    }

    /// Gives back the numbers of removed peers that nobody knows any more.
    pub fn release_removed(&mut self, publisher: &mut Publisher<Tables>, intent: &mut Intent) {
        while let Ok(peer) = self.forgotten.1.try_recv() {
            publisher.retire(Release { to: self.released.0.clone(), peer });
        }
        publisher.reclaim();
        while let Ok(index) = self.released.1.try_recv() {
            intent.release(index);
        }
    }

    fn update(&mut self, index: PeerIndex, update: PeerUpdate, tables: &mut TablesBuilder, handshakes: &Handshakes) {
        let Some(peer) = self.running.get(&index).cloned() else { return };
        if let Some(endpoint) = update.endpoint {
            peer.endpoint.store(Endpoint::configured(endpoint));
        }
        if let Some(seconds) = update.persistent_keepalive {
            peer.persistent_keepalive.store(seconds, Ordering::Relaxed);
        }
        for net in &update.allowed_ips_removed {
            tables.disallow(peer.tunnel, net);
        }
        for net in update.allowed_ips_added {
            tables.allow(peer.tunnel, net, Arc::clone(&peer));
        }
        let preshared_key = update.preshared_key.map(|key| key.map(|key| Zeroizing::new(*key.expose())));
        handshakes.tell(move |handshaker, now| {
            if let Some(key) = preshared_key {
                handshaker.set_preshared_key(index, key.map(|key| *key));
            }
            handshaker.handle_peer_changed(now, index);
        });
    }
}
