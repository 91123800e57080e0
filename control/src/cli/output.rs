//! Text for people: tables, sizes, ages; and JSON for programs.

use serde::Serialize;
use std::io::Write;

/// Prints a value as indented JSON. A reader that went away is no error.
pub fn json(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string_pretty(value) {
        text_line(&text);
    }
}

/// Prints a text and a line end to standard output. A reader that went away (`| head`) is no error.
pub fn text_line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Where a column's text stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// For names.
    Left,
    /// For numbers.
    Right,
}

/// A table with a header, two spaces between columns and none at line ends.
pub fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width_of = |place: usize, head: &str| {
        let cells = rows.iter().filter_map(|row| row.get(place)).map(|cell| cell.chars().count());
        cells.chain([head.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(|(place, (head, _))| width_of(place, head)).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(columns).zip(&widths).map(|((cell, (_, align)), width)| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut columns.iter().map(|(head, _)| *head));
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// A number with thin groups of three: 1234567 as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An amount of bytes as `1.50 MiB`.
pub fn bytes(amount: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = amount as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{amount} B"),
        _ => format!("{value:.2} {}", UNITS[unit]),
    }
}

/// A time span as its two largest parts: `2d 3h`, `1m 5s`, `4s`.
pub fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown = parts.iter().skip(first).take(2).enumerate().filter(|(place, (count, _))| *place == 0 || *count > 0);
    shown.map(|(_, (count, unit))| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sizes_and_spans_read_easily() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1_023, 1_536, u64::MAX].map(bytes), ["0 B", "1023 B", "1.50 KiB", "16.00 EiB"]);
        assert_eq!([0.4, 59.0, 65.0, 3_600.0, 183_600.0].map(span), ["0s", "59s", "1m 5s", "1h", "2d 3h"]);
    }

    #[test]
    fn a_table_lines_its_columns_up() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "7".to_owned()]];
        let text = table(&[("name", Align::Left), ("n", Align::Right)], &rows);
        assert_eq!(text, "name   n\na     10\nlong   7\n");
    }
}
