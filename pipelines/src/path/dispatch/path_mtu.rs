//! What routers say of packets that were too long for their way to a server, inside others.
//!
//! Such an error is the node's: it quotes the outer packet, which the node sent. The client whose packet was inside hears of it when its
//! next one does not fit either. So all that is learned is the length that the way to that server carries (RFC 2003 section 5).

use std::net::IpAddr;

use crate::buffer::PacketBuf;
use crate::dispatch::encapsulation::kind_of;
use crate::dispatch::service::Services;
use crate::packet::icmp::Icmp;
use crate::packet::icmpv6::Icmpv6;
use crate::packet::{Fragment, Frame, Parsed, Protocol, checksum};
use crate::path::packet::Packet;

/// The least that Linux believes for IPv4 (`net.ipv4.route.min_pmtu`): less is no link's, but an attack.
const LEAST_V4: u32 = 552;
/// The least that every IPv6 link carries (RFC 8201 section 4).
const LEAST_V6: u32 = 1280;

/// The length that the way to a server carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PathMtu {
    /// The server's address.
    pub server: IpAddr,
    /// Bytes, with the outer header.
    pub mtu: u16,
}

/// What an ICMP error to the node, whose frame is whole, tells of the way to a server; `None` if it is no such error, or nothing new.
pub fn told_by<B: PacketBuf>(packet: &Packet<'_, B>, services: &Services) -> Option<PathMtu> {
    let parsed = &packet.parsed;
    if !services.encapsulates() || parsed.fragment != Fragment::No {
        return None;
    }
    match parsed.protocol {
        Protocol::ICMP | Protocol::ICMPV6 => read(packet, services),
        _ => None,
    }
}

#[cold]
fn read<B: PacketBuf>(packet: &Packet<'_, B>, services: &Services) -> Option<PathMtu> {
    let parsed = &packet.parsed;
    let frame = Frame::parse(packet.buffer.data()).ok()?;
    let message = parsed.l4(frame.payload(packet.buffer.data()));
    let (mtu, least, quote) = match parsed.protocol {
        Protocol::ICMP => {
            let error = Icmp::parse(message)?;
            (u32::from(error.next_hop_mtu()?), LEAST_V4, error.embedded(message)?)
        }
        _ => {
            let error = Icmpv6::parse(message)?;
            (error.next_hop_mtu()?, LEAST_V6, error.embedded(message)?)
        }
    };
    let pseudo = match parsed.protocol {
        Protocol::ICMP => checksum::Sum::ZERO,
        protocol => checksum::pseudo(parsed.source, parsed.destination, protocol, message.len() as u32),
    };
    if mtu < least || !pseudo.bytes(message).is_right() {
        return None;
    }
    let quoted = Parsed::from_quote(quote)?;
    let server = services.encapsulated(quoted.destination, kind_of(&quoted)?)?;
    let mtu = u16::try_from(mtu).ok().filter(|mtu| *mtu < server.path_mtu())?;
    // Only what we sent can have been too long, and the error came to where we sent it from.
    (quoted.source == parsed.destination).then_some(PathMtu { server: server.address, mtu })
}
