//! What a worker tells the handshaker and control, and what it is told.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::dispatch::PathMtu;
use super::slots::Page;
use crate::ids::{BackendIndex, PeerIndex, PortId, SlotIndex, TunnelId};
use crate::wireguard::constants::INITIATION_SIZE;
use crate::wireguard::replay::Crate;
use crate::wireguard::{Endpoint, Peer, Receiver};

/// A handshake message or cookie reply; none is longer than an initiation.
pub type HandshakeMessage = ArrayVec<u8, INITIATION_SIZE>;

/// From a worker to the handshaker.
#[derive(Debug)]
pub enum HandshakeEvent {
    /// A handshake message whose mac1 is right.
    Message {
        /// The tunnel on whose port it came.
        tunnel: TunnelId,
        /// Who sent it.
        from: Endpoint,
        /// The message.
        message: HandshakeMessage,
        /// Whether to answer it only with a cookie.
        answer: Answer,
    },
    /// A packet wants to go to the peer and there is no session for it, or the session is old.
    Wanted(PeerIndex),
    /// The first authentic message of a session that we answered.
    Confirmed(PeerIndex, u32),
    /// A session that was removed, for the handshaker to free.
    Removed(SlotIndex, Option<Box<Receiver>>),
    /// A session that another took the slot of, for the handshaker to free.
    Replaced(Box<Receiver>),
    /// A page that was there already, for the handshaker to free.
    SparePage(Box<Page>),
    /// Few windows are left for sessions that need one: send [`Command::AddWindows`].
    WindowsWanted,
    /// A crate with what windows there was no room for, for the handshaker to free.
    SpareCrate(Box<Crate>),
}

/// What a handshake message is worth under the present load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Go on with the handshake.
    Handshake,
    /// Ask the sender to prove its address first (paper, section 5.3).
    Cookie,
}

/// From a worker to control.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ControlEvent {
    /// A packet waits for the neighbour's link-layer address, or its entry is used and may be stale.
    NeighbourWanted(PortId, IpAddr),
    /// A server gave a sign of trouble: an unreachable error, a refused or repeated connection attempt.
    ServerInTrouble(BackendIndex),
    /// A router said what the way to a server carries.
    PathMtu(PathMtu),
}

/// From the handshaker to a worker. Never lost: the ring is retried until it has room.
#[derive(Debug)]
pub enum Command {
    /// Memory for a page of sessions.
    AddPage(u32, Box<Page>),
    /// Memory for replay windows, to be kept ready.
    AddWindows(Box<Crate>),
    /// A session whose messages come to this worker.
    InstallReceiver(SlotIndex, Box<Receiver>),
    /// End of a session.
    RemoveReceiver(SlotIndex),
    /// Send an empty message with the peer's session.
    SendKeepalive(Arc<Peer>),
    /// Send a handshake message or cookie reply.
    SendMessage {
        /// The tunnel from whose port it goes.
        tunnel: TunnelId,
        /// Where to.
        to: Endpoint,
        /// The message.
        message: HandshakeMessage,
    },
}
