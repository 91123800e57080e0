//! Datagrams to a server that answers with its own name, and what comes back.

use super::Namespace;
use super::command::uninterrupted;
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A server that sends each datagram back from the address that it came to, after its own name and a `|`.
pub struct UdpEcho {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl UdpEcho {
    /// Starts it in a namespace on one port of some addresses.
    #[track_caller]
    pub fn start(namespace: &Namespace, name: &str, addresses: &[&str], port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |address: &&str| {
            let address: IpAddr = address.parse().unwrap_or_else(|error| panic!("{address}: {error}"));
            let socket = namespace.inside(|| UdpSocket::bind((address, port)));
            let socket = socket.unwrap_or_else(|error| panic!("{address} port {port}: {error}"));
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout above zero");
            let (stop, name) = (Arc::clone(&stop), format!("{name}|").into_bytes());
            std::thread::spawn(move || echo(&socket, &name, &stop))
        };
        let threads = addresses.iter().map(one).collect();
        UdpEcho { stop, threads }
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn echo(socket: &UdpSocket, name: &[u8], stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = [name, &buffer[..length]].concat();
            // An answer that cannot be sent is missed by whoever waits for it.
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// A client's socket towards a service.
pub struct UdpClient {
    socket: UdpSocket,
    /// What was sent and not answered in time: the answer may come yet.
    unanswered: RefCell<Vec<Vec<u8>>>,
}

impl UdpClient {
    /// A socket of its own port that waits `patience` for an answer.
    #[track_caller]
    pub fn new(namespace: &Namespace, from: IpAddr, to: SocketAddr, patience: Duration) -> Self {
        let socket = namespace.inside(|| {
            let socket = UdpSocket::bind((from, 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(patience))?;
            io::Result::Ok(socket)
        });
        let socket = socket.unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
        UdpClient { socket, unanswered: RefCell::default() }
    }

    /// The socket, for options.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends a payload; returns the name of who sent it back whole.
    pub fn ask(&self, payload: &[u8]) -> io::Result<String> {
        self.socket.send(payload)?;
        let mut buffer = vec![0; 65_536];
        loop {
            let length = uninterrupted(|| self.socket.recv(&mut buffer));
            let length = length.inspect_err(|_| self.note_unanswered(payload))?;
            let answer = &buffer[..length];
            let end = answer.iter().position(|byte| *byte == b'|').ok_or(io::ErrorKind::InvalidData)?;
            let (name, echoed) = (&answer[..end], &answer[end + 1..]);
            if echoed == payload {
                return Ok(String::from_utf8_lossy(name).into_owned());
            }
            if !self.unanswered.borrow().iter().any(|earlier| earlier == echoed) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer differs from what was sent"));
            }
        }
    }

    fn note_unanswered(&self, payload: &[u8]) {
        self.unanswered.borrow_mut().push(payload.to_vec());
    }
}
