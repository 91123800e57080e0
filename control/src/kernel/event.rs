//! What the kernel tells us, as types.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
pub use jetway_pipelines::tables::Twin;

/// Our interfaces by their index in the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interfaces(BTreeMap<u32, Twin>);

impl Interfaces {
    /// The twin that has this interface index.
    pub fn twin(&self, index: u32) -> Option<Twin> {
        self.0.get(&index).copied()
    }

    /// The interface index of a twin.
    pub fn index(&self, twin: Twin) -> Option<u32> {
        self.0.iter().find(|(_, candidate)| **candidate == twin).map(|(index, _)| *index)
    }
}

impl FromIterator<(u32, Twin)> for Interfaces {
    fn from_iter<I: IntoIterator<Item = (u32, Twin)>>(interfaces: I) -> Self {
        Self(interfaces.into_iter().collect())
    }
}

/// One thing that the kernel said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KernelEvent {
    /// Everything the kernel has follows; what is not told again until [`KernelEvent::ResyncEnded`] is gone.
    ResyncBegan,
    /// Everything was told.
    ResyncEnded,
    /// A route is there.
    RouteAdded {
        /// Its destination.
        net: IpNet,
        /// Where it leads.
        route: KernelRoute,
        /// How it stands to routes of the same table, destination and metric.
        placement: Placement,
    },
    /// A route is gone.
    RouteRemoved {
        /// Its destination.
        net: IpNet,
        /// Where it led; its MTU and preferred source do not matter for telling routes apart.
        route: KernelRoute,
    },
    /// A neighbour has a usable link-layer address.
    NeighbourUp {
        /// The interface on which it is.
        twin: Twin,
        /// Its address.
        addr: IpAddr,
        /// Its Ethernet address.
        mac: [u8; 6],
        /// How sure the kernel is of it.
        state: NeighbourState,
    },
    /// A neighbour is not known, or not any more.
    NeighbourDown {
        /// The interface on which it was.
        twin: Twin,
        /// Its address.
        addr: IpAddr,
    },
    /// One of our interfaces has an address.
    AddressAdded {
        /// The interface.
        twin: Twin,
        /// The address with the length of its network's prefix.
        address: IpNet,
    },
    /// One of our interfaces lost an address.
    AddressRemoved {
        /// The interface.
        twin: Twin,
        /// The address with the length of its network's prefix.
        address: IpNet,
    },
    /// One of our interfaces came or changed.
    LinkChanged {
        /// The interface.
        twin: Twin,
        /// How it is now.
        link: KernelLink,
    },
    /// One of our interfaces is gone.
    LinkRemoved {
        /// The interface.
        twin: Twin,
    },
}

/// A route of the kernel, or one next hop of an IPv6 route that has several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelRoute {
    /// The table it stands in.
    pub table: RouteTable,
    /// What it says.
    pub kind: RouteKind,
    /// The next hop's address; `None` when the destination is on the link.
    pub via: Option<IpAddr>,
    /// The interface of ours that it leads out of; `None` when it needs none or leads out of one that is not ours.
    pub twin: Option<Twin>,
    /// The kernel prefers the lowest.
    pub metric: u32,
    /// The path MTU that the route states, in bytes.
    pub mtu: Option<u32>,
    /// The source address that the node itself uses on it.
    pub prefsrc: Option<IpAddr>,
}

impl KernelRoute {
    /// Whether both name the same route of the kernel, whatever their MTU and preferred source.
    pub fn is_same_route(&self, other: &Self) -> bool {
        (self.table, self.kind, self.via, self.twin, self.metric)
            == (other.table, other.kind, other.via, other.twin, other.metric)
    }
}

/// The tables that are mirrored; policy routing with other tables is not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RouteTable {
    /// Addresses of the node itself; the kernel asks it first.
    Local,
    /// Everything else.
    Main,
}

/// What a route says about packets to its destination.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RouteKind {
    /// Forward them.
    Unicast,
    /// They are for the node itself (also anycast addresses of the node).
    Local,
    /// They are for everybody on the link, and so for the node, too.
    Broadcast,
    /// Drop them silently.
    Blackhole,
    /// Drop them and say that the destination cannot be reached (also a `throw` route with nowhere else to look).
    Unreachable,
    /// Drop them and say that it is forbidden.
    Prohibit,
}

/// How a new route stands to those of the same table, destination and metric.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Placement {
    /// It is preferred to them (`ip route prepend` and `add`).
    Before,
    /// They are preferred to it (`ip route append`, and routes in a dump).
    After,
    /// It takes the place of the first of them; IPv6: of all next hops of the same route (`ip route replace`).
    Replace,
}

/// How sure the kernel is of a neighbour that it has an address for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NeighbourState {
    /// Heard from lately, or being asked right now.
    Fresh,
    /// Not heard from for a while; nobody asks unless the entry is used.
    Stale,
    /// Set by hand; never asked.
    Permanent,
}

/// How a link is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelLink {
    /// Its name.
    pub name: String,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Whether it is set up (`ip link set up`).
    pub state: LinkState,
    /// Its Ethernet address, if it has one.
    pub mac: Option<[u8; 6]>,
}

/// Whether a link is set up by the administrator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LinkState {
    /// In use.
    Up,
    /// Switched off.
    Down,
}
