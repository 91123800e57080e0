//! Handshakes that a peer begins.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::peers::PeerState;
use super::slots::Place;
use super::{HandshakeError, Origin, Output, Resources};
use crate::ids::PeerIndex;
use crate::time::Instant;
use crate::wireguard::kdf::Secret;
use crate::wireguard::noise::{Authentic, NoiseError, Opened};
use crate::wireguard::peer::Content;
use crate::wireguard::x25519::{Agreement, KeyPair};

/// A peer's initiations are answered at most 50 times a second.
const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

/// An initiation that its peer made just now and that has a slot: all that its response still needs is two secrets.
pub(super) struct Admitted {
    pub owner: PeerIndex,
    origin: Origin,
    place: Place,
    initiation: Authentic,
    ephemeral: KeyPair,
}

impl Admitted {
    /// The secrets that the response needs: our ephemeral key with the initiator's ephemeral and static ones.
    pub fn agreements(&self) -> [Agreement<'_>; 2] {
        [&self.initiation.ephemeral, &self.initiation.remote].map(|public| self.ephemeral.agreement(public))
    }
}

impl PeerState {
    /// Proves the sender, whose static key shares `static_static` with ours, and makes ready to answer.
    pub fn authenticate(
        &mut self,
        now: Instant,
        origin: Origin,
        opened: Opened,
        static_static: &Secret,
        resources: &mut Resources,
    ) -> Result<Admitted, HandshakeError> {
        let initiation = opened.authenticate(static_static)?;
        self.admit(now, &initiation)?;
        let ephemeral = KeyPair::new(&resources.random_secret());
        let place = resources.slots.take(origin.worker, self.peer.index).ok_or(HandshakeError::NoSlot)?;
        Ok(Admitted { owner: self.peer.index, origin, place, initiation, ephemeral })
    }

    /// Answers an initiation, given what its [`Admitted::agreements`] came to.
    pub fn respond(
        &mut self,
        now: Instant,
        admitted: Admitted,
        shared: [Option<Secret>; 2],
        resources: &mut Resources,
    ) -> Result<(), HandshakeError> {
        let Admitted { owner: _, origin, place, initiation, ephemeral } = admitted;
        let remote_index = initiation.sender;
        let answer = match shared {
            [Some(first), Some(second)] => {
                initiation.respond_with(&self.preshared_key, place.index, ephemeral.public(), &[first, second])
            }
            [None, _] | [_, None] => Err(NoiseError::SmallOrder),
        };
        let (secrets, body) = match answer {
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
        if let Some(local_index) = self.sessions.confirmed_next(&self.peer) {
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
