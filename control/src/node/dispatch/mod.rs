//! The tables by which workers dispatch, kept up to date with the services that run.
//!
//! They are made off the workers and off the node's task: a big one takes tens of milliseconds. All that changed is
//! published at once, when the last of it is made.

mod preview;
mod recipe;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jetway_config::{Config, Name};
use jetway_pipelines::dispatch::service::Services as Tables;
use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::time::Instant;
use jetway_pipelines::wireguard::cookie::CookieSecrets;
use jetway_pipelines::wireguard::kdf::mac;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

pub use preview::{Preview, ServerMove, ServiceMove};

use super::services::{Service, Services};
pub use recipe::socket_of;
use recipe::{Choice, Made, Recipe};

/// From one look at the servers' states to the next. Workers need not wait for it: they read the states at every packet.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The key of the hashes by which flows are given to servers unless the cluster has a key of its own. All dispatchers
/// agree on it, but outsiders know it, too.
const PUBLIC_HASH_KEY: [u64; 2] = [0x6a65_7477_6179_2064, 0x6973_7061_7463_6865];

/// What the hash key is derived from the cluster's key for.
const HASH_KEY_LABEL: &[u8] = b"jetway dispatch flow hash";

/// The key of the hashes by which flows are given to servers: the same on all nodes of a cluster.
pub fn hash_key(config: &Config) -> [u64; 2] {
    let Some(key) = &config.node.index_key else { return PUBLIC_HASH_KEY };
    let derived = u128::from_le_bytes(mac(key.expose(), &[HASH_KEY_LABEL]));
    [derived as u64, (derived >> 64) as u64]
}

/// The tables by which workers dispatch.
#[derive(Debug)]
pub struct DispatchTables {
    maker: Maker,
    made: MadeServices,
    /// Who is in the tables that are made or in the making.
    choices: BTreeMap<Name, Choice>,
    is_stale: bool,
    looked: Instant,
    making: Option<oneshot::Receiver<Finished>>,
    waiting: Vec<oneshot::Sender<()>>,
}

/// What all services have in common.
#[derive(Clone, Debug)]
struct Maker {
    hash_key: [u64; 2],
    secrets: Arc<CookieSecrets>,
}

type MadeServices = BTreeMap<Name, Arc<Made>>;

/// What came of a job.
#[derive(Debug)]
struct Finished {
    made: MadeServices,
    tables: Arc<Tables>,
    moved: BTreeMap<Name, u32>,
    held_back: Vec<Name>,
}

/// Tables to be published. The services know of them.
#[derive(Debug)]
#[must_use = "workers go on with the old tables"]
pub struct Fresh {
    /// What workers look things up in.
    pub tables: Arc<Tables>,
    /// Slots that lead to another server than before, of services whose tables changed.
    pub moved: BTreeMap<Name, u32>,
    /// Services that keep their tables, since those of their new weights would move more slots than allowed.
    pub held_back: Vec<Name>,
}

/// Tables to be made.
#[derive(Debug)]
struct Job {
    maker: Maker,
    recipes: BTreeMap<Name, Recipe>,
    /// The most slots that the tables of some services may move.
    limits: BTreeMap<Name, u32>,
    /// What is there already.
    before: MadeServices,
}

impl DispatchTables {
    /// None yet.
    pub fn new(hash_key: [u64; 2], secrets: Arc<CookieSecrets>) -> Self {
        Self {
            maker: Maker { hash_key, secrets },
            made: MadeServices::new(),
            choices: BTreeMap::new(),
            is_stale: false,
            looked: Instant::ZERO,
            making: None,
            waiting: Vec::new(),
        }
    }

    /// Makes all tables before it returns.
    pub fn make_now(&mut self, services: &Services) -> Arc<Tables> {
        let (job, choices) = self.job(services);
        self.choices = choices;
        let finished = job.run();
        self.made = finished.made;
        finished.tables
    }

    /// The share of a service's slots that lead to a server.
    pub fn share(&self, service: &Name, server: BackendIndex) -> f64 {
        self.made.get(service).map_or(0.0, |made| made.share(server))
    }

    /// Takes note that services or weights changed.
    pub fn services_changed(&mut self) {
        self.is_stale = true;
    }

    /// Resolves when what was noted until now has been published, or cannot be.
    pub fn settled(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        if self.is_stale || self.making.is_some() {
            self.waiting.push(sender);
        } else {
            let _ = sender.send(());
        }
        receiver
    }

    /// Has tables made if the present ones no longer fit, and returns new ones to be published when they are made. The services
    /// are told what those moved, and those that are held back get their tables of before.
    ///
    /// To be called on a tokio runtime, every few milliseconds.
    pub fn follow(&mut self, services: &mut Services, now: Instant) -> Option<Fresh> {
        let mut fresh = None;
        if let Some(making) = &mut self.making {
            match making.try_recv() {
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Closed) => {
                    tracing::error!("the dispatch tables could not be made: please report this with the log above");
                }
                Ok(Finished { made, tables, moved, held_back }) => {
                    self.made = made;
                    services.settle(&moved, &held_back);
                    self.is_stale |= !held_back.is_empty();
                    fresh = Some(Fresh { tables, moved, held_back });
                }
            }
            self.making = None;
        }
        if now.since(self.looked) >= LOOK_EVERY {
            self.looked = now;
            self.is_stale |=
                services.iter().any(|service| self.choices.get(&service.vip.name) != Some(&Choice::of(service)));
        }
        if std::mem::take(&mut self.is_stale) {
            let (job, choices) = self.job(services);
            self.choices = choices;
            let (sender, receiver) = oneshot::channel();
            // Nobody waits for it when the node ends.
            tokio::task::spawn_blocking(move || sender.send(job.run()).is_ok());
            self.making = Some(receiver);
        } else {
            for waiting in self.waiting.drain(..) {
                // Whoever waits may have gone away.
                let _ = waiting.send(());
            }
        }
        fresh
    }

    /// The job of making the tables of these services, and who will be in them.
    fn job(&self, services: &Services) -> (Job, BTreeMap<Name, Choice>) {
        let choices: BTreeMap<_, _> =
            services.iter().map(|service| (service.vip.name.clone(), Choice::of(service))).collect();
        let recipe = |service: &Service| {
            let name = &service.vip.name;
            (name.clone(), Recipe::of(service, choices.get(name).unwrap_or(&Choice::All)))
        };
        let recipes = services.iter().map(recipe).collect();
        let limit = |service: &Service| Some((service.vip.name.clone(), service.limit()?));
        let limits = services.iter().filter_map(limit).collect();
        (Job { maker: self.maker.clone(), recipes, limits, before: self.made.clone() }, choices)
    }
}

impl Job {
    /// Makes what changed.
    fn run(self) -> Finished {
        let (mut made, mut moved, mut held_back) = (MadeServices::new(), BTreeMap::new(), Vec::new());
        for (name, recipe) in self.recipes {
            let old = self.before.get(&name);
            if let Some(old) = old.filter(|old| old.recipe == recipe) {
                made.insert(name, Arc::clone(old));
                continue;
            }
            match recipe.make(old.map(AsRef::as_ref), &self.maker.secrets) {
                Ok(service) => {
                    let new = Made::new(recipe, service);
                    if let Some(old) = old {
                        let slots = old.moves(&new).all();
                        if self.limits.get(&name).is_some_and(|limit| slots > *limit) {
                            made.insert(name.clone(), Arc::clone(old));
                            held_back.push(name);
                            continue;
                        }
                        moved.insert(name.clone(), slots);
                    }
                    made.insert(name, Arc::new(new));
                }
                Err(error) => {
                    tracing::error!(%error, service = %name, "the configuration's check let a service pass that has no table");
                }
            }
        }
        let list = made.values().map(|made| Arc::clone(&made.service)).collect();
        let tables = Arc::new(Tables::new(list, self.maker.hash_key));
        Finished { made, tables, moved, held_back }
    }
}

#[cfg(test)]
mod tests;
