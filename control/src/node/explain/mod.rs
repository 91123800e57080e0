//! What the node would do with a packet, in words.

mod packet;

use std::net::SocketAddr;

use jetway_config::{OnDown, PublicKey, Vip};
use jetway_pipelines::dispatch::Backend;
use jetway_pipelines::dispatch::flow_scan::{FlowFilter, FlowTask};
use jetway_pipelines::dispatch::flow_table::{FlowKey, Lifetime};
use jetway_pipelines::dispatch::service::Service;
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::ids::{PeerIndex, PortId, TunnelId};
use jetway_pipelines::packet::{Fragment, Parsed};
use jetway_pipelines::path::explain::{Basis, End, Explanation, Handshake, Role, Selection, explain};
use jetway_pipelines::path::packet::Origin;
use jetway_pipelines::tables::{Route, Twin};
use jetway_pipelines::wireguard::load::{AddressProof, Decision};
use jetway_pipelines::wireguard::message::MessageType;
use tokio::sync::oneshot;

use super::Node;
use super::flow_report::{Names, protocol};
use super::flows::{Found, Wanted};
use crate::api::{BackendExplanation, ExplainQuery, ExplainReport, Failure, HandshakeExplanation, ServiceExplanation};
use packet::{Asked, Content};

/// An explanation that waits for what workers remember.
pub(super) struct PendingExplanation {
    asked: Asked,
    origin: Origin,
    flow: Option<oneshot::Receiver<Found>>,
    bond: Option<oneshot::Receiver<Found>>,
    gates: Option<oneshot::Receiver<Found>>,
}

/// What workers remember of a packet's flow and client, and how loaded they are.
pub(super) struct Remembered {
    asked: Asked,
    origin: Origin,
    flow: Option<Found>,
    bond: Option<Found>,
    gates: Option<Found>,
}

impl PendingExplanation {
    /// Waits for the workers. A worker that is gone remembers nothing.
    pub(super) async fn wait(self) -> Remembered {
        let Self { asked, origin, flow, bond, gates } = self;
        let found = async |question: Option<oneshot::Receiver<Found>>| question?.await.ok();
        Remembered { asked, origin, flow: found(flow).await, bond: found(bond).await, gates: found(gates).await }
    }
}

impl Node {
    /// Asks the workers for what they remember of a packet.
    pub(super) fn begin_explanation(&mut self, query: &ExplainQuery) -> Result<PendingExplanation, Failure> {
        let asked = packet::read(&query.packet, |to| self.gateways_at(to))?;
        let origin = self.origin(&asked.parsed, query.from.as_deref())?;
        let explanation = self.explanation(&asked, origin);
        let (flow, bond, handshake) = match &explanation.role {
            Role::Client(Selection { flow, bond, handshake, .. }) => (*flow, *bond, *handshake),
            _ => (None, None, None),
        };
        let flow = flow.map(|key| self.find(key)).transpose()?;
        let bond = bond.map(|key| self.find(key)).transpose()?;
        let ask_gates = |Handshake { from, proof, .. }| self.flows.foresee(&mut self.engine.orders, from, proof);
        let gates = handshake.map(ask_gates).transpose()?;
        Ok(PendingExplanation { asked, origin, flow, bond, gates })
    }

    /// The public key of the WireGuard gateways that a service at `to` stands for.
    fn gateways_at(&self, to: SocketAddr) -> Option<PublicKey> {
        let at = |vip: &&Vip| SocketAddr::new(vip.address, vip.port) == to;
        self.config.vips.iter().filter(at).find_map(|vip| vip.public_key)
    }

    fn find(&mut self, key: FlowKey) -> Result<oneshot::Receiver<Found>, Failure> {
        self.ask_workers(Wanted { task: FlowTask::Find(key), filter: FlowFilter::default(), limit: usize::MAX })
    }

    fn explanation(&self, asked: &Asked, origin: Origin) -> Explanation<'_> {
        explain(&asked.bytes, &asked.parsed, origin, self.tables.tables(), &self.engine.index_layout)
    }

    /// Where a packet is taken to come from.
    fn origin(&self, parsed: &Parsed, from: Option<&str>) -> Result<Origin, Failure> {
        if let Some(name) = from {
            let port = self.config.ports.iter().position(|port| port.name.as_str() == name);
            let port = port.map(|number| Origin::Port(PortId(number as u16)));
            let tunnel = || self.intent.tunnel(name).map(|tunnel| Origin::Tunnel(tunnel.id()));
            return port.or_else(tunnel).ok_or_else(|| {
                let ports = self.config.ports.iter().map(|port| port.name.as_str());
                let known: Vec<_> = ports.chain(self.intent.tunnels().map(|(name, _)| name)).collect();
                Failure::new(format!("there is no port or tunnel {name}"), format!("there are: {}", known.join(", ")))
            });
        }
        match self.tables.tables().routes.lookup(parsed.source) {
            Some(Route::Port { port, .. }) => Ok(Origin::Port(*port)),
            Some(Route::Tunnel(tunnel)) => Ok(Origin::Tunnel(*tunnel)),
            Some(Route::Blackhole | Route::Unreachable | Route::Prohibit) | None => Err(Failure::new(
                format!(
                    "no route leads to {}, so it is not clear by which port or tunnel this would come",
                    parsed.source
                ),
                "say it with --from NAME",
            )),
        }
    }

    /// What would happen to a packet, with what workers remember of it.
    pub(super) fn explain_report(&self, remembered: &Remembered) -> ExplainReport {
        let Remembered { asked, origin, .. } = remembered;
        let explanation = self.explanation(asked, *origin);
        let peer = match origin {
            Origin::Tunnel(tunnel) => {
                let entry = self.tables.tables().tunnel(*tunnel);
                entry
                    .and_then(|entry| entry.allowed_ips.lookup(asked.parsed.source))
                    .map(|peer| self.peer_name(peer.index))
            }
            Origin::Port(_) | Origin::Node => None,
        };
        let (role, rule) = self.role(&explanation.role);
        let mut report = ExplainReport {
            packet: in_words(&asked.parsed),
            assumed: match asked.content {
                Content::AsWritten => None,
                Content::Initiation => Some("a WireGuard handshake initiation without a cookie".to_owned()),
            },
            inside: explanation.inside.as_ref().map(in_words),
            from: self.origin_name(*origin),
            peer,
            role: role.to_owned(),
            rule,
            service: None,
            goes: self.end(&explanation.end),
            dropped: explanation.end.as_ref().err().map(|reason| reason.name().to_owned()),
        };
        if let Role::Client(selection) = &explanation.role {
            let (service, kept) = self.selection(selection, remembered);
            report.service = Some(service);
            match kept {
                Kept::Server(server) => {
                    let to = self.tables.tables().routes.lookup(server.address);
                    report.goes = format!("to {}, {}", server.address, self.route(to));
                    report.dropped = None;
                }
                Kept::Reset => "to its client, as a reset".clone_into(&mut report.goes),
                Kept::No => {}
            }
            let handshake = report.service.as_ref().and_then(|service| service.handshake.clone());
            if let Some(handshake) = handshake.filter(|_| report.dropped.is_none()) {
                apply(&handshake, &mut report);
            }
        }
        report
    }

    fn selection<'a>(&'a self, selection: &Selection<'a>, remembered: &Remembered) -> (ServiceExplanation, Kept<'a>) {
        let names = Names::of(self);
        let service = selection.service;
        let vip = names.service(&service.socket).map_or_else(String::new, |service| service.vip.name.to_string());
        let shown = |server: &Backend| BackendExplanation {
            name: names.server(server.index).map_or_else(String::new, |(_, server)| server.config.name.to_string()),
            address: SocketAddr::new(server.address, server.port).to_string(),
            state: server.state().name().to_owned(),
        };
        let first = |found: &Option<Found>| found.as_ref().and_then(|found| found.flows.first().copied());
        let (flow, bond) = (first(&remembered.flow), first(&remembered.bond));
        let kept = flow.map_or(Kept::No, |(_, record)| keeps(service, &record.flow.decision, record.lifetime));
        let bound = bond.and_then(|(_, record)| {
            let position = service.position(record.flow.decision.server, record.flow.decision.position)?;
            service.server(position).filter(|server| server.state().takes_new_flows())
        });
        let (server, reason) = match (&kept, bound, &selection.server) {
            (Kept::Server(server), _, _) => (
                Some(*server),
                format!("its flow is there, and a server that is {} keeps its flows", server.state().name()),
            ),
            (Kept::Reset, _, _) => {
                (None, "its flow's server is not there any more, and on_down = \"reset\"".to_owned())
            }
            (Kept::No, Some(server), _) => (Some(server.as_ref()), "its client is bound to this server".to_owned()),
            (Kept::No, None, Ok(server)) => (Some(server.as_ref()), chosen(selection, server)),
            (Kept::No, None, Err(reason)) => (None, reason.meaning().to_owned()),
        };
        let explanation = ServiceExplanation {
            vip,
            basis: basis(selection.basis).to_owned(),
            slot: selection.slot,
            slots: service.table.size(),
            slot_backend: selection.owner.map(|server| shown(server)),
            backend: server.map(shown),
            reason,
            flow: flow.map(|(worker, record)| names.flow(worker, &record)),
            handshake: selection.handshake.map(|handshake| foreseen(&handshake, remembered)),
            bound_to: bond
                .and_then(|(_, record)| names.server(record.flow.decision.server))
                .map(|(_, s)| s.config.name.to_string()),
        };
        let kept = match (kept, bound) {
            (Kept::No, Some(server)) => Kept::Server(server),
            (kept, _) => kept,
        };
        (explanation, kept)
    }

    fn role(&self, role: &Role<'_>) -> (&'static str, String) {
        let names = Names::of(self);
        let vip =
            |service: &Service| names.service(&service.socket).map_or_else(String::new, |s| s.vip.name.to_string());
        match role {
            Role::Local => ("local", "its destination is an address of the node".to_owned()),
            Role::Encapsulated(kind) => (
                "encapsulated",
                format!("it is for the node, and [decapsulate] takes packets out of such, by {}", kind.name()),
            ),
            Role::Tunnel(tunnel) => ("tunnel", format!("tunnel {} listens on its port", self.tunnel_name(*tunnel))),
            Role::Client(selection) => ("service", format!("its destination is service {}", vip(selection.service))),
            Role::Answer(service, server) => {
                let name =
                    names.server(server.index).map_or_else(String::new, |(_, server)| server.config.name.to_string());
                (
                    "answer",
                    format!("it comes from server {name} of service {}, as whose packet it goes on", vip(service)),
                )
            }
            Role::Error(service) => ("error", format!("it is an error about a packet of service {}", vip(service))),
            Role::LaterFragment => ("fragment", "it is a later fragment, and goes where the first one went".to_owned()),
            Role::Foreign => ("foreign", "no peer of the tunnel has its source among its allowed IPs".to_owned()),
            Role::Forwarded => ("forwarded", "it concerns neither the node nor a service".to_owned()),
        }
    }

    fn end(&self, end: &Result<End<'_>, DropReason>) -> String {
        match end {
            Ok(End::Kernel(twin)) => format!("to the kernel, on {}", self.twin_name(*twin)),
            Ok(End::Port(port, next_hop)) => format!("out of port {}, to {next_hop}", self.port_name(*port)),
            Ok(End::Peer(peer)) => {
                format!("encrypted to {} of tunnel {}", self.peer_name(peer.index), self.tunnel_name(peer.tunnel))
            }
            Ok(End::Decryption(tunnel)) => format!("to be decrypted by tunnel {}", self.tunnel_name(*tunnel)),
            Ok(End::Remembered) => "where the worker remembers that it belongs".to_owned(),
            Err(reason) => format!("nowhere: {}", reason.meaning()),
        }
    }

    fn route(&self, route: Option<&Route>) -> String {
        match route {
            Some(Route::Port { port, gateway: Some(gateway), .. }) => {
                format!("out of port {} by {gateway}", self.port_name(*port))
            }
            Some(Route::Port { port, gateway: None, .. }) => format!("out of port {}", self.port_name(*port)),
            Some(Route::Tunnel(tunnel)) => format!("through tunnel {}", self.tunnel_name(*tunnel)),
            Some(Route::Blackhole | Route::Unreachable | Route::Prohibit) | None => {
                "to which no route leads".to_owned()
            }
        }
    }

    fn origin_name(&self, origin: Origin) -> String {
        match origin {
            Origin::Port(port) => format!("port {}", self.port_name(port)),
            Origin::Tunnel(tunnel) => format!("tunnel {}", self.tunnel_name(tunnel)),
            Origin::Node => "the node".to_owned(),
        }
    }

    fn twin_name(&self, twin: Twin) -> &str {
        match twin {
            Twin::Port(port) => self.config.ports.get(port.index()).map_or("?", |port| port.host_interface.as_str()),
            Twin::Tunnel(tunnel) => self.tunnel_name(tunnel),
        }
    }

    fn port_name(&self, port: PortId) -> &str {
        self.config.ports.get(port.index()).map_or("?", |port| port.name.as_str())
    }

    fn tunnel_name(&self, id: TunnelId) -> &str {
        self.intent.tunnels().find(|(_, tunnel)| tunnel.id() == id).map_or("?", |(name, _)| name)
    }

    fn peer_name(&self, index: PeerIndex) -> String {
        let mut peers = self.intent.tunnels().flat_map(|(_, tunnel)| tunnel.peers());
        let found = peers.find(|(_, peer)| peer.index == index);
        found.map_or_else(|| "?".to_owned(), |(key, peer)| peer.name.as_deref().map_or(key.to_string(), str::to_owned))
    }
}

/// What workers would do with a handshake message.
fn foreseen(handshake: &Handshake, remembered: &Remembered) -> HandshakeExplanation {
    let word = |decision| match (decision, handshake.kind) {
        (Decision::Pass, _) => "pass",
        (Decision::AskCookie, MessageType::Initiation | MessageType::Response) => "cookie",
        (Decision::AskCookie, MessageType::CookieReply | MessageType::Data) | (Decision::Drop, _) => "drop",
    };
    let decisions = remembered.gates.iter().flat_map(|found| &found.decisions);
    let mut workers: Vec<_> = decisions.map(|(worker, decision)| (*worker, word(*decision).to_owned())).collect();
    workers.sort();
    HandshakeExplanation {
        shows_cookie: handshake.proof == AddressProof::Cookie,
        workers: workers.into_iter().map(|(_, word)| word).collect(),
    }
}

/// Says that a handshake message goes no further, if all workers agree.
fn apply(handshake: &HandshakeExplanation, report: &mut ExplainReport) {
    let all_say = |word| !handshake.workers.is_empty() && handshake.workers.iter().all(|other| other == word);
    if all_say("cookie") {
        "back to its client, as a cookie".clone_into(&mut report.goes);
    }
    if all_say("drop") {
        let reason = DropReason::WireguardRateLimited;
        report.goes = format!("nowhere: {}", reason.meaning());
        report.dropped = Some(reason.name().to_owned());
    }
}

/// Whether a flow stays where it is.
enum Kept<'a> {
    /// At this server.
    Server(&'a Backend),
    /// It ends.
    Reset,
    /// It does not: it gets a server as a new one does.
    No,
}

/// What becomes of a flow that is remembered, if its next packet is no new beginning.
fn keeps<'a>(
    service: &'a Service,
    decision: &jetway_pipelines::dispatch::flow_table::Decision,
    lifetime: Lifetime,
) -> Kept<'a> {
    let is_tcp = matches!(lifetime, Lifetime::TcpOpening | Lifetime::TcpEstablished | Lifetime::TcpClosing);
    let position = service.position(decision.server, decision.position);
    match position.and_then(|position| service.server(position)) {
        Some(server) if server.state().keeps_flows() => Kept::Server(server),
        Some(_) if is_tcp && service.on_down == OnDown::Reset => Kept::Reset,
        Some(_) | None => Kept::No,
    }
}

fn chosen(selection: &Selection<'_>, server: &Backend) -> String {
    match (selection.basis, selection.owner) {
        (Basis::Receiver(node), _) => format!("its receiver index names node {node}"),
        (_, Some(owner)) if owner.index == server.index => "it is the slot's, and takes new flows".to_owned(),
        (_, Some(owner)) if server.state().takes_new_flows() => {
            format!("the slot's server is {}, and this is the next that takes new flows", owner.state().name())
        }
        (_, Some(_) | None) => "no server takes new flows, and all_down = \"serve\"".to_owned(),
    }
}

const fn basis(basis: Basis) -> &'static str {
    match basis {
        Basis::Flow => "flow",
        Basis::ClientAddress => "client_address",
        Basis::ClientPeer => "client_peer",
        Basis::Receiver(_) => "receiver",
    }
}

/// A packet as it can be asked about again.
fn in_words(parsed: &Parsed) -> String {
    let name = protocol(parsed.protocol);
    let ends = match parsed.ports {
        Some(ports) => {
            let (from, to) =
                (SocketAddr::new(parsed.source, ports.source), SocketAddr::new(parsed.destination, ports.destination));
            format!("{from} > {to}")
        }
        None => format!("{} > {}", parsed.source, parsed.destination),
    };
    let fragment = match parsed.fragment {
        Fragment::No => "",
        Fragment::First => ", a first fragment",
        Fragment::Later => ", a later fragment",
    };
    format!("{name} {ends}, {} bytes{fragment}", parsed.total_length)
}
