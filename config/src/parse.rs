//! Text becomes intent, or all that is wrong with it.

use toml::de::{DeTable, Error};

use crate::cross_check::Ledger;
use crate::intent::Config;
use crate::key_file::KeyFiles;
use crate::problem::Problem;
use crate::read;
use crate::section::Section;
use crate::source::{Finding, Source};

/// What a configuration is checked against.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// CPUs of the machine; they are numbered from 0.
    pub cpus: usize,
    /// Where key files come from.
    pub keys: &'a dyn KeyFiles,
}

/// A configuration without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The intent.
    pub config: Config,
    /// What is allowed but probably not wanted, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Checks `text`, which messages call `file`.
///
/// Gives all problems at once, warnings among them, in the order of the file; if the text is not TOML, only what
/// stands in the way of reading it. Never panics, and does no I/O but through `surroundings`.
pub fn parse(text: &str, file: &str, surroundings: &Surroundings<'_>) -> Result<Checked, Vec<Problem>> {
    let source = Source::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        report_syntax(&source, text, errors);
        return Err(source.into_problems());
    }
    let mut ledger = Ledger::default();
    let config = read::config(Section::root(&source, &document), surroundings, &mut ledger);
    ledger.check(&source);
    let problems = source.into_problems();
    match config {
        Some(config) if !problems.iter().any(Problem::is_error) => Ok(Checked { config, warnings: problems }),
        Some(_) | None => Err(problems),
    }
}

/// How the parser begins its message about a bare word, which it also says of what follows from other errors.
const UNQUOTED: &str = "string values must be quoted";

/// Reports the first syntax error of each line: what follows on the line is mostly its echo.
fn report_syntax(source: &Source<'_>, text: &str, errors: Vec<Error>) {
    let end = text.trim_end().len();
    let mut errors: Vec<_> = errors
        .into_iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..0);
            (span.start.min(end)..span.end.min(end), error)
        })
        .collect();
    // A missing comma or bracket makes the next word look like an unquoted text: the cause goes first.
    let unquoted = |error: &Error| error.message().starts_with(UNQUOTED);
    errors.sort_by_key(|(span, error)| (source.line(span.start), unquoted(error), span.start));
    errors.dedup_by_key(|(span, _)| source.line(span.start));
    for (span, error) in errors {
        let (message, hint) = syntax(error.message());
        source.report_at(span, String::new(), Finding::error(message, hint));
    }
}

/// The parser's message in words for people, with a hint.
fn syntax(message: &str) -> (String, &'static str) {
    const KNOWN: [(&str, &str, &str); 12] = [
        (
            "missing comma between array",
            "two values of a list without a comma between them",
            "put a comma between them, or close the list with ]",
        ),
        ("extra comma in array", "a comma too many in a list", "leave one comma between two values"),
        (UNQUOTED, "a text value must stand in quotes", "write key = \"value\""),
        (
            "duplicate key",
            "this key or table stands in the file twice",
            "remove one; tables that may repeat have double brackets: [[port]]",
        ),
        ("key with no value", "a key without a value", "write key = value"),
        ("invalid unquoted key", "a character that a key cannot have", "write key = value, with `=` and not `:`"),
        ("invalid basic string", "a text that is not closed on its line", "end it with \""),
        ("invalid literal string", "a text that is not closed on its line", "end it with '"),
        ("unclosed array table", "a table header that is not closed", "end it with ]]"),
        ("unclosed table", "a table header that is not closed", "end it with ]"),
        ("unclosed array", "a list that is not closed", "end it with ]"),
        ("unclosed inline table", "a table that is not closed", "end it with }"),
    ];
    match KNOWN.iter().find(|(start, _, _)| message.starts_with(start)) {
        Some((_, plain, hint)) => (format!("the file is not valid TOML: {plain}"), hint),
        None => (format!("the file is not valid TOML: {message}"), "see https://toml.io for the syntax"),
    }
}
