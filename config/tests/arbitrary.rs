//! Whatever stands in a file, parsing ends, names places that exist, and accepts only what is right.

mod common;

use jetway_config::{Config, Problem, Style, diff, render};
use proptest::prelude::*;
use proptest::sample::Index;

const VALID: [&str; 3] = [
    include_str!("../examples/gateway.toml"),
    include_str!("../examples/two-ports.toml"),
    include_str!("../examples/real-nic.toml"),
];

/// Words that mean something to the parser, for mutations that get past the syntax.
const WORDS: [&str; 40] = [
    "[[port]]\n",
    "[[tunnel]]\n",
    "[[tunnel.peer]]\n",
    "[[vip]]\n",
    "[[vip.backend]]\n",
    "[node]\n",
    "[engine]\n",
    "[api]\n",
    "\"",
    "'''",
    "\n",
    "=",
    "[",
    "]",
    "{",
    "}",
    ",",
    "#",
    "\\",
    "0",
    "-1",
    "9223372036854775807",
    "1e9",
    "true",
    "nan",
    "0xff",
    "1979-05-27",
    "\"10.0.0.0/0\"",
    "\"::/0\"",
    "\"0.0.0.0/0\"",
    "\"5s\"",
    "\"99999999999999999999h\"",
    "\u{0}",
    "\u{feff}",
    "ü",
    "\r\n",
    "name = \"\"\n",
    "mtu = 0\n",
    "table_size = 16777212\n",
    "\"0000:00:00.0\"",
];

/// Parses, and checks what every problem promises.
fn examine(text: &str) -> Option<Config> {
    let (config, problems) = match common::check(text, "x.toml") {
        Ok(checked) => (Some(checked.config), checked.warnings),
        Err(problems) => (None, problems),
    };
    assert_eq!(config.is_none(), problems.iter().any(Problem::is_error));
    let lines: Vec<_> = text.split('\n').collect();
    for problem in &problems {
        let place = &problem.place;
        assert!((1..=lines.len()).contains(&place.line), "{problem:?}");
        let width = lines[place.line - 1].chars().count();
        assert!((1..=width + 1).contains(&place.column), "{problem:?}");
        assert!(place.end_column > place.column && place.end_column <= width.max(place.column) + 1, "{problem:?}");
        assert!(place.excerpt.get(place.highlight.clone()).is_some(), "{problem:?}");
        assert!(!problem.message.is_empty() && !problem.hint.is_empty(), "{problem:?}");
    }
    assert!(problems.is_sorted_by_key(|problem| problem.place.line));
    let rendered = render(&problems, Style::Coloured);
    assert_eq!(rendered.is_empty(), problems.is_empty());
    config
}

#[derive(Clone, Debug)]
enum Mutation {
    Remove(Index, usize),
    Insert(Index, &'static str),
    Copy(Index, usize, Index),
    Replace(Index, char),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), 1..20_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (any::<Index>(), proptest::sample::select(WORDS.as_slice())).prop_map(|(at, word)| Mutation::Insert(at, word)),
        (any::<Index>(), 1..200_usize, any::<Index>()).prop_map(|(from, length, to)| Mutation::Copy(from, length, to)),
        (any::<Index>(), any::<char>()).prop_map(|(at, c)| Mutation::Replace(at, c)),
    ]
}

fn mutate(text: &mut Vec<char>, mutation: Mutation) {
    let places = text.len() + 1;
    match mutation {
        Mutation::Remove(at, length) => {
            let at = at.index(places);
            text.drain(at..(at + length).min(text.len()));
        }
        Mutation::Insert(at, word) => {
            let at = at.index(places);
            text.splice(at..at, word.chars());
        }
        Mutation::Copy(from, length, to) => {
            let from = from.index(places);
            let part = text[from..(from + length).min(text.len())].to_vec();
            let to = to.index(places);
            text.splice(to..to, part);
        }
        Mutation::Replace(at, c) => {
            if let Some(place) = text.get_mut(at.index(places)) {
                *place = c;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        examine(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn arbitrary_words_never_panic(words in proptest::collection::vec(proptest::sample::select(WORDS.as_slice()), 0..40)) {
        examine(&words.concat());
    }

    #[test]
    fn mutated_configurations_never_panic_and_what_passes_is_usable(
        which in 0..VALID.len(),
        mutations in proptest::collection::vec(mutation(), 1..6),
    ) {
        let mut text: Vec<char> = VALID[which].chars().collect();
        for mutation in mutations {
            mutate(&mut text, mutation);
        }
        let text: String = text.into_iter().collect();
        if let (Some(config), Some(original)) = (examine(&text), examine(VALID[which])) {
            let mut running = original.clone();
            let difference = diff(&original, &config);
            difference.apply(&mut running);
            let rest = diff(&running, &config);
            prop_assert_eq!(rest.restart, difference.restart);
            prop_assert!(rest.tunnels.is_empty() && rest.vips.is_empty() && rest.ports.is_empty());
        }
    }
}

#[test]
fn deep_nesting_and_huge_values_end() {
    for text in [
        "[".repeat(100_000),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
        format!("a{} = 1", ".a".repeat(100_000)),
        format!("node = \"{}\"", "x".repeat(1_000_000)),
        format!("[node]\nname = \"{}\"", "ü".repeat(500_000)),
        "x = 1\n".repeat(2_000),
    ] {
        assert!(examine(&text).is_none());
    }
}
