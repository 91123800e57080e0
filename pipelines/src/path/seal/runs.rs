//! The packets of a burst that go to one peer: its session, and the way to it, are found once for all of them.

use std::sync::Arc;

use arrayvec::ArrayVec;
use jetway_aead::Key;

use crate::buffer::PacketBuf;
use crate::drop_reason::DropReason;
use crate::path::event::HandshakeEvent;
use crate::path::outer::{LastWay, Outer};
use crate::path::outputs::Outputs;
use crate::path::packet::BURST;
use crate::path::pipeline::{Pipeline, Scene};
use crate::tables::TunnelEntry;
use crate::time::Instant;
use crate::wireguard::peer::Content;
use crate::wireguard::session::NoNonces;
use crate::wireguard::{Peer, Session};

/// The packets of a burst to one peer: looked up, counted and noted once.
pub struct Run<'t> {
    pub peer: &'t Arc<Peer>,
    pub packets: u64,
    pub ready: Option<Ready<'t>>,
    /// Of the messages that were made.
    pub bytes: u64,
    /// Whether one of them carries a packet.
    pub content: Content,
}

/// What a run needs to be encrypted and sent.
pub struct Ready<'t> {
    pub remote_index: u32,
    pub next_counter: u64,
    /// The longest inner packet that fits without outer fragments.
    pub room: usize,
    /// The longest padded packet.
    pub limit: usize,
    pub outer: Outer,
    pub tunnel: &'t TunnelEntry,
}

/// The key of each run that is ready, apart from the runs so that the AEAD can borrow keys while runs change.
pub type Keys = ArrayVec<Key, BURST>;

/// Stands for the key of a run that is not ready.
pub const NO_KEY: Key = Key::new(&[0; 32]);

/// Why a run cannot be encrypted now.
pub enum NotReady {
    Wait,
    Drop(DropReason),
}

/// Stands for the number of a run where there is none.
pub const NO_RUN: u8 = u8::MAX;

const GUESSES: usize = 128;

/// The runs of a burst, one for each peer. Large, and so made once and never moved.
pub struct Runs<'t> {
    pub all: ArrayVec<Run<'t>, BURST>,
    /// The last run of each class of peer numbers: a guess that is mostly right.
    guesses: [u8; GUESSES],
    last: Option<(&'t Arc<Peer>, u8)>,
}

impl<'t> Runs<'t> {
    pub const fn new() -> Self {
        Self { all: ArrayVec::new_const(), guesses: [NO_RUN; GUESSES], last: None }
    }

    /// The number of the peer's run, which is begun if there is none.
    #[inline]
    pub fn number_of(&mut self, peer: &'t Arc<Peer>) -> u8 {
        let number = match self.last {
            Some((known, number)) if Arc::ptr_eq(known, peer) => number,
            Some(_) | None => self.find(peer),
        };
        self.last = Some((peer, number));
        number
    }

    fn find(&mut self, peer: &'t Arc<Peer>) -> u8 {
        // The address tells peers apart as well as their numbers do, without a look at their memory. Fibonacci hashing
        // (Knuth, volume 3, section 6.4): equal distances between addresses do not fall into few places.
        let place = (Arc::as_ptr(peer).addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let place = place as usize % GUESSES;
        let guess = self.guesses.get(place).copied().unwrap_or(NO_RUN);
        let is_peers = |run: &Run<'_>| Arc::ptr_eq(run.peer, peer);
        let known = match self.all.get(usize::from(guess)).filter(|run| is_peers(run)) {
            Some(_) => Some(usize::from(guess)),
            None if guess == NO_RUN => None,
            None => self.all.iter().position(is_peers),
        };
        let number = known.unwrap_or_else(|| {
            self.all.push(Run { peer, packets: 0, ready: None, bytes: 0, content: Content::Empty });
            self.all.len() - 1
        });
        if let Some(guess) = self.guesses.get_mut(place) {
            *guess = number as u8;
        }
        number as u8
    }

    /// Has all sessions fetched at once: with many peers none of them is in the cache.
    pub fn prefetch_sessions(&self) {
        if self.all.len() > 1 {
            for run in &self.all {
                run.peer.prefetch_session();
            }
        }
    }
}

impl<'t> Run<'t> {
    /// Looks at the session, reserves the nonces and works out the outer headers. Puts the session's key into `key`. `last_way` is
    /// that of the run before.
    pub fn prepare<B: PacketBuf, O: Outputs<B>>(
        &mut self,
        key: &mut Key,
        last_way: &mut LastWay<'t>,
        pipeline: &Pipeline<B>,
        scene: &Scene<'t>,
        out: &mut O,
    ) -> Result<(), NotReady> {
        let peer = self.peer;
        if peer.is_removed() {
            return Err(NotReady::Drop(DropReason::PeerRemoved));
        }
        let Some(endpoint) = peer.endpoint.load() else { return Err(NotReady::Drop(DropReason::NoEndpoint)) };
        let tunnel = scene.tables.tunnel(peer.tunnel).ok_or(NotReady::Drop(DropReason::NoRoute))?;
        let mut session = usable_session(peer, pipeline, scene, out)?;
        let outer = last_way.find(&endpoint, tunnel.listen_port, scene.tables).map_err(NotReady::Drop)?;
        let next_counter = loop {
            match session.reserve(self.packets, key) {
                Ok(next_counter) => break next_counter,
                // A handshake has just ended.
                Err(NoNonces::Replaced) => session = usable_session(peer, pipeline, scene, out)?,
                Err(NoNonces::UsedUp) => return Err(NotReady::Drop(DropReason::SendSessionExhausted)),
            }
        };
        let room = outer.room_for_inner();
        let ready = self.ready.insert(Ready {
            remote_index: session.remote_index,
            next_counter,
            room: room.into(),
            limit: tunnel.mtu.min(room).into(),
            outer: *outer,
            tunnel,
        });
        ready.outer.turn_to(endpoint.remote);
        Ok(())
    }

    /// Notes what was sent to the peer.
    pub fn note(&self, now: Instant) {
        if self.bytes > 0 {
            self.peer.activity.sent(now, self.content);
            self.peer.traffic.sent(self.bytes);
        }
    }
}

/// The session to send with. Asks for a new one if there is none, or if it should be replaced.
#[inline]
fn usable_session<'p, B: PacketBuf, O: Outputs<B>>(
    peer: &'p Arc<Peer>,
    pipeline: &Pipeline<B>,
    scene: &Scene<'_>,
    out: &mut O,
) -> Result<Session<'p>, NotReady> {
    let session = peer.sending_session().filter(|session| !session.is_expired(scene.now));
    // One that has used up its nonces wants to be replaced as well.
    if session.is_none_or(|session| session.wants_rekey(scene.now)) {
        want_handshake(peer, pipeline, out);
    }
    session.ok_or(NotReady::Wait)
}

#[cold]
fn want_handshake<B: PacketBuf, O: Outputs<B>>(peer: &Arc<Peer>, pipeline: &Pipeline<B>, out: &mut O) {
    if peer.want_handshake() && out.tell_handshaker(HandshakeEvent::Wanted(peer.index)).is_err() {
        // The ring is full: let the peer's next packet ask again.
        peer.handshake_answered();
        pipeline.counters.events_lost.add(1);
    }
}
