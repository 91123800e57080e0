use std::collections::BTreeMap;
use std::sync::Arc;

use jetway_pipelines::buffer::{BufferPool, PacketBuf};
use jetway_pipelines::ids::{PortId, TunnelId};
use jetway_pipelines::packet::checksum::checksum;
use jetway_pipelines::tables::Twin;
use jetway_sync::spsc::{self, Consumer, Producer};

use super::namespace::{RawSocket, exists, in_namespace, ip, send_ip, wait_for};
use crate::heap_pool::{HeapPool, PooledBuf};
use crate::host::{HostCounters, HostOptions, HostThread, TwinDevice};
use crate::links::{HostLink, Inject, Punt};
use crate::test_frames::udp_frame;

const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 9, 1];
const THEIR_MAC: [u8; 6] = [2, 0, 0, 0, 9, 2];
const TAP: Twin = Twin::Port(PortId(0));
const TUN: Twin = Twin::Tunnel(TunnelId(0));
const BUFFERS: usize = 512;

/// A worker's ends of its rings with the host thread.
struct WorkerEnds {
    punts: Producer<Punt<PooledBuf>>,
    injects: Consumer<Inject<PooledBuf>>,
}

/// The rings of one worker with room for `capacity` packets each way.
fn link(capacity: usize) -> (WorkerEnds, HostLink<PooledBuf>) {
    let (punts, host_punts) = spsc::channel(capacity);
    let (host_injects, injects) = spsc::channel(capacity);
    (WorkerEnds { punts, injects }, HostLink { punts: host_punts, injects: host_injects })
}

/// A host thread with one TAP and one TUN, both up with an address, and its workers' ends.
struct Host {
    thread: HostThread,
    workers: Vec<WorkerEnds>,
    pool: HeapPool,
}

impl Host {
    fn start(workers: usize, ring: usize) -> Self {
        let (workers, host): (Vec<_>, Vec<_>) = (0..workers).map(|_| link(ring)).unzip();
        let pool = HeapPool::new(BUFFERS, 2048);
        let twins = vec![
            TwinDevice::tap(PortId(0), "jw-lan", OUR_MAC, 1500).unwrap(),
            TwinDevice::tun(TunnelId(0), "jw0", 1420).unwrap(),
        ];
        ip("addr add 10.9.0.1/24 dev jw-lan");
        ip("addr add 10.8.0.1/24 dev jw0");
        ip("link set jw-lan up");
        ip("link set jw0 up");
        let options = HostOptions { twins, workers: host, pool: Box::new(pool.clone()), spread_key: [5; 4] };
        Self { thread: HostThread::start(options, || {}).unwrap(), workers, pool }
    }

    fn punt(&mut self, worker: usize, to: Twin, packet: &[u8]) {
        let buffer = filled(&mut self.pool, packet);
        let mut punt = Some(Punt { to, buffer });
        wait_for("room in the ring", || match self.workers[worker].punts.push(punt.take()?) {
            Ok(()) => Some(()),
            Err(back) => {
                punt = Some(back);
                None
            }
        });
    }

    /// The next packet that the kernel sends to this worker.
    #[track_caller]
    fn injected(&mut self, worker: usize) -> (Twin, Vec<u8>) {
        let Inject { from, buffer } = wait_for("a packet of the kernel", || self.workers[worker].injects.pop());
        (from, buffer.data().to_vec())
    }

    fn counters(&self) -> &HostCounters {
        self.thread.counters()
    }

    /// Stops everything; fails if a buffer or an interface is left.
    fn stop(self) {
        self.thread.stop();
        drop(self.workers);
        assert_eq!(self.pool.available(), BUFFERS, "buffers are lost");
        assert!(!exists("jw-lan") && !exists("jw0"));
    }
}

fn filled(pool: &mut HeapPool, packet: &[u8]) -> PooledBuf {
    let mut buffer = wait_for("a buffer", || pool.allocate());
    buffer.grow_back(packet.len()).unwrap();
    buffer.data_mut().copy_from_slice(packet);
    buffer
}

/// An ICMP echo (type 8) or its reply (type 0) as a bare IP packet.
fn echo(kind: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut icmp = [&[kind, 0, 0, 0, 0x12, 0x34, 0, 1], payload].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = (20 + icmp.len() as u16).to_be_bytes();
    let mut ip = vec![0x45, 0, length[0], length[1], 0, 1, 0x40, 0, 64, 1, 0, 0];
    ip.extend([source, destination].concat());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [ip, icmp].concat()
}

#[test]
fn the_kernel_answers_arp_and_ping_that_arrive_as_punts_of_a_port() {
    in_namespace(|| {
        let mut host = Host::start(1, 64);
        let arp = |operation: u8, from: ([u8; 6], [u8; 4]), to: ([u8; 6], [u8; 4])| {
            [&[0, 1, 8, 0, 6, 4, 0, operation][..], &from.0, &from.1, &to.0, &to.1].concat()
        };
        let (ours, theirs) = ([10, 9, 0, 1], [10, 9, 0, 2]);
        let request = [&[0xff; 6][..], &THEIR_MAC, &[8, 6], &arp(1, (THEIR_MAC, theirs), ([0; 6], ours))].concat();
        host.punt(0, TAP, &request);
        let reply = [&THEIR_MAC[..], &OUR_MAC, &[8, 6], &arp(2, (OUR_MAC, ours), (THEIR_MAC, theirs))].concat();
        assert_eq!(host.injected(0), (TAP, reply));
        let ping = [&OUR_MAC[..], &THEIR_MAC, &[8, 0], &echo(8, theirs, ours, b"by ethernet")].concat();
        host.punt(0, TAP, &ping);
        let (from, pong) = host.injected(0);
        assert_eq!((from, &pong[..14]), (TAP, &[&THEIR_MAC[..], &OUR_MAC, &[8, 0]].concat()[..]));
        assert_eq!(pong[34..], echo(0, ours, theirs, b"by ethernet")[20..]);
        assert_eq!((host.counters().punts_written.get(), host.counters().injected.get()), (2, 2));
        host.stop();
    });
}

#[test]
fn the_kernel_answers_ping_that_arrives_as_a_punt_of_a_tunnel() {
    in_namespace(|| {
        let mut host = Host::start(1, 64);
        let (ours, theirs) = ([10, 8, 0, 1], [10, 8, 0, 2]);
        host.punt(0, TUN, &echo(8, theirs, ours, b"by tunnel"));
        let (from, pong) = host.injected(0);
        assert_eq!(from, TUN);
        assert_eq!(pong[20..], echo(0, ours, theirs, b"by tunnel")[20..]);
        host.stop();
    });
}

#[test]
fn many_packets_of_all_sizes_pass_both_ways_unchanged_and_in_order() {
    in_namespace(|| {
        let mut host = Host::start(1, 128);
        let socket = RawSocket::open();
        ip("route add 10.0.0.0/24 dev jw0");
        for (twin, longest, skip) in [(TAP, 1500, 0), (TUN, 1420, 14)] {
            let packets: Vec<_> = (0..2000_usize)
                .map(|number| {
                    let mut payload = vec![number as u8; number * 7 % (longest - 27)];
                    payload.extend(number.to_be_bytes());
                    payload.truncate(longest - 28);
                    udp_frame(1, 2, 77, &payload)[skip..].to_vec()
                })
                .collect();
            // A tenth of what the kernel queues for us, so that it need not drop any.
            for chunk in packets.chunks(50) {
                for packet in chunk {
                    match twin {
                        Twin::Port(_) => socket.send("jw-lan", packet),
                        Twin::Tunnel(_) => send_ip(packet),
                    }
                }
                for packet in chunk {
                    assert_eq!(host.injected(0), (twin, packet.clone()));
                }
            }
            while socket.receive().is_some() {}
            for chunk in packets.chunks(50) {
                chunk.iter().for_each(|packet| host.punt(0, twin, packet));
                for packet in chunk {
                    assert_eq!(wait_for("a packet in the kernel", || socket.receive()), *packet);
                }
            }
        }
        assert_eq!((host.counters().punts_written.get(), host.counters().punts()), (4000, 4000));
        assert_eq!(host.counters().injected.get(), 4000);
        host.stop();
    });
}

#[test]
fn flows_of_the_kernel_spread_over_workers_and_each_keeps_its_order() {
    in_namespace(|| {
        let mut host = Host::start(3, 128);
        let socket = RawSocket::open();
        let mut workers_of: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for round in 0..20_u8 {
            for flow in 0..12_u8 {
                socket.send("jw-lan", &udp_frame(1, 2, u16::from(flow), &[flow, round]));
            }
            for _ in 0..12 {
                let (worker, frame) = wait_for("a packet of the kernel", || {
                    (0..3).find_map(|worker| Some((worker, host.workers[worker].injects.pop()?)))
                });
                let [.., flow, number] = *frame.buffer.data() else { unreachable!("the frame has a payload") };
                let seen = workers_of.entry(flow).or_default();
                assert_eq!(seen.len(), usize::from(number), "flow {flow} lost its order");
                seen.push(worker);
            }
        }
        assert!(workers_of.values().all(|workers| workers.iter().all(|worker| *worker == workers[0])));
        let mut used: Vec<_> = workers_of.values().map(|workers| workers[0]).collect();
        used.sort_unstable();
        used.dedup();
        assert!(used.len() > 1, "twelve flows all fell on one worker");
        host.stop();
    });
}

#[test]
fn every_packet_that_cannot_be_passed_is_counted_under_its_reason() {
    in_namespace(|| {
        let mut host = Host::start(1, 2);
        let socket = RawSocket::open();
        let until = |host: &Host, counter: fn(&HostCounters) -> u64, value: u64| {
            wait_for("the counter", || (counter(host.counters()) == value).then_some(()));
        };
        host.punt(0, TUN, b"\0 is no IP version");
        until(&host, |counters| counters.punts_refused.get(), 1);
        host.punt(0, Twin::Tunnel(TunnelId(9)), b"?");
        until(&host, |counters| counters.punts_without_twin.get(), 1);
        ip("link set jw0 down");
        host.punt(0, TUN, &echo(8, [10, 8, 0, 2], [10, 8, 0, 1], b""));
        until(&host, |counters| counters.punts_interface_down.get(), 1);
        assert_eq!(host.counters().punts(), 3);
        for _ in 0..5 {
            socket.send("jw-lan", &udp_frame(1, 2, 3, b"more than the ring holds"));
        }
        until(&host, |counters| counters.inject_ring_full.get(), 3);
        assert_eq!(host.counters().injected.get(), 2);
        ip("link set jw-lan mtu 4000");
        socket.send("jw-lan", &udp_frame(1, 2, 3, &[0; 3000]));
        until(&host, |counters| counters.read_oversized.get(), 1);
        host.workers.clear();
        socket.send("jw-lan", &udp_frame(1, 2, 3, b"nobody there"));
        until(&host, |counters| counters.inject_worker_gone.get(), 1);
        host.stop();
    });
}

#[test]
fn while_no_buffer_is_free_packets_wait_in_the_kernel() {
    in_namespace(|| {
        let mut host = Host::start(1, 64);
        let socket = RawSocket::open();
        let hoard: Vec<_> = std::iter::from_fn(|| host.pool.allocate()).collect();
        let frame = udp_frame(1, 2, 3, b"patient");
        socket.send("jw-lan", &frame);
        wait_for("the count", || (host.counters().pool_empty.get() > 3).then_some(()));
        assert_eq!(host.counters().injected.get(), 0);
        drop(hoard);
        assert_eq!(host.injected(0), (TAP, frame));
        host.stop();
    });
}

#[test]
fn twins_come_and_go_while_the_others_are_served() {
    in_namespace(|| {
        let mut host = Host::start(1, 64);
        let socket = RawSocket::open();
        let late = Twin::Tunnel(TunnelId(1));
        host.thread.add_twin(TwinDevice::tun(TunnelId(1), "jw1", 1420).unwrap());
        ip("link set jw1 up");
        ip("route add 10.7.0.0/24 dev jw1 src 10.8.0.1");
        let packet = echo(0, [10, 7, 0, 1], [10, 7, 0, 2], b"late");
        send_ip(&packet);
        assert_eq!(host.injected(0), (late, packet));
        host.thread.remove_twin(late);
        assert!(!exists("jw1"));
        ip("link delete jw0");
        wait_for("a refusal", || {
            host.punt(0, TUN, b"its interface was deleted");
            (host.counters().punts_without_twin.get() > 0).then_some(())
        });
        let frame = udp_frame(1, 2, 3, b"still served");
        socket.send("jw-lan", &frame);
        assert_eq!(host.injected(0), (TAP, frame));
        host.stop();
    });
}

#[test]
fn what_was_punted_before_the_stop_still_reaches_the_kernel() {
    in_namespace(|| {
        let mut host = Host::start(2, 128);
        let counters = Arc::clone(host.thread.counters());
        for _ in 0..100 {
            host.punt(0, TUN, &echo(0, [10, 8, 0, 2], [10, 8, 0, 1], b""));
            host.punt(1, TUN, &echo(0, [10, 8, 0, 2], [10, 8, 0, 1], b""));
        }
        host.stop();
        assert_eq!(counters.punts_written.get(), 200);
    });
}

/// A pool that knows whether it is still held.
struct Witnessed(HeapPool, #[expect(dead_code, reason = "it is there to be dropped")] Arc<()>);

impl BufferPool<PooledBuf> for Witnessed {
    fn allocate(&mut self) -> Option<PooledBuf> {
        self.0.allocate()
    }
}

#[test]
fn the_threads_registration_outlives_its_hold_on_the_pool() {
    /// Tells at its end how many still hold the witness.
    struct Registration(Arc<()>, std::sync::mpsc::Sender<usize>);

    impl Drop for Registration {
        fn drop(&mut self) {
            self.1.send(Arc::strong_count(&self.0)).unwrap();
        }
    }

    let witness = Arc::new(());
    let (sender, held) = std::sync::mpsc::channel();
    let registration = Registration(Arc::clone(&witness), sender);
    let pool = Box::new(Witnessed(HeapPool::new(1, 64), witness));
    let options = HostOptions { twins: Vec::new(), workers: Vec::new(), pool, spread_key: [0; 4] };
    HostThread::start(options, || registration).unwrap().stop();
    assert_eq!(held.recv().unwrap(), 1);
}
