//! Virtual services as they run: their servers, whose state and counts outlive every change of anything else.

mod path_mtu;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jetway_config::{Health, Name, Vip, VipBackend};
use jetway_pipelines::dispatch::{Administration, Backend, Health as Found};
use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::time::Instant;

use self::path_mtu::PathMtus;
use super::weights::{self, Step, Weights};
use crate::api::{BackendAction, BackendOrder, Failure};
use crate::health::{Check, HealthThread, LoadCell, Policy, Target};

/// Health checks for which what a server says of its load counts: one may be lost.
const LOAD_COUNTS_FOR: u32 = 3;

/// All services of the node, by name.
#[derive(Clone, Debug)]
pub struct Services {
    running: BTreeMap<Name, Service>,
    next_index: u32,
    workers: usize,
    path_mtus: PathMtus,
}

/// A service that runs.
#[derive(Clone, Debug)]
pub struct Service {
    /// What the configuration says of it.
    pub vip: Vip,
    /// Its servers, in the order of the file.
    pub servers: Vec<Server>,
    /// Its servers' weights, if they follow load.
    weights: Option<Weights>,
}

/// A server of a service.
#[derive(Clone, Debug)]
pub struct Server {
    /// What the configuration says of it.
    pub config: VipBackend,
    /// What workers know of it.
    pub backend: Arc<Backend>,
    /// When its drain ends and it is disabled.
    pub deadline: Option<Instant>,
    /// Its weight in the service's table.
    weight: u16,
    /// What it says of its load.
    pub load: Arc<LoadCell>,
}

impl Server {
    /// Its weight in the service's table, relative to the others'.
    pub fn weight(&self) -> u16 {
        self.weight
    }
}

impl Service {
    /// How busy a server says it is; `None` if it does not, or not any more.
    pub fn load(&self, server: &Server, now: Instant) -> Option<f64> {
        self.weights.as_ref()?.load(server.backend.index, now)
    }

    /// Takes in what servers say of their load, and moves their weights a step.
    fn follow_load(&mut self, now: Instant) -> Step {
        let Some(weights) = &mut self.weights else { return Step::Unchanged };
        for server in &self.servers {
            if let Some(load) = server.load.take() {
                weights.report(server.backend.index, load, now);
            }
        }
        let step = weights.step(now);
        if step == Step::Changed {
            self.take_weights();
        }
        step
    }

    /// The most slots that a table of its present weights may move, if only a step of theirs changed them.
    pub fn limit(&self) -> Option<u32> {
        self.weights.as_ref()?.limit()
    }

    fn take_weights(&mut self) {
        for server in &mut self.servers {
            let followed = self.weights.as_ref().and_then(|weights| weights.weight(server.backend.index));
            server.weight = followed.unwrap_or(server.config.weight);
        }
    }
}

/// What is to be done for health checks after services changed.
#[derive(Debug, Default)]
pub struct HealthChanges {
    start: Vec<Check>,
    change: Vec<Check>,
    stop: Vec<BackendIndex>,
    /// Servers that nobody asks any more: they are taken to be up.
    unasked: Vec<Arc<Backend>>,
}

impl HealthChanges {
    /// Adds what is to be done after this.
    pub fn extend(&mut self, later: Self) {
        self.start.retain(|check| !later.stop.contains(&check.backend.index));
        self.change.retain(|check| !later.stop.contains(&check.backend.index));
        self.start.extend(later.start);
        self.change.extend(later.change);
        self.stop.extend(later.stop);
        self.unasked.extend(later.unasked);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.start.is_empty() && self.change.is_empty() && self.stop.is_empty() && self.unasked.is_empty()
    }

    /// Has the health thread do it.
    pub fn carry_out(self, thread: &HealthThread) {
        if !self.stop.is_empty() {
            thread.forget(self.stop);
        }
        self.unasked.iter().for_each(|backend| backend.set_health(Found::Up));
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
        Self { running: BTreeMap::new(), next_index: 0, workers, path_mtus: PathMtus::default() }
    }

    /// Takes in what the configuration says from now on. A server that stays, known by address and port, keeps its state
    /// and counts, whatever else of it or its service changes.
    pub fn reload(&mut self, vips: &[Vip], now: Instant) -> Result<HealthChanges, Failure> {
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
            let service = self.follow(old, vip, now, &mut changes)?;
            self.running.insert(vip.name.clone(), service);
        }
        for service in before.into_values() {
            let watched = service.vip.health.is_some();
            changes.stop.extend(service.servers.iter().filter(|_| watched).map(|server| server.backend.index));
        }
        Ok(changes)
    }

    fn follow(
        &mut self,
        old: Option<Service>,
        vip: &Vip,
        now: Instant,
        changes: &mut HealthChanges,
    ) -> Result<Service, Failure> {
        let (old_vip, old_servers, old_weights) =
            old.map_or((None, Vec::new(), None), |old| (Some(old.vip), old.servers, old.weights));
        let mut old_servers: HashMap<(IpAddr, u16), Server> =
            old_servers.into_iter().map(|server| ((server.config.address, server.config.port), server)).collect();
        let was_watched = old_vip.as_ref().is_some_and(|old| old.health.is_some());
        let mut servers = Vec::with_capacity(vip.backends.len());
        for config in &vip.backends {
            let old = old_servers.remove(&(config.address, config.port));
            let is_same_question = old_vip.as_ref().is_some_and(|old_vip| {
                old_vip.health == vip.health
                    && old_vip.load == vip.load
                    && old_vip.public_key == vip.public_key
                    && old.as_ref().is_some_and(|old| old.config.name == config.name)
            });
            let (mut server, was_watched) = match old {
                Some(old) => (old, was_watched),
                None => (self.new_server(config), false),
            };
            server.config = config.clone();
            match (&vip.health, was_watched) {
                (Some(_), true) if is_same_question => {}
                (Some(health), true) => changes.change.push(check(vip, health, &server)?),
                (Some(health), false) => changes.start.push(check(vip, health, &server)?),
                (None, true) => {
                    changes.stop.push(server.backend.index);
                    changes.unasked.push(Arc::clone(&server.backend));
                }
                (None, false) => {}
            }
            servers.push(server);
        }
        changes.stop.extend(old_servers.into_values().filter(|_| was_watched).map(|server| server.backend.index));
        let weights = weights_of(vip, &servers, old_weights, now);
        let mut service = Service { vip: vip.clone(), servers, weights };
        service.take_weights();
        Ok(service)
    }

    fn new_server(&mut self, config: &VipBackend) -> Server {
        // Flows may outlive the server that they went to: a number is never given out again.
        let index = BackendIndex(self.next_index);
        self.next_index += 1;
        Server {
            config: config.clone(),
            backend: Arc::new(Backend::new(index, config.address, config.port, self.workers)),
            deadline: None,
            weight: config.weight,
            load: Arc::default(),
        }
    }

    /// Servers have numbers below this one.
    pub fn known(&self) -> u32 {
        self.next_index
    }

    /// The service of a name.
    pub fn service(&self, name: &str) -> Result<&Service, Failure> {
        let found = self.running.values().find(|running| running.vip.name.as_str() == name);
        found.ok_or_else(|| no_service(name, self.running.keys()))
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

    /// Moves weights that follow load, a step at most.
    pub fn follow_load(&mut self, now: Instant) -> Step {
        let mut step = Step::Unchanged;
        for service in self.running.values_mut() {
            if service.follow_load(now) == Step::Changed {
                step = Step::Changed;
            }
        }
        step
    }

    /// Takes note of tables that are in use from now on and the slots that each moved, and of services that keep theirs
    /// because those of their new weights would have moved too many.
    pub fn settle(&mut self, moved: &BTreeMap<Name, u32>, held_back: &[Name]) {
        for (service, slots) in moved {
            if let Some(weights) = self.running.get_mut(service).and_then(|service| service.weights.as_mut()) {
                weights.charge(*slots);
            }
        }
        for service in held_back {
            let Some(service) = self.running.get_mut(service) else { continue };
            if let Some(weights) = &mut service.weights {
                weights.take_back();
            }
            service.take_weights();
        }
    }

    fn server_mut(&mut self, service: &str, server: &str) -> Result<&mut Server, Failure> {
        // Before, since the borrow of what is found lasts to the end.
        let unknown = no_service(service, self.running.keys());
        let found = self.running.values_mut().find(|running| running.vip.name.as_str() == service);
        let Some(found) = found else { return Err(unknown) };
        let known = in_a_list(found.servers.iter().map(|server| &server.config.name));
        found
            .servers
            .iter_mut()
            .find(|running| running.config.name.as_str() == server)
            .ok_or_else(|| Failure::new(format!("{service} has no server {server}"), format!("it has: {known}")))
    }
}

fn no_service<'a>(name: &str, known: impl Iterator<Item = &'a Name>) -> Failure {
    let known = in_a_list(known);
    let hint = if known.is_empty() { "the node has none".to_owned() } else { format!("there are: {known}") };
    Failure::new(format!("there is no service {name}"), hint)
}

fn in_a_list<'a>(names: impl Iterator<Item = &'a Name>) -> String {
    names.map(Name::as_str).collect::<Vec<_>>().join(", ")
}

/// The weights of a service whose weights follow load.
fn weights_of(vip: &Vip, servers: &[Server], old: Option<Weights>, now: Instant) -> Option<Weights> {
    let (load, health) = (vip.load.as_ref()?, vip.health.as_ref()?);
    let policy = weights::Policy {
        slots: vip.table_size,
        slots_per_minute: load.slots_per_minute,
        fresh_for: health.interval * LOAD_COUNTS_FOR,
    };
    let configured: Vec<_> = servers.iter().map(|server| (server.backend.index, server.config.weight)).collect();
    match old {
        Some(mut weights) => {
            weights.configure(policy, &configured);
            Some(weights)
        }
        None => Some(Weights::new(policy, &configured, now)),
    }
}

/// The health check of a server.
fn check(vip: &Vip, health: &Health, server: &Server) -> Result<Check, Failure> {
    let config = &server.config;
    let target = target(vip, health, config)?;
    let policy = Policy { interval: health.interval, timeout: health.timeout, fall: health.fall, rise: health.rise };
    let names = (vip.name.as_str().into(), config.name.as_str().into());
    Ok(Check { backend: Arc::clone(&server.backend), names, target, policy, load: Arc::clone(&server.load) })
}

fn target(vip: &Vip, health: &Health, config: &VipBackend) -> Result<Target, Failure> {
    Target::new(health, vip.load.as_ref(), vip.public_key.as_ref(), config.address, config.port).map_err(|error| {
        Failure::new(format!("service {}: {error}", vip.name), "make the probe a new key with `jetway keygen`")
    })
}

#[cfg(test)]
mod tests;
