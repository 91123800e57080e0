//! What a node holds for many configured peers, and what adding one to them costs, without devices.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use jetway::intent::{Intent, TunnelChange};
use jetway::kernel::{
    self, KernelEvent, KernelRoute, KernelView, NeighbourState, Placement, RouteKind, RouteTable, Twin,
};
use jetway::node::peers::Peers;
use jetway::node::tables::TablesBuilder;
use jetway::uapi::{AllowedIpChange, PeerSet, SetRequest};
use jetway_config::{Config, KeyFileFault, PublicKey, Surroundings};
use jetway_engine::clock::Clock;
use jetway_engine::exits::{PortAccess, PortShare};
use jetway_engine::handshake::{self, Handshakes};
use jetway_engine::heap_pool::{HeapPool, PooledBuf};
use jetway_engine::links::{self, OtherEnds};
use jetway_engine::worker::Worker;
use jetway_pipelines::counters::WorkerCounters;
use jetway_pipelines::ids::{PeerIndex, PortId, TunnelId};
use jetway_pipelines::path::{ControlEvent, Pipeline};
use jetway_pipelines::tables::Tables;
use jetway_pipelines::wireguard::handshaker;
use jetway_pipelines::wireguard::send_counter::SendCounter;
use jetway_pipelines::wireguard::x25519::KeyPair;
use jetway_pipelines::wireguard::{Endpoint, Handshaker, Role, SendingHalf};
use jetway_sync::published::Publisher;
use jetway_sync::spsc::Consumer;
use rand::SeedableRng;

use crate::aead;
use crate::line::Fountain;
use crate::result::{Part, Quantity};
use crate::sample::{self, time};
use crate::system;
use crate::traffic::{self, SERVER};
use crate::watch::Watch;
use crate::world;

/// Additions and removals whose effect on a worker is looked at.
const CHANGES: usize = 1_000;
/// Packets that the worker encrypts in each turn.
const PER_TURN: usize = 32;
const TUNNEL: &str = "jw0";
const PRIVATE_KEY: [u8; 32] = [0x42; 32];

/// The text of a configuration with so many peers, each with an IPv4 and an IPv6 address.
pub fn configuration(peers: usize, ports: &str) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "[node]\nname = \"perf\"\nid = 1\n\n[engine]\ncores = [1]\n\n{ports}\n[[tunnel]]\nname = \"{TUNNEL}\"\n\
         listen_port = 51820\nprivate_key_file = \"server.key\"\naddresses = [\"10.0.0.1/8\", \"fd00:8::1/32\"]\n\n",
    );
    for number in 0..peers {
        let key = STANDARD.encode(public_key(number).0);
        let (v4, v6) = (traffic::client(number), traffic::client_v6(number));
        write!(
            text,
            "[[tunnel.peer]]\nname = \"peer-{number}\"\npublic_key = \"{key}\"\nallowed_ips = [\"{v4}/32\", \"{v6}/128\"]\n\n"
        )
        .expect("a String takes all");
    }
    text
}

/// The ports of a measurement without devices.
const NULL_PORTS: &str = "[[port]]\nname = \"wan\"\ndevice = \"net_null0\"\naddresses = [\"198.51.100.1/24\"]\n\n\
     [[port]]\nname = \"lan\"\ndevice = \"net_null1\"\naddresses = [\"192.0.2.1/24\"]\n";

/// The server's private key as its file has it.
pub fn private_key_file() -> String {
    STANDARD.encode(PRIVATE_KEY)
}

/// The public key of the peer of this number: nobody has its private key. It looks random, as keys do.
pub fn public_key(number: usize) -> PublicKey {
    let mut state = number as u64 ^ 0x6a65_7477_6179;
    let mut bytes = [0; 32];
    for word in bytes.chunks_exact_mut(8) {
        // SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    PublicKey(bytes)
}

fn parse(text: &str) -> Config {
    let keys = |_: &Path| -> Result<_, KeyFileFault> { Ok(private_key_file().into_bytes().into()) };
    let checked = jetway_config::parse(text, "perf.toml", &Surroundings { cpus: 2, keys: &keys });
    match checked {
        Ok(checked) => checked.config,
        Err(problems) => panic!("the harness's own configuration is wrong: {}", problems[0]),
    }
}

/// Threads and tables of a node without devices: a worker that encrypts to one peer all the time, the handshake thread.
struct Engine {
    publisher: Publisher<Tables>,
    tables: TablesBuilder,
    handshakes: Handshakes,
    worker: Option<Worker<PooledBuf>>,
    counters: Arc<WorkerCounters>,
    clock: Clock,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
    _others: (Vec<Consumer<ControlEvent>>, Vec<links::HostLink<PooledBuf>>),
}

impl Engine {
    fn start() -> Self {
        let (aead, layout, clock) = (aead::chosen(), world::layout(1), Clock::start());
        let (mut links, OtherEnds { handshaker, control, host, .. }) = links::connect(1);
        let mut publisher = Publisher::new(Arc::new(Tables::default()));
        let counters = Arc::new(WorkerCounters::default());
        let pool = HeapPool::new(512, 2048);
        let frame = traffic::frame(1, &traffic::packet(SERVER, traffic::client(0), 512, 0));
        let fountain = Fountain::new(pool.clone(), frame, PER_TURN);
        let silence = Fountain::new(pool.clone(), Vec::new(), 0);
        let ports = vec![
            PortShare::new(PortAccess::Queue(Box::new(silence))),
            PortShare::new(PortAccess::Queue(Box::new(fountain))),
        ];
        let pipeline = Pipeline::new(world::settings(layout.clone(), aead, &counters));
        let worker =
            Worker::new(publisher.reader(), pipeline, links.remove(0), ports, Box::new(pool), Arc::clone(&counters));
        let stop = Arc::new(AtomicBool::new(false));
        let settings = handshaker::Settings {
            slots_per_worker: layout.slots_per_worker(),
            layout,
            aead,
            randomness: Box::new(rand::rngs::StdRng::seed_from_u64(1)),
            cookie_secrets: world::cookie_secrets(),
        };
        let (handshakes, thread) =
            handshake::start(Handshaker::new(settings), handshaker, clock, Arc::clone(&stop)).expect("a thread");
        Self {
            publisher,
            tables: TablesBuilder::new(world::ports()),
            handshakes,
            worker: Some(worker),
            counters,
            clock,
            stop,
            threads: vec![thread],
            _others: (control, host),
        }
    }

    fn add_tunnel(&mut self, id: TunnelId, private_key: [u8; 32]) {
        let keys = KeyPair::new(&private_key);
        self.handshakes.tell(move |handshaker, _| handshaker.add_tunnel(id, &private_key));
        self.tables.add_tunnel(id, world::tunnel(keys.public(), world::cookie_secrets()));
    }

    /// Waits until the handshake thread has done all that it was told.
    fn settle(&self) {
        self.handshakes.ask(|_, _| ()).expect("the thread runs");
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no thread panics");
        }
    }
}

/// Control's half of a node.
struct Control {
    engine: Engine,
    intent: Intent,
    peers: Peers,
}

impl Control {
    /// Does with a configuration what a node's start does.
    fn load(&mut self, config: &Config) {
        let changes = self.intent.reload(config);
        for change in &changes.tunnels {
            if let TunnelChange::Added { tunnel, name } = change
                && let Some(intent) = self.intent.tunnel(name)
            {
                self.engine.add_tunnel(*tunnel, *intent.private_key().expose());
            }
        }
        self.peers.carry_out(changes.peers, &mut self.engine.tables, &self.engine.handshakes);
        self.publish();
        self.engine.settle();
    }

    /// Does what a node does when `wg set` was read.
    fn set(&mut self, request: SetRequest) {
        let changes = self.intent.set(TUNNEL, request).expect("the tunnel is there");
        self.peers.carry_out(changes.peers, &mut self.engine.tables, &self.engine.handshakes);
        self.publish();
    }

    /// Takes in what the kernel of a running node would tell: routes, and the next hop's address.
    fn follow_kernel(&mut self) {
        let port = |number| Some(Twin::Port(PortId(number)));
        let (inner, everything) = ("10.0.0.0/8".parse::<IpNet>(), "0.0.0.0/0".parse::<IpNet>());
        let router = IpAddr::V4(traffic::ROUTER);
        let ways = [(inner, Some(Twin::Tunnel(TunnelId(0))), None), (everything, port(0), Some(router))];
        let routes = ways.map(|(net, twin, via)| KernelEvent::RouteAdded {
            net: net.expect("a prefix that stands above"),
            route: KernelRoute {
                table: RouteTable::Main,
                kind: RouteKind::Unicast,
                via,
                twin,
                metric: 0,
                mtu: None,
                prefsrc: None,
            },
            placement: Placement::Before,
        });
        let neighbour = KernelEvent::NeighbourUp {
            twin: Twin::Port(PortId(0)),
            addr: router,
            mac: traffic::NEIGHBOUR.0,
            state: NeighbourState::Permanent,
        };
        let (mut view, mut changes) = (KernelView::new(), kernel::Changes::default());
        for event in routes.into_iter().chain([neighbour]) {
            view.apply(event, &mut changes);
        }
        self.engine.tables.apply_kernel(&view, &changes);
        self.publish();
    }

    fn publish(&mut self) {
        if let Some(tables) = self.engine.tables.take() {
            self.engine.publisher.publish(tables);
        }
        self.peers.release_removed(&mut self.engine.publisher, &mut self.intent);
    }
}

fn addition(number: usize) -> SetRequest {
    let net = |address: IpAddr| AllowedIpChange::Add(IpNet::from(address));
    let allowed_ips = vec![net(traffic::client(number).into()), net(traffic::client_v6(number).into())];
    let peer = PeerSet { allowed_ips, ..PeerSet::new(public_key(number)) };
    SetRequest { peers: vec![peer], ..SetRequest::default() }
}

fn removal(number: usize) -> SetRequest {
    let peer = PeerSet { remove: true, ..PeerSet::new(public_key(number)) };
    SetRequest { peers: vec![peer], ..SetRequest::default() }
}

/// Measures `peers` configured peers.
pub fn measure(peers: usize) -> Part {
    let mut part = Part::default();
    let mut say = |quantity: Quantity| part.quantities.push(quantity);
    let engine = Engine::start();
    let empty = system::resident_of_this();
    let mut control = Control { engine, intent: Intent::new(), peers: Peers::default() };

    let text = configuration(peers, NULL_PORTS);
    let (config, parsed) = time(|| parse(&text));
    drop(text);
    let with_config = system::resident_of_this();
    let ((), loaded) = time(|| control.load(&config));
    let before_trim = system::resident("self").unwrap_or_default();
    let ((), trimmed) = time(jetway_engine::heap::give_back);
    let full = system::resident_of_this();

    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let seconds = |time: Duration| time.as_secs_f64();
    let named = |what: &str| format!("{peers} peers: {what}");
    say(Quantity::new(named("start: text to published tables"), seconds(parsed + loaded + trimmed), "s").at_most(5.0));
    say(Quantity::new(named("start: of which parsing"), seconds(parsed), "s"));
    say(Quantity::new(named("start: of which intent, tables, handshaker"), seconds(loaded), "s"));
    say(Quantity::new(named("start: of which giving the heap back"), seconds(trimmed), "s"));
    let beyond = full.saturating_sub(empty);
    say(Quantity::new(named("resident beyond the empty engine"), mebibytes(beyond), "MiB").at_most(200.0));
    say(Quantity::new(named("of which the configuration"), mebibytes(with_config.saturating_sub(empty)), "MiB"));
    say(Quantity::new(named("resident before the heap was given back"), mebibytes(before_trim), "MiB"));
    say(Quantity::new(named("bytes a peer"), beyond as f64 / peers.max(1) as f64, "B"));

    churn(&mut control, peers, &mut part);
    let Control { engine, .. } = control;
    engine.stop();
    drop(config);
    part
}

/// How long changes of one kind took.
#[derive(Default)]
struct Changes {
    /// Each, by the wall clock: with every interruption.
    wall: Vec<Duration>,
    /// The longest in CPU time: what the change itself did.
    cpu: Duration,
}

impl Changes {
    fn make(&mut self, control: &mut Control, request: SetRequest) {
        let began = system::thread_cpu_time();
        self.wall.push(time(|| control.set(request)).1);
        self.cpu = self.cpu.max(system::thread_cpu_time().saturating_sub(began));
    }
}

/// Adds and removes peers while a worker turns.
fn churn(control: &mut Control, peers: usize, part: &mut Part) {
    let first = control.peers.get(PeerIndex(0)).expect("there is a first peer");
    let aead = aead::chosen();
    let counter = SendCounter::new(0).expect("there is a generation 0");
    let now = control.engine.clock.now();
    first.endpoint.store(Endpoint::configured(traffic::endpoint(0)));
    let (key, role) = (aead.key(&[1; 32]), Role::Initiator);
    first.set_current(&SendingHalf { key, counter, created: now, remote_index: 1, role });
    control.follow_kernel();

    let worker = control.engine.worker.take().expect("the worker is started once");
    let watch = Watch::start(worker, control.engine.clock, &control.engine.counters);
    let quiet = watch.longest_during(|| thread::sleep(Duration::from_millis(500)));
    let (mut additions, mut removals) = (Changes::default(), Changes::default());
    let busy = watch.longest_during(|| {
        for number in peers..peers + CHANGES {
            additions.make(control, addition(number));
        }
        for number in peers..peers + CHANGES {
            removals.make(control, removal(number));
        }
        control.engine.settle();
    });
    let sealed = watch.end();
    assert!(sealed > 0, "the worker has encrypted nothing: the measurement of stalls means nothing");

    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let named = |what: &str| format!("{peers} peers: {what}");
    let mut say = |quantity: Quantity| part.quantities.push(quantity);
    for (verb, mut changes) in [("adding", additions), ("removing", removals)] {
        let named = |what: &str| named(&format!("{verb} one by wg set, {what}"));
        let median = sample::median_nanoseconds(&mut changes.wall) / 1e6;
        let longest = changes.wall.iter().copied().max().unwrap_or_default();
        say(Quantity::new(named("median of 1000"), median, "ms").at_most(1.0));
        say(Quantity::new(named("longest of 1000, its CPU time"), milliseconds(changes.cpu), "ms").at_most(1.0));
        say(Quantity::new(named("longest of 1000, wall clock"), milliseconds(longest), "ms"));
    }
    say(Quantity::new(
        named("longest turn of a busy worker without changes, its CPU time"),
        milliseconds(quiet.cpu),
        "ms",
    ));
    say(Quantity::new(named("longest turn of a busy worker during them, its CPU time"), milliseconds(busy.cpu), "ms")
        .at_most(1.0));
    say(Quantity::new(named("longest turn without changes, wall clock"), milliseconds(quiet.wall), "ms"));
    say(Quantity::new(named("longest turn during them, wall clock"), milliseconds(busy.wall), "ms"));
    say(Quantity::new(named("packets encrypted meanwhile"), sealed as f64, ""));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_peers_go_through_the_whole_measurement() {
        let part = measure(300);
        let value = |name: &str| part.quantities.iter().find(|q| q.name.contains(name)).unwrap().value;
        assert!(value("adding one by wg set, median") > 0.0);
        assert!(value("packets encrypted meanwhile") > 0.0);
    }

    #[test]
    fn the_keys_of_peers_differ() {
        let keys: std::collections::HashSet<_> = (0..10_000).map(|number| public_key(number).0).collect();
        assert_eq!(keys.len(), 10_000);
    }
}
