//! What a service's tables are made from, and the making of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use jetway_config::{AllDown, Forward, OnDown, Persistence, PublicKey, Vip};
use jetway_pipelines::dispatch::maglev::{BuildError, Identity, Maglev, Member};
use jetway_pipelines::dispatch::service::{Gateways, Service, ServiceParts, Socket};
use jetway_pipelines::dispatch::{Administration, Backend};
use jetway_pipelines::ids::{BackendIndex, NodeId};
use jetway_pipelines::packet::Protocol;
use jetway_pipelines::wireguard::cookie::{CookieChecker, CookieSecrets};

use super::super::services::{Server, Service as Running};

/// Who is in the table of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// All servers: workers pass over the few that take no flows.
    All,
    /// Only these. Most of the service takes no flows, and passing over so many would take workers too many tries.
    Only(BTreeSet<BackendIndex>),
}

impl Choice {
    /// Who is to be in the table of a service as its servers are now.
    pub(super) fn of(service: &Running) -> Self {
        let servers = &service.servers;
        let takes = |server: &&Server| server.backend.state().takes_new_flows();
        let is_enabled = |server: &&Server| server.backend.administration() != Administration::Disabled;
        let all: u64 = servers.iter().map(|server| u64::from(server.weight())).sum();
        let taking: u64 = servers.iter().filter(takes).map(|server| u64::from(server.weight())).sum();
        let index = |server: &Server| server.backend.index;
        let only = match taking {
            _ if taking * 2 >= all => return Self::All,
            0 => servers.iter().filter(is_enabled).map(index).collect::<BTreeSet<_>>(),
            _ => servers.iter().filter(takes).map(index).collect(),
        };
        if only.is_empty() { Self::All } else { Self::Only(only) }
    }

    fn has(&self, server: &Server) -> bool {
        match self {
            Self::All => true,
            Self::Only(servers) => servers.contains(&server.backend.index),
        }
    }
}

/// Everything that a service's tables are made from: equal recipes make equal tables.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Recipe {
    pub(super) socket: Socket,
    persistence: Persistence,
    forward: Forward,
    on_down: OnDown,
    all_down: AllDown,
    public_key: Option<PublicKey>,
    /// Those in the table first, in the order of `members`.
    pub(super) servers: Vec<Place>,
    size: u32,
    members: Vec<Member>,
}

/// A server of a recipe.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) backend: Arc<Backend>,
    node: Option<u8>,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        (self.backend.index, self.node) == (other.backend.index, other.node)
    }
}

impl Recipe {
    /// The recipe of a service with these servers in its table.
    pub(super) fn of(service: &Running, choice: &Choice) -> Self {
        let vip = &service.vip;
        let (within, without): (Vec<&Server>, Vec<&Server>) =
            service.servers.iter().partition(|server| choice.has(server));
        let member = |server: &&Server| Member {
            identity: identity(server.backend.address, server.backend.port),
            weight: server.weight(),
        };
        let members = within.iter().map(member).collect();
        let place = |server: &Server| Place { backend: Arc::clone(&server.backend), node: server.config.node };
        Self {
            socket: socket_of(vip),
            persistence: vip.persistence,
            forward: vip.forward,
            on_down: vip.on_down,
            all_down: vip.all_down,
            public_key: vip.public_key,
            servers: within.into_iter().chain(without).map(place).collect(),
            size: vip.table_size,
            members,
        }
    }

    /// Makes the service. What makes the table is `old`'s mostly, and then so is the table.
    pub(super) fn make(&self, old: Option<&Made>, secrets: &Arc<CookieSecrets>) -> Result<Service, BuildError> {
        let same = old.filter(|old| old.recipe.size == self.size && old.recipe.members == self.members);
        let table = match same {
            Some(old) => old.service.table.clone(),
            None => Maglev::build(self.size, &self.members)?,
        };
        let nodes = || {
            // At most 65,535 servers: the table is built.
            (0u16..)
                .zip(&self.servers)
                .filter_map(|(position, server)| Some((NodeId(server.node?), position)))
                .collect()
        };
        let gateways = self
            .public_key
            .map(|key| Gateways { checker: Arc::new(CookieChecker::new(&key.0, Arc::clone(secrets))), nodes: nodes() });
        Ok(Service::from(ServiceParts {
            socket: self.socket,
            persistence: self.persistence,
            forward: self.forward,
            on_down: self.on_down,
            all_down: self.all_down,
            servers: self.servers.iter().map(|server| Arc::clone(&server.backend)).collect(),
            table,
            gateways,
        }))
    }
}

/// A service as workers see it, with what it was made from.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) recipe: Recipe,
    pub(super) service: Arc<Service>,
    /// Slots of each server.
    slots: HashMap<BackendIndex, u32>,
}

/// Slots that lead elsewhere in a newer table, by the server that had them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Moves {
    /// Of servers that are not in the newer table.
    pub(super) of_leaving: BTreeMap<BackendIndex, u32>,
    /// Of servers that are in both.
    pub(super) of_staying: BTreeMap<BackendIndex, u32>,
}

impl Moves {
    /// All of them.
    pub(super) fn all(&self) -> u32 {
        self.of_leaving.values().chain(self.of_staying.values()).sum()
    }
}

impl Made {
    pub(super) fn new(recipe: Recipe, service: Service) -> Self {
        let loads = service.table.loads(service.servers.len());
        let slots = service.servers.iter().map(|server| server.index).zip(loads).collect();
        Self { recipe, service: Arc::new(service), slots }
    }

    /// The slots that lead to a server.
    pub(super) fn slots(&self, server: BackendIndex) -> u32 {
        self.slots.get(&server).copied().unwrap_or(0)
    }

    /// The slots of every server.
    pub(super) fn all_slots(&self) -> BTreeMap<BackendIndex, u32> {
        self.slots.iter().map(|(server, slots)| (*server, *slots)).collect()
    }

    /// The share of all slots that lead to a server.
    pub(super) fn share(&self, server: BackendIndex) -> f64 {
        f64::from(self.slots(server)) / f64::from(self.service.table.size())
    }

    /// What of this table leads elsewhere in a newer one. Tables of different sizes are compared at the middle of each
    /// slot of this one.
    pub(super) fn moves(&self, newer: &Self) -> Moves {
        let mut moves = Moves::default();
        let (old, new) = (&self.service, &newer.service);
        let width = u64::MAX / u64::from(old.table.size());
        for (slot, position) in (0u64..).zip(old.table.slots()) {
            let Some(server) = old.server(*position) else { continue };
            let there = new.server(new.table.lookup(slot * width + width / 2));
            if there.is_some_and(|there| there.index == server.index) {
                continue;
            }
            let list = if newer.slots(server.index) > 0 { &mut moves.of_staying } else { &mut moves.of_leaving };
            *list.entry(server.index).or_default() += 1;
        }
        moves
    }
}

/// Where clients find a service.
pub fn socket_of(vip: &Vip) -> Socket {
    let protocol = match vip.protocol {
        jetway_config::Protocol::Tcp => Protocol::TCP,
        jetway_config::Protocol::Udp | jetway_config::Protocol::WireGuard => Protocol::UDP,
    };
    Socket { address: vip.address, port: vip.port, protocol }
}

/// What a server's place in the table comes from: its address and port, so that neither its name nor its place in a file
/// matters, and all dispatchers agree.
fn identity(address: IpAddr, port: u16) -> Identity {
    let mut name = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    name.extend(port.to_be_bytes());
    Identity::of(&name)
}
