//! The short way of what nearly all packets of services are: whole UDP and TCP packets that came in by a port, for servers to
//! which the whole way is known.
//!
//! ```text
//! frames --> searches: key and hash, then flows fetched --> destinations --> rewritten in place and sent
//!     '--> what is not so simple stays among the frames, for the stages
//! ```
//!
//! It decides nothing otherwise than the stages do, and they see nothing of a packet that goes this way. No packet overtakes
//! another of its flow: either all of a flow's packets stay, or the whole rest of the burst does.

mod lane;

use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::buffer::PacketBuf;
use crate::dispatch::Tick;
use crate::dispatch::encapsulation::Inner;
use crate::dispatch::flow_table::{FlowHash, FlowKey, FlowTable, Probable};
use crate::dispatch::service::{Service, Services, Socket};
use crate::drop_reason::DropReason;
use crate::ids::PortId;
use crate::packet::tcp::Flags;
use crate::packet::{MacAddress, Ports, Protocol};
use crate::path::outputs::Outputs;
use crate::path::packet::BURST;
use crate::path::pipeline::{Pipeline, Scene};
use crate::path::simple::{Addresses, Simple, Unfit, offer};
use crate::path::sweep::{discard, lose};
use lane::Lane;

/// A whole UDP or TCP packet for a service, without options or extension headers.
#[derive(Clone, Copy)]
struct Candidate {
    /// Its place in the burst.
    frame: u8,
    /// The search for its flow.
    search: u8,
    /// Whether the search is for it; else for one before it.
    is_first: bool,
    /// Of a TCP segment.
    flags: Flags,
    inner: Inner,
    /// Bytes of the IP packet.
    length: u16,
}

/// The search for the flow of one packet, and of those right behind it that are of the same.
struct Search<'t> {
    service: &'t Service,
    key: FlowKey,
    hash: FlowHash,
    /// Where the flow probably is.
    probable: Probable,
    /// Of the first of them.
    flags: Flags,
    /// Whether another of them opens the connection anew.
    reopens: bool,
    /// Bytes of the longest of them.
    longest: u32,
}

/// What a burst has for this stage.
#[derive(Default)]
struct Findings<'t> {
    candidates: ArrayVec<Candidate, BURST>,
    searches: ArrayVec<Search<'t>, BURST>,
}

/// Sends on what can be sent at once; the others stay in `frames`, in their order.
pub fn express<'t, B: PacketBuf, O: Outputs<B>>(
    port: PortId,
    frames: &mut ArrayVec<B, BURST>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let services: &'t Services = &scene.tables.services;
    let Some(entry) = scene.tables.port(port).filter(|_| !services.is_empty()) else { return };
    let mut findings = Findings::default();
    findings.gather(frames, entry.mac, services, &pipeline.flows);
    if findings.candidates.is_empty() {
        return;
    }
    let tick = Tick::from(scene.now);
    for search in &mut findings.searches {
        search.probable = pipeline.flows.prefetch_entry(search.hash, tick);
    }
    let mut lane = Lane::new(port, pipeline, scene.tables, tick);
    let destinations = lane.find_all(&findings.searches);
    let mut candidates = findings.candidates.iter().peekable();
    let mut rest = ArrayVec::<B, BURST>::new();
    for (number, mut frame) in (0..).zip(frames.drain(..)) {
        let Some(candidate) = candidates.next_if(|candidate| candidate.frame == number) else {
            rest.push(frame);
            continue;
        };
        let number = usize::from(candidate.search);
        let (search, destination) = (findings.searches.get(number), destinations.get(number));
        let Some((search, Some(destination))) = search.zip(destination) else {
            rest.push(frame);
            continue;
        };
        let (frame, reason) = match lane.rewrite(candidate, search, destination, &mut frame) {
            Ok(port) => match out.send_to_server(port, frame, destination.server.index) {
                Ok(()) => continue,
                Err(frame) => (frame, DropReason::TransmitQueueFull),
            },
            Err(reason) => (frame, reason),
        };
        lose(Some(destination.server), reason, lane.pipeline);
        discard(frame, reason, lane.pipeline, out);
    }
    frames.extend(rest);
    let flows = lane.pipeline.flows.len() as u64;
    lane.pipeline.counters.flows.set(flows);
}

impl<'t> Findings<'t> {
    /// Finds the candidates of a burst, and has the heads of their flows' buckets fetched.
    #[inline]
    fn gather<B: PacketBuf>(
        &mut self,
        frames: &ArrayVec<B, BURST>,
        mac: MacAddress,
        services: &'t Services,
        flows: &FlowTable,
    ) {
        let mut recent = Recent::default();
        offer(frames, |number, frame| {
            Simple::of_frame(mac, frame).and_then(|(simple, _)| self.add(number, &simple, services, &mut recent, flows))
        });
    }

    /// Adds a packet, if it is of a service.
    #[inline(always)]
    fn add(
        &mut self,
        frame: u8,
        simple: &Simple,
        services: &'t Services,
        recent: &mut Recent<'t>,
        flows: &FlowTable,
    ) -> Result<(), Unfit> {
        let Simple { flags, inner, length, .. } = *simple;
        let ends = (simple.addresses, simple.ports, simple.protocol);
        let is_first = recent.ends != Some(ends);
        if let Some(search) = self.searches.last_mut().filter(|_| !is_first) {
            if flags.contains(Flags::SYN) {
                search.reopens = true;
            }
            search.longest = search.longest.max(length.into());
        } else {
            let service = recent.service_at(simple, services)?;
            let key = FlowKey::forward(simple.addresses.bytes(), simple.ports, simple.protocol);
            let hash = flows.hash(&key);
            flows.prefetch(hash);
            self.searches.push(Search {
                service,
                key,
                hash,
                probable: Probable::Nothing,
                flags,
                reopens: false,
                longest: length.into(),
            });
            recent.ends = Some(ends);
        }
        // There is one, since no packet has ends yet before the first.
        let search = self.searches.len().saturating_sub(1) as u8;
        self.candidates.push(Candidate { frame, search, is_first, flags, inner, length });
        Ok(())
    }
}

/// What was found out about packets of this burst: mostly it holds for the next one too.
#[derive(Default)]
struct Recent<'t> {
    /// The ends of the last candidate.
    ends: Option<(Addresses, Ports, Protocol)>,
    /// A socket, with the service there.
    socket: Option<(Socket, &'t Service)>,
    /// An address of no service.
    other: Option<IpAddr>,
}

impl<'t> Recent<'t> {
    /// The service that a packet is for.
    #[inline]
    fn service_at(&mut self, simple: &Simple, services: &'t Services) -> Result<&'t Service, Unfit> {
        let address = simple.addresses.destination();
        let socket = Socket { address, port: simple.ports.destination, protocol: simple.protocol };
        if let Some((known, service)) = self.socket
            && known == socket
        {
            return Ok(service);
        }
        if self.other == Some(address) {
            return Err(Unfit::Other);
        }
        match services.at(&socket) {
            Some(service) if service.gateways.is_none() => Ok(self.socket.insert((socket, service)).1),
            Some(_) => Err(Unfit::Other),
            None => {
                self.other = (!services.has_address(address)).then_some(address);
                Err(Unfit::Other)
            }
        }
    }
}
