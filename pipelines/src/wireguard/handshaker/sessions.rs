//! A peer's sessions: previous, current and next, as the kernel keeps them, and how they follow one another.
//!
//! A responder's session is `next` until the peer has proved by a data message that it has the keys; only then does
//! it become `current`. The one before stays `previous`, so that messages under way are still decrypted.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::slots::Place;
use super::{Output, Resources};
use crate::time::Instant;
use crate::wireguard::constants::REJECT_AFTER_TIME;
use crate::wireguard::noise::SessionSecrets;
use crate::wireguard::send_counter::SendCounter;
use crate::wireguard::{Peer, Receiver, Role, SendingHalf};

/// A session, by the slot in which its receiver sits.
struct Entry {
    created: Instant,
    place: Place,
}

type Dropped = ArrayVec<Entry, 3>;

/// A peer's sessions. What we send with, the current and the next, lies in the peer.
#[derive(Default)]
pub(super) struct Sessions {
    previous: Option<Entry>,
    current: Option<Entry>,
    next: Option<Entry>,
}

impl Sessions {
    /// Installs the session that we initiated: it is the current one at once, since its response proved it.
    pub fn add_initiated(
        &mut self,
        peer: &Arc<Peer>,
        secrets: &SessionSecrets,
        place: Place,
        remote_index: u32,
        now: Instant,
        resources: &mut Resources,
    ) {
        let entry = install(peer, secrets, place, remote_index, Role::Initiator, now, resources);
        let mut dropped = Dropped::new();
        // A next session was made after the current one, and the peer may be sending with it already.
        let follower = match self.next.take() {
            Some(next) => {
                dropped.extend(self.current.take());
                Some(next)
            }
            None => self.current.take(),
        };
        dropped.extend(std::mem::replace(&mut self.previous, follower));
        self.current = entry;
        drop_receivers(dropped, resources);
    }

    /// Installs the session that we answered for: it is the next one until [`Sessions::confirm`].
    pub fn add_answered(
        &mut self,
        peer: &Arc<Peer>,
        secrets: &SessionSecrets,
        place: Place,
        remote_index: u32,
        now: Instant,
        resources: &mut Resources,
    ) {
        let entry = install(peer, secrets, place, remote_index, Role::Responder, now, resources);
        let dropped = self.previous.take().into_iter().chain(std::mem::replace(&mut self.next, entry)).collect();
        drop_receivers(dropped, resources);
    }

    /// Makes the next session the current one, if it is the one of `local_index`. Returns whether it was.
    pub fn confirm(&mut self, peer: &Peer, local_index: u32, resources: &mut Resources) -> bool {
        let Some(next) = self.next.take_if(|next| next.place.index == local_index) else { return false };
        peer.promote_next();
        let dropped = self.previous.take().into_iter().collect();
        self.previous = self.current.replace(next);
        drop_receivers(dropped, resources);
        true
    }

    /// Our index of the next session, if the peer has proved that it has its keys.
    pub fn confirmed_next(&self, peer: &Peer) -> Option<u32> {
        self.next.as_ref().filter(|_| peer.has_confirmed_next()).map(|next| next.place.index)
    }

    /// Ends all sessions.
    pub fn clear(&mut self, peer: &Peer, resources: &mut Resources) {
        peer.clear_sessions();
        let all = [self.previous.take(), self.current.take(), self.next.take()];
        drop_receivers(all.into_iter().flatten().collect(), resources);
    }

    /// When the last of the sessions can no longer be used.
    pub fn usable_until(&self) -> Option<Instant> {
        let all = [&self.previous, &self.current, &self.next];
        all.into_iter().flatten().map(|entry| entry.created + REJECT_AFTER_TIME).max()
    }
}

/// Has the receivers of sessions removed.
fn drop_receivers(dropped: Dropped, resources: &mut Resources) {
    for Entry { place, .. } in dropped {
        resources.slots.leave(place);
        resources.outputs.push_back(Output::RemoveReceiver { worker: place.worker, slot: place.slot });
    }
}

/// Gives the peer a session to send with, at once or when it is confirmed, and has its receiver installed.
fn install(
    peer: &Arc<Peer>,
    secrets: &SessionSecrets,
    place: Place,
    remote_index: u32,
    role: Role,
    now: Instant,
    resources: &mut Resources,
) -> Option<Entry> {
    // There always is a generation 0.
    let counter = SendCounter::new(0)?;
    let half = SendingHalf { key: resources.aead.key(&secrets.send), counter, created: now, remote_index, role };
    let session = match role {
        Role::Initiator => peer.set_current(&half),
        Role::Responder => peer.set_next(&half),
    };
    let key = resources.aead.key(&secrets.receive);
    let receiver = Receiver::new(key, place.index, Arc::clone(peer), session, now);
    resources.outputs.push_back(Output::InstallReceiver {
        worker: place.worker,
        slot: place.slot,
        receiver: Box::new(receiver),
    });
    Some(Entry { created: now, place })
}
