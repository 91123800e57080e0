//! What would happen to a packet: the decisions of the stages, with their reasons and without their effects.

use std::net::SocketAddr;
use std::sync::Arc;

use jetway_config::{Encapsulation, Persistence};

use super::admission::proof;
use super::classify::may_forward;
use super::decapsulate::read_inside;
use super::dispatch::{Client, select};
use super::packet::{Origin, Verdict};
use super::route::way_to;
use crate::buffer::ChecksumState;
use crate::dispatch::Backend;
use crate::dispatch::flow_table::FlowKey;
use crate::dispatch::nat::QuotedPacket;
use crate::dispatch::service::{Service, Services, Socket};
use crate::drop_reason::DropReason;
use crate::ids::{NodeId, PortId, TunnelId};
use crate::packet::udp::Udp;
use crate::packet::{Fragment, Parsed, Protocol};
use crate::tables::{Route, Tables, Twin};
use crate::wireguard::Peer;
use crate::wireguard::index::IndexLayout;
use crate::wireguard::load::AddressProof;
use crate::wireguard::message::{self, MessageType};

/// What would happen to a packet, and why.
#[derive(Clone, Debug)]
pub struct Explanation<'t> {
    /// The packet inside it, if that is taken out: the rest is about this one.
    pub inside: Option<Parsed>,
    /// What the packet is to the node.
    pub role: Role<'t>,
    /// Where it would go.
    pub end: Result<End<'t>, DropReason>,
}

/// What a packet is to the node.
#[derive(Clone, Debug)]
pub enum Role<'t> {
    /// It is for the node itself.
    Local,
    /// It is for the node, has another one inside, and `[decapsulate]` takes such out, but not this one.
    Encapsulated(Encapsulation),
    /// It is a datagram to the port of a tunnel, which would try to decrypt it.
    Tunnel(TunnelId),
    /// It is a client's, to a service.
    Client(Selection<'t>),
    /// It is what a server behind NAT answers: from then on it comes from the service.
    Answer(&'t Arc<Service>, &'t Arc<Backend>),
    /// It is an ICMP error about a packet of this service, and goes where that packet came from.
    Error(&'t Arc<Service>),
    /// It is a later fragment, and goes where the first of its datagram went.
    LaterFragment,
    /// It passes through.
    Forwarded,
    /// It comes out of a tunnel from an address that no peer of it has.
    Foreign,
}

/// Where a packet leaves the worker.
#[derive(Clone, Debug)]
pub enum End<'t> {
    /// To the kernel.
    Kernel(Twin),
    /// Out of a port, to this neighbour.
    Port(PortId, std::net::IpAddr),
    /// Encrypted, to a peer.
    Peer(&'t Arc<Peer>),
    /// Into the stage that decrypts.
    Decryption(TunnelId),
    /// To whatever else decides: what the node remembers of the packet that it belongs to.
    Remembered,
}

/// How a service's server is found.
#[derive(Clone, Debug)]
pub struct Selection<'t> {
    /// The service.
    pub service: &'t Arc<Service>,
    /// What it goes by.
    pub basis: Basis,
    /// The flow whose server it keeps, if there is one; gateways keep none.
    pub flow: Option<FlowKey>,
    /// The client's bond, whose server its new flows get, if there is one.
    pub bond: Option<FlowKey>,
    /// The slot of the table.
    pub slot: Option<usize>,
    /// Whom the slot belongs to.
    pub owner: Option<&'t Arc<Backend>>,
    /// The server that a new flow would get.
    pub server: Result<&'t Arc<Backend>, DropReason>,
    /// What a handshake message to gateways is judged by before it may go on: the worker's load decides.
    pub handshake: Option<Handshake>,
}

/// What a handshake message is judged by under load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// Where it comes from.
    pub from: SocketAddr,
    /// Whether it shows a good cookie.
    pub proof: AddressProof,
    /// What it may be answered with.
    pub kind: MessageType,
}

/// What a choice of a server goes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Basis {
    /// Addresses, ports and protocol.
    Flow,
    /// The client's address.
    ClientAddress,
    /// The client's public key, wherever it is.
    ClientPeer,
    /// The receiver index, which names the gateway's node.
    Receiver(NodeId),
}

/// What would happen to `packet`, which begins with its IP header, if it came from `origin` now.
///
/// What workers remember of flows is not looked at: see [`Selection::flow`]. Neither are the packet's checksums, nor whether
/// it is too long for its way.
pub fn explain<'t>(
    packet: &[u8],
    parsed: &Parsed,
    origin: Origin,
    tables: &'t Tables,
    layout: &IndexLayout,
) -> Explanation<'t> {
    let kind = encapsulates(parsed, origin, tables);
    let (Some((kind, port)), Some(decapsulation)) = (kind, tables.decapsulation.as_deref()) else {
        return explain_one(packet, parsed, origin, tables, layout);
    };
    let mut inner = *parsed;
    let ip = packet.get(..parsed.total_length as usize).unwrap_or_default();
    match read_inside(&mut inner, ip, ChecksumState::Unknown, (kind, decapsulation), port, tables) {
        Ok((inside, _)) => {
            let packet = ip.get(inside.offset..).unwrap_or_default();
            Explanation { inside: Some(inner), ..explain_one(packet, &inner, origin, tables, layout) }
        }
        Err(reason) => Explanation::of(Role::Encapsulated(kind), Err(reason)),
    }
}

/// How a packet to the node has another one inside, if such are taken out, and the port that it came by.
fn encapsulates(parsed: &Parsed, origin: Origin, tables: &Tables) -> Option<(Encapsulation, PortId)> {
    let Origin::Port(port) = origin else { return None };
    let is_to_kernel = tables.is_local(parsed.destination)
        && !tables.services.has_address(parsed.destination)
        && matches!(local(parsed, origin, tables).end, Ok(End::Kernel(_)));
    let kind = tables.decapsulation.as_deref()?.kind_of(parsed).filter(|_| is_to_kernel)?;
    Some((kind, port))
}

impl<'t> Explanation<'t> {
    fn of(role: Role<'t>, end: Result<End<'t>, DropReason>) -> Self {
        Self { inside: None, role, end }
    }
}

/// What would happen to a packet, whatever is inside it.
fn explain_one<'t>(
    packet: &[u8],
    parsed: &Parsed,
    origin: Origin,
    tables: &'t Tables,
    layout: &IndexLayout,
) -> Explanation<'t> {
    let services: &'t Services = &tables.services;
    if let Origin::Tunnel(tunnel) = origin {
        let allowed = tables.tunnel(tunnel).is_some_and(|entry| entry.allowed_ips.lookup(parsed.source).is_some());
        if !allowed {
            return Explanation::of(Role::Foreign, Err(DropReason::InnerSourceNotAllowed));
        }
    }
    if services.has_address(parsed.destination) {
        if let Some(explanation) = to_service(packet, parsed, origin, tables, layout) {
            return explanation;
        }
        return Explanation::of(Role::Local, Ok(End::Kernel(twin(origin))));
    }
    if tables.is_local(parsed.destination) {
        return local(parsed, origin, tables);
    }
    let is_from_tunnels_address = matches!(tables.routes.lookup(parsed.source), Some(Route::Tunnel(_)));
    let refused = match origin {
        _ if !may_forward(parsed.source) || !may_forward(parsed.destination) => Some(DropReason::MartianAddress),
        Origin::Port(_) if is_from_tunnels_address => Some(DropReason::ReversePath),
        Origin::Port(_) | Origin::Tunnel(_) | Origin::Node => None,
    };
    if let Some(reason) = refused {
        return Explanation::of(Role::Forwarded, Err(reason));
    }
    let answers = parsed.ports.filter(|_| parsed.fragment != Fragment::Later).and_then(|ports| {
        services.behind(&Socket { address: parsed.source, port: ports.source, protocol: parsed.protocol })
    });
    let role = match answers {
        Some((service, server)) => Role::Answer(service, server),
        None => match QuotedPacket::of_error(parsed, packet).and_then(|quoted| behind(&quoted, services)) {
            Some(service) => Role::Error(service),
            None => Role::Forwarded,
        },
    };
    Explanation::of(role, forward(parsed, parsed.destination, origin, tables))
}

/// A packet to one of the node's own addresses.
fn local<'t>(parsed: &Parsed, origin: Origin, tables: &'t Tables) -> Explanation<'t> {
    let listener = match (origin, parsed.ports) {
        (Origin::Port(_), Some(ports)) if parsed.protocol == Protocol::UDP => tables.listeners.get(&ports.destination),
        _ => None,
    };
    match listener {
        Some(_) if parsed.fragment != Fragment::No => Explanation::of(Role::Local, Err(DropReason::OuterFragment)),
        Some(tunnel) => Explanation::of(Role::Tunnel(*tunnel), Ok(End::Decryption(*tunnel))),
        None => Explanation::of(Role::Local, Ok(End::Kernel(twin(origin)))),
    }
}

/// A packet to a service's address; `None` if it concerns no service after all.
fn to_service<'t>(
    packet: &[u8],
    parsed: &Parsed,
    origin: Origin,
    tables: &'t Tables,
    layout: &IndexLayout,
) -> Option<Explanation<'t>> {
    let services: &'t Services = &tables.services;
    if parsed.fragment == Fragment::Later {
        return Some(Explanation::of(Role::LaterFragment, Ok(End::Remembered)));
    }
    if let Some(quoted) = QuotedPacket::of_error(parsed, packet) {
        let of = Socket { address: quoted.source, port: quoted.ports.source, protocol: quoted.protocol };
        let service = services.at(&of).or_else(|| behind(&quoted, services));
        return Some(match service {
            Some(service) => Explanation::of(Role::Error(service), Ok(End::Remembered)),
            None => Explanation::of(Role::Local, Err(DropReason::ServiceDown)),
        });
    }
    let ports = parsed.ports?;
    let socket = Socket { address: parsed.destination, port: ports.destination, protocol: parsed.protocol };
    let Some(service) = services.at(&socket) else {
        let server = Socket { address: parsed.source, port: ports.source, protocol: parsed.protocol };
        let (service, server) = services.behind(&server)?;
        return Some(Explanation::of(Role::Answer(service, server), Ok(End::Remembered)));
    };
    let selection = match service.gateways {
        Some(_) => to_gateway(packet, parsed, service, services, layout),
        None => of_client(parsed, service, origin, tables),
    };
    let end = match selection.server {
        Ok(server) => forward(parsed, server.address, origin, tables),
        Err(reason) => Err(reason),
    };
    Some(Explanation::of(Role::Client(selection), end))
}

fn of_client<'t>(parsed: &Parsed, service: &'t Arc<Service>, origin: Origin, tables: &'t Tables) -> Selection<'t> {
    let services = &tables.services;
    let (basis, hash, bond) = match service.persistence {
        Persistence::Flow => (Basis::Flow, services.flow_hash(parsed), None),
        Persistence::Client => {
            let client = Client::of(parsed.source, origin, tables);
            let basis = if client.is_peer { Basis::ClientPeer } else { Basis::ClientAddress };
            (basis, client.hash, Some(FlowKey::of_client(client.identity, &service.socket)))
        }
    };
    let flow = FlowKey::of(parsed, origin.number());
    Selection { flow, bond, ..by_hash(hash, basis, service) }
}

fn by_hash(hash: u64, basis: Basis, service: &Arc<Service>) -> Selection<'_> {
    let server = select(service, hash).map_err(|refusal| refusal.reason);
    Selection {
        service,
        basis,
        flow: None,
        bond: None,
        slot: Some(service.table.slot(hash)),
        owner: service.server(service.table.lookup(hash)),
        server: server.and_then(|position| service.server(position).ok_or(DropReason::ServiceDown)),
        handshake: None,
    }
}

fn to_gateway<'t>(
    packet: &[u8],
    parsed: &Parsed,
    service: &'t Arc<Service>,
    services: &Services,
    layout: &IndexLayout,
) -> Selection<'t> {
    let hash = match service.persistence {
        Persistence::Client => services.address_hash(parsed.source),
        Persistence::Flow => services.flow_hash(parsed),
    };
    let basis = match service.persistence {
        Persistence::Client => Basis::ClientAddress,
        Persistence::Flow => Basis::Flow,
    };
    let refused = |reason| Selection { server: Err(reason), slot: None, owner: None, ..by_hash(hash, basis, service) };
    if parsed.fragment != Fragment::No {
        return refused(DropReason::OuterFragment);
    }
    let segment = parsed.l4(packet);
    let message = match Udp::parse(segment) {
        Ok(datagram) => datagram.payload(segment),
        Err(error) => return refused(error.into()),
    };
    let Ok(kind) = message::classify(message) else { return refused(DropReason::WireguardMalformed) };
    let Some(gateways) = &service.gateways else { return refused(DropReason::Undecided) };
    let Some(ports) = parsed.ports else { return refused(DropReason::ServiceMalformed) };
    let from = SocketAddr::new(parsed.source, ports.source);
    let handshake = match kind {
        MessageType::Initiation | MessageType::Response if !gateways.checker.has_valid_mac1(message) => {
            return refused(DropReason::WireguardBadMac1);
        }
        MessageType::Initiation | MessageType::Response => {
            Some(Handshake { from, proof: proof(&gateways.checker, message, from), kind })
        }
        MessageType::CookieReply => Some(Handshake { from, proof: AddressProof::None, kind }),
        MessageType::Data => None,
    };
    match kind {
        MessageType::Initiation => Selection { handshake, ..by_hash(hash, basis, service) },
        MessageType::Response | MessageType::CookieReply | MessageType::Data => {
            let Some(receiver) = message::receiver(kind, message) else {
                return refused(DropReason::WireguardMalformed);
            };
            let node = layout.node_of(receiver);
            let known = gateways.nodes.get(&node).and_then(|position| service.server(*position));
            let server = match known {
                Some(server) if server.state().keeps_flows() => Ok(server),
                Some(_) => Err(DropReason::ServerGone),
                None => Err(DropReason::WireguardNoSession),
            };
            let refused = refused(DropReason::Undecided);
            Selection { server, owner: known, basis: Basis::Receiver(node), handshake, ..refused }
        }
    }
}

/// The service of whose server's packets a quote is one.
fn behind<'t>(quoted: &QuotedPacket, services: &'t Services) -> Option<&'t Arc<Service>> {
    let server = Socket { address: quoted.destination, port: quoted.ports.destination, protocol: quoted.protocol };
    services.behind(&server).map(|(service, _)| service)
}

/// The way of a packet that the node sends on.
fn forward<'t>(
    parsed: &Parsed,
    to: std::net::IpAddr,
    origin: Origin,
    tables: &'t Tables,
) -> Result<End<'t>, DropReason> {
    let way = way_to(to, tables).map_err(|refusal| refusal.reason)?;
    if origin != Origin::Node && parsed.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    match way.verdict {
        Verdict::Emit { port, next_hop } => Ok(End::Port(port, next_hop)),
        Verdict::Seal(peer) => Ok(End::Peer(peer)),
        Verdict::Punt(twin) => Ok(End::Kernel(twin)),
        _ => Err(DropReason::Undecided),
    }
}

/// The kernel's end of where a packet came from.
fn twin(origin: Origin) -> Twin {
    match origin {
        Origin::Port(port) => Twin::Port(port),
        Origin::Tunnel(tunnel) => Twin::Tunnel(tunnel),
        Origin::Node => Twin::Port(PortId(0)),
    }
}
