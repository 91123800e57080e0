//! Handshakes that we begin.

use std::sync::Arc;
use std::time::Duration;

use super::peers::PeerState;
use super::slots::Place;
use super::{HandshakeError, Handshaker, Origin, Output, Resources};
use crate::ids::TunnelId;
use crate::time::Instant;
use crate::wireguard::Endpoint;
use crate::wireguard::constants::{REKEY_TIMEOUT, REKEY_TIMEOUT_JITTER};
use crate::wireguard::message::{CookieReply, Response};
use crate::wireguard::noise::Initiator;
use crate::wireguard::peer::Content;
use crate::wireguard::timestamp::Tai64n;
use rand::RngExt;

/// An initiation that waits for its response.
pub(super) struct Attempt {
    noise: Initiator,
    place: Place,
    /// When the first initiation of this row of attempts was sent.
    pub begun: Instant,
    /// When it is sent again.
    pub retry_at: Instant,
}

impl PeerState {
    /// Begins a handshake unless there is a fresh session, or one is being made already.
    pub fn want_session(&mut self, now: Instant, resources: &mut Resources) {
        if self.has_fresh_session(now) {
            self.announce_session(resources);
        } else {
            self.begin_handshake(now, resources);
        }
    }

    /// Begins a handshake, now or when REKEY_TIMEOUT after our last initiation has passed.
    pub fn begin_handshake(&mut self, now: Instant, resources: &mut Resources) {
        if self.attempt.is_some() || self.postponed.is_some() {
            return;
        }
        match self.last_initiation_sent.map(|sent| sent + REKEY_TIMEOUT) {
            Some(earliest) if earliest > now => self.postponed = Some(earliest),
            Some(_) | None => self.send_initiation(now, now, resources),
        }
    }

    /// Sends an initiation, the first or a later one of a row that began at `begun`. Gives up if that is impossible.
    pub fn send_initiation(&mut self, now: Instant, begun: Instant, resources: &mut Resources) {
        if self.try_send_initiation(now, begun, resources).is_none() {
            self.give_up(now, resources);
        }
    }

    fn try_send_initiation(&mut self, now: Instant, begun: Instant, resources: &mut Resources) -> Option<()> {
        self.abandon_attempt(resources);
        let to = self.peer.endpoint.load()?;
        let ephemeral = resources.random_secret();
        let jitter = jitter(resources);
        let timestamp = Tai64n::following(self.last_timestamp_sent, resources.wall(now));
        let local = &resources.tunnels.get(&self.peer.tunnel)?.keys;
        let shared = self.static_static(local).ok()?;
        let place = resources.slots.take(self.home, self.peer.index)?;
        let started = Initiator::start(local, &self.peer.public_key, &shared, place.index, timestamp, &ephemeral);
        let Ok((noise, body)) = started else {
            resources.slots.release(place);
            return None;
        };
        let message = self.cookies.complete(&self.peer.public_key, &body, now);
        let peer = Some(Arc::clone(&self.peer));
        resources.outputs.push_back(Output::Send { tunnel: self.peer.tunnel, peer, to, message });
        self.peer.activity.sent(now, Content::Empty);
        self.last_timestamp_sent = timestamp;
        self.last_initiation_sent = Some(now);
        self.attempt = Some(Box::new(Attempt { noise, place, begun, retry_at: now + REKEY_TIMEOUT + jitter }));
        Some(())
    }

    /// Sends the initiation once more: a fresh one, from whatever address of ours the route chooses now.
    pub fn retry_initiation(&mut self, now: Instant, begun: Instant, resources: &mut Resources) {
        if let Some(endpoint) = self.peer.endpoint.load() {
            let _ = self.peer.endpoint.store(Endpoint { local: None, ..endpoint });
        }
        self.send_initiation(now, begun, resources);
    }

    /// Lets go of our handshake, if any, and wipes it.
    pub fn abandon_attempt(&mut self, resources: &mut Resources) {
        if let Some(attempt) = self.attempt.take() {
            resources.slots.release(attempt.place);
        }
    }

    /// Lets go of our handshake and tells the workers not to wait for it.
    pub fn give_up(&mut self, now: Instant, resources: &mut Resources) {
        self.abandon_attempt(resources);
        self.postponed = None;
        self.timers.begin_zeroisation(now);
        self.peer.handshake_answered();
        resources.outputs.push_back(Output::GiveUp { peer: Arc::clone(&self.peer) });
    }

    /// Tells the workers that there is a session to send with.
    pub fn announce_session(&mut self, resources: &mut Resources) {
        self.postponed = None;
        self.peer.handshake_answered();
        resources.outputs.push_back(Output::SessionReady { peer: Arc::clone(&self.peer) });
    }

    /// Whether there is a session that is good to send with and need not be replaced yet.
    pub fn has_fresh_session(&self, now: Instant) -> bool {
        let session = self.peer.sending_session();
        session.is_some_and(|session| !session.is_expired(now) && !session.wants_rekey(now))
    }

    fn finish(
        &mut self,
        now: Instant,
        origin: Origin,
        response: &Response<'_>,
        resources: &mut Resources,
    ) -> Result<(), HandshakeError> {
        let tunnel = resources.tunnels.get(&origin.tunnel).ok_or(HandshakeError::UnknownTunnel)?;
        let attempt = self.attempt.as_ref().filter(|attempt| attempt.place.index == response.receiver);
        let attempt = attempt.ok_or(HandshakeError::Unexpected)?;
        let secrets = attempt.noise.finish(&tunnel.keys, &self.preshared_key, response)?;
        let place = attempt.place;
        self.attempt = None;
        self.learn(origin.from, origin.worker);
        self.peer.activity.received(now, Content::Empty);
        self.sessions.add_initiated(&self.peer, &secrets, place, response.sender, now, resources);
        self.complete(now, resources);
        // The responder may not send before it has heard from us.
        resources.outputs.push_back(Output::SendKeepalive { peer: Arc::clone(&self.peer) });
        Ok(())
    }
}

/// A random part of REKEY_TIMEOUT_JITTER, so that two peers do not go on colliding.
pub(super) fn jitter(resources: &mut Resources) -> Duration {
    resources.randomness.random_range(Duration::ZERO..=REKEY_TIMEOUT_JITTER)
}

impl Handshaker {
    pub(super) fn handle_response(
        &mut self,
        now: Instant,
        origin: Origin,
        response: &Response<'_>,
    ) -> Result<(), HandshakeError> {
        let owner = self.resources.slots.owner(response.receiver).ok_or(HandshakeError::Unexpected)?;
        self.with_peer(now, owner, |peer, resources| match peer.peer.tunnel == origin.tunnel {
            true => peer.finish(now, origin, response, resources),
            false => Err(HandshakeError::Unexpected),
        })
        .unwrap_or(Err(HandshakeError::Unexpected))
    }

    pub(super) fn handle_cookie_reply(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        reply: &CookieReply<'_>,
    ) -> Result<(), HandshakeError> {
        let owner = self.resources.slots.owner(reply.receiver).ok_or(HandshakeError::Unexpected)?;
        self.with_peer(now, owner, |state, _| match state.peer.tunnel == tunnel {
            true => Ok(state.cookies.accept(&state.peer.public_key, reply, now)?),
            false => Err(HandshakeError::Unexpected),
        })
        .unwrap_or(Err(HandshakeError::Unexpected))
    }
}
