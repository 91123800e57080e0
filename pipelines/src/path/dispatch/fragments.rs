//! Fragments of datagrams to and from services: later ones go where the first of their datagram went, and those to a service that
//! come before it wait for it.

use super::forward::service_at;
use super::send::{self, To};
use super::{Desk, FragmentFlow, back, check_source};
use crate::buffer::PacketBuf;
use crate::dispatch::flow_table::address_bytes;
use crate::dispatch::fragment_table::{DatagramKey, FragmentRange, Rest, Verdict as Standing};
use crate::drop_reason::DropReason;
use crate::packet::Parsed;
use crate::packet::fragment::FragmentHeader;
use crate::path::outputs::Outputs;
use crate::path::packet::{Origin, Packet, Verdict};
use crate::path::route::Refusal;

/// Lets later fragments of the packet's datagram know where it goes.
pub fn remember_first<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'t, B>,
    flow: FragmentFlow,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<(), Refusal> {
    let (key, range) = place_of(packet)?;
    taken(desk.pipeline.fragments.first(&key, range, flow, desk.scene.now)).map(drop)
}

/// Sends a later fragment where the first of its datagram went.
pub fn later<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<Verdict<'t>, Refusal> {
    let (key, range) = place_of(packet)?;
    let standing = desk.pipeline.fragments.later(&key, range, desk.scene.now);
    if standing == Standing::Unknown && !desk.services.has_address(packet.parsed.destination) {
        // It is of no service, or its first fragment went another way: it goes by its address.
        return Ok(Verdict::Route);
    }
    check_source(packet.parsed.source, packet.origin, desk.scene.tables)?;
    if standing == Standing::Unknown {
        // Networks deliver out of order: the first one may be next.
        return Ok(Verdict::HoldForFirstFragment);
    }
    match taken(standing)? {
        FragmentFlow::Back(socket) => back::rewrite_and_send(packet, service_at(&socket, desk)?, desk),
        FragmentFlow::Forward(socket, index) => {
            let service = service_at(&socket, desk)?;
            let position = service.position(index, 0).ok_or(DropReason::ServiceDown)?;
            let server = service.server(position).ok_or(DropReason::ServiceDown)?;
            // The ports are not known here; what is the same for the whole datagram will do.
            let entropy = u64::from(key.identification);
            send::send(packet, To { service, server, flow: None, entropy }, desk)
        }
    }
}

/// Which datagram a fragment belongs to, and which part of it it is.
fn place_of<B: PacketBuf>(packet: &Packet<'_, B>) -> Result<(DatagramKey, FragmentRange), Refusal> {
    let header = FragmentHeader::of(packet.buffer.data(), &packet.parsed).ok_or(DropReason::FragmentMalformed)?;
    let rest = if header.more_follow { Rest::Follows } else { Rest::Ends };
    let range = FragmentRange::new(header.offset, header.length, rest).ok_or(DropReason::FragmentMalformed)?;
    Ok((key_of(&header, &packet.parsed, packet.origin), range))
}

/// Which datagram a fragment belongs to that begins with its IP header.
pub fn datagram_of<B: PacketBuf>(buffer: &B, parsed: &Parsed, origin: Origin) -> Option<DatagramKey> {
    let header = FragmentHeader::of(buffer.data(), parsed)?;
    Some(key_of(&header, parsed, origin))
}

fn key_of(header: &FragmentHeader, parsed: &Parsed, origin: Origin) -> DatagramKey {
    DatagramKey {
        source: address_bytes(parsed.source),
        destination: address_bytes(parsed.destination),
        identification: header.identification,
        protocol: header.protocol,
        origin: origin.number(),
    }
}

/// What the table says of a fragment, as far as it goes on.
fn taken(standing: Standing<FragmentFlow>) -> Result<FragmentFlow, Refusal> {
    match standing {
        Standing::Known(flow) => Ok(flow),
        Standing::Unknown => Err(DropReason::FragmentUnknown.into()),
        Standing::Duplicate => Err(DropReason::FragmentDuplicate.into()),
        Standing::Refused(_) => Err(DropReason::FragmentOverlap.into()),
    }
}
