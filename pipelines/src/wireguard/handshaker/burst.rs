//! Messages that came together: initiations among them share the work of agreeing on secrets.
//!
//! ```text
//! each: which tunnel -> all: static-ephemeral -> each: who claims to send it -> all: static-static, unless known
//!   -> each: authentic, new, a slot -> all: ephemeral-ephemeral, ephemeral-static -> each: session, response
//! ```

use arrayvec::ArrayVec;

use super::responder::Admitted;
use super::{CookieRequest, HandshakeError, Handshaker, Intake, Origin, Received};
use crate::ids::PeerIndex;
use crate::time::Instant;
use crate::wireguard::kdf::Secret;
use crate::wireguard::message::{CookieReply, Initiation, MessageType, Response, classify};
use crate::wireguard::noise::{NoiseError, Opened};
use crate::wireguard::timestamp::WallClock;
use crate::wireguard::x25519::{Agreement, SmallOrder, agree_burst};

/// Initiations that are answered together. More would share no more, and wait longer for each other.
const TOGETHER: usize = 8;

/// An initiation that waits for others, or goes through the stages with them.
struct Arrival<'a> {
    received: &'a Received<'a>,
    initiation: Initiation<'a>,
}

/// One entry for each arrival: where it is now, or why it is no more.
type Stage<T> = ArrayVec<Result<T, HandshakeError>, TOGETHER>;

impl Handshaker {
    /// Works on handshake messages that workers received, and tells of each that led to nothing.
    ///
    /// With [`CookieRequest::Reply`] a message is answered by a cookie and otherwise ignored. Initiations are worked on after
    /// other messages that came right behind them.
    pub fn handle_messages(
        &mut self,
        now: Instant,
        wall: WallClock,
        messages: &[Received<'_>],
        mut refused: impl FnMut(&Received<'_>, HandshakeError),
    ) {
        self.tell_time(now, wall);
        let mut arrivals = ArrayVec::<Arrival<'_>, TOGETHER>::new();
        for received in messages {
            match self.sort(now, received) {
                Ok(Some(initiation)) => arrivals.push(Arrival { received, initiation }),
                Ok(None) => self.counters.note(received.cookie, Ok(())),
                Err(error) => {
                    self.counters.note(received.cookie, Err(error));
                    refused(received, error);
                }
            }
            if arrivals.is_full() {
                self.answer(now, &arrivals, &mut refused);
                arrivals.clear();
            }
        }
        self.answer(now, &arrivals, &mut refused);
    }

    /// Works on a message at once, or returns the initiation that it is.
    fn sort<'a>(&mut self, now: Instant, received: &Received<'a>) -> Result<Option<Initiation<'a>>, HandshakeError> {
        let &Received { message, cookie, .. } = received;
        let origin = received.origin();
        match (cookie, classify(message)?) {
            (CookieRequest::Reply, _) => self.reply_cookie(now, origin, message)?,
            (CookieRequest::None, MessageType::Initiation) => return Ok(Some(Initiation::parse(message)?)),
            (CookieRequest::None, MessageType::Response) => {
                self.handle_response(now, origin, &Response::parse(message)?)?;
            }
            (CookieRequest::None, MessageType::CookieReply) => {
                self.handle_cookie_reply(now, origin.tunnel, &CookieReply::parse(message)?)?;
            }
            (CookieRequest::None, MessageType::Data) => return Err(HandshakeError::NotHandshake),
        }
        Ok(None)
    }

    /// Answers initiations.
    fn answer(
        &mut self,
        now: Instant,
        arrivals: &[Arrival<'_>],
        refused: &mut impl FnMut(&Received<'_>, HandshakeError),
    ) {
        let opened = self.open(arrivals);
        self.learn_static_static(&opened);
        let admitted = self.authenticate(now, arrivals, opened);
        let outcomes = self.respond(now, admitted);
        for (arrival, outcome) in arrivals.iter().zip(outcomes) {
            self.counters.note(arrival.received.cookie, outcome);
            if let Err(error) = outcome {
                refused(arrival.received, error);
            }
        }
    }

    /// Decrypts who claims to have sent each initiation.
    fn open(&self, arrivals: &[Arrival<'_>]) -> Stage<(PeerIndex, Opened)> {
        let tunnels = &self.resources.tunnels;
        let tunnel_of = |arrival: &Arrival<'_>| tunnels.get(&arrival.received.tunnel);
        let mut agreements: ArrayVec<_, TOGETHER> = arrivals
            .iter()
            .filter_map(|arrival| Some(tunnel_of(arrival)?.keys.agreement(arrival.initiation.ephemeral)))
            .collect();
        agree_burst(&mut agreements);
        let mut shared = agreements.into_iter().map(|agreement| agreement.shared);
        let open = |arrival: &Arrival<'_>| {
            let tunnel = tunnel_of(arrival).ok_or(HandshakeError::UnknownTunnel)?;
            let shared = shared.next().flatten().ok_or(NoiseError::SmallOrder)?;
            let opened = Opened::open_with(tunnel.keys.public(), &arrival.initiation, &shared)?;
            let owner = self.by_key.get(&(arrival.received.tunnel, opened.remote));
            Ok((*owner.ok_or(HandshakeError::UnknownPeer)?, opened))
        };
        arrivals.iter().map(open).collect()
    }

    /// Works out what the static keys share for the peers that never needed it before.
    fn learn_static_static(&mut self, opened: &Stage<(PeerIndex, Opened)>) {
        let unknown: ArrayVec<_, TOGETHER> = opened
            .iter()
            .flatten()
            .map(|(owner, _)| *owner)
            .filter(|owner| self.peer(*owner).is_some_and(|peer| peer.known_static_static().is_none()))
            .collect();
        if unknown.is_empty() {
            return;
        }
        let agreement = |owner: &PeerIndex| {
            let peer = &self.peer(*owner)?.peer;
            Some((*owner, self.resources.tunnels.get(&peer.tunnel)?.keys.agreement(&peer.public_key)))
        };
        let (owners, mut agreements): (ArrayVec<_, TOGETHER>, ArrayVec<Agreement<'_>, TOGETHER>) =
            unknown.iter().filter_map(agreement).unzip();
        agree_burst(&mut agreements);
        let learnt: ArrayVec<_, TOGETHER> = agreements.into_iter().map(|agreement| agreement.shared).collect();
        for (owner, shared) in owners.into_iter().zip(learnt) {
            if let (Some(Some(peer)), Some(shared)) = (self.peers.get_mut(owner.index()), shared) {
                peer.keep_static_static(shared);
            }
        }
    }

    /// Proves each sender, and takes a slot for its session.
    fn authenticate(
        &mut self,
        now: Instant,
        arrivals: &[Arrival<'_>],
        opened: Stage<(PeerIndex, Opened)>,
    ) -> Stage<Admitted> {
        let intake = self.intake;
        let authenticate = |(arrival, opened): (&Arrival<'_>, Result<(PeerIndex, Opened), HandshakeError>)| {
            let (owner, opened) = opened?;
            self.with_peer(now, owner, |peer, resources| {
                let is_live = peer.peer.sending_session().is_some_and(|session| !session.is_expired(now));
                if intake == Intake::Draining && !is_live {
                    return Err(HandshakeError::Draining);
                }
                // A peer's key of small order was found to be one before.
                let shared = peer.known_static_static().ok_or(NoiseError::from(SmallOrder))?.clone();
                peer.authenticate(now, arrival.received.origin(), opened, &shared, resources)
            })
            .unwrap_or(Err(HandshakeError::UnknownPeer))
        };
        arrivals.iter().zip(opened).map(authenticate).collect()
    }

    /// Makes the sessions and the responses.
    fn respond(&mut self, now: Instant, admitted: Stage<Admitted>) -> Stage<()> {
        let mut agreements: ArrayVec<_, { 2 * TOGETHER }> =
            admitted.iter().flatten().flat_map(|admitted| admitted.agreements()).collect();
        agree_burst(&mut agreements);
        let shared: ArrayVec<Option<Secret>, { 2 * TOGETHER }> =
            agreements.into_iter().map(|agreement| agreement.shared).collect();
        let mut shared = shared.into_iter();
        let respond = |admitted: Result<Admitted, HandshakeError>| {
            let admitted = admitted?;
            let shared = [shared.next().flatten(), shared.next().flatten()];
            self.with_peer(now, admitted.owner, |peer, resources| peer.respond(now, admitted, shared, resources))
                .unwrap_or(Err(HandshakeError::UnknownPeer))
        };
        admitted.into_iter().map(respond).collect()
    }
}

impl Received<'_> {
    fn origin(&self) -> Origin {
        Origin { tunnel: self.tunnel, from: self.from, worker: self.worker }
    }
}
