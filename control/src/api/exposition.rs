//! A node's statistics in Prometheus' text format (version 0.0.4).

use std::fmt::{Display, Write as _};

use super::report::{Count, CountKind, PortLoadReport, PortLossReport, StatsReport};
use super::vip_report::BackendReport;

/// The whole exposition. Peers are summed by tunnel: a hundred thousand of them are no labels.
pub fn exposition(stats: &StatsReport) -> String {
    let mut text = Exposition::default();
    text.family("jetway_info", "What runs here", CountKind::Gauge);
    let labels = [("node", &stats.node), ("version", &stats.version), ("aead", &stats.aead_backend)];
    text.sample("jetway_info", &labels.map(|(name, value)| (name, value.as_str())), 1);
    text.family("jetway_uptime_seconds", "Seconds since the node carries traffic", CountKind::Gauge);
    text.sample("jetway_uptime_seconds", &[], stats.uptime_seconds);
    workers(&mut text, stats);
    ports(&mut text, stats);
    tunnels(&mut text, stats);
    backends(&mut text, stats);
    load(&mut text, stats);
    for count in &stats.counters {
        let name = full_name("jetway_", count);
        text.family(&name, &count.meaning, count.kind);
        text.sample(&name, &[], count.value);
    }
    text.0
}

fn workers(text: &mut Exposition, stats: &StatsReport) {
    let Some(first) = stats.workers.first() else { return };
    for count in &first.counters {
        let full = full_name("jetway_worker_", count);
        text.family(&full, &count.meaning, count.kind);
        for worker in &stats.workers {
            text.sample(&full, &[("worker", &worker.worker.to_string())], worker.counter(&count.name));
        }
    }
    let name = "jetway_worker_dropped_total";
    text.family(name, "Packets dropped, by reason", CountKind::Counter);
    for worker in &stats.workers {
        let number = worker.worker.to_string();
        for drop in &worker.drops {
            text.sample(name, &[("worker", &number), ("reason", &drop.name)], drop.value);
        }
    }
}

fn ports(text: &mut Exposition, stats: &StatsReport) {
    text.family("jetway_port_up", "1 when the port's link is up", CountKind::Gauge);
    for port in &stats.ports {
        let labels = [("port", port.name.as_str()), ("driver", &port.driver)];
        text.sample("jetway_port_up", &labels, u8::from(port.link == "up"));
    }
    let Some(first) = stats.ports.first() else { return };
    for count in &first.counters {
        let full = full_name("jetway_port_", count);
        text.family(&full, &count.meaning, count.kind);
        for port in &stats.ports {
            text.sample(&full, &[("port", &port.name)], port.counter(&count.name));
        }
    }
    type Lost = fn(&PortLossReport) -> u64;
    let families: [(&str, &str, Lost); 2] = [
        ("jetway_port_transmit_queue_full_total", "Packets that found the port's transmit queue full", |loss| {
            loss.transmit_queue_full
        }),
        (
            "jetway_port_handoff_queue_full_total",
            "Packets that found no room on their way to the worker that has a queue of the port",
            |loss| loss.handoff_queue_full,
        ),
    ];
    for (name, help, value) in families {
        text.family(name, help, CountKind::Counter);
        for port in &stats.ports {
            for loss in &port.losses {
                text.sample(name, &[("port", &port.name), ("worker", &loss.worker.to_string())], value(loss));
            }
        }
    }
}

fn tunnels(text: &mut Exposition, stats: &StatsReport) {
    let families = [
        ("jetway_tunnel_peers", "Peers that may connect", CountKind::Gauge),
        ("jetway_tunnel_peers_connected", "Peers whose last handshake is less than 180 seconds old", CountKind::Gauge),
        ("jetway_tunnel_received_bytes_total", "Bytes of data messages received", CountKind::Counter),
        ("jetway_tunnel_sent_bytes_total", "Bytes of data messages sent", CountKind::Counter),
    ];
    for (place, (name, help, kind)) in families.into_iter().enumerate() {
        text.family(name, help, kind);
        for tunnel in &stats.tunnels {
            let values = [tunnel.peers, tunnel.peers_connected, tunnel.received_bytes, tunnel.sent_bytes];
            text.sample(name, &[("tunnel", &tunnel.name)], values[place]);
        }
    }
}

fn backends(text: &mut Exposition, stats: &StatsReport) {
    type Value = fn(&BackendReport) -> f64;
    type Optional = fn(&BackendReport) -> Option<f64>;
    let families: [(&str, &str, CountKind, Value); 12] = [
        ("up", "1 when the server gets new flows", CountKind::Gauge, |backend| {
            f64::from(u8::from(matches!(backend.state.as_str(), "up" | "suspect")))
        }),
        ("weight", "The server's weight", CountKind::Gauge, |backend| f64::from(backend.weight)),
        ("slots_ratio", "Share of the table's slots that lead to the server", CountKind::Gauge, |backend| {
            backend.share
        }),
        ("flows_total", "Flows that were given to the server", CountKind::Counter, |backend| backend.flows as f64),
        ("moved_total", "Flows that were taken from the server", CountKind::Counter, |backend| backend.moved as f64),
        ("packets_total", "Packets sent on to the server", CountKind::Counter, |backend| backend.packets as f64),
        ("bytes_total", "Bytes sent on to the server", CountKind::Counter, |backend| backend.bytes as f64),
        ("returned_packets_total", "Packets back from the server", CountKind::Counter, |backend| {
            backend.returned_packets as f64
        }),
        ("returned_bytes_total", "Bytes back from the server", CountKind::Counter, |backend| {
            backend.returned_bytes as f64
        }),
        ("probes_total", "Probes of the server", CountKind::Counter, |backend| {
            backend.probes.as_ref().map_or(0.0, |probes| probes.count as f64)
        }),
        ("probe_failures_total", "Probes of the server that failed", CountKind::Counter, |backend| {
            backend.probes.as_ref().map_or(0.0, |probes| probes.failures as f64)
        }),
        ("probe_latency_seconds", "Time of the last answered probe; 0 before it", CountKind::Gauge, |backend| {
            backend.probes.as_ref().and_then(|probes| probes.latency).unwrap_or(0.0)
        }),
    ];
    for (name, help, kind, value) in families {
        let name = format!("jetway_backend_{name}");
        text.family(&name, help, kind);
        for vip in &stats.vips {
            for backend in &vip.backends {
                text.sample(&name, &[("vip", &vip.name), ("backend", &backend.name)], value(backend));
            }
        }
    }
    let optional: [(&str, &str, Optional); 2] = [
        ("load_ratio", "How busy the server says it is", |backend| backend.load),
        ("last_check_seconds", "Time since the server's last probe ended", |backend| {
            backend.probes.as_ref().and_then(|probes| probes.last_seconds)
        }),
    ];
    for (name, help, value) in optional {
        let name = format!("jetway_backend_{name}");
        text.family(&name, help, CountKind::Gauge);
        for vip in &stats.vips {
            for (backend, value) in vip.backends.iter().filter_map(|backend| Some((backend, value(backend)?))) {
                text.sample(&name, &[("vip", &vip.name), ("backend", &backend.name)], value);
            }
        }
    }
    let name = "jetway_backend_state";
    text.family(name, "1 at the state that the server is in", CountKind::Gauge);
    for vip in &stats.vips {
        for backend in &vip.backends {
            let labels = [("vip", vip.name.as_str()), ("backend", &backend.name), ("state", &backend.state)];
            text.sample(name, &labels, 1);
        }
    }
    let name = "jetway_backend_lost_packets_total";
    text.family(name, "Packets that did not get on their way to the server", CountKind::Counter);
    for vip in &stats.vips {
        for backend in &vip.backends {
            for (reason, count) in &backend.lost {
                text.sample(name, &[("vip", &vip.name), ("backend", &backend.name), ("reason", reason)], *count);
            }
        }
    }
    let name = "jetway_vip_probe_latency_seconds";
    text.family(name, "Time of answered probes", CountKind::Gauge);
    for (vip, latency) in stats.vips.iter().filter_map(|vip| Some((vip, vip.probe_latency?))) {
        for (quantile, value) in [("0.5", latency.median), ("0.99", latency.p99), ("1", latency.max)] {
            text.sample(name, &[("vip", &vip.name), ("quantile", quantile)], value);
        }
    }
}

fn load(text: &mut Exposition, stats: &StatsReport) {
    let Some(load) = &stats.load else { return };
    let name = "jetway_worker_busy_ratio";
    text.family(name, "Share of the worker's turns with something to do, lately", CountKind::Gauge);
    for (worker, busy) in stats.workers.iter().zip(&load.workers_busy) {
        text.sample(name, &[("worker", &worker.worker.to_string())], busy);
    }
    type Share = fn(&PortLoadReport) -> f64;
    let families: [(&str, &str, Share); 2] = [
        (
            "jetway_port_receive_loss_ratio",
            "Share of packets that came to the port and got no further, lately",
            |port| port.receive_loss,
        ),
        ("jetway_port_transmit_loss_ratio", "Share of packets that did not leave by the port, lately", |port| {
            port.transmit_loss
        }),
    ];
    for (name, help, value) in families {
        text.family(name, help, CountKind::Gauge);
        for port in &load.ports {
            text.sample(name, &[("port", &port.name)], value(port));
        }
    }
    let families = [
        ("jetway_system_busy_ratio", "Share of the machine's processor time that is used, lately", load.system_busy),
        ("jetway_memory_total_bytes", "The machine's memory", load.memory_total as f64),
        ("jetway_memory_available_bytes", "Memory that programs could still get", load.memory_available as f64),
        ("jetway_process_memory_bytes", "Ordinary memory that the node has", load.process_memory as f64),
    ];
    for (name, help, value) in families {
        text.family(name, help, CountKind::Gauge);
        text.sample(name, &[], value);
    }
}

/// As Prometheus names things: what only grows ends in `_total`.
fn full_name(prefix: &str, count: &Count) -> String {
    match count.kind {
        CountKind::Counter => format!("{prefix}{}_total", count.name),
        CountKind::Gauge => format!("{prefix}{}", count.name),
    }
}

#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, help: &str, kind: CountKind) {
        let kind = match kind {
            CountKind::Counter => "counter",
            CountKind::Gauge => "gauge",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (place, (label, content)) in labels.iter().enumerate() {
            let content = content.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let before = if place == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{content}\"");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{after} {value}");
    }
}

#[cfg(test)]
mod tests;
