//! A running node: the engine, the tables that it follows, and what the operator and the kernel want of it.
//!
//! One task owns the [`Node`] and does one thing after the other ([`service`]); everyone else asks it through a
//! [`NodeHandle`].

mod dispatch;
mod dry_run;
mod engine;
mod explain;
mod flow_report;
mod flows;
mod handle;
mod load;
pub mod peers;
mod report;
mod service;
pub mod services;
pub mod tables;
mod vip_report;
pub mod weights;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use jetway_config::{Config, Problem};
use jetway_engine::dpdk::device::DeviceError;
use jetway_engine::dpdk::eal::EalError;
use jetway_engine::dpdk::pool::PoolError;
use jetway_engine::dpdk::port::PortError;
use jetway_engine::heap;
use jetway_engine::host::{GuardError, TwinError};
use jetway_engine::port::Port;
use jetway_pipelines::ids::TunnelId;
use jetway_pipelines::lpm::Lpm;
use jetway_pipelines::packet::MacAddress;
use jetway_pipelines::packet::ecn::Dscp;
use jetway_pipelines::tables::{ChecksumBy, PortEntry, PuntLimit, Source, TunnelEntry};
use jetway_pipelines::wireguard::cookie::CookieChecker;
use jetway_pipelines::wireguard::x25519::KeyPair;

use crate::api::{Failure, Reloaded};
use crate::health::HealthThread;
use crate::intent::{Intent, TunnelChange};
use crate::kernel::{KernelView, TwinSettings};
use crate::uapi::{SetRequest, UapiError};

use dispatch::{DispatchTables, Fresh};
use engine::Engine;
use flows::FlowDesk;
pub use handle::NodeHandle;
use load::Load;
use peers::Peers;
pub use service::run;
use services::{HealthChanges, Services};
use tables::TablesBuilder;
use weights::Step;

/// Why a node could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// DPDK.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// A device's name.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Packet buffers.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A twin in the kernel.
    #[error(transparent)]
    Twin(#[from] TwinError),
    /// Keeping the kernel from answering.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The AEAD that was asked for.
    #[error(transparent)]
    Aead(#[from] jetway_aead::Unsupported),
    /// An AEAD that this build does not have.
    #[error("this build has no kernel for AVX2: use [engine] aead = \"auto\", which takes aws-lc-rs on such a CPU")]
    NoAvx2,
    /// No random bytes.
    #[error("the kernel gives no random bytes: {0}")]
    Randomness(getrandom::Error),
    /// A thread, a socket.
    #[error("the operating system refused a thread or a socket: {0}")]
    System(#[from] std::io::Error),
    /// The kernel's routes and neighbours.
    #[error(transparent)]
    Mirror(#[from] crate::kernel::MirrorError),
    /// Addresses and links.
    #[error(transparent)]
    Configure(#[from] crate::kernel::ConfigureError),
    /// A socket of the API or of `wg`.
    #[error(transparent)]
    Socket(#[from] crate::local_socket::LocalSocketError),
    /// The address for metrics.
    #[error("cannot serve metrics on {address}: {source}; choose another address in [api] metrics")]
    Metrics {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A service's health check.
    #[error("{0}; {hint}", hint = .0.hint)]
    Services(Failure),
}

/// Everything that the node's task owns.
pub struct Node {
    config: Config,
    config_path: PathBuf,
    cpus: usize,
    engine: Engine,
    tables: TablesBuilder,
    kernel: KernelView,
    intent: Intent,
    peers: Peers,
    services: Services,
    dispatch: DispatchTables,
    flows: FlowDesk,
    health: HealthThread,
    /// Checks that begin once the node carries traffic: before, every server would seem dead.
    waiting_checks: HealthChanges,
    load: Load,
    state: State,
    /// Twins whose settings are to be brought to the kernel.
    twin_work: Vec<TwinSettings>,
}

/// Whether the node takes new sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Serving,
    Draining,
}

/// Packets that the kernel holds for a twin at most: with a TAP's usual 500, bursts are lost.
const TWIN_QUEUE_LENGTH: u32 = 8000;

impl Node {
    /// Starts the engine for `config` and gives it the tunnels and peers.
    pub fn start(config: Config, config_path: PathBuf, cpus: usize) -> Result<Self, NodeError> {
        let engine = Engine::start(&config)?;
        let ports = config.ports.iter().zip(engine.port_info()).map(|(port, info)| PortEntry {
            mac: MacAddress(info.mac),
            mtu: port.mtu,
            l4_checksum: if info.transmit_l4_checksum { ChecksumBy::Nic } else { ChecksumBy::Software },
            source: Source::default(),
        });
        let mut tables = TablesBuilder::new(ports.collect());
        let mut services = Services::new(engine.counters.len());
        let waiting_checks = services.reload(&config.vips, engine.clock.now()).map_err(NodeError::Services)?;
        let mut dispatch = DispatchTables::new(dispatch::hash_key(&config), Arc::clone(&engine.cookie_secrets));
        tables.set_services(dispatch.make_now(&services));
        let mut node = Self {
            services,
            dispatch,
            flows: FlowDesk::default(),
            health: HealthThread::start(engine.clock)?,
            waiting_checks,
            load: Load::default(),
            engine,
            tables,
            config_path,
            cpus,
            kernel: KernelView::new(),
            intent: Intent::new(),
            peers: Peers::default(),
            state: State::Serving,
            twin_work: Vec::new(),
            config,
        };
        let changes = node.intent.reload(&node.config);
        node.carry_out(changes)?;
        node.set_limits();
        node.publish();
        // Reading many peers leaves a multiple of their size as freed heap behind.
        heap::give_back();
        Ok(node)
    }

    /// Publishes the tables if they changed, and frees what no worker looks at any more.
    fn publish(&mut self) {
        if let Some(tables) = self.tables.take() {
            self.engine.publisher.publish(tables);
        }
        self.peers.release_removed(&mut self.engine.publisher, &mut self.intent);
    }

    fn carry_out(&mut self, changes: crate::intent::Changes) -> Result<(), NodeError> {
        for change in changes.tunnels {
            self.change_tunnel(change)?;
        }
        self.peers.carry_out(changes.peers, &mut self.tables, &self.engine.handshakes);
        Ok(())
    }

    fn change_tunnel(&mut self, change: TunnelChange) -> Result<(), NodeError> {
        match change {
            TunnelChange::Added { tunnel, name } => self.add_tunnel(tunnel, &name),
            TunnelChange::Removed { tunnel } => {
                self.tables.remove_tunnel(tunnel);
                self.engine.handshakes.tell(move |handshaker, now| handshaker.remove_tunnel(tunnel, now));
                self.engine.remove_tunnel_twin(tunnel);
                Ok(())
            }
            TunnelChange::PrivateKey { tunnel, private_key } => {
                let checker = self.checker(&private_key);
                self.tables.set_checker(tunnel, checker);
                let outcome = self
                    .engine
                    .handshakes
                    .ask(move |handshaker, _| handshaker.set_private_key(tunnel, private_key.expose()));
                log_if_gone(outcome);
                Ok(())
            }
            TunnelChange::ListenPort { tunnel, listen_port } => {
                self.tables.set_listen_port(tunnel, listen_port);
                Ok(())
            }
        }
    }

    fn add_tunnel(&mut self, tunnel: TunnelId, name: &str) -> Result<(), NodeError> {
        let (Some(wanted), Some(intent)) = (self.config.tunnel(name), self.intent.tunnel(name)) else { return Ok(()) };
        let (mtu, dscp) = (wanted.mtu, dscp_of(wanted));
        let (listen_port, private_key) = (intent.listen_port(), intent.private_key().clone());
        let settings = self.tunnel_twin(wanted);
        let checker = self.checker(&private_key);
        let outcome =
            self.engine.handshakes.ask(move |handshaker, _| handshaker.add_tunnel(tunnel, private_key.expose()));
        log_if_gone(outcome);
        self.engine.add_tunnel_twin(tunnel, name, mtu)?;
        let entry =
            TunnelEntry { listen_port, mtu, source: Source::default(), dscp, allowed_ips: Lpm::default(), checker };
        self.tables.add_tunnel(tunnel, entry);
        self.twin_work.push(settings);
        Ok(())
    }

    fn checker(&self, key: &jetway_config::Secret) -> Arc<CookieChecker> {
        let keys = KeyPair::new(key.expose());
        Arc::new(CookieChecker::new(keys.public(), Arc::clone(&self.engine.cookie_secrets)))
    }

    fn tunnel_twin(&self, tunnel: &jetway_config::Tunnel) -> TwinSettings {
        twin_settings(tunnel.name.as_str(), &tunnel.addresses, tunnel.mtu, None)
    }

    /// How the twins of all ports shall be.
    fn port_twins(&self) -> Vec<TwinSettings> {
        let ports = self.config.ports.iter().zip(&self.engine.ports);
        ports
            .map(|(port, open)| {
                let settings =
                    twin_settings(port.host_interface.as_str(), &port.addresses, port.mtu, Some(open.info().mac));
                TwinSettings { services: self.service_addresses_of(port), ..settings }
            })
            .collect()
    }

    /// The addresses of services that the twin of a port has: those of its networks, and on the first port all others
    /// that the node has nowhere else. So the kernel answers ARP, neighbour solicitations and pings for them.
    fn service_addresses_of(&self, port: &jetway_config::Port) -> Vec<IpAddr> {
        let has_network = |port: &jetway_config::Port, address: IpAddr| {
            port.addresses.iter().any(|net| net.contains(&address) && net.prefix_len() < net.max_prefix_len())
        };
        let is_own = |address: IpAddr| {
            let nets = self.config.ports.iter().flat_map(|port| &port.addresses);
            nets.chain(self.config.tunnels.iter().flat_map(|tunnel| &tunnel.addresses)).any(|net| net.addr() == address)
        };
        let place = |address: IpAddr| self.config.ports.iter().find(|port| has_network(port, address));
        let is_here = |address: &IpAddr| {
            let place = place(*address).or(self.config.ports.first());
            place.is_some_and(|place| place.name == port.name) && !is_own(*address)
        };
        self.services.addresses().filter(is_here).collect()
    }

    /// Reads the configuration anew and carries out what is different.
    fn reload(&mut self) -> Result<Reloaded, Failure> {
        let report = self.reload_file();
        // As after the start; the second configuration and the difference are freed by now.
        heap::give_back();
        report
    }

    fn reload_file(&mut self) -> Result<Reloaded, Failure> {
        let checked =
            jetway_config::load(&self.config_path, self.cpus).map_err(|problems| Failure::with_problems(&problems))?;
        let difference = jetway_config::diff(&self.config, &checked.config);
        let mut report = report::of_difference(&difference);
        report.warnings = checked.warnings.iter().map(Problem::to_string).collect();
        difference.apply(&mut self.config);
        let changes = self.intent.reload(&self.config);
        self.carry_out(changes).map_err(|error| Failure::new(error.to_string(), "correct it and reload again"))?;
        self.waiting_checks.extend(self.services.reload(&self.config.vips, self.engine.clock.now())?);
        self.dispatch.services_changed();
        self.set_limits();
        self.twin_work = self.port_twins();
        let tunnels: Vec<_> = self.config.tunnels.iter().map(|tunnel| self.tunnel_twin(tunnel)).collect();
        self.twin_work.extend(tunnels);
        self.publish();
        Ok(report)
    }

    /// Takes what needs no more than a look at the configuration to the tables.
    fn set_limits(&mut self) {
        self.tables.set_service_addresses(self.services.addresses().collect());
        let (limit, workers) = (self.config.engine.punt, self.engine.counters.len() as u32);
        self.tables.set_punt_limit(PuntLimit { rate: limit.rate / workers, burst: limit.burst / workers });
        self.tables.set_decapsulation(self.config.decapsulate.as_ref());
        for tunnel in &self.config.tunnels {
            if let Some(intent) = self.intent.tunnel(tunnel.name.as_str()) {
                self.tables.set_dscp(intent.id(), dscp_of(tunnel));
            }
        }
    }

    /// Begins checks once probes can go out, ends drains, and has the dispatch tables follow.
    fn look_after_services(&mut self) {
        if !self.waiting_checks.is_empty() && self.waits_for().is_none() {
            std::mem::take(&mut self.waiting_checks).carry_out(&self.health);
        }
        let now = self.engine.clock.now();
        self.services.end_drains(now);
        self.services.forget_path_mtus(now);
        if self.services.follow_load(now) == Step::Changed {
            self.dispatch.services_changed();
        }
        if let Some(Fresh { tables, moved, held_back }) = self.dispatch.follow(&mut self.services, now) {
            self.tables.set_services(tables);
            for (service, slots) in moved {
                tracing::debug!(%service, slots, "a new dispatch table is in force; so many slots lead elsewhere");
            }
            for service in held_back {
                tracing::debug!(%service, "the dispatch table stays: new weights would move more slots than allowed");
            }
        }
    }

    /// Does what `wg` asks.
    fn set(&mut self, tunnel: &str, request: SetRequest) -> Result<(), UapiError> {
        let changes = self.intent.set(tunnel, request)?;
        self.carry_out(changes).map_err(|error| UapiError::invalid(error.to_string()))?;
        self.publish();
        Ok(())
    }
}

fn dscp_of(tunnel: &jetway_config::Tunnel) -> Dscp {
    if tunnel.copy_dscp { Dscp::Copy } else { Dscp::Hide }
}

fn twin_settings(name: &str, addresses: &[IpNet], mtu: u16, mac: Option<[u8; 6]>) -> TwinSettings {
    TwinSettings {
        name: name.to_owned(),
        addresses: addresses.to_vec(),
        mtu: u32::from(mtu),
        mac,
        services: Vec::new(),
        transmit_queue_length: TWIN_QUEUE_LENGTH,
    }
}

/// Says so if the handshake thread did not do what it was asked for.
fn log_if_gone(outcome: Option<()>) {
    if outcome.is_none() {
        tracing::error!("the handshake thread is gone: restart the node");
    }
}
