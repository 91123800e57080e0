//! Starts and stops the engine of a node: ports, twins, workers, and the threads beside them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use jetway_aead::{Aead, Backend};
use jetway_config::{AeadChoice, Config, Idle, MemoryKind, VirtualDriver};
use jetway_engine::clock::Clock;
use jetway_engine::dpdk::LogLevel;
use jetway_engine::dpdk::device::Device;
use jetway_engine::dpdk::eal::{Eal, EalOptions, Memory};
use jetway_engine::dpdk::mbuf::Mbuf;
use jetway_engine::dpdk::pool::{PoolOptions, Pools};
use jetway_engine::dpdk::port::{DpdkPort, PortOptions};
use jetway_engine::exits::{PortAccess, PortLosses, PortShare};
use jetway_engine::handshake::{self, Handshakes};
use jetway_engine::host::{HostOptions, HostThread, KernelGuard, TwinDevice};
use jetway_engine::idle::IdlePolicy;
use jetway_engine::links::{self, OrderLink, OtherEnds, WorkerLinks, transmit_owner};
use jetway_engine::port::{Port, PortInfo};
use jetway_engine::thread::{self, ThreadSettings};
use jetway_engine::worker::Worker;
use jetway_pipelines::counters::WorkerCounters;
use jetway_pipelines::dispatch::direct_flows::DirectFlows;
use jetway_pipelines::ids::{NodeId, PortId, TunnelId, WorkerId};
use jetway_pipelines::path::{ControlEvent, Pipeline, Settings};
use jetway_pipelines::tables::{Tables, Twin};
use jetway_pipelines::time::Instant;
use jetway_pipelines::wireguard::Handshaker;
use jetway_pipelines::wireguard::cookie::CookieSecrets;
use jetway_pipelines::wireguard::handshaker::{self, HandshakeCounters};
use jetway_pipelines::wireguard::index::{IndexKey, IndexLayout};
use jetway_pipelines::wireguard::kdf::Secret;
use jetway_pipelines::wireguard::timestamp::WallClock;
use jetway_sync::published::Publisher;
use jetway_sync::spsc::Consumer;
use zeroize::Zeroizing;

use super::NodeError;

/// Receive and transmit descriptors of a queue, together.
const DESCRIPTORS_PER_QUEUE: u32 = 2048;
/// Packets that rings and waiting queues may hold for one worker.
const PACKETS_ELSEWHERE: u32 =
    (links::PUNTS + links::INJECTS + links::HANDOFFS + jetway_pipelines::path::held::HELD_PACKETS) as u32;

/// A running engine.
pub struct Engine {
    /// The ports, in the order of the configuration.
    pub ports: Vec<DpdkPort>,
    /// What each worker counts.
    pub counters: Vec<Arc<WorkerCounters>>,
    /// What each worker lost on its way out of each port, by port, then by worker.
    pub port_losses: Vec<Vec<Arc<PortLosses>>>,
    /// What workers tell control.
    pub events: Vec<Consumer<ControlEvent>>,
    /// The ways of orders to workers, and back.
    pub orders: Vec<OrderLink>,
    /// The handshake thread.
    pub handshakes: Handshakes,
    /// What became of the handshake messages that it got.
    pub handshake_counters: Arc<HandshakeCounters>,
    /// The host thread.
    pub host: HostThread,
    /// Publishes tables to the workers.
    pub publisher: Publisher<Tables>,
    /// The implementation of the AEAD.
    pub aead: Aead,
    /// The clock of the process.
    pub clock: Clock,
    /// How receiver indices are made and read.
    pub index_layout: IndexLayout,
    /// The secrets behind cookies.
    pub cookie_secrets: Arc<CookieSecrets>,
    /// Tunnels whose twins the host thread serves.
    tunnel_twins: HashSet<TunnelId>,
    started: Instant,
    threads: Threads,
    _guards: Vec<KernelGuard>,
}

struct Threads {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Worker<Mbuf>>>,
    handshake: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts everything for `config`, with empty tables.
    pub fn start(config: &Config) -> Result<Self, NodeError> {
        let node = config.node.name.as_str();
        KernelGuard::remove_leftovers(node)?;
        let aead = choose_aead(config.engine.aead)?;
        let workers = config.engine.cores.len() as u16;
        let pool_options = pool_options(config, workers);
        let eal = Eal::start(&eal_options(config, &pool_options)?)?;
        let mut pools = Pools::new(&eal, pool_options);
        let guards = guard_interfaces(config)?;
        let mut ports = open_ports(config, &mut pools, workers)?;
        let twins = make_twins(config, &ports)?;

        let clock = Clock::start();
        let layout = IndexLayout::new(NodeId(config.node.id), workers, &index_key(config)?);
        let cookie_secrets = Arc::new(cookie_secrets(config, &clock)?);
        let mut publisher = Publisher::new(Arc::new(Tables::default()));
        let counters: Vec<_> = (0..workers).map(|_| Arc::new(WorkerCounters::default())).collect();
        let (links, OtherEnds { handshaker, control, orders, host }) = links::connect(workers);

        let stop = Arc::new(AtomicBool::new(false));
        let pool = pools.on_node(None)?;
        let mut shares = share_ports(&mut ports, workers);
        let losses_of = |port: usize| shares.iter().map(|shares| shares[port].losses()).collect();
        let port_losses = (0..ports.len()).map(losses_of).collect();
        let mut threads = Threads { stop: Arc::clone(&stop), workers: Vec::new(), handshake: None };
        let direct_flows = Arc::new(DirectFlows::new(random_words()?));
        for (number, (links, counters)) in links.into_iter().zip(&counters).enumerate() {
            let settings = Settings {
                node: NodeId(config.node.id),
                worker: WorkerId(number as u16),
                index_layout: layout.clone(),
                aead,
                counters: Arc::clone(counters),
                flows: config.engine.flows as usize / usize::from(workers),
                direct_flows: Arc::clone(&direct_flows),
                hash_key: random_words()?,
            };
            let pipeline = Pipeline::new(settings);
            let shares = std::mem::take(&mut shares[number]);
            let worker = make_worker(&mut publisher, pipeline, links, shares, Box::new(pool.allocator()), counters);
            let settings = ThreadSettings {
                id: WorkerId(number as u16),
                core: Some(config.engine.cores[number]),
                idle: idle_policy(config.engine.idle),
                clock,
                stop: Arc::clone(&stop),
            };
            let eal = eal.clone();
            threads.workers.push(thread::start(worker, settings, move || eal.register_thread())?);
        }

        let randomness: rand::rngs::StdRng = rand::make_rng();
        let index_layout = layout.clone();
        let handshaker_settings = handshaker::Settings {
            slots_per_worker: layout.slots_per_worker(),
            layout,
            aead,
            randomness: Box::new(randomness),
            cookie_secrets: Arc::clone(&cookie_secrets),
        };
        let protocol = Handshaker::new(handshaker_settings);
        let handshake_counters = protocol.counters();
        let (handshakes, handshake) = handshake::start(protocol, handshaker, clock, Arc::clone(&stop))?;
        threads.handshake = Some(handshake);
        let host_options =
            HostOptions { twins, workers: host, pool: Box::new(pool.allocator()), spread_key: random_words()? };
        let host = HostThread::start(host_options, move || eal.register_thread())?;
        Ok(Self {
            ports,
            counters,
            port_losses,
            events: control,
            orders,
            handshakes,
            handshake_counters,
            host,
            publisher,
            aead,
            clock,
            index_layout,
            cookie_secrets,
            tunnel_twins: (0..config.tunnels.len()).map(|number| TunnelId(number as u16)).collect(),
            started: clock.now(),
            threads,
            _guards: guards,
        })
    }

    /// Ends all threads and gives devices, twins and memory back.
    pub fn stop(self) {
        let Self { threads, host, ports, .. } = self;
        threads.stop.store(true, Ordering::Relaxed);
        let mut workers = Vec::new();
        for thread in threads.workers {
            match thread.join() {
                Ok(worker) => workers.push(worker),
                Err(_) => tracing::error!("a worker had panicked: please report this with the log above"),
            }
        }
        if let Some(handshake) = threads.handshake
            && handshake.join().is_err()
        {
            tracing::error!("the handshake thread had panicked: please report this with the log above");
        }
        host.stop();
        drop(workers);
        drop(ports);
    }

    /// Makes and serves the twin of a tunnel, unless it is served already.
    pub fn add_tunnel_twin(&mut self, tunnel: TunnelId, name: &str, mtu: u16) -> Result<(), NodeError> {
        if !self.tunnel_twins.contains(&tunnel) {
            self.host.add_twin(TwinDevice::tun(tunnel, name, mtu)?);
            self.tunnel_twins.insert(tunnel);
        }
        Ok(())
    }

    /// Takes the twin of a removed tunnel out of the kernel.
    pub fn remove_tunnel_twin(&mut self, tunnel: TunnelId) {
        if self.tunnel_twins.remove(&tunnel) {
            self.host.remove_twin(Twin::Tunnel(tunnel));
        }
    }

    /// How long the engine runs.
    pub fn uptime(&self) -> Duration {
        self.clock.now().since(self.started)
    }

    /// What each port is.
    pub fn port_info(&self) -> Vec<PortInfo> {
        self.ports.iter().map(Port::info).collect()
    }
}

fn make_worker(
    publisher: &mut Publisher<Tables>,
    pipeline: Pipeline<Mbuf>,
    links: WorkerLinks<Mbuf>,
    shares: Vec<PortShare<Mbuf>>,
    pool: Box<dyn jetway_pipelines::buffer::BufferPool<Mbuf>>,
    counters: &Arc<WorkerCounters>,
) -> Worker<Mbuf> {
    Worker::new(publisher.reader(), pipeline, links, shares, pool, Arc::clone(counters))
}

/// Gives each worker a queue of each port, or the way through a worker that has one.
fn share_ports(ports: &mut [DpdkPort], workers: u16) -> Vec<Vec<PortShare<Mbuf>>> {
    let mut shares: Vec<Vec<PortShare<Mbuf>>> = (0..workers).map(|_| Vec::new()).collect();
    for port in ports {
        let mut queues = port.take_queues().into_iter();
        let count = port.info().queues;
        for (number, shares) in shares.iter_mut().enumerate() {
            let access = match queues.next() {
                Some(queue) => PortAccess::Queue(queue),
                None => PortAccess::Through(transmit_owner(WorkerId(number as u16), count)),
            };
            shares.push(PortShare::new(access));
        }
    }
    shares
}

fn pool_options(config: &Config, workers: u16) -> PoolOptions {
    let queues = config.ports.len() as u32 * u32::from(workers);
    let needed = PoolOptions::buffers_for(
        queues,
        DESCRIPTORS_PER_QUEUE,
        u32::from(workers),
        PACKETS_ELSEWHERE * u32::from(workers),
    );
    let wanted = config.engine.buffers.saturating_mul(config.ports.len() as u32);
    let max_mtu = config.ports.iter().map(|port| port.mtu).max().unwrap_or(jetway_config::Port::DEFAULT_MTU);
    PoolOptions { buffers: needed.max(wanted), max_mtu }
}

fn eal_options(config: &Config, pool: &PoolOptions) -> Result<EalOptions, NodeError> {
    let memory = match config.engine.memory.kind {
        MemoryKind::Auto => Memory::Automatic,
        MemoryKind::Hugepages => Memory::HugePages,
        MemoryKind::Ordinary => Memory::OrdinaryPages,
    };
    let control_cores = match &config.engine.control_cores {
        Some(cores) => cores.clone(),
        None => core_affinity_cores().into_iter().filter(|core| !config.engine.cores.contains(core)).collect(),
    };
    Ok(EalOptions {
        node: config.node.name.to_string(),
        memory,
        memory_mib: config.engine.memory.size_mib.unwrap_or_else(|| pool.memory_mib(1)),
        control_cores,
        devices: config.ports.iter().map(device_of).collect::<Result<_, _>>()?,
        log: LogLevel::Error,
    })
}

fn core_affinity_cores() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

fn device_of(port: &jetway_config::Port) -> Result<Device, NodeError> {
    Ok(port.device.to_string().parse()?)
}

/// Keeps the kernel from answering on interfaces whose frames it sees as well as we do.
fn guard_interfaces(config: &Config) -> Result<Vec<KernelGuard>, NodeError> {
    let mut guards = Vec::new();
    for port in &config.ports {
        let jetway_config::Device::Virtual(device) = &port.device else { continue };
        let shares_frames = matches!(device.driver, VirtualDriver::AfPacket | VirtualDriver::Pcap);
        if let (true, Some(interface)) = (shares_frames, device.argument("iface")) {
            guards.push(KernelGuard::install(config.node.name.as_str(), interface)?);
        }
    }
    Ok(guards)
}

fn open_ports(config: &Config, pools: &mut Pools, workers: u16) -> Result<Vec<DpdkPort>, NodeError> {
    let mut ports = Vec::new();
    for port in &config.ports {
        let mut options = PortOptions::new(device_of(port)?, port.queues.unwrap_or(workers).min(workers), port.mtu);
        options.mac = port.mac.map(|mac| mac.0);
        ports.push(DpdkPort::open(pools, &options)?);
    }
    Ok(ports)
}

fn make_twins(config: &Config, ports: &[DpdkPort]) -> Result<Vec<TwinDevice>, NodeError> {
    let mut twins = Vec::new();
    for (number, (port, open)) in config.ports.iter().zip(ports).enumerate() {
        let (id, name) = (PortId(number as u16), port.host_interface.as_str());
        twins.push(TwinDevice::tap(id, name, open.info().mac, port.mtu)?);
    }
    for (number, tunnel) in config.tunnels.iter().enumerate() {
        twins.push(TwinDevice::tun(TunnelId(number as u16), tunnel.name.as_str(), tunnel.mtu)?);
    }
    Ok(twins)
}

fn choose_aead(choice: AeadChoice) -> Result<Aead, NodeError> {
    let backend = match choice {
        AeadChoice::Auto => return Ok(Aead::best()),
        AeadChoice::Avx512 => Backend::Avx512,
        AeadChoice::Avx2 => return Err(NodeError::NoAvx2),
        AeadChoice::AwsLc => Backend::AwsLc,
        AeadChoice::RustCrypto => Backend::RustCrypto,
    };
    Ok(Aead::with_backend(backend)?)
}

const fn idle_policy(idle: Idle) -> IdlePolicy {
    match idle {
        Idle::Poll => IdlePolicy::Poll,
        Idle::Backoff => IdlePolicy::Backoff,
    }
}

fn index_key(config: &Config) -> Result<IndexKey, NodeError> {
    let mut bytes = Zeroizing::new([0; 8]);
    match &config.node.index_key {
        // The first bytes of a uniformly random key are one themselves.
        Some(key) => bytes.copy_from_slice(&key.expose()[..8]),
        None => fill_random(&mut *bytes)?,
    }
    Ok(IndexKey::new(*bytes))
}

/// Nodes of a cluster take each other's cookies.
fn cookie_secrets(config: &Config, clock: &Clock) -> Result<CookieSecrets, NodeError> {
    match &config.node.index_key {
        Some(key) => Ok(CookieSecrets::of_cluster(Secret::new(*key.expose()), WallClock(clock.wall()))),
        None => Ok(CookieSecrets::new(random_secret()?, random_secret()?)),
    }
}

fn random_words() -> Result<[u64; 4], NodeError> {
    let mut bytes = [0; 32];
    fill_random(&mut bytes)?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok(std::array::from_fn(|number| u64::from_ne_bytes(words[number])))
}

fn random_secret() -> Result<Secret, NodeError> {
    let mut bytes = Secret::default();
    fill_random(&mut *bytes)?;
    Ok(bytes)
}

fn fill_random(bytes: &mut [u8]) -> Result<(), NodeError> {
    getrandom::fill(bytes).map_err(NodeError::Randomness)
}
