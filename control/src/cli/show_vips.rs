//! `jetway vips`.

use std::net::SocketAddr;
use std::process::ExitCode;

use super::args::{Global, VipsArguments};
use super::output::{self, Align};
use super::{CliError, connect, show_dry_run};
use crate::api::{BackendReport, Request, Response, VipReport, VipsQuery};

/// Prints the virtual services of the node.
pub fn vips(global: &Global, arguments: VipsArguments) -> Result<ExitCode, CliError> {
    if arguments.dry_run {
        return show_dry_run::dry_run(global, arguments.name.as_deref());
    }
    let query = VipsQuery { name: arguments.name };
    let Response::Vips { vips } = connect::ask(global, &Request::Vips(query))? else {
        return Err(connect::unexpected());
    };
    match vips.as_slice() {
        vips if global.json => output::json(&vips),
        [] => output::text_line("no virtual services"),
        vips => output::text_line(text(vips).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The services for people.
pub fn text(vips: &[VipReport]) -> String {
    vips.iter().map(|vip| format!("{}\n{}\n", heading(vip), servers(vip))).collect()
}

fn heading(vip: &VipReport) -> String {
    let address = SocketAddr::new(vip.address, vip.port);
    let probes = match (&vip.health, &vip.probe_latency) {
        (None, _) => "not probed".to_owned(),
        (Some(kind), None) => format!("probed by {kind}"),
        (Some(kind), Some(latency)) => {
            format!("probed by {kind}: median {}, 99 % {}", span(latency.median), span(latency.p99))
        }
    };
    let VipReport { name, protocol, forward, persistence, .. } = vip;
    format!("{name}  {address} {protocol}, by {forward}, one server for a {persistence}; {probes}")
}

fn servers(vip: &VipReport) -> String {
    let columns = [
        ("  server", Align::Left),
        ("address", Align::Left),
        ("weight", Align::Right),
        ("share", Align::Right),
        ("state", Align::Left),
        ("flows", Align::Right),
        ("moved", Align::Right),
        ("packets", Align::Right),
        ("bytes", Align::Right),
        ("back", Align::Right),
        ("", Align::Left),
    ];
    output::table(&columns, &vip.backends.iter().map(row).collect::<Vec<_>>())
}

fn row(backend: &BackendReport) -> Vec<String> {
    vec![
        format!("  {}", backend.name),
        SocketAddr::new(backend.address, backend.port).to_string(),
        backend.weight.to_string(),
        format!("{:.1} %", backend.share * 100.0),
        backend.state.clone(),
        output::grouped(backend.flows),
        output::grouped(backend.moved),
        output::grouped(backend.packets),
        output::bytes(backend.bytes),
        output::bytes(backend.returned_bytes),
        remark(backend),
    ]
}

/// What else is worth a look.
fn remark(backend: &BackendReport) -> String {
    let mut remarks = Vec::new();
    if let Some(seconds) = backend.drain_ends_seconds {
        remarks.push(format!("disabled in {}", output::span(seconds)));
    }
    if let Some(load) = backend.load {
        remarks.push(format!("load {:.0} %", load * 100.0));
    }
    if let Some(probes) = &backend.probes {
        if let Some(trouble) = &probes.trouble {
            remarks.push(trouble.clone());
        }
        if backend.state == "down" {
            remarks.push(format!("for {}", output::span(probes.unchanged_seconds)));
        }
    }
    remarks.extend(backend.path_mtu.map(|mtu| format!("path MTU {mtu}")));
    let lost = backend.lost.iter().filter(|(_, count)| **count > 0);
    remarks.extend(lost.map(|(reason, count)| format!("lost {} {reason}", output::grouped(*count))));
    remarks.join(", ")
}

/// A short time, with the unit that fits it.
fn span(seconds: f64) -> String {
    if seconds < 1e-3 { format!("{:.0} µs", seconds * 1e6) } else { format!("{:.1} ms", seconds * 1e3) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{LatencyReport, ProbeReport};

    #[test]
    fn a_service_shows_who_serves_and_why_another_does_not() {
        let up = BackendReport {
            name: "erp-1".to_owned(),
            address: "192.0.2.11".parse().unwrap(),
            port: 8443,
            weight: 3,
            share: 0.75,
            load: Some(0.4),
            state: "up".to_owned(),
            drain_ends_seconds: None,
            probes: Some(ProbeReport {
                count: 9,
                failures: 0,
                latency: Some(0.001),
                trouble: None,
                last_seconds: Some(2.0),
                unchanged_seconds: 70.0,
            }),
            flows: 1_234,
            moved: 0,
            packets: 99_000,
            bytes: 1_536,
            returned_packets: 0,
            returned_bytes: 0,
            path_mtu: None,
            lost: [("no_route".to_owned(), 0), ("too_big".to_owned(), 7)].into(),
        };
        let trouble = Some("connection refused".to_owned());
        let probes = Some(ProbeReport { trouble, failures: 3, ..up.probes.clone().unwrap() });
        let down = BackendReport { name: "erp-2".to_owned(), state: "down".to_owned(), probes, ..up.clone() };
        let draining = BackendReport { name: "erp-3".to_owned(), drain_ends_seconds: Some(65.0), ..up.clone() };
        let vip = VipReport {
            name: "erp".to_owned(),
            address: "2001:db8::10".parse().unwrap(),
            port: 443,
            protocol: "tcp".to_owned(),
            forward: "nat".to_owned(),
            persistence: "client".to_owned(),
            health: Some("http".to_owned()),
            probe_latency: Some(LatencyReport { count: 9, median: 0.000_25, p99: 0.0123, max: 1.0 }),
            backends: vec![up, down, draining],
        };
        let text = text(&[vip]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "erp  [2001:db8::10]:443 tcp, by nat, one server for a client; probed by http: median 250 µs, 99 % 12.3 ms"
        );
        for part in ["erp-1", "192.0.2.11:8443", "75.0 %", " up ", "1,234", "99,000", "1.50 KiB"] {
            assert!(lines[2].contains(part), "{part} in {text}");
        }
        assert!(lines[3].ends_with("load 40 %, connection refused, for 1m 10s, lost 7 too_big"), "{text}");
        assert!(lines[4].ends_with("disabled in 1m 5s, load 40 %, lost 7 too_big"), "{text}");
    }
}
