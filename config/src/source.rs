//! The text of a configuration with the problems found in it.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use crate::problem::{Place, Problem, Related, Severity};

/// The longest excerpt in bytes; of longer lines the part around the problem is shown.
const EXCERPT_BYTES: usize = 160;

/// A configuration text under examination.
pub(crate) struct Source<'d> {
    file: &'d str,
    text: &'d str,
    /// The offset at which each line begins.
    lines: Vec<usize>,
    /// What was found so far, each with its offset.
    found: RefCell<Vec<(usize, Problem)>>,
}

/// Where a value stands: its bytes in the text, and its path, which is put together only for a message.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) section: Rc<str>,
    pub(crate) key: &'static str,
    pub(crate) index: Option<usize>,
    pub(crate) span: Range<usize>,
}

/// What to say about a place.
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) message: String,
    pub(crate) hint: String,
    pub(crate) related: Option<(Mark, String)>,
}

impl Mark {
    /// For example `tunnel[0].peer[3].allowed_ips[1]`.
    pub(crate) fn path(&self) -> String {
        let mut path = join(&self.section, self.key);
        if let Some(index) = self.index {
            path.push_str(&format!("[{index}]"));
        }
        path
    }
}

/// The path of `key` in the section with the path `section`.
pub(crate) fn join(section: &str, key: &str) -> String {
    match (section, key) {
        ("", _) => key.to_owned(),
        (_, "") => section.to_owned(),
        (_, _) => format!("{section}.{key}"),
    }
}

impl Finding {
    pub(crate) fn error(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), hint: hint.into(), related: None }
    }

    pub(crate) fn warning(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message, hint) }
    }

    pub(crate) fn related(self, mark: &Mark, label: impl Into<String>) -> Self {
        Self { related: Some((mark.clone(), label.into())), ..self }
    }
}

impl<'d> Source<'d> {
    pub(crate) fn new(file: &'d str, text: &'d str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, lines, found: RefCell::default() }
    }

    /// Adds a problem at `mark`.
    pub(crate) fn report(&self, mark: &Mark, finding: Finding) {
        self.report_at(mark.span.clone(), mark.path(), finding);
    }

    /// Adds a problem at `span` about the setting `path`.
    pub(crate) fn report_at(&self, span: Range<usize>, path: String, finding: Finding) {
        let related = finding.related.map(|(mark, label)| Related { place: self.place(&mark.span), label });
        let problem = Problem {
            severity: finding.severity,
            file: self.file.to_owned(),
            place: self.place(&span),
            path,
            message: finding.message,
            hint: finding.hint,
            related,
        };
        self.found.borrow_mut().push((span.start, problem));
    }

    /// Every problem in the order of the file.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(offset, _)| *offset);
        found.into_iter().map(|(_, problem)| problem).collect()
    }

    /// The line, from 1, that the byte at `offset` belongs to.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|&start| start <= offset)
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let start = floor(self.text, span.start);
        let line = self.line(start);
        let begin = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let rest = self.text.get(begin..).unwrap_or("");
        let content = rest.split('\n').next().unwrap_or("").trim_end_matches('\r');
        let from = (start - begin).min(content.len());
        let to = floor(content, span.end.saturating_sub(begin).clamp(from, content.len()));
        let column = characters(content, 0..from) + 1;
        let end_column = column + characters(content, from..to).max(1);
        let window = window(content, from);
        let highlight = from - window.start..to.clamp(from, window.end) - window.start;
        let excerpt = mask(content.get(window).unwrap_or(""));
        Place { line, column, end_column, excerpt, highlight }
    }
}

fn characters(text: &str, range: Range<usize>) -> usize {
    text.get(range).map_or(0, |part| part.chars().count())
}

/// The nearest character boundary at or below `offset`.
fn floor(text: &str, offset: usize) -> usize {
    text.floor_char_boundary(offset.min(text.len()))
}

/// The part of `line` that is shown for a problem at `from`.
fn window(line: &str, from: usize) -> Range<usize> {
    if line.len() <= EXCERPT_BYTES {
        return 0..line.len();
    }
    let start = floor(line, from.saturating_sub(EXCERPT_BYTES / 4));
    start..floor(line, start + EXCERPT_BYTES)
}

/// `line` with everything that looks like a WireGuard key masked, unless it is named a public one, and with
/// control characters made visible; the length in bytes stays.
fn mask(line: &str) -> String {
    let mut shown: String = line.chars().map(|c| if c.is_ascii_control() { ' ' } else { c }).collect();
    if line.trim_start().starts_with("public_key") {
        return shown;
    }
    while let Some(at) = find_key(&shown) {
        shown.replace_range(at.clone(), &"*".repeat(at.len()));
    }
    shown
}

/// Replaces a value that looks like a key, so that a key in the wrong place is not shown.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let masked = mask(text);
    match masked.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("\"{}...\"", masked.get(..end).unwrap_or("")),
        None => format!("\"{masked}\""),
    }
}

/// The first run of letters and digits that 32 bytes may be, in base64 or hexadecimal, whole or nearly so.
fn find_key(text: &str) -> Option<Range<usize>> {
    const NEARLY_WHOLE: usize = 40;
    let mut start = 0;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        if !(c.is_ascii_alphanumeric() || matches!(c, '+' | '=' | '/')) {
            if at - start >= NEARLY_WHOLE && text.get(start..at).is_some_and(looks_random) {
                return Some(start..at);
            }
            start = at + c.len_utf8();
        }
    }
    None
}

/// Tells a key from a long path or word.
fn looks_random(run: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| run.as_bytes().iter().any(kind);
    let mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    mixed || run.ends_with('=') || run.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_an_excerpt_is_masked_unless_it_is_public() {
        let key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
        assert_eq!(mask(&format!("x = \"{key}\"")), format!("x = \"{}\"", "*".repeat(44)));
        assert_eq!(mask(&format!("public_key = \"{key}\"")), format!("public_key = \"{key}\""));
        assert!(!shown(key).contains("yAnz"));
    }

    #[test]
    fn columns_count_characters_and_spans_stay_within_their_line() {
        let source = Source::new("f", "a = 1\r\nö = \"ü\" x\nz");
        let place = source.place(&(12..99));
        assert_eq!((place.line, place.column, place.end_column), (2, 5, 10));
        assert_eq!(place.excerpt, "ö = \"ü\" x");
        assert_eq!(source.place(&(4..12)).end_column, 6);
    }

    #[test]
    fn a_long_line_is_shown_around_the_problem() {
        let text = format!("{} here {}", "x ".repeat(500), "y ".repeat(500));
        let place = Source::new("f", &text).place(&(1001..1005));
        assert_eq!(place.column, 1002);
        assert_eq!(place.excerpt.get(place.highlight.clone()), Some("here"));
        assert!(place.excerpt.len() <= EXCERPT_BYTES);
    }
}
