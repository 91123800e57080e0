//! The tables that workers see, kept up to date from configuration, peers and the kernel.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jetway_config::Decapsulate;
use jetway_pipelines::dispatch::decapsulation::Decapsulation;
use jetway_pipelines::dispatch::service::Services;
use jetway_pipelines::ids::{PortId, TunnelId};
use jetway_pipelines::lpm::Lpm;
use jetway_pipelines::packet::MacAddress;
use jetway_pipelines::packet::ecn::Dscp;
use jetway_pipelines::tables::{PortEntry, PuntLimit, Route, Source, Tables, TunnelEntry, Twin};
use jetway_pipelines::wireguard::Peer;
use jetway_pipelines::wireguard::cookie::CookieChecker;

use crate::kernel::{Changes, KernelRoute, KernelView, RouteKind};

/// The next snapshot in the making.
///
/// Every change is made to `next`, whose parts are shared with the published snapshots and copied on the first write;
/// [`TablesBuilder::take`] gives what is to be published.
#[derive(Debug)]
pub struct TablesBuilder {
    next: Tables,
    changed: bool,
    /// Addresses of services: answered for, but not spoken from.
    services: HashSet<IpAddr>,
}

impl TablesBuilder {
    /// Tables with these ports, and nothing learned yet.
    pub fn new(ports: Vec<PortEntry>) -> Self {
        Self { next: Tables { ports: ports.into(), ..Tables::default() }, changed: true, services: HashSet::new() }
    }

    /// Adds a tunnel, in the place of one that was removed if it has its number.
    pub fn add_tunnel(&mut self, id: TunnelId, entry: TunnelEntry) {
        Arc::make_mut(&mut self.next.listeners).insert(entry.listen_port, id);
        let entry = Arc::new(entry);
        match self.next.tunnels.get_mut(id.index()) {
            Some(place) => *place = entry,
            // Numbers are given out from the lowest free one, so the next one is the length.
            None => self.next.tunnels.push(entry),
        }
        self.changed = true;
    }

    /// Takes a removed tunnel off its UDP port; its entry stays until another gets its number.
    pub fn remove_tunnel(&mut self, id: TunnelId) {
        Arc::make_mut(&mut self.next.listeners).retain(|_, tunnel| *tunnel != id);
        self.change_tunnel(id, |entry| entry.allowed_ips = Lpm::default());
    }

    /// The snapshot to publish, if anything changed since the last.
    pub fn take(&mut self) -> Option<Arc<Tables>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        self.next.epoch += 1;
        Some(Arc::new(self.next.clone()))
    }

    /// What would be published now.
    pub fn tables(&self) -> &Tables {
        &self.next
    }

    /// Takes over what the kernel changed.
    pub fn apply_kernel(&mut self, view: &KernelView, changes: &Changes) {
        if changes.is_empty() {
            return;
        }
        self.changed = true;
        for net in &changes.routes {
            self.set_route(*net, view.best(*net));
        }
        for (twin, address) in &changes.neighbours {
            let Twin::Port(port) = twin else { continue };
            let neighbours = Arc::make_mut(&mut self.next.neighbours);
            match view.neighbour(*twin, *address) {
                Some(neighbour) => neighbours.insert((*port, *address), MacAddress(neighbour.mac)),
                None => neighbours.remove(&(*port, *address)),
            };
        }
        for twin in &changes.addresses {
            self.set_source(*twin, view);
        }
        for twin in &changes.links {
            self.set_mtu(*twin, view);
        }
    }

    fn set_route(&mut self, net: IpNet, best: Option<&KernelRoute>) {
        let is_host = net.prefix_len() == net.max_prefix_len();
        let kind = best.map(|route| route.kind);
        let own = is_host && matches!(kind, Some(RouteKind::Local | RouteKind::Broadcast));
        if own {
            Arc::make_mut(&mut self.next.local).insert(net.addr());
        } else if is_host && self.next.local.contains(&net.addr()) {
            Arc::make_mut(&mut self.next.local).remove(&net.addr());
        }
        match best.and_then(forwarding_route) {
            Some(route) => drop(self.next.routes.insert(net, route)),
            None => drop(self.next.routes.remove(&net)),
        }
    }

    /// Works out anew which addresses we speak from on an interface.
    fn set_source(&mut self, twin: Twin, view: &KernelView) {
        let mut source = Source::default();
        for (_, net) in view.addresses().filter(|(owner, _)| *owner == twin) {
            if net.prefix_len() == net.max_prefix_len() && self.services.contains(&net.addr()) {
                continue;
            }
            match net.addr() {
                IpAddr::V4(address) => source.v4 = source.v4.or(Some(address)),
                IpAddr::V6(address) if address.is_unicast_link_local() => {}
                IpAddr::V6(address) => source.v6 = source.v6.or(Some(address)),
            }
        }
        match twin {
            Twin::Port(port) => self.change_port(port, |entry| entry.source = source),
            Twin::Tunnel(tunnel) => self.change_tunnel(tunnel, |entry| entry.source = source),
        }
    }

    /// The operator may change a twin's MTU by `ip link`.
    fn set_mtu(&mut self, twin: Twin, view: &KernelView) {
        let Some(link) = view.link(twin) else { return };
        let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        match twin {
            Twin::Port(port) => self.change_port(port, |entry| entry.mtu = mtu),
            Twin::Tunnel(tunnel) => self.change_tunnel(tunnel, |entry| entry.mtu = mtu),
        }
    }

    fn change_port(&mut self, port: PortId, change: impl FnOnce(&mut PortEntry)) {
        if let Some(entry) = Arc::make_mut(&mut self.next.ports).get_mut(port.index()) {
            change(entry);
            self.changed = true;
        }
    }

    fn change_tunnel(&mut self, tunnel: TunnelId, change: impl FnOnce(&mut TunnelEntry)) {
        if let Some(entry) = self.next.tunnels.get_mut(tunnel.index()) {
            change(Arc::make_mut(entry));
            self.changed = true;
        }
    }

    /// Gives an inner network to a peer. Returns the peer that had it.
    pub fn allow(&mut self, tunnel: TunnelId, net: IpNet, peer: Arc<Peer>) -> Option<Arc<Peer>> {
        let mut before = None;
        self.change_tunnel(tunnel, |entry| before = entry.allowed_ips.insert(net, peer));
        before
    }

    /// Takes an inner network from whoever has it.
    pub fn disallow(&mut self, tunnel: TunnelId, net: &IpNet) {
        self.change_tunnel(tunnel, |entry| drop(entry.allowed_ips.remove(net)));
    }

    /// Moves a tunnel to another UDP port.
    pub fn set_listen_port(&mut self, tunnel: TunnelId, port: u16) {
        let Some(before) = self.next.tunnel(tunnel).map(|entry| entry.listen_port) else { return };
        let listeners = Arc::make_mut(&mut self.next.listeners);
        listeners.remove(&before);
        listeners.insert(port, tunnel);
        self.change_tunnel(tunnel, |entry| entry.listen_port = port);
    }

    /// Sets what becomes of the DSCP of a tunnel's packets.
    pub fn set_dscp(&mut self, tunnel: TunnelId, dscp: Dscp) {
        self.change_tunnel(tunnel, |entry| entry.dscp = dscp);
    }

    /// Sets which addresses belong to services: workers do not speak from them by themselves.
    pub fn set_service_addresses(&mut self, addresses: HashSet<IpAddr>) {
        self.services = addresses;
    }

    /// Sets the services and how they dispatch.
    pub fn set_services(&mut self, services: Arc<Services>) {
        self.next.services = services;
        self.changed = true;
    }

    /// Sets how much each worker gives to the kernel.
    pub fn set_punt_limit(&mut self, limit: PuntLimit) {
        if self.next.punt_limit != limit {
            self.next.punt_limit = limit;
            self.changed = true;
        }
    }

    /// Sets from whom packets inside others are taken.
    pub fn set_decapsulation(&mut self, decapsulate: Option<&Decapsulate>) {
        let decapsulation =
            |wanted: &Decapsulate| Arc::new(Decapsulation::new(wanted.from.iter().copied(), &wanted.kinds));
        self.next.decapsulation = decapsulate.map(decapsulation);
        self.changed = true;
    }

    /// Sets what a tunnel's handshake messages are checked with.
    pub fn set_checker(&mut self, tunnel: TunnelId, checker: Arc<CookieChecker>) {
        self.change_tunnel(tunnel, |entry| entry.checker = checker);
    }
}

/// The kernel's route as workers follow it; `None` if it is not theirs to follow.
fn forwarding_route(route: &KernelRoute) -> Option<Route> {
    match route.kind {
        RouteKind::Unicast => match route.twin? {
            Twin::Port(port) => Some(Route::Port {
                port,
                gateway: route.via,
                source: route.prefsrc,
                mtu: route.mtu.map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX)),
            }),
            Twin::Tunnel(tunnel) => Some(Route::Tunnel(tunnel)),
        },
        RouteKind::Blackhole => Some(Route::Blackhole),
        RouteKind::Unreachable => Some(Route::Unreachable),
        RouteKind::Prohibit => Some(Route::Prohibit),
        RouteKind::Local | RouteKind::Broadcast => None,
    }
}
