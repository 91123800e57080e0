//! Loads a configuration, and `jetway check`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use jetway_config::{Checked, Config, Problem, Style, render};
use serde_json::json;

use super::CliError;
use super::args::Global;
use super::output;

/// Checks the configuration and prints every problem.
pub fn check(global: &Global) -> ExitCode {
    let path = global.config_path();
    let result = load_checked(&path);
    let (problems, code) = match &result {
        Ok(checked) => (&checked.warnings, ExitCode::SUCCESS),
        Err(problems) => (problems, ExitCode::FAILURE),
    };
    let config = result.as_ref().ok().map(|checked| &checked.config);
    if global.json {
        output::json(&json!({ "ok": config.is_some(), "file": path, "problems": problems }));
        return code;
    }
    let style = if std::io::stdout().is_terminal() { Style::Coloured } else { Style::Plain };
    if !problems.is_empty() {
        output::text_line(render(problems, style).trim_end());
    }
    if let Some(config) = config {
        output::text_line(&format!("{}: good: {}", path.display(), summary(config)));
    }
    code
}

/// The configuration and where it is; errors in it go to standard error, warnings to the caller.
pub fn load(global: &Global) -> Result<(Checked, PathBuf), CliError> {
    let path = global.config_path();
    match load_checked(&path) {
        Ok(checked) => Ok((checked, path)),
        Err(problems) => {
            let style = if std::io::stderr().is_terminal() { Style::Coloured } else { Style::Plain };
            eprintln!("{}", render(&problems, style).trim_end());
            Err(CliError::Configuration(path))
        }
    }
}

fn load_checked(path: &std::path::Path) -> Result<Checked, Vec<Problem>> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    jetway_config::load(path, cpus)
}

fn summary(config: &Config) -> String {
    let count = |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    format!(
        "node {} with {}, {}, {}, {}, {}",
        config.node.name,
        count(config.engine.cores.len(), "worker"),
        count(config.ports.len(), "port"),
        count(config.tunnels.len(), "tunnel"),
        count(config.peers().count(), "peer"),
        count(config.vips.len(), "virtual service"),
    )
}
