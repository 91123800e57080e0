//! Reads tables of a TOML document by key, remembering which keys were asked for.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::source::{Finding, Mark, Source, join, shown};
use crate::suggest::nearest;

/// A table under examination: asked for all it may contain, then closed by [`Section::finish`].
pub(crate) struct Section<'d> {
    pub(crate) source: &'d Source<'d>,
    pub(crate) path: Rc<str>,
    /// The header of the table.
    pub(crate) span: Range<usize>,
    table: &'d DeTable<'d>,
    known: Vec<&'static str>,
}

/// A value under examination.
pub(crate) struct Field<'d> {
    pub(crate) source: &'d Source<'d>,
    pub(crate) mark: Mark,
    value: &'d DeValue<'d>,
}

impl<'d> Section<'d> {
    /// The document itself.
    pub(crate) fn root(source: &'d Source<'d>, document: &'d Spanned<DeTable<'d>>) -> Self {
        Self { source, path: "".into(), span: document.span(), table: document.get_ref(), known: Vec::new() }
    }

    /// The value of `key`, if there is one.
    pub(crate) fn field(&mut self, key: &'static str) -> Option<Field<'d>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        let mark = Mark { section: self.path.clone(), key, index: None, span: value.span() };
        Some(Field { source: self.source, mark, value: value.get_ref() })
    }

    /// The value of `key`; its absence is an error, and `hint` says what to write.
    pub(crate) fn required(&mut self, key: &'static str, hint: &str) -> Option<Field<'d>> {
        let field = self.field(key);
        if field.is_none() {
            self.error(format!("`{key}` is missing in {}", self.title()), hint);
        }
        field
    }

    /// The table `[key]`, if there is one.
    pub(crate) fn table(&mut self, key: &'static str) -> Option<Section<'d>> {
        let field = self.field(key)?;
        match field.value {
            DeValue::Table(table) => Some(field.section(table)),
            DeValue::Array(_) => {
                let message = format!("`{}` stands here more than once as a list", field.mark.path());
                field.error(message, format!("write one `[{key}]` in single brackets"));
                None
            }
            _ => {
                field.unexpected("a table", &format!("write `[{key}]` with its settings below"));
                None
            }
        }
    }

    /// Every table `[[key]]`.
    pub(crate) fn tables(&mut self, key: &'static str) -> Vec<Section<'d>> {
        let Some(field) = self.field(key) else { return Vec::new() };
        let header = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", without_index(&self.path)) };
        let hint = format!("write `[[{header}]]` in double brackets, once for each {key}");
        let DeValue::Array(items) = field.value else {
            field.unexpected("a list of tables", &hint);
            return Vec::new();
        };
        let items = items.iter().enumerate().map(|(index, item)| field.item(index, item));
        items
            .filter_map(|item| match item.value {
                DeValue::Table(table) => Some(item.section(table)),
                _ => {
                    item.unexpected("a table", &hint);
                    None
                }
            })
            .collect()
    }

    /// Whether there is no `key` at all.
    pub(crate) fn absent(&self, key: &str) -> bool {
        !self.table.contains_key(key)
    }

    /// A mark at the table's header.
    pub(crate) fn mark(&self) -> Mark {
        Mark { section: self.path.clone(), key: "", index: None, span: self.span.clone() }
    }

    /// Reports an error about the table as a whole.
    pub(crate) fn error(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.source.report(&self.mark(), Finding::error(message, hint));
    }

    /// Reports every key that nothing asked for. `elsewhere` gives hints for keys that people look for here.
    pub(crate) fn finish(self, elsewhere: &[(&str, &str)]) {
        for (key, _) in self.table.iter() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let hint = match (elsewhere.iter().find(|(word, _)| *word == name), nearest(name, &self.known)) {
                (Some((_, hint)), _) => (*hint).to_owned(),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("{} may contain: {}", self.title(), self.known.join(", ")),
            };
            let message = format!("unknown key {} in {}", shown(name).replace('"', "`"), self.title());
            self.source.report_at(
                key.span(),
                join(&self.path, &shown(name).replace('"', "")),
                Finding::error(message, hint),
            );
        }
    }

    fn title(&self) -> String {
        if self.path.is_empty() { "the file".to_owned() } else { format!("`{}`", self.path) }
    }
}

/// `tunnel[3]` as it stands in a header: `tunnel`.
fn without_index(path: &str) -> &str {
    path.split('[').next().unwrap_or(path)
}

impl<'d> Field<'d> {
    /// Reports an error about the value.
    pub(crate) fn error(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.source.report(&self.mark, Finding::error(message, hint));
    }

    /// The value as text.
    pub(crate) fn text(&self, example: &str) -> Option<&'d str> {
        match self.value {
            DeValue::String(text) => Some(text.as_ref()),
            DeValue::Integer(number) => {
                self.error(
                    format!("`{}` must be text, but it is the number {number}", self.mark.key),
                    format!("write it in quotes, for example {example}"),
                );
                None
            }
            _ => {
                self.unexpected("text", &format!("for example {example}"));
                None
            }
        }
    }

    /// The value as a whole number within `range`.
    pub(crate) fn number<T: TryFrom<i128> + Into<i128> + Copy + Display>(&self, range: RangeInclusive<T>) -> Option<T> {
        let (low, high) = (*range.start(), *range.end());
        let hint = format!("write a whole number from {low} to {high}");
        let DeValue::Integer(number) = self.value else {
            self.unexpected("a whole number", &hint);
            return None;
        };
        let value = i128::from_str_radix(number.as_str(), number.radix()).ok();
        let value = value.filter(|value| (low.into()..=high.into()).contains(value));
        let value = value.and_then(|value| T::try_from(value).ok());
        if value.is_none() {
            self.error(format!("`{}` is out of range: {number}", self.mark.key), hint);
        }
        value
    }

    /// The value as true or false.
    pub(crate) fn truth(&self) -> Option<bool> {
        let DeValue::Boolean(truth) = self.value else {
            self.unexpected("true or false", "write true or false, without quotes");
            return None;
        };
        Some(*truth)
    }

    /// The value as one of `words`.
    pub(crate) fn choice<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let text = self.text(&format!("\"{}\"", known.first().unwrap_or(&"")))?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let list = known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            let hint = match nearest(text, &known) {
                Some(near) => format!("did you mean \"{near}\"? Possible are {list}"),
                None => format!("possible are {list}"),
            };
            self.error(format!("`{}` cannot be {}", self.mark.key, shown(text)), hint);
        }
        found
    }

    /// The values of a list; one value that is no list is an error.
    pub(crate) fn list(&self, example: &str) -> Option<Vec<Field<'d>>> {
        let DeValue::Array(items) = self.value else {
            self.unexpected("a list", &format!("write it in square brackets, for example {example}"));
            return None;
        };
        Some(items.iter().enumerate().map(|(index, item)| self.item(index, item)).collect())
    }

    /// The value as an inline table or a table below.
    pub(crate) fn as_section(&self, example: &str) -> Option<Section<'d>> {
        let DeValue::Table(table) = self.value else {
            self.unexpected("a table", &format!("for example {example}"));
            return None;
        };
        Some(self.section(table))
    }

    fn item(&self, index: usize, item: &'d Spanned<DeValue<'d>>) -> Field<'d> {
        let mark = Mark { index: Some(index), span: item.span(), ..self.mark.clone() };
        Field { source: self.source, mark, value: item.get_ref() }
    }

    fn section(&self, table: &'d DeTable<'d>) -> Section<'d> {
        let path = self.mark.path().into();
        Section { source: self.source, path, span: self.mark.span.clone(), table, known: Vec::new() }
    }

    fn unexpected(&self, wanted: &str, hint: &str) {
        let found = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(format!("`{}` must be {wanted}, but it is {found}", self.mark.path()), hint);
    }
}
