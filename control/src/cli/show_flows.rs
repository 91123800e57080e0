//! `jetway flows`.

use std::process::ExitCode;

use super::args::{FlowsArguments, FlowsCommand, FlowsFilterArguments, Global};
use super::output::{self, Align};
use super::{CliError, connect};
use crate::api::{FlowCount, FlowReport, FlowsAction, FlowsFilter, FlowsQuery, FlowsReport, Request, Response};

/// Lists, counts or forgets flows.
pub fn flows(global: &Global, arguments: FlowsArguments) -> Result<ExitCode, CliError> {
    let (filter, action) = match arguments.command {
        Some(FlowsCommand::Flush(filter)) => (filter, FlowsAction::Flush),
        None if arguments.count => (arguments.filter, FlowsAction::Count),
        None => (arguments.filter, FlowsAction::List(arguments.limit)),
    };
    let FlowsFilterArguments { vip, client, backend } = filter;
    let query = FlowsQuery { filter: FlowsFilter { vip, client, backend }, action };
    let Response::Flows(report) = connect::ask(global, &Request::Flows(query))? else {
        return Err(connect::unexpected());
    };
    if global.json {
        output::json(&report);
    } else {
        output::text_line(text(&report, action).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// The flows for people.
fn text(report: &FlowsReport, action: FlowsAction) -> String {
    let total = output::grouped(report.total);
    match action {
        FlowsAction::List(_) if report.flows.is_empty() => "no flows".to_owned(),
        FlowsAction::List(_) => {
            let more = if report.has_more { "\nthere are more: narrow it down, or raise --limit\n" } else { "" };
            list(&report.flows) + more
        }
        FlowsAction::Count => format!("{}{total} flows", counts(&report.by_backend)),
        FlowsAction::Flush => format!("{}{total} flows forgotten", counts(&report.by_backend)),
    }
}

fn list(flows: &[FlowReport]) -> String {
    let columns = [
        ("service", Align::Left),
        ("server", Align::Left),
        ("", Align::Left),
        ("client", Align::Left),
        ("to", Align::Left),
        ("state", Align::Left),
        ("idle", Align::Right),
        ("worker", Align::Right),
    ];
    let row = |flow: &FlowReport| {
        vec![
            name(flow.vip.as_deref()),
            name(flow.backend.as_deref()),
            flow.protocol.clone(),
            flow.client.to_string(),
            flow.service.to_string(),
            flow.state.clone(),
            output::span(flow.idle_seconds),
            flow.worker.to_string(),
        ]
    };
    output::table(&columns, &flows.iter().map(row).collect::<Vec<_>>())
}

fn counts(counts: &[FlowCount]) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let columns = [("service", Align::Left), ("server", Align::Left), ("flows", Align::Right)];
    let row = |count: &FlowCount| {
        vec![name(count.vip.as_deref()), name(count.backend.as_deref()), output::grouped(count.flows)]
    };
    output::table(&columns, &counts.iter().map(row).collect::<Vec<_>>()) + "\n"
}

/// A name, or what stands for what is configured no more.
fn name(name: Option<&str>) -> String {
    name.unwrap_or("(gone)").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_listed_counted_and_forgotten_in_words() {
        let flow = FlowReport {
            vip: Some("erp".to_owned()),
            backend: None,
            protocol: "tcp".to_owned(),
            client: "10.8.0.2:1234".parse().unwrap(),
            service: "[2001:db8::10]:443".parse().unwrap(),
            server: None,
            translated_port: None,
            state: "established".to_owned(),
            idle_seconds: 65.0,
            expires_seconds: 3_535.0,
            worker: 3,
        };
        let listed = FlowsReport { total: 1, has_more: true, flows: vec![flow], by_backend: vec![] };
        let shown = text(&listed, FlowsAction::List(1));
        for part in ["erp", "(gone)", "10.8.0.2:1234", "[2001:db8::10]:443", "established", "1m 5s", "--limit"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert_eq!(text(&FlowsReport::default(), FlowsAction::List(1)), "no flows");
        let count = FlowCount { vip: Some("erp".to_owned()), backend: Some("erp-1".to_owned()), flows: 1_234 };
        let counted = FlowsReport { total: 1_234, by_backend: vec![count], ..FlowsReport::default() };
        assert!(text(&counted, FlowsAction::Count).ends_with("1,234 flows"));
        let forgotten = text(&counted, FlowsAction::Flush);
        assert!(forgotten.contains("erp-1") && forgotten.ends_with("1,234 flows forgotten"), "{forgotten}");
    }
}
