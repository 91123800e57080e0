//! What a node says about itself, gathered from where it is counted.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jetway_config::{Diff, PublicKey};
use jetway_engine::port::Port;
use jetway_pipelines::wireguard::Peer;

use super::Node;
use crate::api::{
    Count, Failure, PeerReport, PeersQuery, PortLossReport, PortReport, Reloaded, StatsReport, TunnelReport,
    WorkerReport,
};
use crate::intent::{PeerIntent, TunnelIntent};
use crate::kernel::Twin;
use crate::uapi::{PeerStatus, TunnelStatus, UapiError};
use jetway_pipelines::ids::PortId;
use jetway_pipelines::wireguard::constants::REJECT_AFTER_TIME;

impl Node {
    /// Everything that is counted, but for the services: see [`Node::vip_reports`].
    pub(super) fn stats(&self) -> StatsReport {
        let cores = &self.config.engine.cores;
        let workers = self.engine.counters.iter().zip(cores).enumerate();
        StatsReport {
            node: self.config.node.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.engine.uptime().as_secs_f64(),
            aead_backend: self.engine.aead.backend().to_string(),
            workers: workers
                .map(|(number, (counters, core))| WorkerReport::read(number as u16, *core, counters))
                .collect(),
            ports: self.port_reports(),
            tunnels: self.intent.tunnels().map(|(name, tunnel)| self.tunnel_report(name, tunnel)).collect(),
            vips: Vec::new(),
            load: self.load.report(),
            counters: self.other_counts(),
        }
    }

    /// Looks at how busy the node is.
    pub(super) fn look_at_load(&mut self) {
        let ports = self.port_reports();
        self.load.look(self.engine.counters.iter().map(AsRef::as_ref), &ports);
    }

    fn port_reports(&self) -> Vec<PortReport> {
        let ports = self.config.ports.iter().zip(&self.engine.ports).zip(&self.engine.port_losses);
        ports
            .map(|((port, open), losses)| {
                let link = if open.link_up() { "up" } else { "down" };
                let (name, twin) = (port.name.as_str(), port.host_interface.as_str());
                let losses = (0..).zip(losses).map(|(worker, losses)| PortLossReport::read(worker, losses));
                PortReport {
                    losses: losses.collect(),
                    ..PortReport::new(name, twin, &open.info(), link, open.statistics())
                }
            })
            .collect()
    }

    fn tunnel_report(&self, name: &str, tunnel: &TunnelIntent) -> TunnelReport {
        let mut report = TunnelReport {
            name: name.to_owned(),
            listen_port: tunnel.listen_port(),
            public_key: tunnel.public_key().to_string(),
            peers: 0,
            peers_connected: 0,
            received_bytes: 0,
            sent_bytes: 0,
        };
        for peer in tunnel.peers().filter_map(|(_, peer)| self.peers.get(peer.index)) {
            report.peers += 1;
            report.peers_connected += u64::from(self.handshake_age(peer).is_some_and(|age| age < REJECT_AFTER_TIME));
            report.received_bytes += peer.traffic.received_bytes.load(Ordering::Relaxed);
            report.sent_bytes += peer.traffic.sent_bytes.load(Ordering::Relaxed);
        }
        report
    }

    /// What is counted beside the workers.
    fn other_counts(&self) -> Vec<Count> {
        let prefixed = |prefix: &'static str, named: Vec<(&'static str, &'static str, u64)>| {
            named.into_iter().map(move |(name, meaning, value)| Count::new(format!("{prefix}_{name}"), meaning, value))
        };
        let mut counts: Vec<_> = prefixed("handshake", self.engine.handshake_counters.named()).collect();
        counts.extend(prefixed("host", self.engine.host.counters().named()));
        let tables = self.tables.tables();
        counts.push(Count::new("tables_epoch", "Snapshots of the tables published", tables.epoch));
        counts.push(Count::gauge("routes", "Routes that workers follow", tables.routes.len() as u64));
        counts.push(Count::gauge("neighbours", "Next hops with a known address", tables.neighbours.len() as u64));
        counts
    }

    /// The peers that `query` asks for.
    pub(super) fn peer_reports(&self, query: &PeersQuery) -> Result<Vec<PeerReport>, Failure> {
        let wants_tunnel = |name: &str| query.tunnel.as_deref().is_none_or(|wanted| wanted == name);
        let mut reports: Vec<PeerReport> = Vec::new();
        for (name, tunnel) in self.intent.tunnels().filter(|(name, _)| wants_tunnel(name)) {
            for (key, intent) in tunnel.peers() {
                let text = key.to_string();
                let wanted = query.name.as_deref();
                if wanted.is_some_and(|wanted| wanted != text && intent.name.as_deref() != Some(wanted)) {
                    continue;
                }
                reports.extend(self.peer_report(name, text, intent));
            }
        }
        if reports.is_empty() && (query.name.is_some() || query.tunnel.is_some()) {
            return Err(Failure::new("no such tunnel or peer", "`jetway peers` lists all of them"));
        }
        Ok(reports)
    }

    fn peer_report(&self, tunnel: &str, public_key: String, intent: &PeerIntent) -> Option<PeerReport> {
        let peer = self.peers.get(intent.index)?;
        Some(PeerReport {
            tunnel: tunnel.to_owned(),
            name: intent.name.as_deref().map(str::to_owned),
            public_key,
            endpoint: endpoint(peer),
            handshake_age_seconds: self.handshake_age(peer).map(|age| age.as_secs_f64()),
            received_bytes: peer.traffic.received_bytes.load(Ordering::Relaxed),
            sent_bytes: peer.traffic.sent_bytes.load(Ordering::Relaxed),
            persistent_keepalive: peer.persistent_keepalive.load(Ordering::Relaxed),
            allowed_ips: intent.spec.allowed_ips.clone(),
        })
    }

    /// What `wg show` asks for.
    pub(super) fn tunnel_status(&self, name: &str) -> Result<TunnelStatus, UapiError> {
        let tunnel = self.intent.tunnel(name).ok_or_else(|| UapiError::no_such_tunnel(name))?;
        Ok(TunnelStatus {
            private_key: tunnel.private_key().clone(),
            listen_port: tunnel.listen_port(),
            fwmark: tunnel.fwmark(),
            peers: tunnel.peers().filter_map(|(key, intent)| self.peer_status(*key, intent)).collect(),
        })
    }

    fn peer_status(&self, public_key: PublicKey, intent: &PeerIntent) -> Option<PeerStatus> {
        let peer = self.peers.get(intent.index)?;
        Some(PeerStatus {
            public_key,
            preshared_key: intent.spec.preshared_key.clone(),
            endpoint: endpoint(peer),
            last_handshake: last_handshake(peer),
            received_bytes: peer.traffic.received_bytes.load(Ordering::Relaxed),
            sent_bytes: peer.traffic.sent_bytes.load(Ordering::Relaxed),
            persistent_keepalive: peer.persistent_keepalive.load(Ordering::Relaxed),
            allowed_ips: intent.spec.allowed_ips.clone(),
        })
    }

    fn handshake_age(&self, peer: &Peer) -> Option<Duration> {
        last_handshake(peer).map(|at| self.engine.clock.wall().saturating_sub(at))
    }

    /// What the node still waits for before it carries traffic.
    pub(super) fn waits_for(&self) -> Option<String> {
        let tables = self.tables.tables();
        let missing = self.config.ports.iter().enumerate().find(|(number, port)| {
            let has_link = self.kernel.link(Twin::Port(PortId(*number as u16))).is_some();
            let has_addresses = port.addresses.iter().all(|net| tables.is_local(net.addr()));
            !has_link || !has_addresses
        });
        missing.map(|(_, port)| format!("the kernel to take up the addresses of {}", port.host_interface))
    }
}

fn endpoint(peer: &Peer) -> Option<SocketAddr> {
    peer.endpoint.load().map(|endpoint| endpoint.remote)
}

fn last_handshake(peer: &Peer) -> Option<Duration> {
    match peer.traffic.last_handshake.load(Ordering::Relaxed) {
        0 => None,
        nanos => Some(Duration::from_nanos(nanos)),
    }
}

/// A reload's report.
pub(super) fn of_difference(difference: &Diff) -> Reloaded {
    let mut report = Reloaded::default();
    for tunnel in &difference.tunnels.changed {
        report.peers_added += tunnel.peers.added.len();
        report.peers_removed += tunnel.peers.removed.len();
        report.peers_changed += tunnel.peers.changed.len();
    }
    for tunnel in &difference.tunnels.added {
        report.peers_added += tunnel.peers.len();
        report.other.push(format!("tunnel {} added", tunnel.name));
    }
    report.other.extend(difference.tunnels.removed.iter().map(|name| format!("tunnel {name} removed")));
    report.other.extend(difference.vips.added.iter().map(|vip| format!("service {} added", vip.name)));
    report.other.extend(difference.vips.removed.iter().map(|name| format!("service {name} removed")));
    report.other.extend(difference.vips.changed.iter().map(|vip| format!("service {} changed", vip.name)));
    report.other.extend(difference.ports.iter().map(|port| format!("addresses of port {} changed", port.name)));
    report.other.extend(difference.decapsulate.iter().map(|_| "decapsulation changed".to_owned()));
    report.needs_restart = difference.restart.iter().map(|needed| format!("{}: {}", needed.path, needed.why)).collect();
    report
}
