//! What tables would become if services changed, without changing anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jetway_config::Name;
use jetway_pipelines::ids::BackendIndex;

use super::recipe::{Made, Moves};
use super::{DispatchTables, Job, MadeServices};
use crate::node::services::Services;

/// A change of services that is only looked at.
#[derive(Debug)]
pub struct Preview(Job);

/// What would become of a service's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceMove {
    /// Slots of its table as it is; 0 if there is none.
    pub slots: u32,
    /// Those that would lead to another server.
    pub slots_moved: u32,
    /// Whether clients would find it elsewhere, or not at all.
    pub leaves: bool,
    /// Its servers, as they are and as they would be.
    pub servers: BTreeMap<BackendIndex, ServerMove>,
}

/// What would become of a server's slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServerMove {
    /// Slots that lead to it.
    pub slots_before: u32,
    /// Slots that would.
    pub slots_after: u32,
    /// Slots that lead to it and would lead to another.
    pub slots_moved: u32,
    /// Whether it would be gone.
    pub leaves: bool,
}

impl DispatchTables {
    /// What would change if services were these.
    pub fn preview(&self, services: &Services) -> Preview {
        Preview(self.job(services).0)
    }
}

impl Preview {
    /// Makes the tables that would be, and compares. Takes its time: not for the node's task.
    pub fn run(self) -> BTreeMap<Name, ServiceMove> {
        let before = self.0.before.clone();
        let after = self.0.run().made;
        let names: BTreeSet<&Name> = before.keys().chain(after.keys()).collect();
        names.into_iter().map(|name| (name.clone(), compare(name, &before, &after))).collect()
    }
}

fn compare(name: &Name, before: &MadeServices, after: &MadeServices) -> ServiceMove {
    let (old, new) = (before.get(name).map(Arc::as_ref), after.get(name).map(Arc::as_ref));
    let moves = match (old, new) {
        (Some(old), Some(new)) if !std::ptr::eq(old, new) => old.moves(new),
        (Some(_), Some(_)) | (None, _) => Moves::default(),
        (Some(old), None) => Moves { of_leaving: old.all_slots(), of_staying: BTreeMap::new() },
    };
    let indices = |made: Option<&Made>| -> BTreeSet<BackendIndex> {
        made.into_iter().flat_map(|made| made.service.servers.iter().map(|server| server.index)).collect()
    };
    let (had, has) = (indices(old), indices(new));
    let slots = |made: Option<&Made>, server| made.map_or(0, |made| made.slots(server));
    let server = |index: &BackendIndex| {
        let moved = [&moves.of_leaving, &moves.of_staying].map(|list| list.get(index).copied().unwrap_or(0));
        let server = ServerMove {
            slots_before: slots(old, *index),
            slots_after: slots(new, *index),
            slots_moved: moved[0] + moved[1],
            leaves: !has.contains(index),
        };
        (*index, server)
    };
    ServiceMove {
        slots: old.map_or(0, |old| old.service.table.size()),
        slots_moved: moves.all(),
        leaves: match (old, new) {
            (Some(old), Some(new)) => old.service.socket != new.service.socket,
            (Some(_), None) => true,
            (None, _) => false,
        },
        servers: had.union(&has).map(server).collect(),
    }
}
