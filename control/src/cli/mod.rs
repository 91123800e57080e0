//! The command line.

mod args;
mod backend;
mod check;
mod client_config;
mod connect;
mod explain;
mod keys;
mod output;
mod show_dry_run;
mod show_flows;
mod show_peers;
mod show_stats;
mod show_vips;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jetway_config::Config;

use self::args::{Arguments, Command, RunArguments};
use crate::api::{ApiError, Failure};
use crate::logging;
use crate::logging::LogFilterError;
use crate::single_instance::{InstanceError, SingleInstance};

/// What `jetway run` starts.
#[derive(Debug)]
pub struct RunRequest {
    /// The checked configuration.
    pub config: Config,
    /// Where it was read, to be read again on reload.
    pub path: PathBuf,
    /// Holds the node's name for this process while it lives.
    pub instance: SingleInstance,
}

/// What can go wrong in a command.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration cannot be used; everything about it has been printed.
    #[error("the configuration {} cannot be used", .0.display())]
    Configuration(PathBuf),
    /// The node did not answer, or answered that it could not.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Another process runs this node.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The log cannot be set up.
    #[error(transparent)]
    Log(#[from] LogFilterError),
    /// A file could not be read or written.
    #[error("cannot {what} {}: {source}{hint}", path.display())]
    File {
        /// What was to be done, such as `read`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: std::io::Error,
        /// What to do about it, with a leading `; `, or nothing.
        hint: &'static str,
    },
    /// What was asked for cannot be done; the text says why and what to do.
    #[error("{0}")]
    Refused(String),
    /// The node ended with an error.
    #[error("{0}")]
    Run(String),
}

/// The program: parses the arguments, does what they say, and gives the exit status: 0, 1 for a failure, 2 for
/// wrong arguments. `run` runs a node until it is told to stop.
pub fn main<E: Error>(run: impl FnOnce(RunRequest) -> Result<(), E>) -> ExitCode {
    let arguments = Arguments::parse();
    let is_json = arguments.global.json;
    match dispatch(arguments, run) {
        Ok(code) => code,
        Err(error) => {
            report(&error, is_json);
            ExitCode::FAILURE
        }
    }
}

fn dispatch<E: Error>(
    arguments: Arguments,
    run: impl FnOnce(RunRequest) -> Result<(), E>,
) -> Result<ExitCode, CliError> {
    let global = arguments.global;
    match arguments.command {
        Command::Run(arguments) => start(&global, &arguments, run),
        Command::Check => Ok(check::check(&global)),
        Command::Stats => show_stats::stats(&global),
        Command::Peers(arguments) => show_peers::peers(&global, arguments),
        Command::Vips(arguments) => show_vips::vips(&global, arguments),
        Command::Flows(arguments) => show_flows::flows(&global, arguments),
        Command::Explain(arguments) => explain::explain(&global, arguments),
        Command::Backend(arguments) => backend::order(&global, arguments),
        Command::Keygen(arguments) => keys::keygen(&global, &arguments),
        Command::Pubkey(arguments) => keys::pubkey(&global, &arguments),
        Command::ClientConfig(arguments) => client_config::client_config(&global, &arguments),
        Command::Reload => connect::reload(&global),
        Command::Drain => connect::drain(&global),
        Command::Ready(arguments) => connect::ready(&global, &arguments),
    }
}

fn start<E: Error>(
    global: &args::Global,
    arguments: &RunArguments,
    run: impl FnOnce(RunRequest) -> Result<(), E>,
) -> Result<ExitCode, CliError> {
    logging::init(arguments.log_format, arguments.log_level.as_deref())?;
    let (checked, path) = check::load(global)?;
    checked.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let config = checked.config;
    let instance = SingleInstance::acquire(config.node.name.as_str())?;
    run(RunRequest { config, path, instance }).map_err(|error| CliError::Run(with_sources(&error)))?;
    Ok(ExitCode::SUCCESS)
}

/// An error and what it came from, in one line, without saying the same twice.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

fn report(error: &CliError, is_json: bool) {
    let text = with_sources(error);
    let failure = match error {
        CliError::Api(ApiError::Failed(failure)) => failure.clone(),
        _ => Failure::new(text, ""),
    };
    if is_json {
        output::json(&serde_json::json!({ "ok": false, "error": failure }));
        return;
    }
    if !failure.details.is_empty() {
        eprintln!("{}", failure.details);
    }
    eprintln!("jetway: {}", failure.message);
    if !failure.hint.is_empty() {
        eprintln!("  hint: {}", failure.hint);
    }
}

#[cfg(test)]
mod tests;
