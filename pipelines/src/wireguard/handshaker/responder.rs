//! Handshakes that a peer begins.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::peers::PeerState;
use super::{HandshakeError, Handshaker, Intake, Origin, Output, Resources};
use crate::time::Instant;
use crate::wireguard::message::Initiation;
use crate::wireguard::noise::{Authentic, Opened};
use crate::wireguard::peer::Content;

/// A peer's initiations are answered at most 50 times a second.
const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

impl PeerState {
    fn respond(
        &mut self,
        now: Instant,
        origin: Origin,
        opened: Opened,
        resources: &mut Resources,
    ) -> Result<(), HandshakeError> {
        let tunnel = resources.tunnels.get(&origin.tunnel).ok_or(HandshakeError::UnknownTunnel)?;
        let shared = self.static_static(&tunnel.keys).map_err(|error| HandshakeError::Noise(error.into()))?;
        let initiation = opened.authenticate(&shared)?;
        self.admit(now, &initiation)?;
        let place = resources.slots.take(origin.worker, self.peer.index).ok_or(HandshakeError::NoSlot)?;
        let remote_index = initiation.sender;
        let ephemeral = resources.random_secret();
        let (secrets, body) = match initiation.respond(&self.preshared_key, place.index, &ephemeral) {
            Ok(answer) => answer,
            Err(error) => {
                resources.slots.release(place);
                return Err(error.into());
            }
        };
        self.learn(origin.from, origin.worker);
        self.peer.activity.received(now, Content::Empty);
        self.sessions.add_answered(&self.peer, &secrets, place, remote_index, now, resources);
        self.timers.restart_zeroisation(now);
        let message = self.cookies.complete(&self.peer.public_key, &body, now);
        let peer = Some(Arc::clone(&self.peer));
        resources.outputs.push_back(Output::Send { tunnel: origin.tunnel, peer, to: origin.from, message });
        self.peer.activity.sent(now, Content::Empty);
        Ok(())
    }

    /// Refuses an initiation that was sent before, or too soon after the one before.
    fn admit(&mut self, now: Instant, initiation: &Authentic) -> Result<(), HandshakeError> {
        if initiation.timestamp <= self.last_timestamp_received {
            return Err(HandshakeError::Replayed);
        }
        if self.last_initiation_received.is_some_and(|last| now.since(last) < INITIATION_INTERVAL) {
            return Err(HandshakeError::TooOften);
        }
        self.last_timestamp_received = initiation.timestamp;
        self.last_initiation_received = Some(now);
        Ok(())
    }

    /// Turns to the session that the peer has just proved to have.
    pub fn confirm_session(&mut self, now: Instant, local_index: u32, resources: &mut Resources) {
        if self.sessions.confirm(&self.peer, local_index, resources) {
            self.abandon_attempt(resources);
            self.complete(now, resources);
        }
    }

    /// Turns to the next session if a worker has seen its proof. The worker's own word of it may have been lost on the
    /// way, or may come later.
    pub fn notice_confirmation(&mut self, now: Instant, resources: &mut Resources) {
        if let Some(local_index) = self.sessions.confirmed_next() {
            self.confirm_session(now, local_index, resources);
        }
    }

    /// Notes that a handshake is complete: both sides have the keys.
    pub fn complete(&mut self, now: Instant, resources: &mut Resources) {
        self.timers.restart_zeroisation(now);
        self.peer.traffic.last_handshake.store(resources.wall(now).as_nanos(), Ordering::Relaxed);
        self.announce_session(resources);
    }
}

impl Handshaker {
    pub(super) fn handle_initiation(
        &mut self,
        now: Instant,
        origin: Origin,
        initiation: &Initiation<'_>,
    ) -> Result<(), HandshakeError> {
        let tunnel = self.resources.tunnels.get(&origin.tunnel).ok_or(HandshakeError::UnknownTunnel)?;
        let opened = Opened::open(&tunnel.keys, initiation)?;
        let owner = self.by_key.get(&(origin.tunnel, opened.remote)).ok_or(HandshakeError::UnknownPeer)?;
        let intake = self.intake;
        self.with_peer(now, *owner, |peer, resources| {
            let is_live = peer.peer.sending_session().as_ref().is_some_and(|session| !session.is_expired(now));
            if intake == Intake::Draining && !is_live {
                return Err(HandshakeError::Draining);
            }
            peer.respond(now, origin, opened, resources)
        })
        .unwrap_or(Err(HandshakeError::UnknownPeer))
    }
}
