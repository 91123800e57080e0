//! The stage that puts the Ethernet header before a packet, once the next hop's address is known.

use std::net::IpAddr;

use super::packet::{Packets, Verdict};
use crate::buffer::{NoRoom, PacketBuf};
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
            Some(last) if last.lead_to(port, next_hop) => last,
            Some(_) | None => match LinkHeaders::find(port, next_hop, tables) {
                Ok(headers) => &*last.insert(headers),
                Err(verdict) => {
                    packet.verdict = verdict;
                    continue;
                }
            },
        };
        packet.verdict = match headers.put_before(&mut packet.buffer) {
            Ok(()) => Verdict::Send(port),
            Err(NoRoom(_)) => Verdict::Drop(DropReason::BufferNoRoom),
        };
    }
}

/// The link-layer headers to a next hop.
#[derive(Debug)]
pub struct LinkHeaders {
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

    /// Whether they are those to this next hop.
    #[inline(always)]
    pub fn lead_to(&self, port: PortId, next_hop: IpAddr) -> bool {
        self.next_hop == next_hop && self.port == port
    }

    /// Puts the header before an IP packet.
    #[inline(always)]
    pub fn put_before<B: PacketBuf>(&self, buffer: &mut B) -> Result<(), NoRoom> {
        buffer.grow_front(ethernet::HEADER_LENGTH)?;
        let Some((header, rest)) = buffer.data_mut().split_first_chunk_mut() else {
            return Err(NoRoom(ethernet::HEADER_LENGTH));
        };
        let is_ipv4 = rest.first().is_some_and(|first| first >> 4 == 4);
        *header = if is_ipv4 { self.ipv4 } else { self.ipv6 };
        Ok(())
    }
}
