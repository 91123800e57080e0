//! The timers of the paper's section 6, read from what workers note in [`Activity`](crate::wireguard::peer::Activity).
//!
//! A peer stands in the queue of timers at most once, at the earliest time at which one of its timers can run out.
//! Workers set no timers: a peer with a live session is looked at again after KEEPALIVE_TIMEOUT at the latest, before
//! which nothing that they note meanwhile can be due. A peer without session and persistent keepalive costs nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::initiator::jitter;
use super::peers::PeerState;
use super::{Handshaker, Output, Resources};
use crate::ids::PeerIndex;
use crate::time::Instant;
use crate::wireguard::constants::{KEEPALIVE_TIMEOUT, REJECT_AFTER_TIME, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT};
use crate::wireguard::timestamp::WallClock;

/// Data that stays without any answer for this long, plus jitter, leads to a new handshake.
const SILENCE_TIMEOUT: Duration = KEEPALIVE_TIMEOUT.saturating_add(REKEY_TIMEOUT);
/// Sessions are wiped this long after the last was made.
const ZEROISATION_TIME: Duration = REJECT_AFTER_TIME.saturating_mul(3);
/// A timer that is due at once is looked at after this, so that no mistake can make the queue spin.
const SHORTEST: Duration = Duration::from_millis(1);

/// A peer's timers that nothing else tells.
#[derive(Default)]
pub(super) struct PeerTimers {
    /// Where the peer stands in the queue.
    queued: Option<Instant>,
    /// When the sessions are wiped.
    zeroisation: Option<Instant>,
    /// When the last persistent keepalive was asked for.
    persistent_keepalive: Option<Instant>,
    /// This session's part of the jitter on [`SILENCE_TIMEOUT`].
    jitter: Duration,
}

impl PeerTimers {
    /// A session was made: the sessions' time begins anew.
    pub fn restart_zeroisation(&mut self, now: Instant) {
        self.zeroisation = Some(now + ZEROISATION_TIME);
    }

    /// No session came about: what there is gets its last time, if it has none yet.
    pub fn begin_zeroisation(&mut self, now: Instant) {
        self.zeroisation.get_or_insert(now + ZEROISATION_TIME);
    }
}

impl PeerState {
    /// Puts the peer into the queue where it belongs now.
    pub fn schedule(&mut self, now: Instant, queue: &mut BTreeSet<(Instant, PeerIndex)>) {
        let due = self.next_deadline(now).map(|due| due.max(now + SHORTEST));
        if due != self.timers.queued {
            self.unschedule(queue);
            if let Some(due) = due {
                queue.insert((due, self.peer.index));
            }
            self.timers.queued = due;
        }
    }

    /// Takes the peer out of the queue.
    pub fn unschedule(&mut self, queue: &mut BTreeSet<(Instant, PeerIndex)>) {
        if let Some(queued) = self.timers.queued.take() {
            queue.remove(&(queued, self.peer.index));
        }
    }

    /// The earliest time at which one of the peer's timers can run out.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let look_again = self.sessions.usable_until().filter(|until| *until > now).map(|_| now + KEEPALIVE_TIMEOUT);
        [
            self.attempt.as_ref().map(|attempt| attempt.retry_at),
            self.postponed,
            self.keepalive_due(),
            self.silence_due(),
            self.persistent_keepalive_due(now),
            self.timers.zeroisation,
            look_again,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn keepalive_due(&self) -> Option<Instant> {
        self.peer.activity.unanswered_received().map(|since| since + KEEPALIVE_TIMEOUT)
    }

    fn silence_due(&self) -> Option<Instant> {
        self.peer.activity.unanswered_sent().map(|since| since + SILENCE_TIMEOUT + self.timers.jitter)
    }

    fn persistent_keepalive_due(&self, now: Instant) -> Option<Instant> {
        let interval = match self.peer.persistent_keepalive.load(Ordering::Relaxed) {
            0 => return None,
            seconds => Duration::from_secs(seconds.into()),
        };
        self.peer.endpoint.load()?;
        let activity = &self.peer.activity;
        let last = [activity.last_sent(), activity.last_received(), self.timers.persistent_keepalive];
        Some(last.into_iter().flatten().max().map_or(now, |last| last + interval))
    }

    /// Acts on every timer that has run out.
    fn handle_timeout(&mut self, now: Instant, resources: &mut Resources) {
        let due = |timer: Option<Instant>| timer.is_some_and(|timer| timer <= now);
        self.handle_retry(now, resources);
        if due(self.postponed) {
            self.postponed = None;
            self.want_session(now, resources);
        }
        if due(self.keepalive_due()) {
            self.peer.activity.forget_unanswered_received();
            self.send_keepalive(now, resources);
        }
        if due(self.silence_due()) {
            self.peer.activity.forget_unanswered_sent();
            self.timers.jitter = jitter(resources);
            self.begin_handshake(now, resources);
        }
        if due(self.persistent_keepalive_due(now)) {
            self.timers.persistent_keepalive = Some(now);
            self.send_keepalive(now, resources);
        }
        if due(self.timers.zeroisation) {
            self.timers.zeroisation = None;
            self.sessions.clear(&self.peer, resources);
        }
    }

    /// Tries our unanswered handshake again, or gives the peer up.
    fn handle_retry(&mut self, now: Instant, resources: &mut Resources) {
        let Some(begun) = self.attempt.as_ref().filter(|attempt| attempt.retry_at <= now).map(|a| a.begun) else {
            return;
        };
        if now.since(begun) >= REKEY_ATTEMPT_TIME {
            self.give_up(now, resources);
        } else {
            self.retry_initiation(now, begun, resources);
        }
    }

    /// Sends a keepalive, or makes the session that it needs: its first message will do for one.
    fn send_keepalive(&mut self, now: Instant, resources: &mut Resources) {
        let usable = self.peer.sending_session().is_some_and(|session| !session.is_expired(now));
        if usable {
            resources.outputs.push_back(Output::SendKeepalive { peer: Arc::clone(&self.peer) });
        } else {
            self.begin_handshake(now, resources);
        }
    }
}

impl Handshaker {
    /// Acts on everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, wall: WallClock) {
        self.tell_time(now, wall);
        self.rotate_cookies(now);
        // Each peer is queued later than `now` again, so every one is seen at most once.
        while let Some((_, index)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.pop_first();
            if let Some(peer) = self.peers.get_mut(index.index()).and_then(Option::as_mut) {
                peer.timers.queued = None;
            }
            self.with_peer(now, index, |peer, resources| peer.handle_timeout(now, resources));
        }
    }

    /// When [`Handshaker::handle_timeout`] wants to be called at the latest. Any event may change it.
    pub fn next_timeout(&self) -> Option<Instant> {
        let first = self.timers.first().map(|(due, _)| *due);
        [first, self.cookie_rotation].into_iter().flatten().min()
    }

    /// Renews the secret behind our cookies when it is time.
    pub(super) fn rotate_cookies(&mut self, now: Instant) {
        if self.cookie_rotation.is_some_and(|due| due > now) {
            return;
        }
        let wall = self.resources.wall(now);
        let secrets = Arc::clone(&self.resources.cookie_secrets);
        if self.cookie_rotation.is_some()
            && let Some(retired) = secrets.renew(wall, || self.resources.random_secret())
        {
            // Workers look at them for one message only, so those before the last are nobody's any more.
            self.retired_cookies = Some(retired);
        }
        self.cookie_rotation = Some(now + secrets.renewal_after(wall));
    }
}
