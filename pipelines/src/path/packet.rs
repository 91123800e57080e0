//! A packet on its way through the stages: its buffer, what is known of it, and what was decided.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::dispatch::Backend;
use crate::drop_reason::DropReason;
use crate::ids::{PortId, TunnelId, WorkerId};
use crate::packet::Parsed;
use crate::tables::Twin;
use crate::wireguard::Peer;

/// Packets that go through the stages together.
pub const BURST: usize = 64;

/// Packets on their way; `'t` is the life of the tables by which they are decided.
pub type Packets<'t, B> = ArrayVec<Packet<'t, B>, BURST>;

/// A packet with what the stages found out and decided.
#[derive(Debug)]
pub struct Packet<'t, B> {
    /// The bytes. From [`Verdict::Route`] on they begin with the IP header.
    pub buffer: B,
    /// The meaning of its IP header, of the inner one once the packet is decrypted; [`UNPARSED`] before.
    pub parsed: Parsed,
    /// Where it came from.
    pub origin: Origin,
    /// The server that it is on its way to, if it is a client's to a service.
    pub server: Option<&'t Backend>,
    /// What happens to it next.
    pub verdict: Verdict<'t>,
}

impl<'t, B> Packet<'t, B> {
    /// A packet that was made here.
    pub const fn made(buffer: B, parsed: Parsed, verdict: Verdict<'t>) -> Self {
        Self { buffer, parsed, origin: Origin::Node, server: None, verdict }
    }
}

/// Stands where nothing is known of a packet's IP header: a frame that is not IP, a keepalive, a handshake message.
pub const UNPARSED: Parsed = Parsed::NOTHING;

/// Where a packet came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// In clear from a port.
    Port(PortId),
    /// Decrypted, from a tunnel.
    Tunnel(TunnelId),
    /// From the node itself: the kernel, the handshaker, or a worker that made it.
    Node,
}

impl Origin {
    /// Tells the tunnel, so that two tunnels may use the same inner addresses; 0 for packets in clear.
    pub const fn number(self) -> u16 {
        match self {
            Self::Port(_) | Self::Node => 0,
            Self::Tunnel(TunnelId(number)) => number.wrapping_add(1),
        }
    }
}

/// What happens to a packet next. Stages only decide; the sweep acts.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'t> {
    /// Decrypt: a WireGuard message at `message` bytes from the start of the frame.
    Open {
        /// The tunnel whose port it came to.
        tunnel: TunnelId,
        /// The port it came in by.
        port: PortId,
        /// Where the message starts.
        message: u16,
        /// How long it is.
        length: u16,
    },
    /// Find out which server of a service the packet goes to. The frame is whole: the IP packet begins at `l3_offset`.
    Dispatch {
        /// The port it came in by.
        port: PortId,
        /// Where the IP packet begins.
        l3_offset: u8,
    },
    /// Find out where the IP packet goes.
    Route,
    /// Encrypt to the peer.
    Seal(&'t Arc<Peer>),
    /// Put an Ethernet header before it and send it.
    Emit {
        /// The port to leave by.
        port: PortId,
        /// Whose link-layer address to send to.
        next_hop: IpAddr,
    },
    /// Send the frame as it is.
    Send(PortId),
    /// Give it to the kernel.
    Punt(Twin),
    /// Give the frame, which came in by `port`, to another worker.
    HandOff {
        /// The worker.
        to: WorkerId,
        /// The port it came in by.
        port: PortId,
    },
    /// Let it wait for a session with the peer.
    HoldForSession(&'t Arc<Peer>),
    /// Let it wait for the neighbour's address.
    HoldForNeighbour(PortId, IpAddr),
    /// Let it wait for the first fragment of its datagram.
    HoldForFirstFragment,
    /// Drop it.
    Drop(DropReason),
}
