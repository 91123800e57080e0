//! What the handshaker asks its caller to do, in order.

use std::sync::Arc;

use crate::ids::{SlotIndex, TunnelId, WorkerId};
use crate::wireguard::cookie::Message;
use crate::wireguard::{Endpoint, Peer, Receiver};

/// Something to do. The caller does them in the order in which they come.
#[derive(Debug)]
pub enum Output {
    /// Send a handshake message or a cookie reply.
    Send {
        /// From this tunnel's socket.
        tunnel: TunnelId,
        /// The peer that it is for; `None` for a cookie reply, whose reader is not known.
        peer: Option<Arc<Peer>>,
        /// To this address.
        to: Endpoint,
        /// The datagram's payload.
        message: Message,
    },
    /// Let a worker decrypt what comes for a slot.
    InstallReceiver {
        /// The worker.
        worker: WorkerId,
        /// Its slot, which is empty.
        slot: SlotIndex,
        /// What it needs for that.
        receiver: Box<Receiver>,
    },
    /// Empty a worker's slot. Once it is empty, the caller says so by
    /// [`Handshaker::receiver_removed`](super::Handshaker::receiver_removed).
    RemoveReceiver {
        /// The worker.
        worker: WorkerId,
        /// Its slot.
        slot: SlotIndex,
    },
    /// Seal an empty message with the peer's sending session.
    SendKeepalive {
        /// The peer.
        peer: Arc<Peer>,
    },
    /// Packets that wait for this peer can go now.
    SessionReady {
        /// The peer.
        peer: Arc<Peer>,
    },
    /// No session came about: packets that wait for this peer are dropped.
    GiveUp {
        /// The peer.
        peer: Arc<Peer>,
    },
}
