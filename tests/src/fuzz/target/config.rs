//! Configuration files and the difference of two of them.

use std::path::Path;

use jetway_config::{Config, KeyFileFault, Problem, Style, Surroundings, diff, parse, render};
use zeroize::Zeroizing;

use crate::fuzz::Outcome;

/// A configuration that is right, for differences.
const RIGHT: &str = include_str!("../../../../config/examples/gateway.toml");

/// A file is right, or every error names a place in it; a difference leads from one right file to the other.
pub fn config(data: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(data);
    match check(&text) {
        Ok(config) => {
            assert!(diff(&config, &config).is_empty());
            let right = check(RIGHT).expect("the example is right");
            let forth = diff(&right, &config);
            Outcome::of((config.tunnels.len(), config.ports.len(), forth.restart.len(), forth.is_empty()))
        }
        Err(problems) => {
            let lines = text.split('\n').count();
            assert!(problems.iter().any(Problem::is_error));
            for problem in &problems {
                assert!((1..=lines).contains(&problem.place.line), "{problem:?}");
                assert!(!problem.message.is_empty() && !problem.hint.is_empty(), "{problem:?}");
            }
            assert!(!render(&problems, Style::Plain).is_empty());
            let first = problems.first().map(|problem| problem.hint.to_string());
            Outcome::of((first, problems.len().min(4)))
        }
    }
}

fn check(text: &str) -> Result<Config, Vec<Problem>> {
    let keys = |path: &Path| match path.to_str() {
        Some("missing.key") => Err(KeyFileFault::Missing),
        Some("exposed.key") => Err(KeyFileFault::Exposed(0o644)),
        Some("empty.key") => Ok(Zeroizing::new(Vec::new())),
        _ => Ok(Zeroizing::new(b"wBQvkkgxV6WD3jtvB3OoNPXh0xGgOoyQUjKkSAJSlGg=\n".to_vec())),
    };
    parse(text, "node.toml", &Surroundings { cpus: 4, keys: &keys }).map(|checked| checked.config)
}
