//! Jetway's configuration: text becomes typed, checked intent, and two intents become their difference.

//!
//! [`load`] reads a file with the key files beside it; [`parse`] does the same without touching the disk. Both give
//! either a [`Config`] that breaks no rule, or every [`Problem`] at once, each with its line and what to do about it;
//! [`render`] draws them for people. [`diff`] says what a running node must do to follow a new file.
//!
//! ```
//! use jetway_config::{KeyFileFault, Style, Surroundings, parse, render};
//!
//! let no_keys = |_: &std::path::Path| Err(KeyFileFault::Missing);
//! let surroundings = Surroundings { cpus: 4, keys: &no_keys };
//! let problems = parse("[node]\nname = \"edge-1\"\nid = 300\n", "node.toml", &surroundings).unwrap_err();
//! assert!(problems.iter().any(|problem| problem.path == "node.id" && problem.place.line == 3));
//! assert!(render(&problems, Style::Plain).contains("write a whole number from 0 to 255"));
//! ```

#![forbid(unsafe_code)]

mod cross_check;
mod diff;
mod intent;
mod key_file;
mod load;
mod parse;
mod problem;
mod read;
mod render;
mod secret;
mod section;
mod source;
mod suggest;
mod value;

pub use diff::{AddressChange, Changes, Diff, PeerChange, PortChange, RestartNeeded, TunnelChange, diff};
pub use intent::*;
pub use key_file::{KeyFileFault, KeyFiles};
pub use load::load;
pub use parse::{Checked, Surroundings, parse};
pub use problem::{Place, Problem, Related, Severity};
pub use render::{Style, render};
pub use secret::Secret;
