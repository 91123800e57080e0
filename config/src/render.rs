//! Draws problems as rustc does: the line, what is meant underlined, the hint below.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::problem::{Place, Problem, Severity};

/// Whether escape sequences for colours may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Text only.
    Plain,
    /// Text with ANSI colours, for a terminal.
    Coloured,
}

/// All `problems` as a text for people, ending with a count; empty when there are none.
pub fn render(problems: &[Problem], style: Style) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    }
    .decor_style(DecorStyle::Ascii);
    let mut text = String::new();
    for problem in problems {
        text.push_str(&renderer.render(&[group(problem)]));
        text.push_str("\n\n");
    }
    text.push_str(&summary(problems));
    text
}

fn group(problem: &Problem) -> Group<'_> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(problem.message.as_str()));
    group = if problem.place.line == 0 {
        group.element(Origin::path(problem.file.as_str()))
    } else {
        group.element(snippet(problem, &problem.place, AnnotationKind::Primary, &problem.path))
    };
    if let Some(related) = &problem.related {
        group = group.element(snippet(problem, &related.place, AnnotationKind::Context, &related.label));
    }
    if problem.hint.is_empty() { group } else { group.element(Level::HELP.message(problem.hint.as_str())) }
}

fn snippet<'a>(
    problem: &'a Problem,
    place: &'a Place,
    kind: AnnotationKind,
    label: &'a str,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let annotation = kind.span(place.highlight.clone());
    Snippet::source(place.excerpt.as_str())
        .path(problem.file.as_str())
        .line_start(place.line)
        .annotation(if label.is_empty() { annotation } else { annotation.label(label) })
}

fn summary(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let warnings = problems.len() - errors;
    match (errors, warnings) {
        (0, 0) => String::new(),
        (0, _) => format!("{}\n", counted(warnings, "warning")),
        (_, 0) => format!("{}\n", counted(errors, "error")),
        (_, _) => format!("{}, {}\n", counted(errors, "error"), counted(warnings, "warning")),
    }
}

fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Related;

    fn place(line: usize, excerpt: &str, word: &str) -> Place {
        let start = excerpt.find(word).unwrap();
        let highlight = start..start + word.len();
        Place { line, column: start + 1, end_column: start + 1 + word.len(), excerpt: excerpt.into(), highlight }
    }

    #[test]
    fn a_problem_is_drawn_with_its_line_the_other_line_and_the_hint() {
        let related = Related { place: place(4, "port = 1", "1"), label: "the other is here".into() };
        let problem = Problem {
            place: place(12, "port = 1 # x", "1"),
            path: "tunnel[1].port".into(),
            related: Some(related),
            ..Problem::with_file("node.toml", "the port is taken", "take another")
        };
        let expected = "\
error: the port is taken
  --> node.toml:12:8
   |
12 | port = 1 # x
   |        ^ tunnel[1].port
   |
  ::: node.toml:4:8
   |
 4 | port = 1
   |        - the other is here
   |
   = help: take another

1 error
";
        assert_eq!(render(&[problem], Style::Plain), expected);
    }

    #[test]
    fn a_problem_with_the_whole_file_has_no_excerpt() {
        let problem = Problem::with_file("node.toml", "it cannot be read", "look");
        let text = render(&[problem], Style::Plain);
        assert_eq!(text, "error: it cannot be read\n--> node.toml\n = help: look\n\n1 error\n");
    }

    #[test]
    fn no_problems_make_no_text() {
        assert_eq!(render(&[], Style::Coloured), "");
    }
}
