//! Weights that follow load: busy servers get fewer new flows, little by little. Pure, given reports and the time.
//!
//! ```text
//! reports --smooth--> load of each server --against their mean--> wanted factor --budget--> factor · weight
//! ```
//!
//! A server's factor is 1 while nothing is known, and stays between [`LEAST`] and [`MOST`], so that no server starves
//! and none is buried. Each change moves slots of the table, so only so many are moved in any minute.

use std::collections::HashMap;
use std::time::Duration;

use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::time::Instant;

/// From one step to the next. Flows that are there stay where they are, so the effect of a step takes its time.
pub const STEP_EVERY: Duration = Duration::from_secs(10);
/// The least part of its weight that a server keeps.
pub const LEAST: f64 = 0.25;
/// The most that a server gets of its weight.
pub const MOST: f64 = 2.0;
/// Loads that differ by less than this from the mean are left alone: otherwise noise would keep slots moving.
pub const DEAD_BAND: f64 = 0.05;
/// How much of a difference one step takes out, as an exponent of the ratio of loads. Less than half, so that servers
/// whose load follows late do not swing.
const GAIN: f64 = 0.25;
/// Keeps the ratio of small loads from being large.
const IDLE: f64 = 0.05;
/// The weight of a new report beside all before it.
const SMOOTHING: f64 = 0.25;
/// Units of a factor of 1, if the weights leave room for so many in 16 bits.
const FINEST: u16 = 512;
/// The part of the budget that a step plans for at first: the table moves some more slots than change their share.
const PLANNED: f64 = 0.25;
/// What is planned for after a step turned out to move more than the budget has.
const LESS: f64 = 0.5;

/// How weights may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Slots of the table.
    pub slots: u32,
    /// Slots that may move in any minute.
    pub slots_per_minute: u32,
    /// How long a report counts.
    pub fresh_for: Duration,
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Weights are others now.
    Changed,
    /// They are as before.
    Unchanged,
}

/// The weights of one service's servers.
#[derive(Clone, Debug)]
pub struct Weights {
    policy: Policy,
    servers: Vec<Server>,
    places: HashMap<BackendIndex, usize>,
    /// Weight units of a factor of 1 on a weight of 1.
    unit: u16,
    /// Slots that may be moved now.
    budget: f64,
    /// The part of it that the next step plans for.
    planned: f64,
    /// Whether nothing but a step made the weights others than those of the table in use.
    is_stepping: bool,
    refilled: Instant,
    stepped: Instant,
}

#[derive(Clone, Debug)]
struct Server {
    index: BackendIndex,
    configured: u16,
    factor: f64,
    /// The factor that the table in use was made with.
    settled: f64,
    load: Option<(f64, Instant)>,
}

impl Server {
    fn weight(&self, factor: f64, unit: u16) -> u16 {
        // At most 65,535: see `unit_for`.
        (f64::from(self.configured) * f64::from(unit) * factor).round().max(1.0) as u16
    }

    fn load_at(&self, now: Instant, fresh_for: Duration) -> Option<f64> {
        self.load.filter(|(_, when)| now.since(*when) <= fresh_for).map(|(load, _)| load)
    }
}

impl Weights {
    /// The weights of these servers, each with what the configuration says.
    pub fn new(policy: Policy, servers: &[(BackendIndex, u16)], now: Instant) -> Self {
        let budget = burst(&policy);
        let mut weights = Self {
            policy,
            servers: Vec::new(),
            places: HashMap::new(),
            unit: 1,
            budget,
            planned: PLANNED,
            is_stepping: false,
            refilled: now,
            stepped: now,
        };
        weights.configure(policy, servers);
        weights
    }

    /// Takes in what the configuration says from now on. Servers that stay keep what they came to.
    pub fn configure(&mut self, policy: Policy, servers: &[(BackendIndex, u16)]) {
        let mut before: HashMap<_, _> = self.servers.drain(..).map(|server| (server.index, server)).collect();
        let follow = |&(index, configured): &(BackendIndex, u16)| match before.remove(&index) {
            Some(old) => Server { configured, ..old },
            None => Server { index, configured, factor: 1.0, settled: 1.0, load: None },
        };
        self.servers = servers.iter().map(follow).collect();
        self.places = servers.iter().enumerate().map(|(place, (index, _))| (*index, place)).collect();
        self.unit = unit_for(servers);
        self.policy = policy;
        self.budget = self.budget.min(burst(&policy));
        self.is_stepping = false;
    }

    /// Takes in how busy a server is, from 0 to 1.
    pub fn report(&mut self, server: BackendIndex, load: f64, now: Instant) {
        let Some(server) = self.places.get(&server).and_then(|place| self.servers.get_mut(*place)) else { return };
        let load = load.clamp(0.0, 1.0);
        let known = server.load_at(now, self.policy.fresh_for);
        server.load = Some((known.map_or(load, |known| known + (load - known) * SMOOTHING), now));
    }

    /// How busy a server is, smoothed; `None` if it has not said so lately.
    pub fn load(&self, server: BackendIndex, now: Instant) -> Option<f64> {
        self.servers.get(*self.places.get(&server)?)?.load_at(now, self.policy.fresh_for)
    }

    /// The weight of a server in the table; never 0.
    pub fn weight(&self, server: BackendIndex) -> Option<u16> {
        let server = self.servers.get(*self.places.get(&server)?)?;
        Some(server.weight(server.factor, self.unit))
    }

    /// Moves weights a step, if it is time and the budget allows.
    pub fn step(&mut self, now: Instant) -> Step {
        let minutes = now.since(self.refilled).as_secs_f64() / 60.0;
        self.refilled = now;
        self.budget = (self.budget + burst(&self.policy) * minutes).min(burst(&self.policy));
        if now.since(self.stepped) < STEP_EVERY {
            return Step::Unchanged;
        }
        self.stepped = now;
        let wanted = self.wanted(now);
        let allowed = self.budget * self.planned;
        let mut part = 1.0;
        // As much of the way as the budget allows; what is left comes with later steps.
        for _ in 0..24 {
            let factors: Vec<f64> =
                self.servers.iter().zip(&wanted).map(|(s, to)| s.factor + (to - s.factor) * part).collect();
            let moved = self.slots_for(&factors);
            if moved <= allowed {
                let weights = |factor: &dyn Fn(usize) -> f64| -> Vec<u16> {
                    self.servers
                        .iter()
                        .enumerate()
                        .map(|(place, server)| server.weight(factor(place), self.unit))
                        .collect()
                };
                let changed = weights(&|place| factors[place]) != weights(&|place| self.servers[place].factor);
                self.servers.iter_mut().zip(factors).for_each(|(server, factor)| server.factor = factor);
                self.is_stepping |= changed;
                return if changed { Step::Changed } else { Step::Unchanged };
            }
            part *= (allowed / moved).clamp(0.1, 0.9);
        }
        Step::Unchanged
    }

    /// The most slots that the table of these weights may move: only when it is made is it known how many it does.
    /// `None` if not only a step made them others: what an operator wants is not held back.
    pub fn limit(&self) -> Option<u32> {
        self.is_stepping.then_some(self.budget as u32)
    }

    /// Takes note of a table that is in use from now on, and of the slots that it moved.
    pub fn charge(&mut self, slots: u32) {
        self.budget -= f64::from(slots);
        self.planned = PLANNED;
        self.is_stepping = false;
        self.servers.iter_mut().for_each(|server| server.settled = server.factor);
    }

    /// Takes the weights back to those of the table in use: with the new ones more slots would move than the budget has.
    pub fn take_back(&mut self) {
        self.planned *= LESS;
        self.is_stepping = false;
        self.servers.iter_mut().for_each(|server| server.factor = server.settled);
    }

    /// The factors that would even the load out.
    fn wanted(&self, now: Instant) -> Vec<f64> {
        let loads: Vec<_> = self.servers.iter().map(|server| server.load_at(now, self.policy.fresh_for)).collect();
        let known = || {
            self.servers.iter().zip(&loads).filter_map(|(server, load)| Some((f64::from(server.configured), (*load)?)))
        };
        let weights: f64 = known().map(|(weight, _)| weight).sum();
        let mean = known().map(|(weight, load)| weight * load).sum::<f64>() / weights;
        let comparable = known().count() > 1;
        let wanted = |(server, load): (&Server, &Option<f64>)| match load {
            Some(load) if comparable && (load - mean).abs() > DEAD_BAND => {
                let ratio = (mean + IDLE) / (load + IDLE);
                (server.factor * ratio.powf(GAIN)).clamp(LEAST, MOST)
            }
            Some(_) if comparable => server.factor,
            // Nobody knows better than the operator.
            Some(_) | None => server.factor + (1.0 - server.factor) * GAIN,
        };
        self.servers.iter().zip(&loads).map(wanted).collect()
    }

    /// Slots whose share changes hands if the factors become these.
    fn slots_for(&self, factors: &[f64]) -> f64 {
        let new: Vec<f64> =
            self.servers.iter().zip(factors).map(|(s, factor)| f64::from(s.weight(*factor, self.unit))).collect();
        let old: Vec<f64> = self.servers.iter().map(|s| f64::from(s.weight(s.factor, self.unit))).collect();
        let (all_new, all_old): (f64, f64) = (new.iter().sum(), old.iter().sum());
        let change: f64 = new.iter().zip(&old).map(|(new, old)| (new / all_new - old / all_old).abs()).sum();
        change / 2.0 * f64::from(self.policy.slots)
    }
}

/// What may be saved up: with this, and as much again in a minute, no minute sees more than the budget.
fn burst(policy: &Policy) -> f64 {
    f64::from(policy.slots_per_minute) / 2.0
}

/// As many units as fit when the heaviest server gets the most of its weight.
fn unit_for(servers: &[(BackendIndex, u16)]) -> u16 {
    let heaviest = servers.iter().map(|(_, weight)| *weight).max().unwrap_or(1).max(1);
    (u16::MAX / (MOST as u16) / heaviest).clamp(1, FINEST)
}

#[cfg(test)]
mod tests;
