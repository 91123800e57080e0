//! A client's packet to a service: which server it goes to.

use std::net::IpAddr;
use std::sync::Arc;

use jetway_config::{AllDown, OnDown, Persistence};

use super::fragments::remember_first;
use super::send::{self, Sent, To};
use super::{Desk, FragmentFlow, Lookup, check_source, reset};
use crate::buffer::PacketBuf;
use crate::dispatch::flow_table::{ClientIdentity, Decision, FlowId, FlowKey, FlowTable, Lifetime, address_bytes};
use crate::dispatch::selection::choose;
use crate::dispatch::service::{Service, Services, Socket};
use crate::dispatch::{Administration, Backend, Tick};
use crate::drop_reason::DropReason;
use crate::ids::WorkerId;
use crate::packet::icmp_error::Cause;
use crate::packet::tcp::{Flags, Tcp};
use crate::packet::{Fragment, Protocol};
use crate::path::event::ControlEvent;
use crate::path::outputs::Outputs;
use crate::path::packet::{Origin, Packet};
use crate::path::route::Refusal;
use crate::tables::Tables;

/// Sends a packet on to the server of its flow, which is chosen now if there is no flow yet.
pub fn forward<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    service: &'t Service,
    lookup: &Lookup,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<(), Refusal> {
    let Lookup { key, hash, probable } = lookup;
    let flags = flags_of(packet)?;
    let flow = desk.pipeline.flows.find_at(*probable, *hash, key, desk.tick);
    let (server, flow) = match flow.map(|id| (id, standing(id, service, flags, desk))) {
        Some((id, Standing::Stays(position))) => {
            note_packet(id, flags, desk);
            (position, Some(id))
        }
        Some((id, Standing::Down(position))) => match leave(packet, (id, position), service, flags, desk)? {
            Some(position) => (position, Some(id)),
            None => return Ok(()),
        },
        Some((id, Standing::Elsewhere)) => {
            let position = server_for(packet, service, desk)?;
            decide(id, service, position, desk);
            note_packet(id, flags, desk);
            (position, Some(id))
        }
        None => {
            check_source(packet.parsed.source, packet.origin, desk.scene.tables)?;
            let position = server_for(packet, service, desk)?;
            (position, begin(lookup, service, position, flags, desk))
        }
    };
    let Some(server) = service.server(server) else { return Err(DropReason::ServiceDown.into()) };
    if packet.parsed.fragment == Fragment::First {
        remember_first(packet, FragmentFlow::Forward(service.socket, server.index), desk)?;
    }
    let to = To { service, server, flow, entropy: hash.entropy() };
    if let Sent::No = send::send_by_known_way(packet, &to, desk)? {
        packet.verdict = send::send_by_way(packet, &to, desk)?;
    }
    Ok(())
}

/// Takes a packet's flow from the server at a position, which is down, and gives the position of another; `None` if the flow
/// has ended instead.
#[cold]
fn leave<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    (id, position): (FlowId, u16),
    service: &Service,
    flags: Option<Flags>,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<Option<u16>, Refusal> {
    let chosen = server_for(packet, service, desk);
    // With no server up, where all serve then, the flow's own is as good as another.
    if !chosen.as_ref().is_ok_and(|chosen| *chosen == position) {
        if let Some(traffic) = service.server(position).and_then(|server| server.traffic(desk.pipeline.worker)) {
            traffic.moved.add(1);
        }
        if service.on_down == OnDown::Reset && flags.is_some_and(|flags| !flags.opens()) {
            desk.pipeline.flows.remove(id);
            packet.verdict = reset::reset(packet, desk);
            return Ok(None);
        }
        decide(id, service, chosen?, desk);
    }
    note_packet(id, flags, desk);
    Ok(Some(chosen?))
}

/// The flags of a segment; none for a datagram. A segment without its whole header has no place in a service.
fn flags_of<B: PacketBuf>(packet: &Packet<'_, B>) -> Result<Option<Flags>, Refusal> {
    if packet.parsed.protocol != Protocol::TCP {
        return Ok(None);
    }
    let header = Tcp::parse(packet.parsed.l4(packet.buffer.data())).ok_or(DropReason::ServiceMalformed)?;
    Ok(Some(header.flags))
}

/// What becomes of a flow that is known.
enum Standing {
    /// It stays at the server at this position.
    Stays(u16),
    /// It goes to another server.
    Elsewhere,
    /// The server at this position is down, and it goes to another if there is one.
    Down(u16),
}

fn standing<B: PacketBuf, O: Outputs<B>>(
    id: FlowId,
    service: &Service,
    flags: Option<Flags>,
    desk: &mut Desk<'_, '_, B, O>,
) -> Standing {
    let flows = &desk.pipeline.flows;
    let (Some(flow), Some(lifetime)) = (flows.get(id), flows.lifetime(id)) else { return Standing::Elsewhere };
    let decision = flow.decision;
    let opens = flags.is_some_and(Flags::opens);
    // Configured anew without it: the flow goes elsewhere.
    let Some(position) = service.position(decision.server, decision.position) else { return Standing::Elsewhere };
    let Some(server) = service.server(position) else { return Standing::Elsewhere };
    let state = server.state();
    match (opens, lifetime) {
        // A client that uses its port again opens another connection.
        (true, Lifetime::TcpClosing) => return Standing::Elsewhere,
        (true, Lifetime::TcpOpening) => signal(server, desk),
        (true, _) if !state.takes_new_flows() => return Standing::Elsewhere,
        (true | false, _) => {}
    }
    if state.keeps_flows() {
        return Standing::Stays(position);
    }
    Standing::Down(position)
}

/// Notes a packet of a flow, whose life begins anew.
pub fn note_packet<B: PacketBuf, O: Outputs<B>>(id: FlowId, flags: Option<Flags>, desk: &mut Desk<'_, '_, B, O>) {
    note(&mut desk.pipeline.flows, id, flags, desk.tick);
}

/// The same in a worker's flow table; `flags` are a TCP segment's.
#[inline]
pub fn note(flows: &mut FlowTable, id: FlowId, flags: Option<Flags>, tick: Tick) {
    let Some(lifetime) = flows.lifetime(id) else { return };
    flows.touch(id, flags.map_or(lifetime, |flags| lifetime.after_segment(flags)), tick);
}

/// Tells control, once until it has listened, that a server gives a sign of trouble.
pub fn signal<B: PacketBuf, O: Outputs<B>>(server: &Backend, desk: &mut Desk<'_, '_, B, O>) {
    if server.raise_signal() && desk.out.tell_control(ControlEvent::ServerInTrouble(server.index)).is_err() {
        server.lower_signal();
        desk.pipeline.counters.events_lost.add(1);
    }
}

/// The position of the server that a new flow of the packet's client goes to.
fn server_for<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'t, B>,
    service: &Service,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<u16, Refusal> {
    match service.persistence {
        Persistence::Flow => select(service, desk.services.flow_hash(&packet.parsed)),
        Persistence::Client => {
            let client = Client::of(packet.parsed.source, packet.origin, desk.scene.tables);
            let key = FlowKey::of_client(client.identity, &service.socket);
            let hash = desk.pipeline.flows.hash(&key);
            let bound = desk.pipeline.flows.find(hash, &key, desk.tick);
            if let Some((id, decision)) = bound.and_then(|id| Some((id, desk.pipeline.flows.get(id)?.decision))) {
                let position = service.position(decision.server, decision.position);
                let takes = |position: &u16| service.server(*position).is_some_and(|s| s.state().takes_new_flows());
                if let Some(position) = position.filter(takes) {
                    desk.pipeline.flows.touch(id, Lifetime::Client, desk.tick);
                    return Ok(position);
                }
            }
            let position = select(service, client.hash)?;
            if let Some(server) = service.server(position) {
                let decision = Decision::new(server.index, position);
                // Without room for it the client goes where its hash leads, which mostly is the same server.
                let _ = desk.pipeline.flows.insert(hash, key, decision, Lifetime::Client, desk.tick);
            }
            Ok(position)
        }
    }
}

/// Who a client is: its address, or inside a tunnel its peer, wherever that is and whatever inner address it uses.
pub struct Client {
    /// What tells it from others in keys of flows.
    pub identity: ClientIdentity,
    /// What it is given to a server by.
    pub hash: u64,
    /// Whether it is a peer.
    pub is_peer: bool,
}

impl Client {
    /// The client at an address, whose packets come from `origin`.
    pub fn of(source: IpAddr, origin: Origin, tables: &Tables) -> Self {
        let peer = match origin {
            Origin::Tunnel(tunnel) => tables.tunnel(tunnel).and_then(|tunnel| tunnel.allowed_ips.lookup(source)),
            Origin::Port(_) | Origin::Node => None,
        };
        match peer {
            Some(peer) => Self::of_peer(&peer.public_key, &tables.services),
            None => {
                let hash = tables.services.address_hash(source);
                Self { identity: address_bytes(source), hash, is_peer: false }
            }
        }
    }

    /// The client that is the peer with this public key.
    pub fn of_peer(public_key: &[u8; 32], services: &Services) -> Self {
        let hash = services.peer_hash(public_key);
        let [k0, k1, k2, k3, k4, k5, k6, k7, ..] = *public_key;
        let [h0, h1, h2, h3, h4, h5, h6, h7] = hash.to_be_bytes();
        let identity = [h0, h1, h2, h3, h4, h5, h6, h7, k0, k1, k2, k3, k4, k5, k6, k7];
        Self { identity, hash, is_peer: true }
    }
}

/// The server of a hash among those that take new flows; what the service wants done when there is none.
pub fn select(service: &Service, hash: u64) -> Result<u16, Refusal> {
    let servers = service.servers.len();
    let takes =
        |position| service.server(position).is_some_and(|server: &Arc<Backend>| server.state().takes_new_flows());
    if let Some(chosen) = choose(&service.table, hash, takes, servers) {
        return Ok(chosen.position);
    }
    let enabled =
        |position| service.server(position).is_some_and(|server| server.administration() != Administration::Disabled);
    let any = match service.all_down {
        AllDown::Serve => choose(&service.table, hash, enabled, servers),
        AllDown::Refuse => None,
    };
    any.map(|chosen| chosen.position).ok_or(Refusal::telling(DropReason::ServiceDown, Cause::PortUnreachable))
}

/// Gives a known flow to another server.
fn decide<B: PacketBuf, O: Outputs<B>>(id: FlowId, service: &Service, position: u16, desk: &mut Desk<'_, '_, B, O>) {
    let Some(server) = service.server(position) else { return };
    if let Some(decision) = desk.pipeline.flows.get_mut(id) {
        *decision = Decision::new(server.index, position);
    }
    count_flow(server, desk.pipeline.worker);
}

/// Begins a flow. A table that is full is no reason to refuse it: it goes by Maglev, packet by packet.
fn begin<B: PacketBuf, O: Outputs<B>>(
    Lookup { key, hash, probable }: &Lookup,
    service: &Service,
    position: u16,
    flags: Option<Flags>,
    desk: &mut Desk<'_, '_, B, O>,
) -> Option<FlowId> {
    let server = service.server(position)?;
    count_flow(server, desk.pipeline.worker);
    let decision = Decision::new(server.index, position);
    let lifetime = flags.map_or(Lifetime::Udp, Lifetime::of_tcp);
    let inserted = desk.pipeline.flows.add(*probable, *hash, key, decision, lifetime, desk.tick);
    if inserted.is_err() {
        desk.pipeline.counters.flows_untracked.add(1);
    }
    inserted.ok()
}

/// Counts a flow that a worker gave to a server.
pub fn count_flow(server: &Backend, worker: WorkerId) {
    if let Some(traffic) = server.traffic(worker) {
        traffic.flows.add(1);
    }
}

/// The service at a socket, which may have gone since.
pub fn service_at<'t, B: PacketBuf, O: Outputs<B>>(
    socket: &Socket,
    desk: &Desk<'_, 't, B, O>,
) -> Result<&'t Service, Refusal> {
    desk.services.at(socket).map(Arc::as_ref).ok_or(DropReason::ServiceDown.into())
}
