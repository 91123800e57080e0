//! Jetway's configuration: text becomes typed, checked intent, and two intents become their difference.

#![forbid(unsafe_code)]

mod intent;
mod secret;

pub use intent::*;
pub use secret::Secret;
