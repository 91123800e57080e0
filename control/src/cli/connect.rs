//! The commands that tell a running node something: `reload`, `drain`, `ready`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::args::{Global, ReadyArguments};
use super::{CliError, check, output};
use crate::api::{Readiness, Reloaded, Request, Response, client};

/// How often a node that is not ready is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Sends a request to the node that the arguments mean.
pub fn ask(global: &Global, request: &Request) -> Result<Response, CliError> {
    Ok(client::ask(&socket(global)?, request)?)
}

/// An answer that does not belong to the request.
pub fn unexpected() -> CliError {
    CliError::Refused("the node's answer fits another request; is it of the same version as this program?".to_owned())
}

/// Has the node read its configuration again.
pub fn reload(global: &Global) -> Result<ExitCode, CliError> {
    let Response::Reloaded(reloaded) = ask(global, &Request::Reload)? else { return Err(unexpected()) };
    if global.json {
        output::json(&reloaded);
    } else {
        output::text_line(&in_words(&reloaded));
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the node take no new sessions.
pub fn drain(global: &Global) -> Result<ExitCode, CliError> {
    let Response::Draining = ask(global, &Request::Drain)? else { return Err(unexpected()) };
    if global.json {
        output::json(&serde_json::json!({ "ok": true, "state": "draining" }));
    } else {
        output::text_line("draining: sessions that are there stay, new ones are refused");
    }
    Ok(ExitCode::SUCCESS)
}

/// Says whether the node carries traffic, waiting for it if asked to.
pub fn ready(global: &Global, arguments: &ReadyArguments) -> Result<ExitCode, CliError> {
    let socket = socket(global)?;
    let deadline = Instant::now() + Duration::from_secs(arguments.wait);
    loop {
        let answer = client::ask(&socket, &Request::Ready);
        let is_settled = matches!(&answer, Ok(Response::Readiness(Readiness::Ready | Readiness::Draining)));
        if !is_settled && Instant::now() < deadline {
            std::thread::sleep(ASK_AGAIN);
            continue;
        }
        let Response::Readiness(readiness) = answer? else { return Err(unexpected()) };
        return Ok(tell(global, &readiness));
    }
}

fn tell(global: &Global, readiness: &Readiness) -> ExitCode {
    let (text, code) = match readiness {
        Readiness::Ready => ("ready".to_owned(), ExitCode::SUCCESS),
        Readiness::Starting { waits_for } => (format!("starting: waits for {waits_for}"), ExitCode::FAILURE),
        Readiness::Draining => ("draining".to_owned(), ExitCode::FAILURE),
    };
    if global.json {
        output::json(readiness);
    } else {
        output::text_line(&text);
    }
    code
}

fn socket(global: &Global) -> Result<PathBuf, CliError> {
    match &global.socket {
        Some(socket) => Ok(socket.clone()),
        None => Ok(check::load(global)?.0.config.api.socket),
    }
}

fn in_words(reloaded: &Reloaded) -> String {
    let Reloaded { peers_added, peers_removed, peers_changed, other, needs_restart, warnings } = reloaded;
    let mut lines = warnings.clone();
    lines.push(format!("reloaded: {peers_added} peers added, {peers_removed} removed, {peers_changed} changed"));
    lines.extend(other.iter().map(|change| format!("  {change}")));
    lines.extend(needs_restart.iter().map(|change| format!("  after a restart: {change}")));
    lines.join("\n")
}
