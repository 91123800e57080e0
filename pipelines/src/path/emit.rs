//! The stage that puts the Ethernet header before a packet, once the next hop's address is known.

use std::net::IpAddr;

use super::packet::{Packets, Verdict};
use crate::buffer::PacketBuf;
use crate::drop_reason::DropReason;
use crate::ids::PortId;
use crate::packet::{EtherType, MacAddress, ethernet};
use crate::tables::Tables;

/// Turns [`Verdict::Emit`] into a frame that is ready to send, or lets the packet wait for the neighbour.
pub fn emit<B: PacketBuf>(packets: &mut Packets<'_, B>, tables: &Tables) {
    // Packets of a burst mostly have the same next hop.
    let mut last: Option<(PortId, IpAddr, &MacAddress)> = None;
    for packet in packets.iter_mut() {
        let Verdict::Emit { port, next_hop } = packet.verdict else { continue };
        let Some(entry) = tables.port(port) else {
            packet.verdict = Verdict::Drop(DropReason::NoRoute);
            continue;
        };
        let known = last.filter(|(last_port, address, _)| *last_port == port && *address == next_hop);
        let found = known.map(|(_, _, mac)| mac).or_else(|| tables.neighbours.get(&(port, next_hop)));
        let Some(neighbour) = found else {
            packet.verdict = Verdict::HoldForNeighbour(port, next_hop);
            continue;
        };
        last = Some((port, next_hop, neighbour));
        let ethertype = match packet.buffer.data().first().map(|byte| byte >> 4) {
            Some(4) => EtherType::IPV4,
            Some(_) | None => EtherType::IPV6,
        };
        let grown = packet.buffer.grow_front(ethernet::HEADER_LENGTH);
        packet.verdict = match (grown, packet.buffer.data_mut().first_chunk_mut()) {
            (Ok(()), Some(header)) => {
                ethernet::write(header, *neighbour, entry.mac, ethertype);
                Verdict::Send(port)
            }
            (Ok(()), None) | (Err(_), _) => Verdict::Drop(DropReason::BufferNoRoom),
        };
    }
}
