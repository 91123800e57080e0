//! What a changed configuration would do to virtual services.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Asks what a configuration would change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DryRun {
    /// The configuration's file; an absolute path.
    pub path: PathBuf,
}

/// What would happen to a service.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VipChange {
    /// The service.
    pub name: String,
    /// What becomes of it.
    pub change: Change,
    /// Slots of its table, as it is.
    pub slots: u32,
    /// Those of them that would lead to another server: so many of all clients would change servers if flows were not
    /// remembered.
    pub slots_moved: u32,
    /// Flows that it has.
    pub flows: u64,
    /// Those of them that could not stay where they are.
    pub flows_moved: u64,
    /// Its servers, as they are and as they would be.
    pub backends: Vec<BackendChange>,
}

/// What would happen to a server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BackendChange {
    /// The server.
    pub name: String,
    /// What becomes of it.
    pub change: Change,
    /// Slots that lead to it.
    pub slots_before: u32,
    /// Slots that would.
    pub slots_after: u32,
    /// Slots that lead to it and would lead to another.
    pub slots_moved: u32,
    /// Flows that it has.
    pub flows: u64,
    /// Those of them that could not stay.
    pub flows_moved: u64,
}

/// What becomes of a service or a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It would be new.
    Added,
    /// It would be gone.
    Removed,
    /// It would stay, but differently.
    Changed,
    /// It would stay as it is.
    Unchanged,
}

impl Change {
    /// The word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}
