//! Draws problems as rustc does: the line, what is meant underlined, the hint below.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

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
    group = group.element(snippet(problem, &problem.place, AnnotationKind::Primary, &problem.path));
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
    let snippet = Snippet::source(place.excerpt.as_str()).path(problem.file.as_str()).line_start(place.line.max(1));
    if place.line == 0 {
        return snippet;
    }
    let annotation = kind.span(place.highlight.clone());
    snippet.annotation(if label.is_empty() { annotation } else { annotation.label(label) })
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
