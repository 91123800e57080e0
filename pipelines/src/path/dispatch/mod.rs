//! The stage that gives packets of virtual services to servers, and what servers send to the clients.
//!
//! ```text
//!  client's packet, to a service's socket --> flow table --hit--> the server that the flow has
//!                                                 '--miss--> client's server or Maglev --> a new flow
//!  a server's packet, from a socket behind NAT --> from the service's socket from now on
//!  ICMP error that quotes either --> to whom the quoted packet's flow belongs
//! ```

mod answer;
mod back;
mod cookie;
mod express;
mod forward;
mod fragments;
mod gateway;
mod path_mtu;
mod quote;
mod reset;
mod send;
mod translate;
mod ways;

pub(super) use cookie::GatewayAdmission;
pub(super) use express::express;
pub use forward::Client;
pub(super) use forward::select;
pub(super) use fragments::datagram_of;
pub use path_mtu::PathMtu;
pub use translate::may_stand_in;
pub use ways::ServerWays;

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::classify::may_forward;
use super::event::ControlEvent;
use super::outputs::Outputs;
use super::packet::{BURST, Origin, Packet, Packets, Verdict};
use super::pipeline::{Pipeline, Scene};
use super::route::{Refusal, Way, refuse, way_to};
use crate::buffer::PacketBuf;
use crate::dispatch::direct_flows::Ends;
use crate::dispatch::flow_table::{FlowHash, FlowKey, Probable};
use crate::dispatch::nat::QuotedPacket;
use crate::dispatch::service::{Service, Services, Socket};
use crate::dispatch::{Backend, Tick};
use crate::drop_reason::DropReason;
use crate::ids::BackendIndex;
use crate::packet::{Fragment, Protocol};
use crate::tables::{Route, Tables, Twin};
use crate::time::Instant;

/// What the parts of the stage work with besides the packet.
struct Desk<'a, 't, B, O> {
    made: &'a mut Packets<'t, B>,
    pipeline: &'a mut Pipeline<B>,
    scene: &'a Scene<'t>,
    services: &'t Services,
    tick: Tick,
    out: &'a mut O,
    /// The last server's way: mostly the next one's too.
    last_way: Option<(BackendIndex, Way<'t>)>,
}

/// A packet that this stage decides about.
struct Wanted<'t> {
    packet: usize,
    task: Task<'t>,
}

/// The search for a client's flow. Apart from the tasks, so that none is copied.
pub struct Lookup {
    key: FlowKey,
    hash: FlowHash,
    /// Where it probably is.
    probable: Probable,
}

/// The searches of a burst.
type Lookups = ArrayVec<Lookup, BURST>;

/// What a packet is to this stage.
enum Task<'t> {
    /// A client's, to a service; with the number of its lookup.
    Forward(&'t Service, u8),
    /// A client's, to a service of gateways.
    Gateway(&'t Service),
    /// A server's, to a client.
    Back(&'t Service, &'t Backend),
    /// A server's, to a flow whose client it knows under an address of ours.
    Translated(&'t Service, &'t Backend),
    /// A piece of a datagram whose first piece tells where it goes; it begins with its IP header.
    LaterFragment,
    /// An error about a packet of a flow.
    Error(QuotedPacket),
    /// An error of the node's own about one that it sent on inside another.
    PathMtu(PathMtu),
}

/// Decides about the packets that [`Verdict::Dispatch`] names, and those of [`Verdict::Route`] that concern a service.
/// What is for the node itself after all is punted.
pub fn dispatch<'t, B: PacketBuf, O: Outputs<B>>(
    packets: &mut Packets<'t, B>,
    made: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let services: &'t Services = &scene.tables.services;
    if services.is_empty() {
        return;
    }
    let (mut wanted, mut lookups) = (ArrayVec::new(), Lookups::new());
    find(packets, services, pipeline, scene.now, &mut wanted, &mut lookups);
    if wanted.is_empty() {
        return;
    }
    let tick = Tick::from(scene.now);
    for lookup in &mut lookups {
        lookup.probable = pipeline.flows.prefetch_entry(lookup.hash, tick);
    }
    let mut desk = Desk { made, pipeline, scene, services, tick, out, last_way: None };
    for Wanted { packet, task } in &wanted {
        let Some(packet) = packets.get_mut(*packet) else { continue };
        let verdict = match task {
            Task::Forward(service, number) => {
                let Some(lookup) = lookups.get(usize::from(*number)) else { continue };
                // Nearly all packets are these: their verdict is written where it belongs at once.
                if let Err(refusal) = forward::forward(packet, service, lookup, &mut desk) {
                    packet.verdict = desk.refuse(packet, refusal);
                }
                continue;
            }
            Task::Gateway(service) => gateway::forward(packet, service, &mut desk),
            Task::Back(service, server) => back::back(packet, service, server, &mut desk),
            Task::Translated(service, server) => translate::back(packet, service, server, &mut desk),
            Task::LaterFragment => fragments::later(packet, &mut desk),
            Task::Error(quoted) => quote::error(packet, quoted, &mut desk),
            Task::PathMtu(told) => Ok(desk.tell_path_mtu(*told, packet.verdict)),
        };
        packet.verdict = verdict.unwrap_or_else(|refusal| desk.refuse(packet, refusal));
    }
    let flows = desk.pipeline.flows.len() as u64;
    desk.pipeline.counters.flows.set(flows);
}

impl<'t, B: PacketBuf, O: Outputs<B>> Desk<'_, 't, B, O> {
    /// The way to a server.
    #[inline]
    fn way_to_server(&mut self, server: &Backend) -> Result<Way<'t>, Refusal> {
        match self.last_way {
            Some((known, way)) if known == server.index => Ok(way),
            Some(_) | None => {
                let way = way_to(server.address, self.scene.tables)?;
                self.last_way = Some((server.index, way));
                Ok(way)
            }
        }
    }

    /// Has control note what the way to a server carries. The kernel gets the error, too.
    #[cold]
    fn tell_path_mtu(&mut self, told: PathMtu, verdict: Verdict<'t>) -> Verdict<'t> {
        if self.out.tell_control(ControlEvent::PathMtu(told)).is_err() {
            self.pipeline.counters.events_lost.add(1);
        }
        verdict
    }

    fn refuse(&mut self, packet: &Packet<'t, B>, refusal: Refusal) -> Verdict<'t> {
        refuse(packet, refusal, self.made, self.pipeline, self.scene, self.out)
    }
}

/// Finds out which packets concern a service, and has the heads of their flows' buckets fetched.
fn find<'t, B: PacketBuf>(
    packets: &mut Packets<'t, B>,
    services: &'t Services,
    pipeline: &Pipeline<B>,
    now: Instant,
    wanted: &mut ArrayVec<Wanted<'t>, BURST>,
    lookups: &mut Lookups,
) {
    // The socket of the last client's packet, with its service: mostly the next one's too.
    let mut last = None;
    for (number, packet) in packets.iter_mut().enumerate() {
        let task = match (&packet.verdict, packet.origin) {
            (Verdict::Dispatch { .. }, _) => to_service(packet, services, &mut last, pipeline, lookups),
            (Verdict::Route, Origin::Tunnel(_)) if services.has_address(packet.parsed.destination) => {
                to_service(packet, services, &mut last, pipeline, lookups)
            }
            (Verdict::Punt(_), Origin::Port(_)) => path_mtu::told_by(packet, services).map(Task::PathMtu),
            (Verdict::Route, Origin::Node) => about_answer(packet, services),
            (Verdict::Route, Origin::Port(_) | Origin::Tunnel(_)) => from_server(packet, services, pipeline, now),
            _ => None,
        };
        match (task, &packet.verdict) {
            (Some(Task::Translated(service, server)), Verdict::Dispatch { .. }) => {
                // It may belong to another worker, who wants the whole frame.
                wanted.push(Wanted { packet: number, task: Task::Translated(service, server) });
            }
            (Some(task), verdict) => {
                if let Verdict::Dispatch { l3_offset, .. } = *verdict {
                    let length = packet.parsed.total_length as usize;
                    packet.buffer.trim_front(usize::from(l3_offset));
                    packet.buffer.truncate(length);
                }
                wanted.push(Wanted { packet: number, task });
            }
            (None, Verdict::Dispatch { port, .. }) => packet.verdict = Verdict::Punt(Twin::Port(*port)),
            (None, _) => {}
        }
    }
}

/// The socket at which the last client's packet arrived, with its service.
type Last<'t> = Option<(Socket, &'t Service)>;

/// What a packet to a service's address is; `None` if it is for the node itself.
fn to_service<'t, B: PacketBuf>(
    packet: &Packet<'t, B>,
    services: &'t Services,
    last: &mut Last<'t>,
    pipeline: &Pipeline<B>,
    lookups: &mut Lookups,
) -> Option<Task<'t>> {
    let parsed = &packet.parsed;
    if parsed.fragment == Fragment::Later {
        // The kernel puts together what is its own, such as a long ping.
        return matches!(parsed.protocol, Protocol::TCP | Protocol::UDP).then_some(Task::LaterFragment);
    }
    if let Some(quoted) = quoted_packet(packet) {
        return Some(Task::Error(quoted));
    }
    let ports = parsed.ports?;
    let socket = Socket { address: parsed.destination, port: ports.destination, protocol: parsed.protocol };
    let service = match *last {
        Some((known, service)) if known == socket => service,
        Some(_) | None => match services.at(&socket) {
            Some(service) => {
                *last = Some((socket, service));
                service
            }
            None => {
                let server = Socket { address: parsed.source, port: ports.source, protocol: parsed.protocol };
                let (service, server) = services.behind(&server)?;
                return Some(Task::Translated(service, server));
            }
        },
    };
    if service.gateways.is_some() {
        return Some(Task::Gateway(service));
    }
    let key = FlowKey::of(parsed, packet.origin.number())?;
    let hash = pipeline.flows.hash(&key);
    pipeline.flows.prefetch(hash);
    let number = lookups.len() as u8;
    // There is one for each packet of a burst at most.
    lookups.try_push(Lookup { key, hash, probable: Probable::Nothing }).ok()?;
    Some(Task::Forward(service, number))
}

/// What a packet that is forwarded is, if it comes from a server behind NAT or tells of such a packet.
fn from_server<'t, B: PacketBuf>(
    packet: &Packet<'t, B>,
    services: &'t Services,
    pipeline: &Pipeline<B>,
    now: Instant,
) -> Option<Task<'t>> {
    if !services.translates() {
        return None;
    }
    let parsed = &packet.parsed;
    match (parsed.fragment, parsed.ports) {
        // Its first fragment may be in the same burst, and not be remembered yet.
        (Fragment::Later, _) => Some(Task::LaterFragment),
        (Fragment::No | Fragment::First, Some(ports)) => {
            let (from, to) = ((parsed.source, ports.source), (parsed.destination, ports.destination));
            let protocol = parsed.protocol;
            let behind = |(address, port)| services.behind(&Socket { address, port, protocol });
            if let Some((service, server)) = behind(from) {
                let is_direct = pipeline.direct_flows.has(&Ends { client: to, server: from, protocol }, now);
                return (!is_direct).then_some(Task::Back(service, server));
            }
            if behind(to).is_some() {
                pipeline.direct_flows.note(&Ends { client: from, server: to, protocol }, now);
            }
            None
        }
        (Fragment::No | Fragment::First, None) => {
            let quoted = quoted_packet(packet)?;
            let server =
                Socket { address: quoted.destination, port: quoted.ports.destination, protocol: quoted.protocol };
            let client = (quoted.source, quoted.ports.source);
            let flow = Ends { client, server: (server.address, server.port), protocol: quoted.protocol };
            services.behind(&server).filter(|_| !pipeline.direct_flows.has(&flow, now)).map(|_| Task::Error(quoted))
        }
    }
}

/// An error of our own about a packet that a server sent as the service.
fn about_answer<'t, B: PacketBuf>(packet: &Packet<'t, B>, services: &'t Services) -> Option<Task<'t>> {
    services.has_address(packet.parsed.destination).then(|| quoted_packet(packet))?.map(Task::Error)
}

/// Whether a packet in clear may come from where it says, as classify asks of packets that are forwarded. Those out of a
/// tunnel were held against their peer's allowed IPs.
fn check_source(source: IpAddr, origin: Origin, tables: &Tables) -> Result<(), DropReason> {
    if origin == Origin::Node {
        return Ok(());
    }
    if !may_forward(source) {
        return Err(DropReason::MartianAddress);
    }
    match (origin, tables.routes.lookup(source)) {
        (Origin::Port(_), Some(Route::Tunnel(_))) => Err(DropReason::ReversePath),
        _ => Ok(()),
    }
}

/// The packet that an ICMP error quotes, whatever stands before the error in the buffer.
fn quoted_packet<B: PacketBuf>(packet: &Packet<'_, B>) -> Option<QuotedPacket> {
    let start = match packet.verdict {
        Verdict::Dispatch { l3_offset, .. } => usize::from(l3_offset),
        _ => 0,
    };
    QuotedPacket::of_error(&packet.parsed, packet.buffer.data().get(start..)?)
}

/// What a packet's flow is at a service, as a first fragment tells its later ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FragmentFlow {
    /// To the server at a position of the service at a socket.
    Forward(Socket, BackendIndex),
    /// From a server, by the service at a socket.
    Back(Socket),
}
