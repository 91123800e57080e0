//! What a worker knows of the ways to servers: it is found out once, and holds until the tables change.

use jetway_config::Forward;

use super::send::{is_on_link, source_on};
use crate::dispatch::Backend;
use crate::dispatch::encapsulation::{Ends, Headers, overhead};
use crate::dispatch::nat::Translation;
use crate::dispatch::service::Service;
use crate::ids::{BackendIndex, PortId};
use crate::packet::EtherType;
use crate::path::emit::LinkHeaders;
use crate::path::packet::Verdict;
use crate::path::route::way_to;
use crate::tables::Tables;

/// Servers whose ways are known at once; others take a place in turns. 128 bytes each.
const PLACES: usize = 4096;

/// The ways to servers that lead out of a port to a neighbour whose address is known.
#[derive(Debug)]
pub struct ServerWays {
    places: Box<[Place]>,
    /// Counts the bursts that hold ways.
    burst: u32,
}

/// Begins at a cache line, so that what is used of a way lies on two.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Place {
    server: BackendIndex,
    /// The burst that held it last.
    held_by: u32,
    /// The epoch of the tables by which it was found out.
    epoch: u64,
    /// `None` if the server's packets have to go through all stages.
    way: Option<ServerWay>,
}

/// A way to a server.
#[derive(Clone, Copy, Debug)]
pub struct ServerWay {
    /// The port to leave by.
    pub port: PortId,
    /// The longest packet that it carries.
    mtu: u16,
    /// Bytes that an encapsulation adds to a client's packet; 0 if there is none.
    overhead: u16,
    /// All that stands before the packet in a frame to the server.
    pub headers: Headers,
    /// What NAT changes in the packet.
    pub translation: Option<Translation>,
}

/// Where a server's way stands as long as the burst lasts that holds it.
#[derive(Clone, Copy, Debug)]
pub struct WayPlace(u16);

const _: () = assert!(size_of::<Place>() == 128 && PLACES <= 1 << 16);

impl ServerWay {
    /// The longest packet of a client that fits. What routers say of the way to the server holds for packets that we make.
    #[inline]
    pub fn room(&self, server: &Backend) -> u32 {
        let mtu = if self.overhead > 0 { self.mtu.min(server.path_mtu()) } else { self.mtu };
        u32::from(mtu.saturating_sub(self.overhead))
    }
}

impl ServerWays {
    /// None yet. For a node without services, none ever.
    pub fn new(flows: usize) -> Self {
        let vacant = Place { server: BackendIndex(0), held_by: 0, epoch: u64::MAX, way: None };
        Self { places: vec![vacant; if flows > 0 { PLACES } else { 0 }].into(), burst: 0 }
    }

    /// The way to a server of a service.
    #[inline]
    pub fn to(&mut self, server: &Backend, service: &Service, tables: &Tables) -> Option<&ServerWay> {
        let (_, place) = Self::place(&mut self.places, server)?;
        place.refresh(server, service, tables);
        place.way.as_ref()
    }

    /// A burst begins that holds ways, and with that the one before has ended.
    pub fn begin_burst(&mut self) {
        self.burst = self.burst.wrapping_add(1);
    }

    /// The way to a server of a service, where it stands until the burst ends: as long as nobody asks for it otherwise. `None`,
    /// too, if the burst holds the way of another server there.
    #[inline]
    pub fn hold(&mut self, server: &Backend, service: &Service, tables: &Tables) -> Option<(WayPlace, &ServerWay)> {
        let (number, place) = Self::place(&mut self.places, server)?;
        if place.server != server.index && place.held_by == self.burst {
            return None;
        }
        place.refresh(server, service, tables);
        place.held_by = self.burst;
        place.way.as_ref().map(|way| (number, way))
    }

    /// The way that a burst holds.
    #[inline]
    pub fn held(&self, place: WayPlace) -> Option<&ServerWay> {
        self.places.get(usize::from(place.0))?.way.as_ref()
    }

    /// The place of a server's way.
    #[inline]
    fn place<'a>(places: &'a mut [Place], server: &Backend) -> Option<(WayPlace, &'a mut Place)> {
        let number = server.index.index() % PLACES;
        Some((WayPlace(number as u16), places.get_mut(number)?))
    }
}

impl Place {
    /// Finds the way out, unless it is this server's already.
    #[inline]
    fn refresh(&mut self, server: &Backend, service: &Service, tables: &Tables) {
        if self.server != server.index || self.epoch != tables.epoch {
            let way = find(server, service, tables);
            *self = Self { server: server.index, epoch: tables.epoch, way, ..*self };
        }
    }
}

/// Finds out the way to a server.
#[inline(never)]
fn find(server: &Backend, service: &Service, tables: &Tables) -> Option<ServerWay> {
    let way = way_to(server.address, tables).ok()?;
    let Verdict::Emit { port, next_hop } = way.verdict else { return None };
    if service.forward == Forward::L2 && !is_on_link(&way, server) {
        return None;
    }
    let links = LinkHeaders::find(port, next_hop, tables).ok()?;
    let carried = if service.socket.address.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
    let link_of = |ethertype| if ethertype == EtherType::IPV4 { links.ipv4 } else { links.ipv6 };
    match service.forward.encapsulation() {
        None => {
            let headers = Headers::link(&link_of(carried));
            let from = (service.socket.address, service.socket.port);
            let translation = match service.forward {
                Forward::Nat => Some(Translation::new(from, (server.address, server.port))?),
                Forward::L2 | Forward::Ipip | Forward::Gre | Forward::Gue => None,
            };
            Some(ServerWay { port, mtu: way.mtu, overhead: 0, headers, translation })
        }
        Some(encapsulation) => {
            let source = source_on(&way, server.address, tables)?;
            let outer = if server.address.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
            let headers = Headers::outer(encapsulation, Ends::new(source, server.address)?, carried);
            let overhead = overhead(encapsulation, server.address);
            let headers = headers.behind(&link_of(outer));
            Some(ServerWay { port, mtu: way.mtu, overhead, headers, translation: None })
        }
    }
}
