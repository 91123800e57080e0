//! The node's task: one thing after the other, for the kernel, the workers, the operator and the clock.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jetway_config::Config;
use jetway_pipelines::ids::PortId;
use jetway_pipelines::path::ControlEvent;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::handle::{Action, NodeHandle};
use super::{Node, NodeError, State, load};
use crate::api::{ApiServer, MetricsServer, NodeControl, Readiness};
use crate::kernel::{Changes, Configurator, Interfaces, KernelEvent, Mirror, NeighbourKeeper, NeighbourRequest, Twin};
use crate::uapi::{TunnelControl, UapiServer};

/// How often the node looks at what workers tell it: what a packet to an unknown neighbour waits for at most.
const TICK: Duration = Duration::from_millis(2);
/// How often neighbours that packets may go to are shown to be in use, so that the kernel keeps asking whether they are
/// still there: it does not see the engine's packets.
const NEIGHBOUR_REFRESH: Duration = Duration::from_secs(25);
/// Events that wait between the mirror and the node.
const EVENTS: usize = 4096;
/// Events that one step takes.
const EVENTS_AT_ONCE: usize = 1024;

impl Node {
    pub(super) fn drain(&mut self) {
        self.state = State::Draining;
        self.engine.handshakes.tell(|handshaker, _| handshaker.drain());
        tracing::info!("draining: no new sessions are taken, those that are there go on");
    }

    pub(super) fn readiness(&self) -> Readiness {
        match (self.waits_for(), self.state) {
            (Some(waits_for), _) => Readiness::Starting { waits_for },
            (None, State::Serving) => Readiness::Ready,
            (None, State::Draining) => Readiness::Draining,
        }
    }

    /// Takes in what the kernel said, and tells the keeper of neighbours.
    fn take_kernel_events(&mut self, events: &mut Vec<KernelEvent>, keeper: &mpsc::Sender<NeighbourRequest>) {
        let mut changes = Changes::default();
        for event in events.drain(..) {
            let observed = match &event {
                KernelEvent::NeighbourUp { twin, addr, mac: _, state } => Some((*twin, *addr, Some(*state))),
                KernelEvent::NeighbourDown { twin, addr } => Some((*twin, *addr, None)),
                _ => None,
            };
            if let Some((twin, address, state)) = observed {
                // A keeper that is behind sees the next change.
                let _ = keeper.try_send(NeighbourRequest::Observed(twin, address, state));
            }
            self.kernel.apply(event, &mut changes);
        }
        self.tables.apply_kernel(&self.kernel, &changes);
        self.publish();
    }

    /// Has the kernel ask again for every neighbour and gateway of the ports.
    fn refresh_neighbours(&self, keeper: &mpsc::Sender<NeighbourRequest>) {
        let known = self.kernel.neighbours().map(|(twin, address, _)| (twin, address));
        let to_port = |(twin, _): &(Twin, _)| matches!(twin, Twin::Port(_));
        for (twin, address) in known.chain(self.kernel.gateways()).filter(to_port) {
            // A keeper that is behind is told with the next refresh.
            let _ = keeper.try_send(NeighbourRequest::Used(twin, address));
        }
    }

    /// Takes in what workers tell.
    fn take_worker_events(&mut self, keeper: &mpsc::Sender<NeighbourRequest>) {
        self.flows.take_done(&mut self.engine.orders);
        for ring in &mut self.engine.events {
            for event in ring.drain(EVENTS_AT_ONCE) {
                match event {
                    ControlEvent::NeighbourWanted(port, address) => {
                        // A keeper that is behind is asked again by the next packet that waits.
                        let _ = keeper.try_send(NeighbourRequest::Missing(Twin::Port(port), address));
                    }
                    ControlEvent::ServerInTrouble(server) => self.health.signal(server),
                    ControlEvent::PathMtu(told) => self.services.learn_path_mtu(told, self.engine.clock.now()),
                }
            }
        }
    }
}

/// Runs a node until `stop` resolves. `started` is called once it carries traffic.
pub async fn run(
    config: Config,
    config_path: PathBuf,
    cpus: usize,
    stop: impl Future<Output = ()>,
    started: impl FnOnce(),
) -> Result<(), NodeError> {
    let mut node = Node::start(config, config_path, cpus)?;
    let outcome = serve(&mut node, stop, started).await;
    node.engine.stop();
    outcome
}

async fn serve(node: &mut Node, stop: impl Future<Output = ()>, started: impl FnOnce()) -> Result<(), NodeError> {
    let (handle, mut requested) = NodeHandle::new();
    let handle = Arc::new(handle);
    let mut configurator = Configurator::open()?;
    let (interfaces, watched) = watch::channel(Interfaces::default());
    node.twin_work.splice(0..0, node.port_twins());
    set_up_twins(node, &mut configurator, &interfaces).await?;

    let mut tasks: JoinSet<()> = JoinSet::new();
    let (event_sender, mut events) = mpsc::channel(EVENTS);
    let mirror = Mirror::open(watched.clone())?;
    tasks.spawn(async move {
        if let Err(error) = mirror.run(event_sender).await {
            tracing::error!(%error, "the kernel's routes and neighbours are no longer followed: restart the node");
        }
    });
    let (keeper, keeper_requests) = mpsc::channel(EVENTS);
    tasks.spawn(NeighbourKeeper::open(watched)?.run(keeper_requests));
    tasks.spawn(ApiServer::bind(&node.config.api.socket, Arc::clone(&handle) as Arc<dyn NodeControl>)?.run());
    let mut metrics = Metrics::default();
    metrics.follow(node, &handle).await?;
    let mut tunnel_sockets = TunnelSockets::default();
    tunnel_sockets.follow(node, &handle)?;

    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut refresh = tokio::time::interval(NEIGHBOUR_REFRESH);
    refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(load::EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    let mut started = Some(started);
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            count = events.recv_many(&mut batch, EVENTS_AT_ONCE), if !events.is_closed() || !events.is_empty() => {
                if count > 0 {
                    node.take_kernel_events(&mut batch, &keeper);
                }
            }
            Some(action) = asked(&mut requested, &mut hangups) => {
                action(node);
                let outcome = set_up_twins(node, &mut configurator, &interfaces).await;
                let outcome = outcome.and_then(|()| tunnel_sockets.follow(node, &handle));
                for error in [outcome.err(), metrics.follow(node, &handle).await.err()].into_iter().flatten() {
                    tracing::error!(%error, "not everything is as the configuration says");
                }
            }
            _ = look.tick() => node.look_at_load(),
            _ = refresh.tick() => node.refresh_neighbours(&keeper),
            _ = tick.tick() => {
                node.take_worker_events(&keeper);
                node.look_after_services();
                node.publish();
                if started.is_some() && node.waits_for().is_none() && let Some(started) = started.take() {
                    started();
                }
            }
        }
    }
    tunnel_sockets.tasks.shutdown().await;
    tasks.shutdown().await;
    Ok(())
}

/// What the node is asked next, through a handle or by SIGHUP.
async fn asked(requested: &mut mpsc::Receiver<Action>, hangups: &mut Signal) -> Option<Action> {
    tokio::select! {
        action = requested.recv() => action,
        Some(()) = hangups.recv() => Some(Box::new(|node: &mut Node| match node.reload() {
            Ok(changes) => tracing::info!(?changes, "the configuration was read again"),
            Err(failure) => tracing::error!("{failure}: {}\n{}", failure.hint, failure.details),
        })),
    }
}

/// Brings the settings of twins that wait in `twin_work` to the kernel.
async fn set_up_twins(
    node: &mut Node,
    configurator: &mut Configurator,
    interfaces: &watch::Sender<Interfaces>,
) -> Result<(), NodeError> {
    for settings in std::mem::take(&mut node.twin_work) {
        configurator.apply(&settings).await?;
    }
    let ports = node.config.ports.iter().enumerate();
    let ports = ports.map(|(number, port)| (port.host_interface.as_str(), Twin::Port(PortId(number as u16))));
    let tunnels = node.intent.tunnels().map(|(name, tunnel)| (name, Twin::Tunnel(tunnel.id())));
    let known: Interfaces = ports
        .chain(tunnels)
        .filter_map(|(name, twin)| Some((nix::net::if_::if_nametoindex(name).ok()?, twin)))
        .collect();
    interfaces.send_if_modified(|current| {
        let changed = *current != known;
        *current = known;
        changed
    });
    Ok(())
}

/// Where Prometheus fetches metrics.
#[derive(Default)]
struct Metrics {
    address: Option<SocketAddr>,
    task: JoinSet<()>,
}

impl Metrics {
    /// Serves where the configuration says, and nowhere else.
    async fn follow(&mut self, node: &Node, handle: &Arc<NodeHandle>) -> Result<(), NodeError> {
        let wanted = node.config.api.metrics;
        if self.address == wanted {
            return Ok(());
        }
        self.task.shutdown().await;
        self.address = None;
        if let Some(address) = wanted {
            let server = MetricsServer::bind(address, Arc::clone(handle) as Arc<dyn NodeControl>).await;
            let server = server.map_err(|source| NodeError::Metrics { address, source })?;
            self.task.spawn(async move {
                if let Err(error) = server.run().await {
                    tracing::error!(%error, "metrics are no longer served");
                }
            });
            self.address = wanted;
        }
        Ok(())
    }
}

/// The sockets at which `wg` finds the tunnels.
#[derive(Default)]
struct TunnelSockets {
    tasks: JoinSet<()>,
    by_tunnel: HashMap<String, AbortHandle>,
}

impl TunnelSockets {
    /// Opens the sockets of tunnels that came, and closes those of tunnels that went.
    fn follow(&mut self, node: &Node, handle: &Arc<NodeHandle>) -> Result<(), NodeError> {
        self.by_tunnel.retain(|name, task| {
            let stays = node.intent.tunnel(name).is_some();
            if !stays {
                task.abort();
            }
            stays
        });
        for (name, _) in node.intent.tunnels() {
            if !self.by_tunnel.contains_key(name) {
                let server = UapiServer::bind(name, Arc::clone(handle) as Arc<dyn TunnelControl>)?;
                self.by_tunnel.insert(name.to_owned(), self.tasks.spawn(server.run()));
            }
        }
        Ok(())
    }
}
