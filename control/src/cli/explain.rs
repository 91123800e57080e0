//! `jetway explain`.

use std::process::ExitCode;

use super::args::{ExplainArguments, Global};
use super::{CliError, connect, output};
use crate::api::{
    BackendExplanation, ExplainQuery, ExplainReport, HandshakeExplanation, Request, Response, ServiceExplanation,
};

/// Says what would happen to a packet.
pub fn explain(global: &Global, arguments: ExplainArguments) -> Result<ExitCode, CliError> {
    let query = ExplainQuery { packet: arguments.packet.join(" "), from: arguments.from };
    let Response::Explained(report) = connect::ask(global, &Request::Explain(query))? else {
        return Err(connect::unexpected());
    };
    if global.json {
        output::json(&report);
    } else {
        output::text_line(&text(&report));
    }
    Ok(ExitCode::SUCCESS)
}

/// The explanation for people.
fn text(report: &ExplainReport) -> String {
    let mut lines = vec![("packet", report.packet.clone())];
    if let Some(assumed) = &report.assumed {
        lines.push(("taken as", format!("{assumed}; write another message in hex, with its IP header")));
    }
    let peer = report.peer.as_ref().map_or_else(String::new, |peer| format!(", from {peer}"));
    lines.push(("comes by", format!("{}{peer}", report.from)));
    if let Some(inside) = &report.inside {
        lines.push(("inside", format!("{inside}; [decapsulate] takes this one out, and it goes on alone")));
    }
    lines.push(("rule", report.rule.clone()));
    if let Some(service) = &report.service {
        lines.extend(of_service(service));
    }
    lines.push(("goes", report.goes.clone()));
    if let Some(dropped) = &report.dropped {
        lines.push(("dropped", format!("counted under {dropped}")));
    }
    lines.iter().map(|(name, text)| format!("{name:<9} {text}")).collect::<Vec<_>>().join("\n")
}

fn of_service(service: &ServiceExplanation) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(slot) = service.slot {
        let owner = service.slot_backend.as_ref().map_or_else(|| "nobody".to_owned(), server);
        let basis = match service.basis.as_str() {
            "client_address" => "by the client's address",
            "client_peer" => "by the client's public key",
            _ => "by addresses and ports",
        };
        lines.push(("slot", format!("{slot} of {}, {basis}: {owner}", service.slots)));
    }
    if let Some(bound_to) = &service.bound_to {
        lines.push(("client", format!("bound to {bound_to}")));
    }
    match &service.flow {
        Some(flow) => {
            let backend = flow.backend.as_deref().unwrap_or("a server that is gone");
            let (idle, left) = (output::span(flow.idle_seconds), output::span(flow.expires_seconds));
            let (state, worker) = (&flow.state, flow.worker);
            lines
                .push(("flow", format!("{state} at {backend}, worker {worker}, idle for {idle}, forgotten in {left}")));
        }
        None => lines.push(("flow", "none is remembered".to_owned())),
    }
    let backend = service.backend.as_ref().map_or_else(|| "none".to_owned(), server);
    lines.push(("server", backend));
    lines.push(("because", service.reason.clone()));
    lines.extend(service.handshake.as_ref().map(|handshake| ("cookie", cookie(handshake))));
    lines
}

fn cookie(handshake: &HandshakeExplanation) -> String {
    let shows = if handshake.shows_cookie { "it shows a good one" } else { "it shows none" };
    let of_worker = |word: &str| match word {
        "pass" => "lets it pass now",
        "cookie" => "is under load, and answers it with one",
        _ => "is under load, and its source has had its share",
    };
    let workers = (0..).zip(&handshake.workers);
    let workers: Vec<_> = workers.map(|(number, word)| format!("worker {number} {}", of_worker(word))).collect();
    format!("{shows}; {}", workers.join(", "))
}

fn server(server: &BackendExplanation) -> String {
    format!("{} at {}, {}", server.name, server.address, server.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::FlowReport;

    #[test]
    fn an_explanation_says_slot_server_reason_and_what_is_remembered() {
        let shown = |name: &str, state: &str| BackendExplanation {
            name: name.to_owned(),
            address: "192.0.2.11:8443".to_owned(),
            state: state.to_owned(),
        };
        let flow = FlowReport {
            vip: Some("erp".to_owned()),
            backend: Some("erp-2".to_owned()),
            protocol: "tcp".to_owned(),
            client: "10.8.0.2:1234".parse().unwrap(),
            service: "10.100.0.10:443".parse().unwrap(),
            server: None,
            translated_port: None,
            state: "established".to_owned(),
            idle_seconds: 4.0,
            expires_seconds: 60.0,
            worker: 1,
        };
        let service = ServiceExplanation {
            vip: "erp".to_owned(),
            basis: "client_peer".to_owned(),
            slot: Some(17),
            slots: 65_537,
            slot_backend: Some(shown("erp-1", "down")),
            backend: Some(shown("erp-2", "draining")),
            reason: "its flow is there".to_owned(),
            flow: Some(flow),
            bound_to: None,
            handshake: None,
        };
        let report = ExplainReport {
            packet: "tcp 10.8.0.2:1234 > 10.100.0.10:443, 40 bytes".to_owned(),
            assumed: None,
            inside: None,
            from: "tunnel jw0".to_owned(),
            peer: Some("alice".to_owned()),
            role: "service".to_owned(),
            rule: "its destination is service erp".to_owned(),
            service: Some(service),
            goes: "to 192.0.2.12, out of port lan".to_owned(),
            dropped: None,
        };
        let shown = text(&report);
        for part in [
            "packet    tcp 10.8.0.2:1234",
            "comes by  tunnel jw0, from alice",
            "slot      17 of 65537, by the client's public key: erp-1 at 192.0.2.11:8443, down",
            "flow      established at erp-2, worker 1, idle for 4s, forgotten in 1m",
            "server    erp-2 at 192.0.2.11:8443, draining",
            "because   its flow is there",
            "goes      to 192.0.2.12, out of port lan",
        ] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        assert!(!shown.contains("dropped"), "{shown}");
        for absent in ["taken as", "inside", "cookie"] {
            assert!(!shown.contains(absent), "{absent} in\n{shown}");
        }
        let handshake =
            HandshakeExplanation { shows_cookie: false, workers: vec!["pass".to_owned(), "cookie".to_owned()] };
        let service = report.service.map(|service| ServiceExplanation { handshake: Some(handshake), ..service });
        let inside = Some("udp 10.8.0.9:1 > 10.8.0.1:2, 100 bytes".to_owned());
        let shown = text(&ExplainReport { service, inside, assumed: Some("an initiation".to_owned()), ..report });
        for part in [
            "taken as  an initiation; write",
            "inside    udp 10.8.0.9:1",
            "cookie    it shows none; worker 0 lets it pass now, worker 1 is under load, and answers it with one",
        ] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
    }
}
