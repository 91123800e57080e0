//! The kernel's routes, neighbours, addresses and links as the mirror's events add up to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::event::{KernelEvent, KernelLink, KernelRoute, NeighbourState, Placement, RouteKind, Twin};

/// What became different, so that a reader of the view need look at nothing else.
///
/// An entry says only that something may have changed there: the view itself has what is so now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Destinations whose best route may be another now: see [`KernelView::best`].
    pub routes: BTreeSet<IpNet>,
    /// Neighbours that came, went or have another Ethernet address.
    pub neighbours: BTreeSet<(Twin, IpAddr)>,
    /// Interfaces of which an address came or went.
    pub addresses: BTreeSet<Twin>,
    /// Interfaces whose link came, went or changed.
    pub links: BTreeSet<Twin>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.neighbours.is_empty() && self.addresses.is_empty() && self.links.is_empty()
    }
}

/// A neighbour with a usable address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// How sure the kernel is of it.
    pub state: NeighbourState,
}

/// The state that a stream of [`KernelEvent`]s adds up to. Pure: no clock, no I/O.
///
/// Routes of the tables local and main are one here: for the same destination the local one wins, as in the
/// kernel. (The kernel would also prefer a shorter local prefix to a longer main one; nobody builds that.)
#[derive(Debug, Default)]
pub struct KernelView {
    generation: u64,
    next_order: i64,
    first_order: i64,
    routes: BTreeMap<IpNet, Vec<RouteEntry>>,
    neighbours: BTreeMap<(Twin, IpAddr), Stamped<Neighbour>>,
    addresses: BTreeMap<(Twin, IpNet), Stamped<()>>,
    links: BTreeMap<Twin, Stamped<KernelLink>>,
}

#[derive(Debug)]
struct Stamped<T> {
    value: T,
    generation: u64,
}

#[derive(Debug)]
struct RouteEntry {
    route: KernelRoute,
    order: i64,
    generation: u64,
}

impl RouteEntry {
    /// The kernel's order of preference.
    fn rank(&self) -> impl Ord + use<> {
        (self.route.table, self.route.metric, self.order)
    }

    /// Whether the engine can act on it: a route out of an interface that is not ours is the kernel's business.
    fn is_ours(&self) -> bool {
        match self.route.kind {
            RouteKind::Unicast | RouteKind::Broadcast => self.route.twin.is_some(),
            RouteKind::Local | RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => true,
        }
    }
}

impl KernelView {
    /// A view that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one event, and notes in `changes` what it changed.
    pub fn apply(&mut self, event: KernelEvent, changes: &mut Changes) {
        match event {
            KernelEvent::ResyncBegan => self.generation += 1,
            KernelEvent::ResyncEnded => self.sweep(changes),
            KernelEvent::RouteAdded { net, route, placement } => self.add_route(net, route, placement, changes),
            KernelEvent::RouteRemoved { net, route } => self.remove_route(net, &route, changes),
            KernelEvent::NeighbourUp { twin, addr, mac, state } => {
                let stamped = Stamped { value: Neighbour { mac, state }, generation: self.generation };
                let before = self.neighbours.insert((twin, addr), stamped);
                if before.map(|stamped| stamped.value.mac) != Some(mac) {
                    changes.neighbours.insert((twin, addr));
                }
            }
            KernelEvent::NeighbourDown { twin, addr } => {
                if self.neighbours.remove(&(twin, addr)).is_some() {
                    changes.neighbours.insert((twin, addr));
                }
            }
            KernelEvent::AddressAdded { twin, address } => {
                let stamped = Stamped { value: (), generation: self.generation };
                if self.addresses.insert((twin, address), stamped).is_none() {
                    changes.addresses.insert(twin);
                }
            }
            KernelEvent::AddressRemoved { twin, address } => {
                if self.addresses.remove(&(twin, address)).is_some() {
                    changes.addresses.insert(twin);
                }
            }
            KernelEvent::LinkChanged { twin, link } => {
                let stamped = Stamped { value: link, generation: self.generation };
                let before = self.links.insert(twin, stamped).map(|stamped| stamped.value);
                if before.as_ref() != self.link(twin) {
                    changes.links.insert(twin);
                }
            }
            KernelEvent::LinkRemoved { twin } => {
                if self.links.remove(&twin).is_some() {
                    changes.links.insert(twin);
                }
            }
        }
    }

    /// The route that the kernel takes to exactly this destination, among those that concern us.
    pub fn best(&self, net: IpNet) -> Option<&KernelRoute> {
        let entries = self.routes.get(&net)?;
        entries.iter().filter(|entry| entry.is_ours()).min_by_key(|entry| entry.rank()).map(|entry| &entry.route)
    }

    /// Every destination with its best route.
    pub fn routes(&self) -> impl Iterator<Item = (IpNet, &KernelRoute)> {
        self.routes.keys().filter_map(|net| Some((*net, self.best(*net)?)))
    }

    /// The next hops of all routes, each once.
    pub fn gateways(&self) -> BTreeSet<(Twin, IpAddr)> {
        self.routes().filter_map(|(_, route)| route.twin.zip(route.via)).collect()
    }

    /// The neighbour of this address, if it is usable.
    pub fn neighbour(&self, twin: Twin, addr: IpAddr) -> Option<Neighbour> {
        self.neighbours.get(&(twin, addr)).map(|stamped| stamped.value)
    }

    /// Every usable neighbour.
    pub fn neighbours(&self) -> impl Iterator<Item = (Twin, IpAddr, Neighbour)> {
        self.neighbours.iter().map(|((twin, addr), stamped)| (*twin, *addr, stamped.value))
    }

    /// Every address of our interfaces, with the length of its network's prefix.
    pub fn addresses(&self) -> impl Iterator<Item = (Twin, IpNet)> {
        self.addresses.keys().copied()
    }

    /// How an interface's link is.
    pub fn link(&self, twin: Twin) -> Option<&KernelLink> {
        self.links.get(&twin).map(|stamped| &stamped.value)
    }

    /// How often everything was told anew.
    pub fn resyncs(&self) -> u64 {
        self.generation
    }

    fn add_route(&mut self, net: IpNet, route: KernelRoute, placement: Placement, changes: &mut Changes) {
        let generation = self.generation;
        let (first, last) = (self.first_order - 1, self.next_order);
        self.first_order -= 1;
        self.next_order += 1;
        let entries = self.routes.entry(net).or_default();
        let order = match placement {
            Placement::Before => first,
            Placement::After => last,
            Placement::Replace => replace(entries, &net, &route).unwrap_or(last),
        };
        if let Some(entry) = entries.iter_mut().find(|entry| entry.route.is_same_route(&route)) {
            // A dump tells routes in the kernel's order, so there the order is news even of a known route.
            if entry.generation != generation {
                entry.order = order;
            }
            entry.generation = generation;
            entry.route = route;
        } else {
            entries.push(RouteEntry { route, order, generation });
        }
        changes.routes.insert(net);
    }

    fn remove_route(&mut self, net: IpNet, route: &KernelRoute, changes: &mut Changes) {
        let Some(entries) = self.routes.get_mut(&net) else { return };
        entries.retain(|entry| !entry.route.is_same_route(route));
        if entries.is_empty() {
            self.routes.remove(&net);
        }
        changes.routes.insert(net);
    }

    /// Drops what the resync that ends now did not tell again.
    fn sweep(&mut self, changes: &mut Changes) {
        let generation = self.generation;
        self.routes.retain(|net, entries| {
            let before = entries.len();
            entries.retain(|entry| entry.generation == generation);
            if entries.len() != before {
                changes.routes.insert(*net);
            }
            !entries.is_empty()
        });
        changes.neighbours.extend(stale_keys(&self.neighbours, generation));
        self.neighbours.retain(|_, stamped| stamped.generation == generation);
        changes.addresses.extend(stale_keys(&self.addresses, generation).map(|(twin, _)| twin));
        self.addresses.retain(|_, stamped| stamped.generation == generation);
        changes.links.extend(stale_keys(&self.links, generation));
        self.links.retain(|_, stamped| stamped.generation == generation);
    }
}

/// Takes out what `route` replaces, and gives the place that it had.
fn replace(entries: &mut Vec<RouteEntry>, net: &IpNet, route: &KernelRoute) -> Option<i64> {
    let rivals = |entry: &&RouteEntry| entry.route.table == route.table && entry.route.metric == route.metric;
    let first = entries.iter().filter(rivals).min_by_key(|entry| entry.order).map(|entry| entry.order)?;
    let is_victim: Box<dyn Fn(&RouteEntry) -> bool> = match net {
        IpNet::V4(_) => Box::new(move |entry| entry.order == first),
        // IPv6: routes with gateways and the same metric are the next hops of one route, and go together.
        IpNet::V6(_) => {
            let has_gateway = route.via.is_some();
            let alike = |entry: &&RouteEntry| rivals(entry) && entry.route.via.is_some() == has_gateway;
            let place = entries.iter().filter(alike).map(|entry| entry.order).min().unwrap_or(first);
            Box::new(move |entry| entry.order == place || (has_gateway && entry.route.via.is_some()))
        }
    };
    entries.retain(|entry| !(rivals(&entry) && is_victim(entry)));
    Some(first)
}

fn stale_keys<K: Copy, T>(map: &BTreeMap<K, Stamped<T>>, generation: u64) -> impl Iterator<Item = K> {
    map.iter().filter(move |(_, stamped)| stamped.generation != generation).map(|(key, _)| *key)
}

#[cfg(test)]
mod tests;
