//! What the handshaker knows of tunnels and peers, and how they come and go.

use std::sync::Arc;

use zeroize::Zeroize;

use super::initiator::Attempt;
use super::sessions::Sessions;
use super::{AddPeerError, Handshaker, Output, Resources, Tunnel};
use crate::ids::{PeerIndex, TunnelId, WorkerId};
use crate::time::Instant;
use crate::wireguard::cookie::{CookieChecker, CookieJar};
use crate::wireguard::kdf::Secret;
use crate::wireguard::timestamp::Tai64n;
use crate::wireguard::x25519::{KeyPair, SmallOrder};
use crate::wireguard::{Endpoint, Peer};

/// A peer as the handshaker sees it.
pub(super) struct PeerState {
    pub peer: Arc<Peer>,
    /// All zero for none, as the protocol has it.
    pub preshared_key: Secret,
    /// The secret that the static keys share, once it was needed.
    static_static: Option<Secret>,
    pub last_timestamp_sent: Tai64n,
    pub last_timestamp_received: Tai64n,
    pub last_initiation_sent: Option<Instant>,
    pub last_initiation_received: Option<Instant>,
    pub cookies: CookieJar,
    /// The worker to which the peer's packets were last seen to come.
    pub home: WorkerId,
    /// Our handshake under way.
    pub attempt: Option<Box<Attempt>>,
    /// A handshake is wanted, and may begin at this time.
    pub postponed: Option<Instant>,
    pub sessions: Sessions,
    pub timers: super::timers::PeerTimers,
}

impl PeerState {
    fn new(peer: Arc<Peer>, preshared_key: Option<[u8; 32]>, home: WorkerId) -> Self {
        Self {
            peer,
            preshared_key: Secret::new(preshared_key.unwrap_or_default()),
            static_static: None,
            last_timestamp_sent: Tai64n::default(),
            last_timestamp_received: Tai64n::default(),
            last_initiation_sent: None,
            last_initiation_received: None,
            cookies: CookieJar::default(),
            home,
            attempt: None,
            postponed: None,
            sessions: Sessions::default(),
            timers: super::timers::PeerTimers::default(),
        }
    }

    /// The secret that the static keys share, if it was needed before.
    pub fn known_static_static(&self) -> Option<&Secret> {
        self.static_static.as_ref()
    }

    /// Keeps the secret that the static keys share.
    pub fn keep_static_static(&mut self, secret: Secret) {
        self.static_static = Some(secret);
    }

    /// The secret that our static key shares with the peer's: a scalar multiplication when first asked for.
    pub fn static_static(&mut self, local: &KeyPair) -> Result<Secret, SmallOrder> {
        if let Some(secret) = &self.static_static {
            return Ok(secret.clone());
        }
        let secret = local.agree(&self.peer.public_key)?;
        self.static_static = Some(secret.clone());
        Ok(secret)
    }

    /// Notes where an authentic message of the peer came from.
    pub fn learn(&mut self, endpoint: Endpoint, worker: WorkerId) {
        self.home = worker;
        if self.peer.endpoint.load() != Some(endpoint) {
            // Another thread that is just storing one has newer news, or the next message will tell again.
            let _ = self.peer.endpoint.store(endpoint);
        }
    }

    /// Forgets all that came of handshakes.
    fn forget(&mut self, resources: &mut Resources) {
        self.abandon_attempt(resources);
        self.postponed = None;
        self.sessions.clear(&self.peer, resources);
    }
}

impl Handshaker {
    /// Adds a tunnel, or changes an existing one's private key as [`Handshaker::set_private_key`] does.
    pub fn add_tunnel(&mut self, tunnel: TunnelId, private_key: &[u8; 32]) {
        let keys = KeyPair::new(private_key);
        let checker = CookieChecker::new(keys.public(), Arc::clone(&self.resources.cookie_secrets));
        if self.resources.tunnels.insert(tunnel, Tunnel { keys, checker }).is_some() {
            let resources = &mut self.resources;
            for peer in self.peers.iter_mut().flatten().filter(|peer| peer.peer.tunnel == tunnel) {
                peer.static_static = None;
                peer.forget(resources);
                peer.peer.handshake_answered();
            }
        }
    }

    /// Gives a tunnel another private key: sessions made with the old one end at once.
    pub fn set_private_key(&mut self, tunnel: TunnelId, private_key: &[u8; 32]) {
        self.add_tunnel(tunnel, private_key);
    }

    /// Removes a tunnel with all its peers.
    pub fn remove_tunnel(&mut self, tunnel: TunnelId, now: Instant) {
        let first = (tunnel, [0; 32]);
        let peers: Vec<_> =
            self.by_key.range(first..).take_while(|((of, _), _)| *of == tunnel).map(|(_, i)| *i).collect();
        for peer in peers {
            self.remove_peer(peer, now);
        }
        self.resources.tunnels.remove(&tunnel);
    }

    /// What workers need to check handshake messages to `tunnel`.
    pub fn cookie_checker(&self, tunnel: TunnelId) -> Option<CookieChecker> {
        self.resources.tunnels.get(&tunnel).map(|tunnel| tunnel.checker.clone())
    }

    /// Adds a peer. If it has an endpoint and a persistent keepalive, its first handshake is due at once.
    pub fn add_peer(
        &mut self,
        peer: Arc<Peer>,
        mut preshared_key: Option<[u8; 32]>,
        now: Instant,
    ) -> Result<(), AddPeerError> {
        let tunnel = self.resources.tunnels.get(&peer.tunnel).ok_or(AddPeerError::UnknownTunnel)?;
        if *tunnel.keys.public() == peer.public_key {
            return Err(AddPeerError::OwnKey);
        }
        let index = peer.index;
        if self.peers.get(index.index()).is_some_and(Option::is_some) {
            return Err(AddPeerError::IndexTaken);
        }
        let key = (peer.tunnel, peer.public_key);
        if self.by_key.contains_key(&key) {
            return Err(AddPeerError::KeyTaken);
        }
        self.by_key.insert(key, index);
        if self.peers.len() <= index.index() {
            self.peers.resize_with(index.index() + 1, || None);
        }
        let home = self.resources.slots.default_home(index);
        if let Some(place) = self.peers.get_mut(index.index()) {
            *place = Some(Box::new(PeerState::new(peer, preshared_key, home)));
        }
        preshared_key.zeroize();
        self.with_peer(now, index, |_, _| ());
        Ok(())
    }

    /// Removes a peer: its receivers leave at once, its sessions and handshake are wiped.
    pub fn remove_peer(&mut self, index: PeerIndex, _now: Instant) {
        let Some(mut state) = self.peers.get_mut(index.index()).and_then(Option::take) else { return };
        state.peer.remove();
        state.unschedule(&mut self.timers);
        state.forget(&mut self.resources);
        self.by_key.remove(&(state.peer.tunnel, state.peer.public_key));
        self.resources.outputs.push_back(Output::GiveUp { peer: state.peer });
    }

    /// Changes a peer's preshared key; it counts from the next handshake on.
    pub fn set_preshared_key(&mut self, index: PeerIndex, mut preshared_key: Option<[u8; 32]>) {
        if let Some(peer) = self.peers.get_mut(index.index()).and_then(Option::as_mut) {
            peer.preshared_key = Secret::new(preshared_key.unwrap_or_default());
        }
        preshared_key.zeroize();
    }

    /// Looks again at a peer whose endpoint or persistent keepalive was set: a keepalive may be due.
    pub fn handle_peer_changed(&mut self, now: Instant, index: PeerIndex) {
        self.with_peer(now, index, |_, _| ());
    }
}
