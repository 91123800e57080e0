//! Jetway's configuration: text becomes typed, checked intent, and two intents become their difference.

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
