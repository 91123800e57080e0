//! What a flow is told by, and what is kept of it.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use super::FlowId;
use crate::dispatch::nat::QuotedPacket;
use crate::dispatch::service::Socket;
use crate::ids::BackendIndex;
use crate::packet::{Parsed, Ports, Protocol};

/// What a key stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum FlowKind {
    /// Packets of a client to a service.
    Forward,
    /// Packets of a server to an address of ours that stands for a client.
    Answer,
    /// All of a client's flows to a service: ports are 0.
    Client,
}

/// What tells a client from all others: its address as [`address_bytes`] has it, or what is made of its peer's public key.
pub type ClientIdentity = [u8; 16];

/// What tells a flow from all others.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FlowKey {
    /// The sender, of IPv4 as an IPv4-mapped address (RFC 4291 section 2.5.5.2): see [`address_bytes`].
    pub source: [u8; 16],
    /// The receiver, likewise.
    pub destination: [u8; 16],
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// What the packets carry.
    pub protocol: Protocol,
    /// What the key stands for.
    pub kind: FlowKind,
    /// Where the packets come from, if that matters: flows of different origins are different.
    pub origin: u16,
}

impl FlowKey {
    /// The key of a client's packet; `None` if it has no ports. `origin` tells where it comes from.
    #[inline]
    pub fn of(packet: &Parsed, origin: u16) -> Option<Self> {
        let ends = (address_bytes(packet.source), address_bytes(packet.destination));
        Some(Self { origin, ..Self::forward(ends, packet.ports?, packet.protocol) })
    }

    /// The key of a client's packet in clear.
    #[inline]
    pub const fn forward((source, destination): ([u8; 16], [u8; 16]), ports: Ports, protocol: Protocol) -> Self {
        let (source_port, destination_port) = (ports.source, ports.destination);
        Self { source, destination, source_port, destination_port, protocol, kind: FlowKind::Forward, origin: 0 }
    }

    /// The key of the client's flow to which a quoted packet of the service belongs.
    pub fn answered_by(quoted: &QuotedPacket, origin: u16) -> Self {
        Self {
            source: address_bytes(quoted.destination),
            destination: address_bytes(quoted.source),
            source_port: quoted.ports.destination,
            destination_port: quoted.ports.source,
            protocol: quoted.protocol,
            kind: FlowKind::Forward,
            origin,
        }
    }

    /// The key of what a server sends to an address of ours that stands for a client.
    pub fn of_answer(server: (IpAddr, u16), ours: (IpAddr, u16), protocol: Protocol) -> Self {
        Self {
            source: address_bytes(server.0),
            destination: address_bytes(ours.0),
            source_port: server.1,
            destination_port: ours.1,
            protocol,
            kind: FlowKind::Answer,
            origin: 0,
        }
    }

    /// The key of all flows of a client to a service.
    pub fn of_client(identity: ClientIdentity, service: &Socket) -> Self {
        Self {
            source: identity,
            destination: address_bytes(service.address),
            source_port: 0,
            destination_port: service.port,
            protocol: service.protocol,
            kind: FlowKind::Client,
            origin: 0,
        }
    }

    /// The sender's address.
    pub fn source_address(&self) -> IpAddr {
        IpAddr::from(self.source).to_canonical()
    }

    /// The receiver's address.
    pub fn destination_address(&self) -> IpAddr {
        IpAddr::from(self.destination).to_canonical()
    }
}

impl FlowKey {
    /// All but the addresses as one word, in the order in which it lies in memory.
    #[inline]
    const fn rest(&self) -> u64 {
        self.source_port as u64
            | (self.destination_port as u64) << 16
            | (self.protocol.0 as u64) << 32
            | (self.kind as u64) << 40
            | (self.origin as u64) << 48
    }

    /// The addresses as two words.
    #[inline]
    const fn addresses(&self) -> (u128, u128) {
        (u128::from_ne_bytes(self.source), u128::from_ne_bytes(self.destination))
    }
}

// By words in place of seven fields: both are on every packet's way.
impl PartialEq for FlowKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let ((a, b), (c, d)) = (self.addresses(), other.addresses());
        let rest = u128::from(self.rest() ^ other.rest());
        (a ^ c) | (b ^ d) | rest == 0
    }
}

impl Eq for FlowKey {}

impl Hash for FlowKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (source, destination) = self.addresses();
        // Of two IPv4 addresses all that differs goes through the hash at once.
        if let (Some(source), Some(destination)) = (v4_of(source), v4_of(destination)) {
            let addresses = u64::from(source) << 32 | u64::from(destination);
            state.write_u128(u128::from(addresses) << 64 | u128::from(self.rest()));
        } else {
            state.write_u128(source);
            state.write_u128(destination);
            state.write_u64(self.rest());
        }
    }
}

/// What stands before an IPv4 address in an IPv4-mapped one.
const MAPPED: u128 = 0xffff << 32;

/// The IPv4 address that is mapped in an address as it lies in memory.
#[inline]
const fn v4_of(address: u128) -> Option<u32> {
    let address = u128::from_be(address);
    if address >> 32 == MAPPED >> 32 { Some(address as u32) } else { None }
}

/// An address as keys have it.
#[inline]
pub fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        // As `to_ipv6_mapped`, but by two words in place of sixteen bytes.
        IpAddr::V4(address) => (MAPPED | address.to_bits() as u128).to_be_bytes(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// What was decided for a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Decision {
    /// The server that it goes to.
    pub server: BackendIndex,
    /// Where the server stood in its service the last time.
    pub position: u16,
    /// The port of ours that stands for the client towards the server; 0 if none does.
    pub translated_port: u16,
    /// Of an answer: the flow that it answers, which may have ended since.
    pub partner: Option<FlowId>,
}

impl Decision {
    /// To this server, which stands at `position` in its service.
    pub const fn new(server: BackendIndex, position: u16) -> Self {
        Self { server, position, translated_port: 0, partner: None }
    }
}

/// A flow: 40 bytes of key, and 24 for what was decided, in one cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub struct Flow {
    /// What it is told by.
    pub key: FlowKey,
    /// What was decided for it.
    pub decision: Decision,
}

impl Flow {
    /// What stands where there is no flow.
    pub(super) const VACANT: Self = Self {
        key: FlowKey {
            source: [0; 16],
            destination: [0; 16],
            source_port: 0,
            destination_port: 0,
            protocol: Protocol(0),
            kind: FlowKind::Forward,
            origin: 0,
        },
        decision: Decision::new(BackendIndex(0), 0),
    };
}

const _: () = assert!(size_of::<FlowKey>() == 40 && size_of::<Decision>() <= 24);
