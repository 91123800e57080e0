//! A server's word on how busy it is, for whoever asks: in answers to health checks, and as an agent's line.

use super::Namespace;
use super::command::uninterrupted;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Tells over HTTP on [`LoadTeller::HTTP`], in a field `X-Load`, and as HAProxy's agents do on [`LoadTeller::AGENT`].
pub struct LoadTeller {
    told: Arc<Told>,
    threads: Vec<JoinHandle<()>>,
}

struct Told {
    /// Percent that the HTTP server says are in use.
    header: u32,
    /// Percent that the agent says are in use.
    agent: u32,
    stop: AtomicBool,
}

/// Tells whoever has connected.
type Answer = fn(&Told, TcpStream) -> io::Result<()>;

impl LoadTeller {
    /// The port of health checks.
    pub const HTTP: u16 = 8080;
    /// The port of the agent.
    pub const AGENT: u16 = 8099;

    /// Starts it in a namespace; each way says so many percent.
    #[track_caller]
    pub fn start(namespace: &Namespace, header: u32, agent: u32) -> Self {
        let told = Arc::new(Told { header, agent, stop: AtomicBool::new(false) });
        let ways: [(u16, Answer); 2] = [(Self::HTTP, answer_check), (Self::AGENT, answer_as_agent)];
        let threads = ways.map(|(port, answer)| {
            let listener = namespace.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
            let listener = listener.unwrap_or_else(|error| panic!("port {port}: {error}"));
            // Of a listener it is the patience of `accept`.
            let listener = socket2::Socket::from(listener);
            listener.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout above zero");
            let listener = TcpListener::from(listener);
            let told = Arc::clone(&told);
            std::thread::spawn(move || {
                while !told.stop.load(Ordering::Relaxed) {
                    if let Ok((stream, _)) = listener.accept() {
                        // A check that went away asks again.
                        let _ = answer(&told, stream);
                    }
                }
            })
        });
        LoadTeller { told, threads: threads.into() }
    }
}

impl Drop for LoadTeller {
    fn drop(&mut self) {
        self.told.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn answer_check(told: &Told, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    // One request fits into one segment.
    let _ = uninterrupted(|| stream.read(&mut [0; 2048]))?;
    write!(stream, "HTTP/1.1 200 OK\r\nX-Load: {}%\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", told.header)
}

fn answer_as_agent(told: &Told, mut stream: TcpStream) -> io::Result<()> {
    writeln!(stream, "up {}%", 100 - told.agent)
}
