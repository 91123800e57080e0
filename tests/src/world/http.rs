//! Loads of HTTP requests that know who answered each: short requests one after another, and connections that are kept.

use super::Namespace;
use super::command::uninterrupted;
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Who asks whom.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// The address that the client uses.
    pub from: IpAddr,
    /// The service.
    pub to: SocketAddr,
    /// How long a connection, and then an answer, may take.
    pub patience: Duration,
}

/// One request of a [`RequestStream`].
#[derive(Clone, Debug)]
pub struct Request {
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// Who answered, or what went wrong.
    pub answer: Result<String, String>,
}

impl Ask {
    /// A connection to the service.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let domain = if self.to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.bind(&SockAddr::from(SocketAddr::new(self.from, 0)))?;
        socket.connect_timeout(&SockAddr::from(self.to), self.patience)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Asks for `/` on a connection of its own; returns who answered.
    pub fn once(&self) -> io::Result<String> {
        ask(&mut self.connect()?)
    }
}

/// Asks for `/` on a connection, which stays open; returns who answered.
pub fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: service\r\n\r\n")?;
    let (mut said, mut buffer) = (Vec::new(), [0; 2048]);
    loop {
        let length = uninterrupted(|| stream.read(&mut buffer))?;
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer was whole"));
        }
        said.extend_from_slice(&buffer[..length]);
        if let Some(body) = body(&String::from_utf8_lossy(&said))? {
            return Ok(body);
        }
    }
}

/// The body of an answer that is whole.
fn body(said: &str) -> io::Result<Option<String>> {
    let Some((head, body)) = said.split_once("\r\n\r\n") else { return Ok(None) };
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(head.to_owned()));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.trim().parse::<usize>().ok());
    let length = length.ok_or_else(|| io::Error::other(format!("no length in {head}")))?;
    Ok((body.len() >= length).then(|| body.to_owned()))
}

/// Requests one after another on each of some threads, until it is finished.
pub struct RequestStream {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<Request>>>,
}

impl RequestStream {
    /// Starts it on so many threads, each with a pause between its requests.
    pub fn start(namespace: &Namespace, ask: Ask, threads: usize, pause: Duration) -> Self {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let one = || {
            let (stop, ended) = (Arc::clone(&stop), Arc::clone(&ended));
            namespace.spawn(move || {
                let mut requests = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let answer = ask.once().map_err(|error| error.to_string());
                    requests.push(Request { began, ended: Instant::now(), answer });
                    ended.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(pause);
                }
                requests
            })
        };
        let threads = std::iter::repeat_with(one).take(threads).collect();
        RequestStream { stop, ended, threads }
    }

    /// How many requests have ended so far.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    /// Ends it; every request, in the order in which they began.
    #[track_caller]
    pub fn finish(self) -> Vec<Request> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all: Vec<Request> =
            self.threads.into_iter().flat_map(|thread| thread.join().expect("no thread of requests panics")).collect();
        all.sort_by_key(|request| request.began);
        all
    }
}

/// How many of the requests each server answered.
pub fn answers(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in requests.iter().filter_map(|request| request.answer.as_ref().ok()) {
        *counts.entry(name.clone()).or_insert(0) += 1;
    }
    counts
}

/// The requests that failed.
pub fn failures(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|request| request.answer.is_err()).collect()
}

/// Connections that stay open, each asked ten times a second.
pub struct KeptConnections {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Kept>>,
}

/// What became of a kept connection.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Who answered first.
    pub server: String,
    /// Answers of that server.
    pub answers: usize,
    /// When and how the connection broke, or who else answered.
    pub broken: Option<(Instant, String)>,
}

impl KeptConnections {
    /// Opens so many and asks each once.
    #[track_caller]
    pub fn open(namespace: &Namespace, way: Ask, count: usize) -> Self {
        let opened = namespace.inside(|| {
            let one = |_| {
                let mut stream = way.connect()?;
                let server = ask(&mut stream)?;
                Ok((stream, Kept { server, answers: 1, broken: None }))
            };
            (0..count).map(one).collect::<io::Result<Vec<_>>>()
        });
        let mut kept = opened.unwrap_or_else(|error| panic!("a connection of {way:?}: {error}"));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    kept.iter_mut().for_each(|(stream, kept)| kept.ask_again(stream));
                    std::thread::sleep(Duration::from_millis(100));
                }
                // Once more, so that what happened last is seen too.
                kept.iter_mut().for_each(|(stream, kept)| kept.ask_again(stream));
                kept.into_iter().map(|(_, kept)| kept).collect()
            }
        });
        KeptConnections { stop, thread }
    }

    /// Asks each once more and closes them.
    #[track_caller]
    pub fn finish(self) -> Vec<Kept> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the thread of kept connections does not panic")
    }
}

impl Kept {
    fn ask_again(&mut self, stream: &mut TcpStream) {
        if self.broken.is_some() {
            return;
        }
        match ask(stream) {
            Ok(server) if server == self.server => self.answers += 1,
            Ok(other) => self.broken = Some((Instant::now(), format!("answered by {other}"))),
            Err(error) => self.broken = Some((Instant::now(), error.to_string())),
        }
    }
}

/// What ab (ApacheBench) counted.
#[derive(Clone, Debug)]
pub struct BenchReport {
    /// Requests that were answered.
    pub complete: u64,
    /// Requests that failed, or were answered by something else than 200.
    pub failed: u64,
    /// Requests a second.
    pub rate: f64,
    /// The longest request in milliseconds.
    pub longest_ms: u64,
    /// All that it printed.
    pub output: String,
}

/// Runs ab in a namespace: so many requests, each on its own connection, so many at a time.
#[track_caller]
pub fn apache_bench(namespace: &Namespace, from: IpAddr, to: SocketAddr, requests: u32, parallel: u32) -> BenchReport {
    let (from, requests, parallel, url) =
        (from.to_string(), requests.to_string(), parallel.to_string(), format!("http://{to}/"));
    let arguments =
        ["-k", "5", "120", "ab", "-q", "-r", "-s", "30", "-n", &requests, "-c", &parallel, "-B", &from, &url];
    let output = namespace.run("timeout", &arguments);
    let number = |name: &str| {
        let line = output.lines().find_map(|line| line.trim().strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let needed = |name: &str| number(name).unwrap_or_else(|| panic!("ab did not print {name:?}:\n{output}"));
    BenchReport {
        complete: needed("Complete requests:") as u64,
        failed: (needed("Failed requests:") + number("Non-2xx responses:").unwrap_or(0.0)) as u64,
        rate: needed("Requests per second:"),
        longest_ms: needed("100%") as u64,
        output,
    }
}
