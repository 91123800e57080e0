//! What is noted of a peer that was heard: where it is, how much it sent, and what that calls for.

use std::net::{IpAddr, SocketAddr};

use crate::counters::WorkerCounters;
use crate::packet::Parsed;
use crate::path::admission::Admission;
use crate::path::event::HandshakeEvent;
use crate::path::outputs::Outputs;
use crate::path::simple::Addresses;
use crate::time::Instant;
use crate::wireguard::constants::{DATA_HEADER_SIZE, TAG_SIZE};
use crate::wireguard::peer::Content;
use crate::wireguard::{Endpoint, Receiver};

/// Where a datagram came from and went to, as its headers say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    address: IpAddr,
    port: u16,
    local: IpAddr,
}

impl Source {
    pub(super) fn of(outer: &Parsed) -> Self {
        let port = outer.ports.map_or(0, |ports| ports.source);
        Self { address: outer.source, port, local: outer.destination }
    }

    /// Of a datagram between these addresses from a port.
    pub(super) fn new(addresses: Addresses, port: u16) -> Self {
        Self { address: addresses.source(), port, local: addresses.destination() }
    }

    #[inline(always)]
    pub(super) fn is_of(&self, outer: &Parsed) -> bool {
        self.address == outer.source
            && self.local == outer.destination
            && self.port == outer.ports.map_or(0, |ports| ports.source)
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint { remote: SocketAddr::new(self.address, self.port), local: Some(self.local) }
    }
}

/// Authentic messages of one session in a row from one endpoint.
pub(super) struct Heard {
    pub(super) from: Source,
    messages: u64,
    bytes: u64,
    content: Content,
}

impl Heard {
    pub(super) fn nothing(from: Source) -> Self {
        Self { from, messages: 0, bytes: 0, content: Content::Empty }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.messages == 0
    }

    /// `sealed` is the length of the encrypted packet with its tag.
    pub(super) fn new(from: Source, sealed: usize) -> Self {
        let mut heard = Self::nothing(from);
        heard.add(sealed);
        heard
    }

    /// `sealed` as for [`Heard::new`].
    pub(super) fn add(&mut self, sealed: usize) {
        self.messages += 1;
        self.bytes += (DATA_HEADER_SIZE + sealed) as u64;
        if sealed > TAG_SIZE {
            self.content = Content::Data;
        }
    }

    pub(super) fn note<B, O: Outputs<B>>(
        &self,
        receiver: &mut Receiver,
        counters: &WorkerCounters,
        admission: &mut Admission,
        now: Instant,
        out: &mut O,
    ) {
        counters.opened.add(self.messages);
        let second = Some(now.as_seconds() as u32);
        let is_noted = std::mem::replace(&mut receiver.noted, second) == second;
        let is_news = receiver.confirm();
        let peer = &receiver.peer;
        let from = self.from.endpoint();
        let moved = peer.endpoint.load() != Some(from);
        if moved {
            // A writer that we meet brings the same news or newer; the peer's next packet tells.
            peer.endpoint.store(from);
        }
        // Once a second is as good as always: the memory is of minutes.
        if moved || !is_noted {
            admission.remember(from, now);
        }
        peer.activity.received(now, self.content);
        peer.traffic.received(self.bytes);
        let mut lost = 0;
        if is_news {
            let event = HandshakeEvent::Confirmed(peer.index, receiver.local_index);
            lost += u64::from(out.tell_handshaker(event).is_err());
        }
        if receiver.wants_rekey(now)
            && peer.want_handshake()
            && out.tell_handshaker(HandshakeEvent::Wanted(peer.index)).is_err()
        {
            peer.handshake_answered();
            lost += 1;
        }
        if lost > 0 {
            counters.events_lost.add(lost);
        }
    }
}
