use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::probe::Question;
use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const POLICY: Policy =
    Policy { interval: Duration::from_millis(200), timeout: Duration::from_millis(100), fall: 3, rise: 2 };

/// A server that counts its clients, until it is dropped.
struct Server {
    port: u16,
    stop: Arc<std::sync::atomic::AtomicBool>,
    clients: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(port: u16) -> Self {
        let listener = TcpListener::bind((HERE, port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, clients) = (Arc::default(), Arc::<AtomicUsize>::default());
        let (stopped, counted) = (Arc::<std::sync::atomic::AtomicBool>::clone(&stop), Arc::clone(&clients));
        let thread = std::thread::spawn(move || {
            while listener.accept().is_ok() && !stopped.load(Ordering::Relaxed) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { port, stop, clients, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect((HERE, self.port));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn check(number: u32, port: u16) -> Check {
    Check {
        backend: Arc::new(Backend::new(BackendIndex(number), HERE, port, 1)),
        names: ("web".into(), format!("web-{number}").into()),
        target: Target { address: HERE, port, question: Question::Tcp, load: None },
        policy: POLICY,
        load: Arc::default(),
    }
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what} in 5 s");
}

#[test]
fn workers_read_what_probes_find_and_a_signal_finds_a_dead_server_before_its_turn() {
    let clock = Clock::start();
    let thread = HealthThread::start(clock).unwrap();
    let (living, dying) = (Server::start(0), Server::start(0));
    // With an interval like this only a signal can find it in time.
    let slow = Policy { interval: Duration::from_secs(600), ..POLICY };
    let living_check = check(1, living.port);
    let dying_check = Check { policy: slow, ..check(2, dying.port) };
    let (alive, dead) = (Arc::clone(&living_check.backend), Arc::clone(&dying_check.backend));
    thread.watch(vec![living_check, dying_check]);
    wait_until("both are up", || alive.health() == Health::Up && dead.health() == Health::Up);
    let port = dying.port;
    drop(dying);
    // A signal that comes at once after the first suspicion is remembered.
    assert!(dead.raise_signal() && !dead.raise_signal());
    thread.signal(dead.index);
    wait_until("workers may tell of the next sign", || dead.raise_signal());
    wait_until("the dead one is down", || dead.health() == Health::Down);
    assert_eq!(alive.health(), Health::Up);
    let findings = thread.findings().blocking_recv().unwrap();
    let finding = &findings.servers[&dead.index];
    assert_eq!(finding.record.trouble.as_ref().unwrap().to_string(), "connection refused");
    assert!(findings.latencies["web"].count() >= 2);
    assert!(findings.latencies["web"].quantile(0.5) < POLICY.timeout);
    // A changed check asks at its own interval, and goes on with what is known.
    let again = Server::start(port);
    thread.change(vec![Check { backend: Arc::clone(&dead), ..check(2, port) }]);
    wait_until("the dead one is up again", || dead.health() == Health::Up);
    // The kernel accepts connections before the server does.
    wait_until("it was asked twice", || again.clients.load(Ordering::Relaxed) >= 2);
}

#[test]
fn a_server_that_is_forgotten_is_asked_no_more() {
    let thread = HealthThread::start(Clock::start()).unwrap();
    let server = Server::start(0);
    let check = check(1, server.port);
    let index = check.backend.index;
    thread.watch(vec![check]);
    wait_until("it was asked", || server.clients.load(Ordering::Relaxed) >= 2);
    thread.forget(vec![index]);
    assert!(thread.findings().blocking_recv().unwrap().servers.is_empty());
    // What was under way may still arrive; after the longest interval there is nothing.
    std::thread::sleep(POLICY.timeout);
    let before = server.clients.load(Ordering::Relaxed);
    std::thread::sleep(POLICY.interval * 2);
    assert_eq!(server.clients.load(Ordering::Relaxed), before);
}
