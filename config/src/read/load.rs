//! Reads `load` of a service.

use crate::intent::{Health, HealthKind, Load, LoadSource, Vip};
use crate::section::{Field, Section};

/// Where a server says how busy it is, before the settings that belong to it alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Header,
    Agent,
}

pub(super) fn read(mut section: Section<'_>, health: Option<&Health>, table_size: Option<u32>) -> Option<Load> {
    let from = section.required("from", "write from = \"header\" or \"agent\"");
    let word = from.as_ref().and_then(|field| field.choice(&[("header", Word::Header), ("agent", Word::Agent)]));
    let name_field = section.field("name");
    let name = name_field.as_ref().map_or(Some(Load::DEFAULT_HEADER.to_owned()), header_name);
    let port_field = section.field("port");
    let port = port_field.as_ref().and_then(|field| field.number(1..=u16::MAX));
    let size = table_size.unwrap_or(Vip::DEFAULT_TABLE_SIZE);
    let budget = section.field("slots_per_minute");
    let budget = budget.map_or(Some(Load::default_budget(size)), |field| field.number(1..=size));
    let source = match word {
        Some(Word::Header) => {
            if let Some(port) = &port_field {
                port.error(
                    "only an agent has a `port` of its own",
                    "remove it: the header comes with the health check",
                );
            }
            name.map(|name| LoadSource::Header { name })
        }
        Some(Word::Agent) => {
            if let Some(name) = &name_field {
                name.error("an agent sends a line, and no header that would have a `name`", "remove the line");
            }
            if port_field.is_none() {
                section.error("the agent's `port` is missing", "write the TCP port at which it listens: port = 8099");
            }
            port.map(|port| LoadSource::Agent { port })
        }
        None => None,
    };
    if let (Some(field), Some(word)) = (&from, word) {
        check_health(field, word, health);
    }
    section.finish(&[("budget", "write slots_per_minute = 600"), ("header", "write name = \"X-Load\"")]);
    Some(Load { from: source?, slots_per_minute: budget? })
}

/// Servers are asked for their load by their health checks.
fn check_health(from: &Field<'_>, word: Word, health: Option<&Health>) {
    match (word, health.map(|health| &health.kind)) {
        (Word::Header, Some(HealthKind::Http { path: _ } | HealthKind::Https { path: _ })) => {}
        (Word::Header, _) => from.error(
            "the load in a header comes with an HTTP health check, and there is none",
            "add health = { kind = \"http\" }, or take the load from = \"agent\"",
        ),
        (Word::Agent, Some(_)) => {}
        (Word::Agent, None) => {
            from.error("agents are asked with each health check, and there is none", "add health = { kind = \"tcp\" }")
        }
    }
}

/// The name of a header field (RFC 9110 section 5.1).
fn header_name(field: &Field<'_>) -> Option<String> {
    let text = field.text("\"X-Load\"")?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(is_token) {
        return Some(text.to_owned());
    }
    field.error("`name` is not the name of a header field", "write letters, digits and -, for example \"X-Load\"");
    None
}
