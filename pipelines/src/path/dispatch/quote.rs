//! ICMP errors about packets of a service's flows: each goes to whom the quoted packet's sender is.
//!
//! ```text
//!  about a server's packet:  quotes service -> client, sent to the service   --> to the flow's server
//!  about a client's packet:  quotes client -> server,  sent to the client    --> quotes the service from now on
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use super::forward::{select, service_at, signal};
use super::send::{self, To, rewrite};
use super::{Desk, check_source};
use crate::buffer::PacketBuf;
use crate::dispatch::flow_table::FlowKey;
use crate::dispatch::nat::{self, End, QuotedPacket, Rewrite};
use crate::dispatch::service::{Service, Socket};
use crate::drop_reason::DropReason;
use crate::packet::icmp::{self, Icmp};
use crate::packet::icmpv6::{self, Icmpv6};
use crate::packet::{Fragment, Parsed, Protocol};
use crate::path::outputs::Outputs;
use crate::path::packet::{Origin, Packet, Verdict};
use crate::path::route::{Refusal, hop, way_to};
use jetway_config::{Forward, Persistence};

/// Sends an error on to the end whose packet it quotes.
pub fn error<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    quoted: &QuotedPacket,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<Verdict<'t>, Refusal> {
    check_source(packet.parsed.source, packet.origin, desk.scene.tables)?;
    let service = Socket { address: quoted.source, port: quoted.ports.source, protocol: quoted.protocol };
    if desk.services.has_address(packet.parsed.destination) {
        return to_server(packet, quoted, service_at(&service, desk)?, desk);
    }
    let server = Socket { address: quoted.destination, port: quoted.ports.destination, protocol: quoted.protocol };
    let (service, server) = desk.services.behind(&server).ok_or(DropReason::ServiceMalformed)?;
    if is_unreachable(packet) {
        signal(server, desk);
    }
    let way = way_to(packet.parsed.destination, desk.scene.tables)?;
    hop(packet)?;
    let from_server = packet.parsed.source == server.address;
    quote_from(packet, quoted, (End::Destination, service.socket.address, service.socket.port))?;
    if from_server {
        rewrite_outer(packet, End::Source, service.socket.address)?;
    }
    Ok(way.verdict)
}

/// An error about a packet that a server sent as the service: to the server that has the flow.
fn to_server<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    quoted: &QuotedPacket,
    service: &'t Service,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<Verdict<'t>, Refusal> {
    let client = match packet.origin {
        // Of our own: the client is where its packets come from.
        Origin::Node => way_to(quoted.destination, desk.scene.tables)?.into.map_or(0, |id| Origin::Tunnel(id).number()),
        origin @ (Origin::Port(_) | Origin::Tunnel(_)) => origin.number(),
    };
    let key = FlowKey::answered_by(quoted, client);
    let hash = desk.pipeline.flows.hash(&key);
    let known =
        desk.pipeline.flows.find(hash, &key, desk.tick).and_then(|id| Some(desk.pipeline.flows.get(id)?.decision));
    let position = known.and_then(|decision| service.position(decision.server, decision.position));
    let position = match position {
        Some(position) => position,
        // Not tracked here: it went by Maglev, or another worker has it, who mostly chose alike.
        None => select(service, hash_of(quoted, service, desk))?,
    };
    let server = service.server(position).map(Arc::as_ref).ok_or(DropReason::ServiceDown)?;
    if service.forward == Forward::Nat {
        // Here the error itself is rewritten: what it quotes is no flow of the flow table.
        let way = way_to(server.address, desk.scene.tables)?;
        hop(packet)?;
        quote_from(packet, quoted, (End::Source, server.address, server.port))?;
        rewrite_outer(packet, End::Destination, server.address)?;
        return Ok(way.verdict);
    }
    send::send(packet, To { service, server, flow: None, entropy: hash.entropy() }, desk)
}

/// The hash of the client's flow whose answer is quoted.
fn hash_of<B: PacketBuf, O: Outputs<B>>(quoted: &QuotedPacket, service: &Service, desk: &Desk<'_, '_, B, O>) -> u64 {
    match service.persistence {
        Persistence::Client => desk.services.address_hash(quoted.destination),
        Persistence::Flow => desk.services.flow_hash(&Parsed {
            source: quoted.destination,
            destination: quoted.source,
            protocol: quoted.protocol,
            ports: Some(quoted.ports.swapped()),
            fragment: Fragment::No,
            ..crate::path::packet::UNPARSED
        }),
    }
}

/// Rewrites one end of the quoted packet.
fn quote_from<B: PacketBuf>(
    packet: &mut Packet<'_, B>,
    quoted: &QuotedPacket,
    (end, address, port): (End, IpAddr, u16),
) -> Result<(), Refusal> {
    let to = Rewrite { end, address, port };
    nat::rewrite_quote(packet.buffer.data_mut(), &packet.parsed, quoted, to)
        .map_err(|_| DropReason::ServiceMalformed.into())
}

/// Rewrites an address of the error itself.
fn rewrite_outer<B: PacketBuf>(packet: &mut Packet<'_, B>, end: End, address: IpAddr) -> Result<(), Refusal> {
    rewrite(packet, end, (address, 0))
}

/// Whether the error says that a server or its port cannot be reached; not that a packet was too long for the way.
fn is_unreachable<B: PacketBuf>(packet: &Packet<'_, B>) -> bool {
    let message = packet.parsed.l4(packet.buffer.data());
    match packet.parsed.protocol {
        Protocol::ICMP => Icmp::parse(message)
            .is_some_and(|error| error.kind == icmp::Kind::UNREACHABLE && error.next_hop_mtu().is_none()),
        _ => Icmpv6::parse(message).is_some_and(|error| error.kind == icmpv6::Kind::UNREACHABLE),
    }
}
