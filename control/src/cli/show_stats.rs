//! `jetway stats`.

use std::process::ExitCode;

use super::args::Global;
use super::output::{self, Align, grouped};
use super::{CliError, connect};
use crate::api::{Count, CountKind, LoadReport, PortLoadReport, Request, Response, StatsReport};

/// Prints what the node counts.
pub fn stats(global: &Global) -> Result<ExitCode, CliError> {
    let Response::Stats(stats) = connect::ask(global, &Request::Stats)? else { return Err(connect::unexpected()) };
    if global.json {
        output::json(&stats);
    } else {
        output::text_line(text(&stats).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// The statistics for people.
pub fn text(stats: &StatsReport) -> String {
    let mut sections = vec![format!(
        "node {}  jetway {}  up {}  ChaCha20-Poly1305 by {}\n",
        stats.node,
        stats.version,
        output::span(stats.uptime_seconds),
        stats.aead_backend
    )];
    sections.extend(stats.load.as_ref().map(load));
    sections.push(workers(stats));
    sections.push(ports(stats));
    sections.push(tunnels(stats));
    sections.push(drops(stats));
    let happened = |count: &&Count| count.kind == CountKind::Gauge || count.value != 0;
    let node: Vec<_> = stats.counters.iter().filter(happened).cloned().collect();
    sections.push(counts("what happened in the node", &node));
    sections.push(conservation(stats));
    sections.retain(|section| !section.is_empty());
    sections.join("\n")
}

fn load(load: &LoadReport) -> String {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let workers: Vec<String> = load.workers_busy.iter().map(|share| percent(*share)).collect();
    let share = |share: f64| format!("{:.2} %", share * 100.0);
    let loses = |port: &&PortLoadReport| port.receive_loss > 0.0 || port.transmit_loss > 0.0;
    let losses = load.ports.iter().filter(loses).map(|port| {
        let (name, receive, transmit) = (&port.name, share(port.receive_loss), share(port.transmit_loss));
        format!("lost lately: {receive} of what came to {name}, {transmit} of what should have left by it\n")
    });
    let losses: String = losses.collect();
    format!(
        "busy: workers {} of their turns, machine {}; memory: {} in the process, {} of {} available\n{losses}",
        workers.join(", "),
        percent(load.system_busy),
        output::bytes(load.process_memory),
        output::bytes(load.memory_available),
        output::bytes(load.memory_total),
    )
}

fn workers(stats: &StatsReport) -> String {
    let Some(first) = stats.workers.first() else { return String::new() };
    let heads: Vec<String> = stats.workers.iter().map(|w| format!("worker {} (CPU {})", w.worker, w.core)).collect();
    let mut columns = vec![("packets", Align::Left)];
    columns.extend(heads.iter().map(|head| (head.as_str(), Align::Right)));
    columns.push(("", Align::Left));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for Count { name, meaning, .. } in &first.counters {
        let mut row = vec![name.clone()];
        row.extend(stats.workers.iter().map(|worker| grouped(worker.counter(name))));
        row.push(meaning.clone());
        rows.push(row);
    }
    let mut row = vec!["dropped".to_owned()];
    row.extend(stats.workers.iter().map(|worker| grouped(worker.dropped())));
    row.push("Packets dropped; by reason below".to_owned());
    rows.push(row);
    output::table(&columns, &rows)
}

fn ports(stats: &StatsReport) -> String {
    if stats.ports.is_empty() {
        return String::new();
    }
    let columns = [
        ("port", Align::Left),
        ("link", Align::Left),
        ("driver", Align::Left),
        ("queues", Align::Right),
        ("twin", Align::Left),
        ("rx packets", Align::Right),
        ("rx bytes", Align::Right),
        ("tx packets", Align::Right),
        ("tx bytes", Align::Right),
        ("missed", Align::Right),
        ("errors", Align::Right),
        ("tx queue full", Align::Right),
    ];
    let row = |port: &crate::api::PortReport| {
        let number = |name| grouped(port.counter(name));
        let errors = port.counter("receive_errors") + port.counter("transmit_errors") + port.counter("no_buffer");
        vec![
            port.name.clone(),
            port.link.clone(),
            port.driver.clone(),
            port.queues.to_string(),
            port.host_interface.clone(),
            number("received_packets"),
            output::bytes(port.counter("received_bytes")),
            number("transmitted_packets"),
            output::bytes(port.counter("transmitted_bytes")),
            number("missed_packets"),
            grouped(errors),
            grouped(port.lost()),
        ]
    };
    output::table(&columns, &stats.ports.iter().map(row).collect::<Vec<_>>())
}

fn tunnels(stats: &StatsReport) -> String {
    if stats.tunnels.is_empty() {
        return String::new();
    }
    let columns = [
        ("tunnel", Align::Left),
        ("UDP port", Align::Right),
        ("peers", Align::Right),
        ("connected", Align::Right),
        ("received", Align::Right),
        ("sent", Align::Right),
        ("public key", Align::Left),
    ];
    let row = |tunnel: &crate::api::TunnelReport| {
        vec![
            tunnel.name.clone(),
            tunnel.listen_port.to_string(),
            grouped(tunnel.peers),
            grouped(tunnel.peers_connected),
            output::bytes(tunnel.received_bytes),
            output::bytes(tunnel.sent_bytes),
            tunnel.public_key.clone(),
        ]
    };
    output::table(&columns, &stats.tunnels.iter().map(row).collect::<Vec<_>>())
}

fn drops(stats: &StatsReport) -> String {
    match stats.drops() {
        drops if drops.is_empty() => "no packet was dropped\n".to_owned(),
        drops => counts("dropped because of", &drops),
    }
}

fn counts(title: &str, counts: &[Count]) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let row = |count: &Count| vec![count.name.clone(), grouped(count.value), count.meaning.clone()];
    let columns = [(title, Align::Left), ("count", Align::Right), ("", Align::Left)];
    output::table(&columns, &counts.iter().map(row).collect::<Vec<_>>())
}

fn conservation(stats: &StatsReport) -> String {
    let sum = |name| stats.sum(name);
    let came = sum("received") + sum("created") + sum("taken_over");
    let dropped: u64 = stats.workers.iter().map(|worker| worker.dropped()).sum();
    let unaccounted = match stats.unaccounted() {
        0 => "every packet is accounted for".to_owned(),
        count => format!("{count} under way while this was read"),
    };
    format!(
        "{} came = {} sent + {} punted + {} handed off + {} held + {} dropped: {unaccounted}\n",
        grouped(came),
        grouped(sum("sent")),
        grouped(sum("punted")),
        grouped(sum("handed_off")),
        grouped(sum("held")),
        grouped(dropped),
    )
}

#[cfg(test)]
mod tests {
    use jetway_pipelines::counters::WorkerCounters;
    use jetway_pipelines::drop_reason::DropReason;

    use super::*;
    use crate::api::{PortLossReport, PortReport, WorkerReport};

    #[test]
    fn the_text_names_every_drop_with_its_meaning_and_sums_up() {
        let counters = WorkerCounters::default();
        counters.received.add(1_200);
        counters.sent.add(1_000);
        counters.drop_packets(DropReason::NoRoute, 200);
        let stats = StatsReport {
            node: "edge-1".to_owned(),
            aead_backend: "aws-lc".to_owned(),
            workers: vec![WorkerReport::read(0, 1, &counters)],
            ..StatsReport::default()
        };
        let text = text(&stats);
        assert!(text.contains("no_route"), "{text}");
        assert!(text.contains(DropReason::NoRoute.meaning()), "{text}");
        assert!(text.contains("ChaCha20-Poly1305 by aws-lc"), "{text}");
        let line =
            "1,200 came = 1,000 sent + 0 punted + 0 handed off + 0 held + 200 dropped: every packet is accounted for";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("lost lately"), "{text}");
        counters.received.add(1);
        let stats = StatsReport { workers: vec![WorkerReport::read(0, 1, &counters)], ..stats };
        assert!(super::text(&stats).contains("1 under way"));
    }

    #[test]
    fn the_text_says_what_each_port_lost_and_that_it_loses_now() {
        let loss = |worker| PortLossReport { worker, transmit_queue_full: 1_500, handoff_queue_full: 7 };
        let port = |name: &str, losses| PortReport {
            name: name.to_owned(),
            driver: "net_tap".to_owned(),
            mac: String::new(),
            queues: 1,
            link: "up".to_owned(),
            host_interface: format!("jw-{name}"),
            counters: vec![],
            losses,
        };
        let load =
            |name: &str, transmit_loss| PortLoadReport { name: name.to_owned(), receive_loss: 0.0, transmit_loss };
        let stats = StatsReport {
            ports: vec![port("wan", vec![loss(0), loss(1)]), port("lan", vec![])],
            load: Some(LoadReport { ports: vec![load("wan", 0.125), load("lan", 0.0)], ..LoadReport::default() }),
            ..StatsReport::default()
        };
        let text = text(&stats);
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).map(|line| line.trim_end().to_owned());
        assert!(row("wan").unwrap().ends_with(" 3,014"), "{text}");
        assert!(row("lan").unwrap().ends_with(" 0"), "{text}");
        let lost: Vec<_> = text.lines().filter(|line| line.starts_with("lost lately")).collect();
        assert_eq!(lost, ["lost lately: 0.00 % of what came to wan, 12.50 % of what should have left by it"]);
    }
}
