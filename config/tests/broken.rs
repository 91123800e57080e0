//! Every broken configuration gets the messages that its first lines announce, and no others.

mod common;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use jetway_config::{Problem, Severity, Style, render};

/// One line `# expect error LINE: part of the message | part of the hint`, ending in ` @ LINE` if another line is named.
struct Expectation {
    severity: Severity,
    line: usize,
    message: String,
    hint: String,
    related: Option<usize>,
}

impl Expectation {
    fn read(text: &str) -> Option<Self> {
        let (kind, rest) = text.strip_prefix("# expect ")?.split_once(' ')?;
        let severity = match kind {
            "error" => Severity::Error,
            "warning" => Severity::Warning,
            _ => panic!("unknown severity in {text:?}"),
        };
        let (line, rest) = rest.split_once(": ")?;
        let (message, hint) = rest.rsplit_once(" | ")?;
        let (hint, related) = match hint.split_once(" @ ") {
            Some((hint, line)) => (hint, Some(line.parse().unwrap())),
            None => (hint, None),
        };
        Some(Self { severity, line: line.parse().ok()?, message: message.into(), hint: hint.into(), related })
    }

    fn fits(&self, problem: &Problem) -> bool {
        problem.severity == self.severity
            && problem.place.line == self.line
            && problem.message.contains(&self.message)
            && problem.hint.contains(&self.hint)
            && problem.related.as_ref().map(|related| related.place.line) == self.related
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("broken");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn problems(text: &str, file: &str) -> Vec<Problem> {
    match common::check(text, file) {
        Ok(checked) => checked.warnings,
        Err(problems) => problems,
    }
}

/// What is wrong with the problems of one file, for a person.
fn examine(path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).unwrap();
    let file = path.file_name().unwrap().to_str().unwrap();
    let expectations: Vec<_> = text.lines().map_while(Expectation::read).collect();
    assert!(!expectations.is_empty(), "{file} begins with no `# expect` line");
    let mut found = problems(&text, file);
    let report = render(&found, Style::Plain);
    let mut faults = String::new();
    for expectation in &expectations {
        match found.iter().position(|problem| expectation.fits(problem)) {
            Some(index) => {
                let problem = found.remove(index);
                if problem.file != file || problem.place.column == 0 || problem.place.end_column <= problem.place.column
                {
                    writeln!(faults, "{file}: wrong place {:?}", problem.place).unwrap();
                }
            }
            None => {
                writeln!(faults, "{file}: nothing like line {}: {}", expectation.line, expectation.message).unwrap()
            }
        }
    }
    for extra in &found {
        writeln!(faults, "{file}: unexpected: {extra}").unwrap();
    }
    if faults.is_empty() { Ok(()) } else { Err(format!("{faults}{report}\n")) }
}

#[test]
fn every_broken_configuration_gets_exactly_the_messages_that_it_announces() {
    let files = files();
    assert!(files.len() >= 30, "only {} files", files.len());
    let faults: Vec<_> = files.iter().filter_map(|path| examine(path).err()).collect();
    assert!(faults.is_empty(), "{} of {} files:\n{}", faults.len(), files.len(), faults.join("\n"));
}

#[test]
fn only_files_with_errors_are_refused() {
    for path in files() {
        let text = fs::read_to_string(&path).unwrap();
        let announced = text.lines().map_while(Expectation::read).any(|wanted| wanted.severity == Severity::Error);
        assert_eq!(common::check(&text, "x").is_err(), announced, "{}", path.display());
    }
}

#[test]
fn no_rendering_shows_a_key_that_stands_in_the_wrong_place() {
    // Base64 of 32 times 7, the private key in the files below.
    let key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let mut seen = 0;
    for path in files() {
        let text = fs::read_to_string(&path).unwrap();
        seen += usize::from(text.contains(key));
        let problems = problems(&text, "x");
        let printed =
            format!("{}{problems:?}{}", render(&problems, Style::Plain), serde_json::to_string(&problems).unwrap());
        assert!(!printed.contains(&key[..20]), "{}: {printed}", path.display());
    }
    assert!(seen >= 2, "the files with a key are gone");
}
