//! Virtual services as they run: their servers, whose state and counts outlive every change of anything else.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jetway_config::{Health, Name, Vip, VipBackend};
use jetway_pipelines::dispatch::{Administration, Backend, Health as Found};
use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::time::Instant;

use crate::api::{BackendAction, BackendOrder, Failure};
use crate::health::{Check, HealthThread, Policy, Target};

/// All services of the node, by name.
#[derive(Debug)]
pub struct Services {
    running: BTreeMap<Name, Service>,
    next_index: u32,
    workers: usize,
}

/// A service that runs.
#[derive(Debug)]
pub struct Service {
    /// What the configuration says of it.
    pub vip: Vip,
    /// Its servers, in the order of the file.
    pub servers: Vec<Server>,
}

/// A server of a service.
#[derive(Debug)]
pub struct Server {
    /// What the configuration says of it.
    pub config: VipBackend,
    /// What workers know of it.
    pub backend: Arc<Backend>,
    /// When its drain ends and it is disabled.
    pub deadline: Option<Instant>,
}

/// What is to be done for health checks after services changed.
#[derive(Debug, Default)]
pub struct HealthChanges {
    start: Vec<Check>,
    change: Vec<Check>,
    stop: Vec<BackendIndex>,
}

impl HealthChanges {
    /// Adds what is to be done after this.
    pub fn extend(&mut self, later: Self) {
        self.start.retain(|check| !later.stop.contains(&check.backend.index));
        self.change.retain(|check| !later.stop.contains(&check.backend.index));
        self.start.extend(later.start);
        self.change.extend(later.change);
        self.stop.extend(later.stop);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.start.is_empty() && self.change.is_empty() && self.stop.is_empty()
    }

    /// Has the health thread do it.
    pub fn carry_out(self, thread: &HealthThread) {
        if !self.stop.is_empty() {
            thread.forget(self.stop);
        }
        if !self.start.is_empty() {
            thread.watch(self.start);
        }
        if !self.change.is_empty() {
            thread.change(self.change);
        }
    }
}

impl Services {
    /// None yet, for a node of so many workers.
    pub fn new(workers: usize) -> Self {
        Self { running: BTreeMap::new(), next_index: 0, workers }
    }

    /// Takes in what the configuration says from now on. A server that stays, known by address and port, keeps its state
    /// and counts, whatever else of it or its service changes.
    pub fn reload(&mut self, vips: &[Vip]) -> Result<HealthChanges, Failure> {
        // What can fail comes first, so that it changes nothing.
        for vip in vips {
            for (config, health) in vip.backends.iter().zip(vip.health.iter().cycle()) {
                target(vip, health, config)?;
            }
        }
        let mut changes = HealthChanges::default();
        let mut before = std::mem::take(&mut self.running);
        for vip in vips {
            let old = before.remove(&vip.name);
            let service = self.follow(old, vip, &mut changes)?;
            self.running.insert(vip.name.clone(), service);
        }
        for service in before.into_values() {
            let watched = service.vip.health.is_some();
            changes.stop.extend(service.servers.iter().filter(|_| watched).map(|server| server.backend.index));
        }
        Ok(changes)
    }

    fn follow(&mut self, old: Option<Service>, vip: &Vip, changes: &mut HealthChanges) -> Result<Service, Failure> {
        let (old_vip, old_servers) = old.map_or((None, Vec::new()), |old| (Some(old.vip), old.servers));
        let mut old_servers: HashMap<(IpAddr, u16), Server> =
            old_servers.into_iter().map(|server| ((server.config.address, server.config.port), server)).collect();
        let was_watched = old_vip.as_ref().is_some_and(|old| old.health.is_some());
        let mut servers = Vec::with_capacity(vip.backends.len());
        for config in &vip.backends {
            let old = old_servers.remove(&(config.address, config.port));
            let is_same_question = old_vip.as_ref().is_some_and(|old_vip| {
                old_vip.health == vip.health
                    && old_vip.public_key == vip.public_key
                    && old.as_ref().is_some_and(|old| old.config.name == config.name)
            });
            let (backend, deadline, was_watched) = match old {
                Some(old) => (old.backend, old.deadline, was_watched),
                None => (Arc::new(self.new_backend(config)), None, false),
            };
            match (&vip.health, was_watched) {
                (Some(_), true) if is_same_question => {}
                (Some(health), true) => changes.change.push(check(vip, health, config, &backend)?),
                (Some(health), false) => changes.start.push(check(vip, health, config, &backend)?),
                (None, true) => {
                    changes.stop.push(backend.index);
                    backend.set_health(Found::Up);
                }
                (None, false) => {}
            }
            servers.push(Server { config: config.clone(), backend, deadline });
        }
        changes.stop.extend(old_servers.into_values().filter(|_| was_watched).map(|server| server.backend.index));
        Ok(Service { vip: vip.clone(), servers })
    }

    fn new_backend(&mut self, config: &VipBackend) -> Backend {
        // Flows may outlive the server that they went to: a number is never given out again.
        let index = BackendIndex(self.next_index);
        self.next_index += 1;
        Backend::new(index, config.address, config.port, self.workers)
    }

    /// Every service, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.running.values()
    }

    /// The addresses of all services.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.running.values().map(|service| service.vip.address)
    }

    /// Does with a server what its operator wants.
    pub fn order(&mut self, order: &BackendOrder, now: Instant) -> Result<(), Failure> {
        let server = self.server_mut(&order.service, &order.backend)?;
        let (administration, deadline) = match order.action {
            BackendAction::Enable => (Administration::Enabled, None),
            BackendAction::Drain => {
                (Administration::Draining, order.deadline_seconds.map(|seconds| now + Duration::from_secs(seconds)))
            }
            BackendAction::Disable => (Administration::Disabled, None),
        };
        server.backend.set_administration(administration);
        server.deadline = deadline;
        tracing::info!(service = order.service, server = order.backend, ?administration, "as the operator wants");
        Ok(())
    }

    /// Disables servers whose drain is over.
    pub fn end_drains(&mut self, now: Instant) {
        for server in self.running.values_mut().flat_map(|service| &mut service.servers) {
            if server.deadline.is_some_and(|deadline| deadline <= now) {
                server.deadline = None;
                server.backend.set_administration(Administration::Disabled);
                tracing::info!(server = %server.config.name, "the drain's deadline is over: the server is disabled");
            }
        }
    }

    fn server_mut(&mut self, service: &str, server: &str) -> Result<&mut Server, Failure> {
        let names = |names: Vec<&Name>| names.into_iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
        let known = names(self.running.keys().collect());
        let found = self.running.values_mut().find(|running| running.vip.name.as_str() == service);
        let Some(found) = found else {
            let hint = if known.is_empty() { "the node has none".to_owned() } else { format!("there are: {known}") };
            return Err(Failure::new(format!("there is no service {service}"), hint));
        };
        let known = names(found.servers.iter().map(|server| &server.config.name).collect());
        found
            .servers
            .iter_mut()
            .find(|running| running.config.name.as_str() == server)
            .ok_or_else(|| Failure::new(format!("{service} has no server {server}"), format!("it has: {known}")))
    }
}

/// The health check of a server.
fn check(vip: &Vip, health: &Health, config: &VipBackend, backend: &Arc<Backend>) -> Result<Check, Failure> {
    let target = target(vip, health, config)?;
    let policy = Policy { interval: health.interval, timeout: health.timeout, fall: health.fall, rise: health.rise };
    let names = (vip.name.as_str().into(), config.name.as_str().into());
    Ok(Check { backend: Arc::clone(backend), names, target, policy })
}

fn target(vip: &Vip, health: &Health, config: &VipBackend) -> Result<Target, Failure> {
    Target::new(health, vip.public_key.as_ref(), config.address, config.port).map_err(|error| {
        Failure::new(format!("service {}: {error}", vip.name), "make the probe a new key with `jetway keygen`")
    })
}

#[cfg(test)]
mod tests;
