//! What a node says about flows: whose, to what, at which server.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jetway_config::PublicKey;
use jetway_pipelines::dispatch::flow_scan::{FlowFilter, FlowRecord, FlowTask, service_of};
use jetway_pipelines::dispatch::flow_table::{ClientIdentity, Lifetime, TICKS_PER_SECOND};
use jetway_pipelines::dispatch::service::Socket;
use jetway_pipelines::ids::{BackendIndex, WorkerId};
use jetway_pipelines::packet::Protocol;
use jetway_pipelines::path::dispatch::Client;
use jetway_pipelines::tables::Tables;
use tokio::sync::oneshot;

use super::Node;
use super::dispatch::socket_of;
use super::flows::{Found, Wanted};
use super::services::{Server, Service};
use crate::api::{Failure, FlowCount, FlowReport, FlowsAction, FlowsFilter, FlowsQuery, FlowsReport};

impl Node {
    /// Asks the workers for the flows that a query means.
    pub(super) fn ask_for_flows(&mut self, query: &FlowsQuery) -> Result<oneshot::Receiver<Found>, Failure> {
        let (task, limit) = match query.action {
            FlowsAction::List(limit) => (FlowTask::List, limit as usize),
            FlowsAction::Count => (FlowTask::Count, 0),
            FlowsAction::Flush => (FlowTask::Forget, 0),
        };
        let filter = self.flow_filter(&query.filter)?;
        self.ask_workers(Wanted { task, filter, limit })
    }

    /// Asks the workers for what is wanted.
    pub(super) fn ask_workers(&mut self, wanted: Wanted) -> Result<oneshot::Receiver<Found>, Failure> {
        self.flows.ask(&mut self.engine.orders, wanted, self.services.known())
    }

    fn flow_filter(&self, filter: &FlowsFilter) -> Result<FlowFilter, Failure> {
        let (vip, backend) = match filter.backend.as_deref().and_then(|backend| backend.split_once('/')) {
            Some((vip, backend)) => (Some(vip), Some(backend)),
            None => (filter.vip.as_deref(), filter.backend.as_deref()),
        };
        if let (Some(wanted), Some(of_backend)) = (filter.vip.as_deref(), vip)
            && wanted != of_backend
        {
            let message = format!("a server of {of_backend} has no flows to {wanted}");
            return Err(Failure::new(message, "leave one of them out"));
        }
        let service = vip.map(|name| self.services.service(name)).transpose()?;
        let server = backend.map(|name| self.server_named(service, name)).transpose()?;
        let peers = filter.client.map(|net| {
            let all = self.intent.tunnels().flat_map(|(_, tunnel)| tunnel.peers());
            let all = all.map(|(key, peer)| (key, peer.spec.allowed_ips.as_slice()));
            peers_with(net.trunc(), all, self.tables.tables())
        });
        Ok(FlowFilter {
            service: service.map(|service| socket_of(&service.vip)),
            client: filter.client.map(|net| net.trunc()),
            peers: peers.unwrap_or_default(),
            server: server.map(|server| server.backend.index),
        })
    }

    /// The one server of this name, of one service or of any.
    fn server_named(&self, service: Option<&Service>, name: &str) -> Result<&Server, Failure> {
        let of_all = self.services.iter().filter(|any| service.is_none_or(|service| service.vip.name == any.vip.name));
        let found: Vec<_> = of_all
            .flat_map(|service| service.servers.iter().map(move |server| (service, server)))
            .filter(|(_, server)| server.config.name.as_str() == name)
            .collect();
        match found.as_slice() {
            [(_, server)] => Ok(server),
            [] => Err(Failure::new(format!("there is no server {name}"), "`jetway vips` lists all of them")),
            [(first, _), ..] => {
                let hint = format!("say which one, for example {}/{name}", first.vip.name);
                Err(Failure::new(format!("several services have a server {name}"), hint))
            }
        }
    }

    /// What was found, with names.
    pub(super) fn flows_report(&self, found: Found) -> FlowsReport {
        let names = Names::of(self);
        let counts = (0..).map(BackendIndex).zip(&found.counts).filter(|(_, flows)| **flows > 0);
        let by_backend = counts.map(|(index, flows)| {
            let (vip, backend) = names.servers.get(&index).map(|(service, server)| names_of(service, server)).unzip();
            FlowCount { vip, backend, flows: *flows }
        });
        FlowsReport {
            total: found.matched.max(found.flows.len() as u64),
            has_more: found.has_more,
            by_backend: by_backend.collect(),
            flows: found.flows.iter().map(|(worker, record)| names.flow(*worker, record)).collect(),
        }
    }
}

/// What peers are known by whose inner addresses are of `net`, in order: those with networks inside it, and those to whom its first
/// address belongs.
fn peers_with<'a>(
    net: IpNet,
    all: impl Iterator<Item = (&'a PublicKey, &'a [IpNet])>,
    tables: &Tables,
) -> Arc<[ClientIdentity]> {
    let inside = all.filter(|(_, allowed)| allowed.iter().any(|allowed| net.contains(allowed))).map(|(key, _)| key.0);
    let owners = tables.tunnels.iter().filter_map(|tunnel| tunnel.allowed_ips.lookup(net.addr()));
    let keys = inside.chain(owners.map(|peer| peer.public_key));
    let mut peers: Vec<_> = keys.map(|key| Client::of_peer(&key, &tables.services).identity).collect();
    peers.sort_unstable();
    peers.dedup();
    peers.into()
}

fn names_of(service: &Service, server: &Server) -> (String, String) {
    (service.vip.name.to_string(), server.config.name.to_string())
}

/// Who is who.
pub(super) struct Names<'a> {
    servers: HashMap<BackendIndex, (&'a Service, &'a Server)>,
    services: HashMap<Socket, &'a Service>,
}

impl<'a> Names<'a> {
    /// As the node is now.
    pub(super) fn of(node: &'a Node) -> Self {
        let servers =
            node.services.iter().flat_map(|service| service.servers.iter().map(move |server| (service, server)));
        Self {
            servers: servers.map(|(service, server)| (server.backend.index, (service, server))).collect(),
            services: node.services.iter().map(|service| (socket_of(&service.vip), service)).collect(),
        }
    }

    /// The service at a socket.
    pub(super) fn service(&self, socket: &Socket) -> Option<&'a Service> {
        self.services.get(socket).copied()
    }

    /// A server, with its service.
    pub(super) fn server(&self, index: BackendIndex) -> Option<(&'a Service, &'a Server)> {
        self.servers.get(&index).copied()
    }

    /// A flow.
    pub(super) fn flow(&self, worker: WorkerId, record: &FlowRecord) -> FlowReport {
        let (key, decision) = (&record.flow.key, &record.flow.decision);
        let service = service_of(key);
        let server = self.server(decision.server).map(|(_, server)| server);
        let left = record.lifetime.ticks().saturating_sub(record.idle);
        FlowReport {
            vip: self.service(&service).map(|service| service.vip.name.to_string()),
            backend: server.map(|server| server.config.name.to_string()),
            protocol: protocol(key.protocol).to_owned(),
            client: SocketAddr::new(key.source_address(), key.source_port),
            service: SocketAddr::new(service.address, service.port),
            server: server.map(|server| SocketAddr::new(server.backend.address, server.backend.port)),
            translated_port: (decision.translated_port != 0).then_some(decision.translated_port),
            state: state(record.lifetime).to_owned(),
            idle_seconds: f64::from(record.idle) / TICKS_PER_SECOND as f64,
            expires_seconds: f64::from(left) / TICKS_PER_SECOND as f64,
            worker: worker.0,
        }
    }
}

/// The word for a protocol.
pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::TCP => "tcp",
        Protocol::UDP => "udp",
        Protocol::ICMP | Protocol::ICMPV6 => "icmp",
        _ => "other",
    }
}

fn state(lifetime: Lifetime) -> &'static str {
    match lifetime {
        Lifetime::TcpOpening => "opening",
        Lifetime::TcpEstablished => "established",
        Lifetime::TcpClosing => "closing",
        Lifetime::Udp | Lifetime::Icmp | Lifetime::Client => "active",
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use jetway_pipelines::ids::{PeerIndex, TunnelId};
    use jetway_pipelines::packet::ecn::Dscp;
    use jetway_pipelines::tables::{Source, TunnelEntry};
    use jetway_pipelines::wireguard::Peer;
    use jetway_pipelines::wireguard::cookie::{CookieChecker, CookieSecrets};

    use super::*;

    #[test]
    fn the_peers_of_a_network_are_those_inside_it_and_the_one_that_it_belongs_to() {
        let allowed: [&[&str]; 4] =
            [&["10.8.0.2/32", "fd00:8::2/128"], &["10.8.0.3/32"], &["0.0.0.0/0"], &["10.9.0.0/16"]];
        let all: Vec<(PublicKey, Vec<IpNet>)> = (1..)
            .zip(allowed)
            .map(|(number, nets)| (PublicKey([number; 32]), nets.iter().map(|net| net.parse().unwrap()).collect()))
            .collect();
        let peer = |key: &PublicKey| Arc::new(Peer::new(PeerIndex(0), TunnelId(0), key.0));
        let nets = all.iter().flat_map(|(key, nets)| nets.iter().map(move |net| (*net, peer(key))));
        let tunnel = TunnelEntry {
            listen_port: 51820,
            mtu: 1420,
            source: Source::default(),
            dscp: Dscp::Hide,
            allowed_ips: nets.collect(),
            checker: Arc::new(CookieChecker::new(
                &[9; 32],
                Arc::new(CookieSecrets::new(Default::default(), Default::default())),
            )),
        };
        let tables = Tables { tunnels: vec![Arc::new(tunnel)], ..Tables::default() };
        let found = |net: IpNet| {
            let identities = peers_with(net, all.iter().map(|(key, nets)| (key, nets.as_slice())), &tables);
            assert!(identities.is_sorted(), "workers look by halving");
            let identity = |number: u8| Client::of_peer(&[number; 32], &tables.services).identity;
            (1..=4).filter(|number| identities.contains(&identity(*number))).collect::<Vec<_>>()
        };
        let host = |address: &str| IpNet::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(found(host("10.8.0.2")), [1]);
        assert_eq!(found(host("fd00:8::2")), [1]);
        assert_eq!(found(host("10.8.0.4")), [3], "the rest belongs to the peer with the default route");
        assert_eq!(found("10.8.0.0/24".parse().unwrap()), [1, 2, 3]);
        assert_eq!(found("10.9.7.0/24".parse().unwrap()), [4], "it is a part of the peer's network");
    }
}
