//! Fuzz targets: parsers and state machines fed with bytes that no honest sender makes.
//!
//! Each [`Target`] runs for a bounded time in `make test` (see [`drive`]), and for as long as one likes under libFuzzer
//! (`tests/fuzz/`). Inputs worth keeping live in `tests/fuzz/corpus/<target>/`; what once crashed stays there.

mod drive;
mod mutate;
mod source;
mod target;

pub use drive::drive;
pub use target::TARGETS;

/// A parser or state machine with what feeds it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its test, its corpus folder and its libFuzzer binary.
    pub name: &'static str,
    /// Runs it on one input and panics if anything is wrong. What comes back tells what kind of thing happened:
    /// inputs that make new things happen are mutated further.
    pub run: fn(&[u8]) -> Outcome,
    /// Folders of other files of its format, relative to the workspace.
    pub further_corpus: &'static [&'static str],
}

/// What kind of thing an input made happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Outcome(u64);

impl Outcome {
    /// The outcome that is told apart from others by `kind`. It should have few values: each is a kind, not an input.
    pub fn of(kind: impl std::hash::Hash) -> Self {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        Self(BuildHasherDefault::<DefaultHasher>::default().hash_one(kind))
    }
}

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
