//! Breaks a client's connection to a server that went down, so that it connects anew at once.

use super::Desk;
use super::answer::put_ip_header;
use crate::buffer::PacketBuf;
use crate::drop_reason::DropReason;
use crate::packet::tcp::{self, Flags, Tcp};
use crate::packet::{Parsed, Protocol, checksum};
use crate::path::outputs::Outputs;
use crate::path::packet::{Packet, Verdict};
use std::net::IpAddr;

/// Drops the packet and makes a reset in answer to it (RFC 9293 section 3.10.7.1), metered as ICMP errors are.
pub fn reset<'t, B: PacketBuf, O: Outputs<B>>(packet: &Packet<'t, B>, desk: &mut Desk<'_, 't, B, O>) -> Verdict<'t> {
    let dropped = Verdict::Drop(DropReason::ServerGone);
    let Some(segment) = Tcp::parse(packet.parsed.l4(packet.buffer.data())) else { return dropped };
    // A reset is never answered by one.
    if segment.flags.contains(Flags::RST) || desk.made.is_full() || !desk.pipeline.icmp_meter.allow(desk.scene.now) {
        return dropped;
    }
    let Some(mut buffer) = desk.out.allocate() else { return dropped };
    let answer = answer_to(&segment, packet);
    let written = write(&mut buffer, packet.parsed.destination, packet.parsed.source, &answer);
    let Some(parsed) = written.and_then(|()| Parsed::from_ip(buffer.data()).ok()) else { return dropped };
    desk.pipeline.counters.created.add(1);
    desk.made.push(Packet::made(buffer, parsed, Verdict::Route));
    dropped
}

/// The reset that the receiver of a segment without a connection sends.
fn answer_to<B: PacketBuf>(segment: &Tcp, packet: &Packet<'_, B>) -> tcp::Header {
    let (source_port, destination_port) = (segment.destination_port, segment.source_port);
    if segment.flags.contains(Flags::ACK) {
        let sequence = segment.acknowledgement;
        return tcp::Header { source_port, destination_port, sequence, acknowledgement: 0, flags: Flags::RST };
    }
    let data = packet.parsed.l4(packet.buffer.data()).len().saturating_sub(usize::from(segment.header_length)) as u32;
    let control = [Flags::SYN, Flags::FIN].iter().filter(|flag| segment.flags.contains(**flag)).count() as u32;
    let acknowledgement = segment.sequence.wrapping_add(data).wrapping_add(control);
    let flags = Flags(Flags::RST.0 | Flags::ACK.0);
    tcp::Header { source_port, destination_port, sequence: 0, acknowledgement, flags }
}

/// Writes the IP packet of a segment without data into an empty buffer; `None` if it has no room or the families differ.
fn write<B: PacketBuf>(buffer: &mut B, source: IpAddr, destination: IpAddr, header: &tcp::Header) -> Option<()> {
    buffer.grow_back(tcp::HEADER_LENGTH).ok()?;
    let length = tcp::HEADER_LENGTH as u16;
    header.write(buffer.data_mut().first_chunk_mut()?);
    let sum = checksum::pseudo(source, destination, Protocol::TCP, u32::from(length)).bytes(buffer.data()).checksum();
    tcp::set_checksum(buffer.data_mut(), sum);
    put_ip_header(buffer, source, destination, Protocol::TCP, 0)
}
