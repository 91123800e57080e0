//! A node's statistics in Prometheus' text format (version 0.0.4).

use std::fmt::{Display, Write as _};

use super::report::{Count, CountKind, StatsReport};

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
mod tests {
    use jetway_pipelines::counters::WorkerCounters;
    use jetway_pipelines::drop_reason::DropReason;

    use super::super::report::{TunnelReport, WorkerReport};
    use super::*;

    #[test]
    fn every_sample_stands_below_its_family_and_no_family_comes_twice() {
        let counters = WorkerCounters::default();
        counters.received.add(7);
        counters.drop_packets(DropReason::NoRoute, 3);
        let stats = StatsReport {
            node: "a\"b\\c\nd".to_owned(),
            workers: vec![WorkerReport::read(0, 1, &counters), WorkerReport::read(1, 2, &counters)],
            tunnels: vec![TunnelReport {
                name: "jw0".to_owned(),
                listen_port: 51820,
                public_key: String::new(),
                peers: 5,
                peers_connected: 2,
                received_bytes: 1,
                sent_bytes: 9,
            }],
            counters: vec![
                Count::new("handshakes_completed", "Handshakes completed", 4),
                Count::gauge("routes", "Routes", 5),
            ],
            ..StatsReport::default()
        };
        let text = exposition(&stats);
        let mut seen = std::collections::HashSet::new();
        let mut family = "";
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap();
                assert!(seen.insert(family), "{family} twice");
            } else if !line.starts_with('#') {
                assert_eq!(line.split(['{', ' ']).next().unwrap(), family, "{line}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
        for line in [
            "jetway_info{node=\"a\\\"b\\\\c\\nd\",version=\"\",aead=\"\"} 1",
            "jetway_worker_received_total{worker=\"1\"} 7",
            "jetway_worker_dropped_total{worker=\"0\",reason=\"no_route\"} 3",
            "# TYPE jetway_worker_held gauge",
            "jetway_tunnel_peers{tunnel=\"jw0\"} 5",
            "jetway_tunnel_sent_bytes_total{tunnel=\"jw0\"} 9",
            "jetway_handshakes_completed_total 4",
            "# TYPE jetway_routes gauge",
            "jetway_routes 5",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in:\n{text}");
        }
    }
}
