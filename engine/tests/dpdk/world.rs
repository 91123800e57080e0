//! What the DPDK tests stand on: a process and a network namespace of their own, and the kernel's end of a device.

use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use jetway_engine::dpdk::device::Device;
use jetway_engine::dpdk::eal::{Eal, EalOptions, LogLevel, Memory};
use jetway_engine::dpdk::mbuf::Mbuf;
use jetway_engine::dpdk::pool::{Allocator, PoolOptions, Pools};
use jetway_engine::dpdk::port::{DpdkPort, PortOptions};
use jetway_engine::port::{Burst, Port, PortQueue};
use jetway_pipelines::buffer::{BufferPool, PacketBuf};

/// Names the test whose body a child process is to run.
const CHILD: &str = "JETWAY_TEST_BODY";

/// Runs `body` in a process of its own, as DPDK starts once in a process: this test binary again, for `test` alone.
pub fn in_own_process(test: &str, body: impl FnOnce()) {
    if std::env::var(CHILD).is_ok_and(|name| name == test) {
        return body();
    }
    let binary = std::env::current_exe().expect("a test binary");
    let output = Command::new(binary)
        .args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .output()
        .expect("the test binary starts");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    let errors = String::from_utf8_lossy(&output.stderr);
    eprint!("{errors}");
    errors.lines().filter(|line| line.starts_with(SKIPPED)).for_each(loudly);
    assert!(output.status.success(), "{test} failed in its own process: {}", output.status);
}

/// Runs `body` in a process and a network namespace of their own; says so when that needs more rights.
pub fn in_own_namespace(test: &str, body: impl FnOnce()) {
    if !nix::unistd::geteuid().is_root() {
        return skip(test, "root");
    }
    in_own_process(test, || {
        // Without a name, the namespace ends with this process, however that ends.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        // Router solicitations and MLD reports would come between the frames that tests count.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("writable in our namespace");
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("writable in our namespace");
        body();
    });
}

const SKIPPED: &str = "SKIPPED:";

/// Says that `test` could not be made for lack of `lacking`.
pub fn skip(test: &str, lacking: &str) {
    loudly(&format!("{SKIPPED} {test} needs {lacking}"));
}

/// Writes past the test harness, which keeps what a passing test prints to itself.
fn loudly(line: &str) {
    writeln!(io::stderr(), "{line}").expect("standard error is open");
}

/// Runs `ip` with the words of `command`.
pub fn ip(command: &str) {
    let status = Command::new("ip").args(command.split_whitespace()).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {command}: {status}");
}

/// An engine's environment for tests: ordinary pages, errors and warnings to standard error.
pub fn start_eal() -> Eal {
    Eal::start(&eal_options()).expect("DPDK starts")
}

pub fn eal_options() -> EalOptions {
    EalOptions {
        node: format!("test-{}", std::process::id()),
        memory: Memory::OrdinaryPages,
        memory_mib: 128,
        control_cores: Vec::new(),
        devices: Vec::new(),
        log: LogLevel::Warning,
    }
}

/// Hugepages of 2 MiB that are reserved for a test, beside those that the machine had.
pub struct ReservedHugePages {
    before: u64,
}

const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// MiB of hugepages of all sizes that nobody uses.
pub fn free_huge_mib() -> u32 {
    let folders = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let number = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>().parse::<u32>().unwrap_or(0);
    let free = |folder: std::fs::DirEntry| {
        let free = std::fs::read_to_string(folder.path().join("free_hugepages")).unwrap_or_default();
        number(&folder.file_name().to_string_lossy()) / 1024 * number(&free)
    };
    folders.map(free).sum()
}

impl ReservedHugePages {
    /// Reserves so many MiB; `None` if this process may not, or the machine's memory is too scattered.
    pub fn reserve(mib: u64) -> Option<Self> {
        let count = || std::fs::read_to_string(HUGE_PAGES).ok()?.trim().parse::<u64>().ok();
        let before = count()?;
        let reserved = Self { before };
        let wanted = before + mib.div_ceil(2);
        std::fs::write(HUGE_PAGES, wanted.to_string()).ok()?;
        (count()? >= wanted).then_some(reserved)
    }
}

impl Drop for ReservedHugePages {
    fn drop(&mut self) {
        // The kernel lets go of those that are free; those in use follow when their process ends.
        let _ = std::fs::write(HUGE_PAGES, self.before.to_string());
    }
}

/// A port for tests with its queues and its memory.
pub struct Rig {
    pub queues: Vec<Box<dyn PortQueue<Mbuf>>>,
    pub port: DpdkPort,
    pub allocator: Allocator,
    pub pools: Pools,
}

impl Rig {
    /// Opens `device` with `queues` queues.
    pub fn open(device: &str, queues: u16, mtu: u16) -> Self {
        let device: Device = device.parse().expect("a device");
        let mut pools = Pools::new(&start_eal(), PoolOptions { buffers: 4095, max_mtu: mtu });
        let allocator = pools.on_node(None).expect("a pool").allocator();
        let mut port = DpdkPort::open(&mut pools, &PortOptions::new(device, queues, mtu)).expect("the port opens");
        Self { queues: port.take_queues(), port, allocator, pools }
    }

    /// A buffer that holds `bytes`.
    pub fn packet(&mut self, bytes: &[u8]) -> Mbuf {
        let mut packet = self.allocator.allocate().expect("a free buffer");
        packet.grow_back(bytes.len()).expect("room for the packet");
        packet.data_mut().copy_from_slice(bytes);
        packet
    }

    /// Sends `packet` on `queue`, waiting for room if need be.
    pub fn send(&mut self, queue: usize, packet: Mbuf) {
        let mut burst = Burst::new();
        burst.push(packet);
        within("room in the transmit queue", || (self.queues[queue].transmit(&mut burst) == 1).then_some(()));
    }

    /// Looks at what comes in, with the number of its queue, until `count` packets came.
    pub fn look(&mut self, count: usize, mut look: impl FnMut(usize, &Mbuf)) {
        let mut seen = 0;
        within("packets on the port", || {
            for (number, queue) in self.queues.iter_mut().enumerate() {
                let mut burst = Burst::new();
                seen += queue.receive(&mut burst);
                burst.iter().for_each(|packet| look(number, packet));
            }
            (seen >= count).then_some(())
        });
    }

    /// What comes in on all queues until `count` packets that `wanted` accepts are there.
    pub fn receive(&mut self, count: usize, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        within("packets on the port", || {
            for queue in &mut self.queues {
                let mut burst = Burst::new();
                queue.receive(&mut burst);
                got.extend(burst.iter().map(|packet| packet.data().to_vec()).filter(|packet| wanted(packet)));
            }
            (got.len() >= count).then_some(())
        });
        got
    }

    /// Closes the port and says how many buffers are missing in its pool: none, if nothing leaks.
    pub fn close(mut self) -> u32 {
        let pool = self.pools.on_node(None).expect("the same pool");
        drop((self.queues, self.port, self.allocator));
        pool.buffers() - pool.available()
    }
}

/// Repeats `attempt` until it gives something, for ten seconds at most.
pub fn within<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match attempt() {
            Some(value) => return value,
            None => assert!(Instant::now() < end, "no {what} within ten seconds"),
        }
        std::thread::yield_now();
    }
}

/// The EtherType of test frames ("local experimental", IEEE 802), which no kernel answers.
const EXPERIMENTAL: u16 = 0x88b5;

/// A broadcast frame of `length` bytes, numbered `number`.
pub fn frame(number: u32, length: usize) -> Vec<u8> {
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 1]].concat();
    frame.extend(EXPERIMENTAL.to_be_bytes());
    frame.extend(number.to_be_bytes());
    frame.extend((frame.len()..length).map(|place| (place as u32).wrapping_mul(number | 1) as u8));
    frame
}

/// Whether `bytes` is a test frame.
pub fn is_test_frame(bytes: &[u8]) -> bool {
    bytes.get(12..14) == Some(&EXPERIMENTAL.to_be_bytes())
}

/// A raw packet socket on an interface: the kernel's end of a port.
pub struct RawSocket(OwnedFd);

impl RawSocket {
    /// Sees test frames on `interface`, and sends any.
    pub fn open(interface: &str) -> Self {
        Self::open_for(EXPERIMENTAL, interface)
    }

    /// Sees frames of one EtherType on `interface`, and sends any.
    pub fn open_for(ether_type: u16, interface: &str) -> Self {
        let protocol = ether_type.to_be();
        // SAFETY: plain system calls; the descriptor that comes back is ours.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, i32::from(protocol));
            assert!(fd >= 0, "a packet socket: {}", io::Error::last_os_error());
            let socket = Self(OwnedFd::from_raw_fd(fd));
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol;
            address.sll_ifindex = nix::net::if_::if_nametoindex(interface).expect("the interface") as i32;
            let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            let result = libc::bind(fd, (&raw const address).cast(), size);
            assert_eq!(result, 0, "binding to {interface}: {}", io::Error::last_os_error());
            socket
        }
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) {
        let sent = within("room in the socket", || nix::unistd::write(&self.0, frame).ok());
        assert_eq!(sent, frame.len());
    }

    /// The next frame.
    pub fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let length = within("frame on the socket", || nix::unistd::read(&self.0, &mut buffer).ok());
        buffer.truncate(length);
        buffer
    }
}
