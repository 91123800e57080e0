//! What a changed configuration would move, found out without changing anything.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use jetway_config::{Name, Vip, VipBackend};
use jetway_pipelines::dispatch::flow_scan::{FlowFilter, FlowTask};
use jetway_pipelines::ids::BackendIndex;
use tokio::sync::oneshot;

use super::Node;
use super::dispatch::{Preview, ServerMove, ServiceMove};
use super::flows::{Found, Wanted};
use super::services::Services;
use crate::api::{BackendChange, Change, Failure, VipChange};

/// A comparison that waits for tables to be made and flows to be counted.
pub(super) struct PendingDryRun {
    preview: Preview,
    flows: oneshot::Receiver<Found>,
    before: Known,
    after: Known,
}

/// What services and servers are called, and what the configuration says of them.
struct Known {
    services: HashMap<Name, Vip>,
    servers: HashMap<BackendIndex, VipBackend>,
}

impl Known {
    fn of(services: &Services) -> Self {
        let servers = services.iter().flat_map(|service| &service.servers);
        Self {
            services: services.iter().map(|service| (service.vip.name.clone(), service.vip.clone())).collect(),
            servers: servers.map(|server| (server.backend.index, server.config.clone())).collect(),
        }
    }
}

impl Node {
    /// Reads a configuration, and begins to find out what it would move.
    pub(super) fn begin_dry_run(&mut self, path: &Path) -> Result<PendingDryRun, Failure> {
        let checked = jetway_config::load(path, self.cpus).map_err(|problems| Failure::with_problems(&problems))?;
        let mut services = self.services.clone();
        // What would be done about health checks is not done.
        services.reload(&checked.config.vips, self.engine.clock.now())?;
        let wanted = Wanted { task: FlowTask::Count, filter: FlowFilter::default(), limit: 0 };
        Ok(PendingDryRun {
            preview: self.dispatch.preview(&services),
            flows: self.ask_workers(wanted)?,
            before: Known::of(&self.services),
            after: Known::of(&services),
        })
    }
}

impl PendingDryRun {
    /// What would move.
    pub(super) async fn complete(self) -> Result<Vec<VipChange>, Failure> {
        let stopping = || Failure::new("the node is stopping", "start it again");
        let Self { preview, flows, before, after } = self;
        let moves = tokio::task::spawn_blocking(move || preview.run()).await.map_err(|_| stopping())?;
        let flows = flows.await.map_err(|_| stopping())?.counts;
        Ok(changes(moves, &flows, &before, &after))
    }
}

fn changes(moves: BTreeMap<Name, ServiceMove>, flows: &[u64], before: &Known, after: &Known) -> Vec<VipChange> {
    let flows_at = |server: BackendIndex| flows.get(server.index()).copied().unwrap_or(0);
    let change = |(name, service): (Name, ServiceMove)| {
        let backend = |(index, server): (&BackendIndex, &ServerMove)| {
            let (old, new) = (before.servers.get(index), after.servers.get(index));
            let flows = flows_at(*index);
            BackendChange {
                name: new.or(old).map_or_else(String::new, |server| server.name.to_string()),
                change: compare(old, new),
                slots_before: server.slots_before,
                slots_after: server.slots_after,
                slots_moved: server.slots_moved,
                flows,
                flows_moved: if service.leaves || server.leaves { flows } else { 0 },
            }
        };
        let backends: Vec<_> = service.servers.iter().map(backend).collect();
        VipChange {
            change: compare(before.services.get(&name), after.services.get(&name)),
            name: name.to_string(),
            slots: service.slots,
            slots_moved: service.slots_moved,
            flows: backends.iter().map(|backend| backend.flows).sum(),
            flows_moved: backends.iter().map(|backend| backend.flows_moved).sum(),
            backends,
        }
    };
    moves.into_iter().map(change).collect()
}

fn compare<T: PartialEq>(old: Option<&T>, new: Option<&T>) -> Change {
    match (old, new) {
        (None, _) => Change::Added,
        (Some(_), None) => Change::Removed,
        (Some(old), Some(new)) if old == new => Change::Unchanged,
        (Some(_), Some(_)) => Change::Changed,
    }
}
