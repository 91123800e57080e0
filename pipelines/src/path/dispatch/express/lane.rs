//! Where packets that go the short way go, and what becomes of them.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use jetway_config::{Forward, Persistence};

use super::{Candidate, Search};
use crate::buffer::{NoRoom, PacketBuf};
use crate::dispatch::flow_table::{Decision, FlowId, Lifetime, Probable};
use crate::dispatch::{Backend, Tick};
use crate::drop_reason::DropReason;
use crate::ids::PortId;
use crate::packet::tcp::Flags;
use crate::packet::{Protocol, ethernet, ipv4, ipv6};
use crate::path::dispatch::check_source;
use crate::path::dispatch::forward::{count_flow, note, select};
use crate::path::dispatch::send::count;
use crate::path::dispatch::ways::WayPlace;
use crate::path::packet::{BURST, Origin};
use crate::path::pipeline::Pipeline;
use crate::tables::Tables;

/// Where the packets of a search go.
pub struct Destination<'t> {
    /// The server.
    pub server: &'t Backend,
    flow: FlowId,
    way: WayPlace,
}

/// What a search finds.
enum Found<'t> {
    /// A flow.
    Flow(Destination<'t>),
    /// None: a new one is given to a server by this hash.
    Nothing(u64),
    /// A flow whose packets have to go through the stages, every one of them.
    Intricate,
}

/// What comes behind a packet has to stay for the stages, as it does.
struct Stop;

/// A search that found no flow.
struct Miss {
    search: usize,
    /// What a new flow is given to a server by.
    hash: u64,
}

/// What finding and rewriting work with besides the packets.
pub struct Lane<'a, 't, B> {
    port: PortId,
    /// The worker's.
    pub pipeline: &'a mut Pipeline<B>,
    tables: &'t Tables,
    tick: Tick,
    /// From where a packet may come: mostly the next one's source too.
    source: Option<[u8; 16]>,
}

impl<'a, 't, B: PacketBuf> Lane<'a, 't, B> {
    /// For a burst that came in by `port`.
    pub fn new(port: PortId, pipeline: &'a mut Pipeline<B>, tables: &'t Tables, tick: Tick) -> Self {
        pipeline.server_ways.begin_burst();
        Self { port, pipeline, tables, tick, source: None }
    }

    /// Where each search leads: `None` if the packets of its flow stay for the stages, as do those of all searches behind the
    /// end.
    pub fn find_all(&mut self, searches: &[Search<'t>]) -> ArrayVec<Option<Destination<'t>>, BURST> {
        let mut destinations = ArrayVec::new();
        let mut misses = ArrayVec::<Miss, BURST>::new();
        for (number, search) in searches.iter().enumerate() {
            let destination = match self.find(search) {
                Ok(Found::Flow(destination)) => Some(destination),
                Ok(Found::Nothing(hash)) => {
                    misses.push(Miss { search: number, hash });
                    None
                }
                Ok(Found::Intricate) => None,
                Err(Stop) => break,
            };
            destinations.push(destination);
        }
        if misses.is_empty() {
            return destinations;
        }
        // By eight bits of their hashes, the flows that begin here.
        let mut begun = [false; 256];
        for Miss { search: number, hash } in misses {
            let (Some(search), Some(place)) = (searches.get(number), destinations.get_mut(number)) else { continue };
            let may_be_there = begun.get_mut(hash as usize % 256).is_none_or(|bit| std::mem::replace(bit, true));
            if may_be_there && self.pipeline.flows.find(search.hash, &search.key, self.tick).is_some() {
                continue;
            }
            if let Err(Stop) = self.begin(search, hash, place) {
                destinations.truncate(number);
                break;
            }
        }
        destinations
    }

    /// What there is for a search.
    #[inline]
    fn find(&mut self, search: &Search<'t>) -> Result<Found<'t>, Stop> {
        let Search { service, key, hash, probable, flags, reopens, .. } = search;
        if *reopens {
            return Err(Stop);
        }
        // Without a probable place nothing in either bucket has its tag.
        let flows = &self.pipeline.flows;
        let known = match probable {
            Probable::Flow(_) => flows.find_at(*probable, *hash, key, self.tick),
            Probable::Vacancy(_) | Probable::Nothing => None,
        };
        let Some(flow) = known else {
            if service.persistence != Persistence::Flow {
                return Ok(Found::Intricate);
            }
            let hash = self.tables.services.flow_hash_of(key);
            service.table.prefetch(hash);
            return Ok(Found::Nothing(hash));
        };
        if flags.contains(Flags::SYN) {
            return Err(Stop);
        }
        let Some(known) = self.pipeline.flows.get(flow) else { return Ok(Found::Intricate) };
        let Decision { server, position, .. } = known.decision;
        let server = service.position(server, position).and_then(|position| service.server(position));
        let Some(server) = server.filter(|server| server.state().keeps_flows()) else { return Ok(Found::Intricate) };
        let Some(way) = self.way_to(server, search)? else { return Ok(Found::Intricate) };
        self.note(flow, key.protocol, *flags);
        Ok(Found::Flow(Destination { flow, server, way }))
    }

    /// Begins a flow that is not there, and writes down where it goes, unless its packets stay.
    // Written where it belongs at once: a copy of what was just written in parts is slow.
    #[inline(never)]
    fn begin(
        &mut self,
        search: &Search<'t>,
        chosen_by: u64,
        destination: &mut Option<Destination<'t>>,
    ) -> Result<(), Stop> {
        let Search { service, key, hash, probable, flags, .. } = search;
        if !self.may_come_from(key.source) {
            return Ok(());
        }
        let Ok(position) = select(service, chosen_by) else { return Ok(()) };
        // With no server up, the next packet of a flow may have another fate than its first.
        let server = service.server(position).filter(|server| server.state().keeps_flows());
        let Some(server) = server else { return Ok(()) };
        let Some(way) = self.way_to(server, search)? else { return Ok(()) };
        let lifetime = if key.protocol == Protocol::TCP { Lifetime::of_tcp(*flags) } else { Lifetime::Udp };
        let decision = Decision::new(server.index, position);
        let Ok(flow) = self.pipeline.flows.add(*probable, *hash, key, decision, lifetime, self.tick) else {
            return Ok(());
        };
        count_flow(server, self.pipeline.worker);
        *destination = Some(Destination { server, flow, way });
        Ok(())
    }

    /// Whether a packet in clear may come from an address.
    #[inline]
    fn may_come_from(&mut self, source: [u8; 16]) -> bool {
        if self.source == Some(source) {
            return true;
        }
        let address = IpAddr::from(source).to_canonical();
        let may = check_source(address, Origin::Port(self.port), self.tables).is_ok();
        if may {
            self.source = Some(source);
        }
        may
    }

    /// The way to a server, if it is known and no other than this.
    #[inline]
    fn way_to(&mut self, server: &Backend, search: &Search<'t>) -> Result<Option<WayPlace>, Stop> {
        let held = self.pipeline.server_ways.hold(server, search.service, self.tables);
        let Some((place, way)) = held else { return Ok(None) };
        // A server on the client's own link may have to be shown another client.
        if search.service.forward == Forward::Nat && way.port == self.port {
            return Ok(None);
        }
        if search.longest > way.room(server) { Err(Stop) } else { Ok(Some(place)) }
    }

    /// Notes a packet of a flow.
    #[inline]
    fn note(&mut self, flow: FlowId, protocol: Protocol, flags: Flags) {
        note(&mut self.pipeline.flows, flow, (protocol == Protocol::TCP).then_some(flags), self.tick);
    }

    /// Makes a packet the frame in which it goes to its server, and says by which port.
    #[inline(always)]
    pub fn rewrite(
        &mut self,
        candidate: &Candidate,
        search: &Search<'t>,
        destination: &Destination<'t>,
        frame: &mut B,
    ) -> Result<PortId, DropReason> {
        let protocol = search.key.protocol;
        if !candidate.is_first && protocol == Protocol::TCP {
            self.note(destination.flow, protocol, candidate.flags);
        }
        let Pipeline { server_ways, ip_id, worker, .. } = &mut *self.pipeline;
        let way = server_ways.held(destination.way).ok_or(DropReason::Undecided)?;
        frame.narrow(ethernet::HEADER_LENGTH, candidate.length.into());
        let packet = frame.data_mut();
        let header_length = if search.service.socket.address.is_ipv4() {
            ipv4::decrement_ttl(packet);
            ipv4::HEADER_LENGTH
        } else {
            ipv6::decrement_hop_limit(packet);
            ipv6::HEADER_LENGTH
        };
        if let Some(translation) = &way.translation {
            let applied = translation.apply(packet, header_length, protocol);
            applied.map_err(|_| DropReason::ServiceMalformed)?;
        }
        let put = way.headers.put(frame, candidate.inner, search.hash.entropy(), ip_id);
        put.map_err(|NoRoom(_)| DropReason::BufferNoRoom)?;
        count(destination.server, candidate.length.into(), *worker);
        Ok(way.port)
    }
}
