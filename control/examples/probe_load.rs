//! Measures what probing 10,000 servers every 5 seconds costs: `cargo run --release -p jetway --example probe_load`.
//!
//! The servers are 10,000 loopback addresses with one process behind them, so the kernel does the servers' part of each
//! packet on the health thread's account too: the figures are upper bounds. ICMP needs root.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jetway::health::probe::Question;
use jetway::health::{Check, HealthThread, Policy, Target};
use jetway_engine::clock::Clock;
use jetway_pipelines::dispatch::{Backend, Health};
use jetway_pipelines::ids::BackendIndex;

const SERVERS: u32 = 10_000;
const SETTLE: Duration = Duration::from_secs(8);
const MEASURE: Duration = Duration::from_secs(20);
const POLICY: Policy = Policy { interval: Duration::from_secs(5), timeout: Duration::from_secs(1), fall: 3, rise: 2 };

fn main() {
    let tcp = tcp_server(|_| {});
    let http = tcp_server(|stream| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let udp = udp_server();
    println!("{SERVERS} servers, one probe each in {:?}, {MEASURE:?} of measuring", POLICY.interval);
    measure("icmp", 1, Question::Icmp);
    measure("tcp", tcp, Question::Tcp);
    measure("http", http, Question::Http { path: "/".into() });
    measure("udp", udp, Question::Udp);
}

fn measure(name: &str, port: u16, question: Question) {
    let thread = HealthThread::start(Clock::start()).expect("a thread can be started");
    let checks: Vec<Check> = (0..SERVERS).map(|number| check(number, port, question.clone())).collect();
    let backends: Vec<_> = checks.iter().map(|check| Arc::clone(&check.backend)).collect();
    thread.watch(checks);
    std::thread::sleep(SETTLE);
    let (begun, used, probes) = (Instant::now(), processor_time(), probes(&thread));
    std::thread::sleep(MEASURE);
    let (took, used, probes) = (begun.elapsed(), processor_time() - used, self::probes(&thread) - probes);
    let up = backends.iter().filter(|backend| backend.health() == Health::Up).count();
    println!(
        "{name:5} {:6.0} probes/s, {:5.2} % of a core, {:5.1} µs a probe, {up} up",
        probes as f64 / took.as_secs_f64(),
        used.as_secs_f64() / took.as_secs_f64() * 100.0,
        used.as_secs_f64() * 1e6 / probes.max(1) as f64,
    );
}

fn check(number: u32, port: u16, question: Question) -> Check {
    let [_, _, high, low] = number.to_be_bytes();
    let address = IpAddr::V4(Ipv4Addr::new(127, 1, high, low));
    Check {
        backend: Arc::new(Backend::new(BackendIndex(number), address, port, 1)),
        names: ("load".into(), number.to_string().into()),
        target: Target { address, port, question, load: None },
        policy: POLICY,
        load: Arc::default(),
    }
}

fn probes(thread: &HealthThread) -> u64 {
    let findings = thread.findings().blocking_recv().expect("the thread runs");
    findings.servers.values().map(|server| server.record.probes).sum()
}

/// What the health thread has used so far: its time on a processor, by the kernel's scheduler.
fn processor_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let times = tasks.filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let statistics = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        (name.trim() == "jw-health").then(|| statistics.split(' ').next()?.parse::<u64>().ok()).flatten()
    });
    Duration::from_nanos(times.sum())
}

fn tcp_server(serve: fn(&mut std::net::TcpStream)) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            serve(&mut stream);
        }
    });
    port
}

fn udp_server() -> u16 {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
    let port = socket.local_addr().expect("it is bound").port();
    std::thread::spawn(move || while socket.recv_from(&mut [0; 64]).is_ok() {});
    port
}
