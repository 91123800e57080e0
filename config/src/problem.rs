//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// One thing that is wrong or doubtful in a configuration.
///
/// Serialises to JSON with stable keys. Neither the texts nor the excerpt contain key material.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether the configuration can be used in spite of it.
    pub severity: Severity,
    /// The configuration file, as it was named to the parser.
    pub file: String,
    /// Where in the file.
    #[serde(flatten)]
    pub place: Place,
    /// The setting, for example `tunnel[0].peer[3].allowed_ips[1]`; empty when no single one is meant.
    pub path: String,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// Another place that belongs to the problem.
    pub related: Option<Related>,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, but probably does not do what is wanted.
    Warning,
}

/// A stretch of one line of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// The first character, from 1; 0 when the whole file is meant.
    pub column: usize,
    /// One past the last character.
    pub end_column: usize,
    /// The line, or the part of a long one that matters, with anything that looks like a secret masked.
    #[serde(skip)]
    pub excerpt: String,
    /// The bytes of `excerpt` that are meant.
    #[serde(skip)]
    pub highlight: Range<usize>,
}

/// Another place that belongs to a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Where in the same file.
    #[serde(flatten)]
    pub place: Place,
    /// What is there, for example `first used here`.
    pub label: String,
}

impl Problem {
    /// A problem with the file as a whole, such as that it cannot be read.
    pub fn with_file(file: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            place: Place::default(),
            path: String::new(),
            message: message.into(),
            hint: hint.into(),
            related: None,
        }
    }

    /// Whether this is an error rather than a warning.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// One line for tools: `file:line:column: error: message (hint)`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.place.line > 0 {
            write!(f, ":{}:{}", self.place.line, self.place.column)?;
        }
        write!(f, ": {}: {}", self.severity, self.message)?;
        if let Some(related) = &self.related {
            write!(f, " ({}: line {})", related.label, related.place.line)?;
        }
        if self.hint.is_empty() { Ok(()) } else { write!(f, " (hint: {})", self.hint) }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl std::error::Error for Problem {}
