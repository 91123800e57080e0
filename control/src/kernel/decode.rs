//! From rtnetlink's messages to [`KernelEvent`]s: pure.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState as KernelNeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags, RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::event::{
    Interfaces, KernelEvent, KernelLink, KernelRoute, LinkState, NeighbourState, Placement, RouteKind, RouteTable, Twin,
};

/// Whether the kernel may have changed more than it told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// The events are all there is to it.
    Everything,
    /// IPv4 routes may have gone with it without a word (a link went down, an address or a next hop was taken away):
    /// only a dump will tell.
    Part,
}

/// Appends to `events` what a message of the kernel, with these flags in its header, means for our interfaces.
pub fn decode(
    message: RouteNetlinkMessage,
    flags: u16,
    interfaces: &Interfaces,
    events: &mut Vec<KernelEvent>,
) -> Told {
    match message {
        RouteNetlinkMessage::NewLink(message) => return new_link(&message, interfaces, events),
        // Bridges also say that a port left them; the interface itself stays.
        RouteNetlinkMessage::DelLink(message) if message.header.interface_family != AddressFamily::Bridge => {
            events.extend(interfaces.twin(message.header.index).map(|twin| KernelEvent::LinkRemoved { twin }));
            return Told::Part;
        }
        RouteNetlinkMessage::NewAddress(message) => events
            .extend(address(&message, interfaces).map(|(twin, address)| KernelEvent::AddressAdded { twin, address })),
        RouteNetlinkMessage::DelAddress(message) => {
            events.extend(
                address(&message, interfaces).map(|(twin, address)| KernelEvent::AddressRemoved { twin, address }),
            );
            return Told::Part;
        }
        RouteNetlinkMessage::NewNeighbour(message) => events.extend(neighbour(&message, interfaces)),
        RouteNetlinkMessage::DelNeighbour(message) => events.extend(neighbour_key(&message, interfaces).map(down)),
        RouteNetlinkMessage::NewRoute(message) => {
            let mut placement = match flags {
                flags if flags & NLM_F_REPLACE != 0 => Placement::Replace,
                flags if flags & NLM_F_APPEND != 0 => Placement::After,
                _ => Placement::Before,
            };
            if let Some((net, routes)) = routes(&message, interfaces) {
                for route in routes {
                    events.push(KernelEvent::RouteAdded { net, route, placement });
                    placement = Placement::After;
                }
            }
        }
        RouteNetlinkMessage::DelRoute(message) => {
            if let Some((net, routes)) = routes(&message, interfaces) {
                events.extend(routes.into_iter().map(|route| KernelEvent::RouteRemoved { net, route }));
            }
        }
        // Nothing else was asked for; the enumeration is open.
        _ => {}
    }
    Told::Everything
}

/// How the link of a message is.
pub fn link_of(message: &LinkMessage) -> KernelLink {
    let state = if message.header.flags.contains(LinkFlags::Up) { LinkState::Up } else { LinkState::Down };
    let mut link = KernelLink { name: String::new(), mtu: 0, state, mac: None };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    link
}

/// The address of a message, with the length of its network's prefix.
pub fn address_of(message: &AddressMessage) -> Option<IpNet> {
    // On a point-to-point link ADDRESS is the peer's and LOCAL is ours; elsewhere IPv6 has ADDRESS alone.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = || {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    IpNet::new(local.or_else(any)?, message.header.prefix_len).ok()
}

fn new_link(message: &LinkMessage, interfaces: &Interfaces, events: &mut Vec<KernelEvent>) -> Told {
    let link = link_of(message);
    let told = match link.state {
        LinkState::Up => Told::Everything,
        LinkState::Down => Told::Part,
    };
    // Wireless extensions and bridges send parts of a link; those say nothing about what we follow.
    if let Some(twin) = interfaces.twin(message.header.index).filter(|_| link.mtu != 0) {
        events.push(KernelEvent::LinkChanged { twin, link });
    }
    told
}

fn address(message: &AddressMessage, interfaces: &Interfaces) -> Option<(Twin, IpNet)> {
    Some((interfaces.twin(message.header.index)?, address_of(message)?))
}

fn neighbour_key(message: &NeighbourMessage, interfaces: &Interfaces) -> Option<(Twin, IpAddr)> {
    let twin = interfaces.twin(message.header.ifindex)?;
    let addr = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => Some(IpAddr::V4(*addr)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr)) => Some(IpAddr::V6(*addr)),
        _ => None,
    })?;
    (!addr.is_multicast()).then_some((twin, addr))
}

fn neighbour(message: &NeighbourMessage, interfaces: &Interfaces) -> Option<KernelEvent> {
    let (twin, addr) = neighbour_key(message, interfaces)?;
    let state = match message.header.state {
        KernelNeighbourState::Reachable | KernelNeighbourState::Delay | KernelNeighbourState::Probe => {
            NeighbourState::Fresh
        }
        KernelNeighbourState::Stale => NeighbourState::Stale,
        KernelNeighbourState::Permanent | KernelNeighbourState::Noarp => NeighbourState::Permanent,
        _ => return Some(down((twin, addr))),
    };
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    });
    Some(mac.map_or_else(|| down((twin, addr)), |mac| KernelEvent::NeighbourUp { twin, addr, mac, state }))
}

fn down((twin, addr): (Twin, IpAddr)) -> KernelEvent {
    KernelEvent::NeighbourDown { twin, addr }
}

/// The destination and the routes of a message, or `None` for one that is not mirrored: of another table, of a type
/// of service, of a source prefix (RFC 3704 style routing), cached, or multicast.
///
/// Of an IPv4 route with several next hops the first that is alive and ours stands for the route: the engine does
/// not spread over next hops. The next hops of an IPv6 route are routes of their own, because the kernel adds and removes
/// them one by one.
fn routes(message: &RouteMessage, interfaces: &Interfaces) -> Option<(IpNet, Vec<KernelRoute>)> {
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) || header.tos != 0 || header.source_prefix_length != 0 {
        return None;
    }
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut route = KernelRoute {
        table: table(message)?,
        kind: kind(header.kind)?,
        via: None,
        twin: None,
        metric: 0,
        mtu: None,
        prefsrc: None,
    };
    let mut destination = unspecified;
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::PrefSource(address) => route.prefsrc = ip(address),
            RouteAttribute::Metrics(metrics) => route.mtu = metrics.iter().find_map(mtu),
            RouteAttribute::MultiPath(next_hops) => hops.extend(next_hops),
            _ => {}
        }
    }
    let net = IpNet::new(destination, header.destination_prefix_length).ok()?.trunc();
    if hops.is_empty() {
        (route.via, route.twin) = next_hop(&message.attributes, None, interfaces);
        return Some((net, vec![route]));
    }
    let dead = RouteNextHopFlags::Dead;
    let alive = hops.iter().filter(|hop| !hop.flags.contains(dead)).map(|hop| {
        let (via, twin) = next_hop(&hop.attributes, Some(hop.interface_index), interfaces);
        KernelRoute { via, twin, ..route.clone() }
    });
    let mut routes: Vec<_> = alive.collect();
    if matches!(net, IpNet::V4(_)) {
        let ours = routes.iter().position(|route| route.twin.is_some()).unwrap_or(0);
        routes = routes.into_iter().skip(ours).take(1).collect();
    }
    Some((net, routes))
}

fn table(message: &RouteMessage) -> Option<RouteTable> {
    let stated = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    match stated.unwrap_or(u32::from(message.header.table)) {
        255 => Some(RouteTable::Local),
        254 => Some(RouteTable::Main),
        _ => None,
    }
}

fn kind(kind: RouteType) -> Option<RouteKind> {
    match kind {
        RouteType::Unicast => Some(RouteKind::Unicast),
        RouteType::Local | RouteType::Anycast => Some(RouteKind::Local),
        RouteType::Broadcast => Some(RouteKind::Broadcast),
        RouteType::BlackHole => Some(RouteKind::Blackhole),
        RouteType::Unreachable | RouteType::Throw => Some(RouteKind::Unreachable),
        RouteType::Prohibit => Some(RouteKind::Prohibit),
        _ => None,
    }
}

fn next_hop(
    attributes: &[RouteAttribute],
    interface: Option<u32>,
    interfaces: &Interfaces,
) -> (Option<IpAddr>, Option<Twin>) {
    let mut via = None;
    let mut interface = interface;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(address) => via = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => via = Some(IpAddr::V4(*address)),
            RouteAttribute::Via(RouteVia::Inet6(address)) => via = Some(IpAddr::V6(*address)),
            RouteAttribute::Oif(index) => interface = Some(*index),
            _ => {}
        }
    }
    (via, interface.and_then(|index| interfaces.twin(index)))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn mtu(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
}
