//! `jetway backend`.

use std::process::ExitCode;

use super::args::{Action, BackendArguments, Global};
use super::{CliError, connect, output};
use crate::api::{BackendAction, BackendOrder, Request, Response};

/// Has the node drain, disable or enable a server.
pub fn order(global: &Global, arguments: BackendArguments) -> Result<ExitCode, CliError> {
    let BackendArguments { action, server, deadline } = arguments;
    let (action, done) = match action {
        Action::Drain => (BackendAction::Drain, "draining: it keeps its flows and gets no new ones"),
        Action::Disable => (BackendAction::Disable, "disabled: its flows go to other servers"),
        Action::Enable => (BackendAction::Enable, "enabled: it gets flows if it is up"),
    };
    if deadline.is_some() && action != BackendAction::Drain {
        return Err(CliError::Refused("only a drain has a --deadline; leave it out, or drain the server".to_owned()));
    }
    let order = BackendOrder { service: server.service, backend: server.backend, action, deadline_seconds: deadline };
    let Response::Ordered = connect::ask(global, &Request::Backend(order.clone()))? else {
        return Err(connect::unexpected());
    };
    if global.json {
        output::json(&serde_json::json!({ "ok": true, "order": order }));
    } else {
        output::text_line(&format!("{}/{} {done}", order.service, order.backend));
    }
    Ok(ExitCode::SUCCESS)
}
