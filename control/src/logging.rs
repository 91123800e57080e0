//! Sets up the process's log.

use clap::ValueEnum;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError};

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// A log filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read the log filter `{filter}`: {source}; use a level such as debug, or target=level pairs such as jetway::kernel=trace,info"
)]
pub struct LogFilterError {
    /// What was given.
    pub filter: String,
    /// What is wrong with it.
    #[source]
    pub source: ParseError,
}

/// Sends the log to standard error. `filter`, or else the environment's `RUST_LOG`, or else `info` says what is logged.
///
/// A second call changes nothing.
pub fn init(format: LogFormat, filter: Option<&str>) -> Result<(), LogFilterError> {
    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let text = filter.map(str::to_owned).or(from_environment).unwrap_or_default();
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let filter = builder.parse(&text).map_err(|source| LogFilterError { filter: text, source })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only a second call can fail, and the first one's log is as good.
    let _ = match format {
        LogFormat::Text => subscriber.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_says_what_can() {
        let error = init(LogFormat::Text, Some("jetway=loud")).unwrap_err().to_string();
        assert!(error.contains("jetway=loud") && error.contains("such as debug"), "{error}");
    }
}
