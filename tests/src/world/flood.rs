//! Forged handshakes, which only a node's public key is needed for: a flood of them from many addresses.

use super::{KeyPair, Namespace, mac1};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An initiation that is random but for its type and its first MAC.
fn forge_initiation(key: &[u8; 32], message: &mut [u8; 148]) {
    message[4..116]
        .copy_from_slice(&std::array::from_fn::<u64, 14, _>(|_| rand::random()).map(u64::to_le_bytes).concat());
    message[..4].copy_from_slice(&[1, 0, 0, 0]);
    mac1::sign(key, message);
}

/// What a flood counted.
#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    cookies: AtomicU64,
    stop: AtomicBool,
}

/// A flood of forged initiations, until it is dropped.
pub struct Flood {
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Sends `rate` forged initiations a second to `node` by turns from `sources`, addresses of the namespace.
    #[track_caller]
    pub fn start(namespace: &Namespace, sources: &[String], node: SocketAddr, key: &KeyPair, rate: u64) -> Self {
        let bind = |source: &String| UdpSocket::bind(format!("{source}:0")).expect("an address of this namespace");
        let sockets: Vec<UdpSocket> = namespace.inside(|| sources.iter().map(bind).collect());
        sockets.iter().for_each(|socket| socket.set_nonblocking(true).expect("a socket can be made not to block"));
        let (key, tally) = (mac1::key(key), Arc::<Tally>::default());
        let count = Arc::clone(&tally);
        let thread = std::thread::spawn(move || flood(&sockets, node, &key, rate, &count));
        Self { tally, thread: Some(thread) }
    }

    /// How many it has sent.
    pub fn sent(&self) -> u64 {
        self.tally.sent.load(Ordering::Relaxed)
    }

    /// How many cookies came back.
    pub fn cookies(&self) -> u64 {
        self.tally.cookies.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.tally.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn flood(sockets: &[UdpSocket], node: SocketAddr, key: &[u8; 32], rate: u64, tally: &Tally) {
    let began = Instant::now();
    let (mut message, mut answer) = ([0; 148], [0; 256]);
    while !tally.stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        while tally.sent.load(Ordering::Relaxed) < due && !tally.stop.load(Ordering::Relaxed) {
            let number = tally.sent.fetch_add(1, Ordering::Relaxed);
            forge_initiation(key, &mut message);
            let socket = &sockets[number as usize % sockets.len()];
            let _ = socket.send_to(&message, node);
            while let Ok(64) = socket.recv(&mut answer) {
                tally.cookies.fetch_add(u64::from(answer[0] == 3), Ordering::Relaxed);
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
