//! The stage that puts the Ethernet header before a packet, once the next hop's address is known.

use std::net::IpAddr;

use super::packet::{Packets, Verdict};
use crate::buffer::PacketBuf;
use crate::drop_reason::DropReason;
use crate::ids::PortId;
use crate::packet::{EtherType, ethernet};
use crate::tables::Tables;

/// Turns [`Verdict::Emit`] into a frame that is ready to send, or lets the packet wait for the neighbour.
pub fn emit<B: PacketBuf>(packets: &mut Packets<'_, B>, tables: &Tables) {
    // Packets of a burst mostly have the same next hop.
    let mut last: Option<LinkHeaders> = None;
    for packet in packets.iter_mut() {
        let Verdict::Emit { port, next_hop } = packet.verdict else { continue };
        let headers = match &last {
            Some(last) if last.next_hop == next_hop && last.port == port => last,
            Some(_) | None => match LinkHeaders::find(port, next_hop, tables) {
                Ok(headers) => &*last.insert(headers),
                Err(verdict) => {
                    packet.verdict = verdict;
                    continue;
                }
            },
        };
        packet.verdict = match packet.buffer.grow_front(ethernet::HEADER_LENGTH) {
            Ok(()) => match packet.buffer.data_mut().split_first_chunk_mut() {
                Some((header, [first, ..])) => {
                    *header = if *first >> 4 == 4 { headers.ipv4 } else { headers.ipv6 };
                    Verdict::Send(port)
                }
                // No stage before lets an empty packet come here.
                Some((_, [])) | None => Verdict::Drop(DropReason::Undecided),
            },
            Err(_) => Verdict::Drop(DropReason::BufferNoRoom),
        };
    }
}

/// The link-layer headers to a next hop.
pub(super) struct LinkHeaders {
    port: PortId,
    next_hop: IpAddr,
    /// Before an IPv4 packet.
    pub ipv4: [u8; ethernet::HEADER_LENGTH],
    /// Before an IPv6 packet.
    pub ipv6: [u8; ethernet::HEADER_LENGTH],
}

impl LinkHeaders {
    /// Looks the neighbour up; what becomes of the packet if it is not there is the error.
    pub fn find<'t>(port: PortId, next_hop: IpAddr, tables: &Tables) -> Result<Self, Verdict<'t>> {
        let entry = tables.port(port).ok_or(Verdict::Drop(DropReason::NoRoute))?;
        let neighbour = tables.neighbours.get(&(port, next_hop)).ok_or(Verdict::HoldForNeighbour(port, next_hop))?;
        let header = |ethertype| {
            let mut header = [0; ethernet::HEADER_LENGTH];
            ethernet::write(&mut header, *neighbour, entry.mac, ethertype);
            header
        };
        Ok(Self { port, next_hop, ipv4: header(EtherType::IPV4), ipv6: header(EtherType::IPV6) })
    }
}
