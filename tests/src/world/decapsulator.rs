//! The far end of IPIP, GRE and GUE for a kernel that has none of them: what a server's tunnel devices would do.

use super::Namespace;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::Read;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// GUE's port (draft-ietf-intarea-gue section 1).
const GUE_PORT: u16 = 6080;
const UDP: i32 = 17;
const GRE: i32 = 47;
const IPV4_IN_IP: i32 = 4;
const IPV6_IN_IP: i32 = 41;

/// A thread that unwraps what arrives in a namespace and gives the inner packets to its kernel by a TUN device.
pub struct Decapsulator {
    stop: Arc<AtomicBool>,
    unwrapped: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// What came before the inner packet.
#[derive(Clone, Copy)]
enum Wrapping {
    /// A raw socket of IPv4 shows the outer header.
    RawV4(i32),
    /// A raw socket of IPv6 does not.
    RawV6(i32),
    Udp,
}

impl Decapsulator {
    /// Starts it in a namespace; its TUN device is `decap`.
    #[track_caller]
    pub fn start(namespace: &Namespace) -> Self {
        let (sockets, tun) = namespace.inside(|| {
            let mut sockets = Vec::new();
            for protocol in [IPV4_IN_IP, IPV6_IN_IP, GRE] {
                sockets.push((socket(Domain::IPV4, Type::RAW, protocol), Wrapping::RawV4(protocol)));
                sockets.push((socket(Domain::IPV6, Type::RAW, protocol), Wrapping::RawV6(protocol)));
            }
            let udp = socket(Domain::IPV6, Type::DGRAM, UDP);
            udp.set_only_v6(false).expect("one socket serves both versions");
            let address: SockAddr = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, GUE_PORT, 0, 0).into();
            udp.bind(&address).unwrap_or_else(|error| panic!("port {GUE_PORT}: {error}"));
            sockets.push((udp, Wrapping::Udp));
            let tun = DeviceBuilder::new().name("decap").layer(Layer::L3).mtu(9000).build_sync();
            (sockets, tun.unwrap_or_else(|error| panic!("a TUN device: {error}")))
        });
        let (stop, unwrapped, refused) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, unwrapped, refused) = (Arc::clone(&stop), Arc::clone(&unwrapped), Arc::clone(&refused));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    turn(&sockets, &tun, &unwrapped, &refused);
                }
            }
        });
        Decapsulator { stop, unwrapped, refused, thread: Some(thread) }
    }

    /// Packets that it unwrapped.
    pub fn unwrapped(&self) -> u64 {
        self.unwrapped.load(Ordering::Relaxed)
    }

    /// Packets that carried nothing that it knows.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Decapsulator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn turn(sockets: &[(Socket, Wrapping)], tun: &SyncDevice, unwrapped: &AtomicU64, refused: &AtomicU64) {
    let mut polled: Vec<PollFd> =
        sockets.iter().map(|(socket, _)| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
    let _ = poll(&mut polled, PollTimeout::from(100_u8));
    let readable = polled.iter().map(|fd| fd.any().unwrap_or(false)).collect::<Vec<_>>();
    let mut buffer = [0; 65_536];
    for ((socket, wrapping), _) in sockets.iter().zip(readable).filter(|(_, readable)| *readable) {
        let mut socket = socket;
        while let Ok(length) = socket.read(&mut buffer) {
            let inner = unwrap(&buffer[..length], *wrapping);
            let taken = inner.is_some_and(|inner| tun.send(inner).is_ok());
            if taken { unwrapped } else { refused }.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The inner packet, if what is around it is as its RFC says.
fn unwrap(bytes: &[u8], wrapping: Wrapping) -> Option<&[u8]> {
    let (payload, protocol) = match wrapping {
        Wrapping::RawV4(protocol) => (bytes.get(usize::from(bytes.first()? & 0xf) * 4..)?, protocol),
        Wrapping::RawV6(protocol) => (bytes, protocol),
        // Variant 1: an IP packet follows directly, known by its version.
        Wrapping::Udp => match bytes.first()? >> 4 {
            4 => (bytes, IPV4_IN_IP),
            6 => (bytes, IPV6_IN_IP),
            _ => return None,
        },
    };
    let (inner, version) = match protocol {
        IPV4_IN_IP => (payload, 4),
        IPV6_IN_IP => (payload, 6),
        // RFC 2784: neither checksum nor anything else but the protocol.
        _ => match payload.first_chunk::<4>()? {
            [0, 0, 0x08, 0x00] => (payload.get(4..)?, 4),
            [0, 0, 0x86, 0xdd] => (payload.get(4..)?, 6),
            _ => return None,
        },
    };
    (inner.first()? >> 4 == version).then_some(inner)
}

fn socket(domain: Domain, kind: Type, protocol: i32) -> Socket {
    let socket = Socket::new(domain, kind, Some(Protocol::from(protocol)));
    let socket = socket.unwrap_or_else(|error| panic!("a socket of protocol {protocol}: {error}"));
    socket.set_nonblocking(true).expect("a socket can be made not to block");
    socket.set_recv_buffer_size(4_000_000).expect("a larger buffer");
    socket
}
