//! The receiving half of a session: what its home worker needs to decrypt.

use std::net::IpAddr;
use std::sync::Arc;

use jetway_aead::{Key, prefetch_read};

use super::constants::REKEY_AFTER_TIME_RECEIVING;
use super::peer::Peer;
use super::replay::ReplayWindow;
use super::session::{Role, SessionRef, is_expired};
use crate::ids::TunnelId;
use crate::time::Instant;

/// What the home worker needs to decrypt from a peer. Owned by that worker alone.
///
/// ```text
///  line 0   key | peer | sending half | created | local index | tunnel, confirmed
///  line 1   allowed source | noted | window: next, newest word, ring
///  line 2   window: the near words
/// ```
/// With many peers every line is fetched anew for each packet, so that what nearly every packet needs is in two. There may be
/// three sessions for each peer: what few of them need, a whole replay window, lies elsewhere.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Receiver {
    /// Decrypts the peer's data messages.
    pub key: Key,
    /// Whose session it is.
    pub peer: Arc<Peer>,
    /// The sending half, which a first authentic message confirms.
    session: SessionRef,
    created: Instant,
    /// Our index for this session, as it goes on the wire.
    pub local_index: u32,
    /// The peer's tunnel.
    pub tunnel: TunnelId,
    /// Whether this worker has seen an authentic message.
    confirmed: bool,
    /// The inner source that the peer was last seen to be allowed, and the epoch of the tables that said so.
    pub allowed_source: Option<(u64, IpAddr)>,
    /// The second in which the worker last noted where the peer is, so that it does so once a second.
    pub noted: Option<u32>,
    /// Which counters were seen.
    pub window: ReplayWindow,
}

// The drawing above holds.
const _: () = assert!(std::mem::offset_of!(Receiver, allowed_source) == 64);
const _: () = assert!(std::mem::offset_of!(Receiver, window) == 64 + 40 && size_of::<Receiver>() == 3 * 64);

impl Receiver {
    /// The receiving half of a session that was made at `created` and whose sending half is `session`.
    pub fn new(key: Key, local_index: u32, peer: Arc<Peer>, session: SessionRef, created: Instant) -> Self {
        Self {
            created,
            tunnel: peer.tunnel,
            key,
            peer,
            session,
            local_index,
            confirmed: false,
            allowed_source: None,
            noted: None,
            window: ReplayWindow::default(),
        }
    }

    /// Has its memory fetched that a message in order needs.
    pub fn prefetch(&self) {
        prefetch_read(&self.key);
        prefetch_read(&self.allowed_source);
    }

    /// Has the memory fetched to which it leads: whose session it is, and what a first message confirms.
    pub fn prefetch_beyond(&self) {
        self.peer.prefetch();
        if !self.confirmed {
            self.peer.prefetch_unconfirmed(self.session);
        }
    }

    /// Whether the session is too old to be used at all.
    pub fn is_expired(&self, now: Instant) -> bool {
        is_expired(self.created, now)
    }

    /// Notes that an authentic data message arrived. Returns whether that was news to all.
    pub fn confirm(&mut self) -> bool {
        !std::mem::replace(&mut self.confirmed, true) && self.peer.confirm(self.session)
    }

    /// Whether receiving with it now should start a new handshake: the initiator's last moment to have the next
    /// session ready before this one ends, if it only receives.
    pub fn wants_rekey(&self, now: Instant) -> bool {
        self.session.role() == Role::Initiator && now.since(self.created) >= REKEY_AFTER_TIME_RECEIVING
    }
}
