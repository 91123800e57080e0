//! What a node says about its virtual services.

use jetway_config::{Forward, HealthKind, Persistence, Protocol, Vip};
use jetway_pipelines::counters::Counter;
use jetway_pipelines::dispatch::backend::BackendTraffic;
use jetway_pipelines::dispatch::loss::Loss;
use tokio::sync::oneshot;

use super::Node;
use super::dispatch::DispatchTables;
use super::services::{Server, Service};
use crate::api::{BackendReport, Failure, LatencyReport, ProbeReport, VipReport, VipsQuery};
use crate::health::{Findings, Latencies, ServerFinding};
use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::time::Instant;

/// Reports that wait for what the health thread knows: whoever asked waits for it, not the node.
#[derive(Debug)]
pub(super) struct PendingReports {
    reports: Vec<(VipReport, Vec<BackendIndex>)>,
    findings: oneshot::Receiver<Findings>,
}

impl PendingReports {
    /// The reports.
    pub(super) async fn complete(self) -> Vec<VipReport> {
        // A health thread that is gone has said so in the log.
        let findings = self.findings.await.unwrap_or_default();
        let complete = |(mut report, indices): (VipReport, Vec<BackendIndex>)| {
            report.probe_latency = findings.latencies.get(report.name.as_str()).map(latency);
            for (backend, index) in report.backends.iter_mut().zip(indices) {
                backend.probes = findings.servers.get(&index).map(probes);
            }
            report
        };
        self.reports.into_iter().map(complete).collect()
    }
}

impl Node {
    /// The services that `query` asks for.
    pub(super) fn vip_reports(&self, query: &VipsQuery) -> Result<PendingReports, Failure> {
        let wanted = |service: &&Service| query.name.as_deref().is_none_or(|name| name == service.vip.name.as_str());
        let now = self.engine.clock.now();
        let reports: Vec<_> =
            self.services.iter().filter(wanted).map(|service| report(service, &self.dispatch, now)).collect();
        match (&query.name, reports.is_empty()) {
            (Some(name), true) => {
                Err(Failure::new(format!("there is no service {name}"), "`jetway vips` lists all of them"))
            }
            _ => Ok(PendingReports { reports, findings: self.health.findings() }),
        }
    }
}

fn report(service: &Service, tables: &DispatchTables, now: Instant) -> (VipReport, Vec<BackendIndex>) {
    let vip = &service.vip;
    let backends = service.servers.iter().map(|server| backend(service, server, tables, now)).collect();
    let report = VipReport {
        name: vip.name.to_string(),
        address: vip.address,
        port: vip.port,
        protocol: protocol(vip).to_owned(),
        forward: forward(vip).to_owned(),
        persistence: persistence(vip).to_owned(),
        health: vip.health.as_ref().map(|health| kind(&health.kind).to_owned()),
        probe_latency: None,
        backends,
    };
    (report, service.servers.iter().map(|server| server.backend.index).collect())
}

fn backend(service: &Service, server: &Server, tables: &DispatchTables, now: Instant) -> BackendReport {
    let sum = |counter: fn(&BackendTraffic) -> &Counter| {
        server.backend.all_traffic().iter().map(|traffic| counter(traffic).get()).sum()
    };
    BackendReport {
        name: server.config.name.to_string(),
        address: server.config.address,
        port: server.config.port,
        weight: server.config.weight,
        share: tables.share(&service.vip.name, server.backend.index),
        load: service.load(server, now),
        state: server.backend.state().name().to_owned(),
        drain_ends_seconds: server.deadline.map(|deadline| deadline.since(now).as_secs_f64()),
        probes: None,
        flows: sum(|traffic| &traffic.flows),
        moved: sum(|traffic| &traffic.moved),
        packets: sum(|traffic| &traffic.packets),
        bytes: sum(|traffic| &traffic.bytes),
        returned_packets: sum(|traffic| &traffic.returned_packets),
        returned_bytes: sum(|traffic| &traffic.returned_bytes),
        path_mtu: Some(server.backend.path_mtu()).filter(|mtu| *mtu < u16::MAX),
        lost: Loss::ALL.map(|loss| (loss.name().to_owned(), server.backend.lost(loss))).into(),
    }
}

fn probes(finding: &ServerFinding) -> ProbeReport {
    let record = &finding.record;
    ProbeReport {
        count: record.probes,
        failures: record.failures,
        latency: record.latency.map(|latency| latency.as_secs_f64()),
        last_seconds: finding.last.map(|ago| ago.as_secs_f64()),
        trouble: record.trouble.as_ref().map(ToString::to_string),
        unchanged_seconds: finding.unchanged_for.as_secs_f64(),
    }
}

fn latency(latencies: &Latencies) -> LatencyReport {
    LatencyReport {
        count: latencies.count(),
        median: latencies.quantile(0.5).as_secs_f64(),
        p99: latencies.quantile(0.99).as_secs_f64(),
        max: latencies.longest().as_secs_f64(),
    }
}

fn protocol(vip: &Vip) -> &'static str {
    match vip.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::WireGuard => "wireguard",
    }
}

fn forward(vip: &Vip) -> &'static str {
    match vip.forward {
        Forward::Nat => "nat",
        Forward::L2 => "l2",
        Forward::Ipip => "ipip",
        Forward::Gre => "gre",
        Forward::Gue => "gue",
    }
}

fn persistence(vip: &Vip) -> &'static str {
    match vip.persistence {
        Persistence::Flow => "flow",
        Persistence::Client => "client",
    }
}

fn kind(kind: &HealthKind) -> &'static str {
    match kind {
        HealthKind::Icmp => "icmp",
        HealthKind::Tcp => "tcp",
        HealthKind::Udp => "udp",
        HealthKind::Http { path: _ } => "http",
        HealthKind::Https { path: _ } => "https",
        HealthKind::WireGuard { private_key: _ } => "wireguard",
    }
}
