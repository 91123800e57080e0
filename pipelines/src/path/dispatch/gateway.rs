//! A WireGuard message to the gateways of one tunnel: each goes to the gateway that its receiver index names.
//!
//! No flow is kept. The index is what a gateway gave the client, so roaming, another dispatcher and a change of the pool
//! need no state; only a new handshake is given to a gateway by its client's address.

use jetway_config::Persistence;

use super::forward::select;
use super::send::{self, To};
use super::{Desk, check_source, cookie};
use crate::buffer::PacketBuf;
use crate::dispatch::service::{Gateways, Service};
use crate::drop_reason::DropReason;
use crate::packet::udp::Udp;
use crate::packet::{Fragment, Parsed};
use crate::path::event::Answer;
use crate::path::outputs::Outputs;
use crate::path::packet::{Packet, Verdict};
use crate::path::route::Refusal;
use crate::wireguard::message::{self, MessageType};

/// Sends a message on to its gateway, if it is one that a gateway could accept.
pub fn forward<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    service: &'t Service,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<Verdict<'t>, Refusal> {
    let Some(gateways) = &service.gateways else { return Err(DropReason::Undecided.into()) };
    if packet.parsed.fragment != Fragment::No {
        return Err(DropReason::OuterFragment.into());
    }
    check_source(packet.parsed.source, packet.origin, desk.scene.tables)?;
    let segment = packet.parsed.l4(packet.buffer.data());
    let message = Udp::parse(segment).map_err(DropReason::from)?.payload(segment);
    let kind = message::classify(message).map_err(|_| DropReason::WireguardMalformed)?;
    if kind != MessageType::Data && cookie::admit(packet, kind, message, gateways, desk)? == Answer::Cookie {
        return Ok(Verdict::Drop(cookie::reply(packet, message, gateways, desk)));
    }
    let position = position(packet, (kind, message), service, gateways, desk)?;
    let server = service.server(position).ok_or(DropReason::ServiceDown)?;
    // Messages of one client look alike to routers on the way to the gateway.
    let entropy = desk.services.flow_hash(&packet.parsed);
    send::send(packet, To { service, server, flow: None, entropy }, desk)
}

fn position<B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'_, B>,
    (kind, message): (MessageType, &[u8]),
    service: &Service,
    gateways: &Gateways,
    desk: &Desk<'_, '_, B, O>,
) -> Result<u16, Refusal> {
    match kind {
        MessageType::Initiation => select(service, client_hash(&packet.parsed, service, desk)),
        MessageType::Response | MessageType::CookieReply | MessageType::Data => {
            let receiver = message::receiver(kind, message).ok_or(DropReason::WireguardMalformed)?;
            let node = desk.pipeline.index_layout.node_of(receiver);
            let position = gateways.nodes.get(&node).copied().ok_or(DropReason::WireguardNoSession)?;
            let server = service.server(position).ok_or(DropReason::ServiceDown)?;
            // Nobody else has the session: the client finds out by its own timers, and begins anew elsewhere.
            if server.state().keeps_flows() { Ok(position) } else { Err(DropReason::ServerGone.into()) }
        }
    }
}

/// The hash by which a new handshake is given to a gateway: the retry of one goes where the first went.
fn client_hash<B: PacketBuf, O: Outputs<B>>(parsed: &Parsed, service: &Service, desk: &Desk<'_, '_, B, O>) -> u64 {
    match service.persistence {
        Persistence::Client => desk.services.address_hash(parsed.source),
        Persistence::Flow => desk.services.flow_hash(parsed),
    }
}
