//! Network namespaces for the tests, and raw sockets in them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, socket,
};

/// Runs `test` on a thread of its own in a fresh network namespace without IPv6, which ends with it.
///
/// Without the right to make a namespace, or without TUN/TAP, it says so, loudly, and passes.
pub(super) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: this test needs root to make a network namespace ({error})");
            return;
        }
        if !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("SKIPPED: this test needs /dev/net/tun");
            return;
        }
        // The kernel's router solicitations and multicast reports would mix with the frames that are counted.
        for of in ["all", "default"] {
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{of}/disable_ipv6"), "1");
        }
        ip("link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these arguments in the namespace of this thread.
#[track_caller]
pub(super) fn ip(arguments: &str) {
    let output = run("ip", arguments);
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a program in the namespace of this thread.
#[track_caller]
pub(super) fn run(program: &str, arguments: &str) -> Output {
    let output = Command::new(program).args(arguments.split_whitespace()).output();
    output.unwrap_or_else(|error| panic!("{program} {arguments}: {error}"))
}

/// Another namespace with a name, removed when this is dropped.
pub(super) struct Named(pub(super) String);

impl Named {
    pub(super) fn new(what: &str) -> Self {
        let name = format!("jw-host-{what}-{}", std::process::id());
        ip(&format!("netns add {name}"));
        Self(name)
    }

    /// Runs a program there.
    pub(super) fn run(&self, program: &str, arguments: &str) -> Output {
        run("ip", &format!("netns exec {} {program} {arguments}", self.0))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.0));
    }
}

/// A packet socket that sees all that arrives in this thread's namespace.
pub(super) struct RawSocket(OwnedFd);

impl RawSocket {
    pub(super) fn open() -> Self {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &(8 << 20)).unwrap();
        Self(socket)
    }

    /// Sends a frame out of an interface as it is.
    pub(super) fn send(&self, interface: &str, packet: &[u8]) {
        let to = link_address(interface);
        assert_eq!(sendto(self.0.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap(), packet.len());
    }

    /// The next packet, if there is one.
    pub(super) fn receive(&self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 65_536];
        let length = recv(self.0.as_raw_fd(), &mut packet, MsgFlags::empty()).ok()?;
        packet.truncate(length);
        Some(packet)
    }
}

/// Sends an IPv4 packet by the kernel's routes; the kernel changes nothing of it that is set already.
pub(super) fn send_ip(packet: &[u8]) {
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap();
    let to = SockaddrIn::new(packet[16], packet[17], packet[18], packet[19], 0);
    assert_eq!(sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap(), packet.len());
}

/// The address of an Ethernet interface for packet sockets.
fn link_address(interface: &str) -> LinkAddr {
    let mut addresses = nix::ifaddrs::getifaddrs().unwrap().filter(|address| address.interface_name == interface);
    addresses.find_map(|address| address.address.as_ref()?.as_link_addr().copied()).unwrap()
}

/// Asks until there is an answer, for at most five seconds.
#[track_caller]
pub(super) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{what} did not come in 5 s");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Whether the interface exists in this thread's namespace.
pub(super) fn exists(interface: &str) -> bool {
    nix::net::if_::if_nametoindex(interface).is_ok()
}

/// Reads one of the interface's IPv6 settings.
pub(super) fn setting(interface: &str, name: &str) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/{name}")).map(|value| value.trim().into())
}
