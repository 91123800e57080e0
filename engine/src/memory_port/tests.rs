use std::time::Duration;

use arrayvec::ArrayVec;

use super::*;
use crate::heap_pool::{HeapPool, PooledBuf};
use crate::port::BURST;
use crate::test_frames::udp_frame;

const DEPTH: usize = 256;

struct World {
    wire: Wire<PooledBuf>,
    pools: [HeapPool; 2],
    a: Vec<Box<dyn PortQueue<PooledBuf>>>,
    b: Vec<Box<dyn PortQueue<PooledBuf>>>,
    ports: [MemoryPort<PooledBuf>; 2],
}

fn world(queues: usize) -> World {
    let pools = [HeapPool::new(4 * DEPTH, 2048), HeapPool::new(4 * DEPTH, 2048)];
    let end = |number: u8, pool: &HeapPool| End {
        mac: [2, 0, 0, 0, 0, number],
        pools: (0..queues).map(|_| Box::new(pool.clone()) as Box<dyn BufferPool<PooledBuf>>).collect(),
        symmetry: Symmetry::Symmetric,
        spread_key: [7; 4],
        depth: DEPTH,
    };
    let (wire, mut a, mut b) = Wire::connect(end(1, &pools[0]), end(2, &pools[1]), VirtualClock::default());
    World { wire, pools, a: a.take_queues(), b: b.take_queues(), ports: [a, b] }
}

impl World {
    /// Sends a frame of the flow `port` from A's first queue. Returns whether the wire took it.
    fn send(&mut self, port: u16, payload: &[u8]) -> bool {
        let mut burst = Burst::new();
        burst.push(filled(self.pools[0].allocate().unwrap(), &udp_frame(1, 2, port, payload)).unwrap());
        self.a[0].transmit(&mut burst) == 1
    }

    /// What arrives at one of B's queues: the last bytes of each frame.
    fn arrived(&mut self, queue: usize) -> Vec<u8> {
        let mut got = Vec::new();
        let mut burst = Burst::new();
        while self.b[queue].receive(&mut burst) > 0 {
            got.extend(burst.drain(..).map(|frame| *frame.data().last().unwrap()));
        }
        got
    }

    fn assert_nothing_vanished(&self) {
        let counts = self.wire.counts(Direction::AToB);
        let came = counts.accepted + counts.doubled;
        assert_eq!(came, counts.delivered + counts.lost + counts.no_buffer + counts.under_way, "{counts:?}");
    }
}

#[test]
fn a_perfect_wire_delivers_every_frame_whole_and_in_order() {
    let mut world = world(1);
    for number in 0..200 {
        assert!(world.send(1, &[number]));
    }
    assert_eq!(world.arrived(0), (0..200).collect::<Vec<_>>());
    assert_eq!([world.pools[0].available(), world.pools[1].available()], [4 * DEPTH; 2]);
    let (sent, received) = (world.ports[0].statistics(), world.ports[1].statistics());
    assert_eq!((sent.transmitted_packets, received.received_packets), (200, 200));
    assert_eq!(sent.transmitted_bytes, 200 * 43);
    assert_eq!(received.received_bytes, sent.transmitted_bytes);
}

#[test]
fn a_full_queue_keeps_the_rest_of_the_burst_with_the_sender() {
    let mut world = world(1);
    let mut burst: Burst<_> = ArrayVec::new();
    let mut taken = 0;
    for round in 0..=DEPTH / BURST {
        while !burst.is_full() {
            burst.push(filled(world.pools[0].allocate().unwrap(), &udp_frame(1, 2, 3, &[round as u8])).unwrap());
        }
        taken += world.a[0].transmit(&mut burst);
    }
    assert_eq!((taken, burst.len()), (DEPTH, BURST));
    assert_eq!(world.arrived(0).len(), DEPTH);
    assert_eq!(world.a[0].transmit(&mut burst), BURST);
    assert_eq!(world.arrived(0), [4; BURST]);
    world.assert_nothing_vanished();
}

#[test]
fn flows_spread_over_the_queues_and_each_keeps_its_order() {
    let mut world = world(4);
    for number in 0..32 {
        for flow in 0..8 {
            assert!(world.send(flow, &[flow as u8, number]));
        }
    }
    let mut used = 0;
    for queue in 0..4 {
        let mut burst = Burst::new();
        let mut next = [0_u8; 8];
        while world.b[queue].receive(&mut burst) > 0 {
            for frame in burst.drain(..) {
                let [.., flow, number] = frame.data() else { unreachable!("the frame has a payload") };
                assert_eq!(next[usize::from(*flow)], *number);
                next[usize::from(*flow)] += 1;
            }
        }
        assert!(next.iter().all(|count| [0, 32].contains(count)), "a flow is on two queues: {next:?}");
        used += usize::from(next.contains(&32));
    }
    assert!(used > 1, "eight flows all fell on one queue");
    world.assert_nothing_vanished();
}

#[test]
fn a_delayed_frame_arrives_when_its_time_has_come() {
    let mut world = world(1);
    let delays = [30, 10, 20];
    world.wire.set_script(Direction::AToB, move |_: &[u8], sequence: u64| Fate {
        delay: Duration::from_millis(delays[sequence as usize]),
        ..Fate::DELIVERED
    });
    for number in 0..3 {
        world.send(1, &[number]);
    }
    assert_eq!(world.arrived(0), []);
    assert_eq!(world.wire.next_arrival(), Some(Instant::ZERO + Duration::from_millis(10)));
    world.wire.clock().advance_by(Duration::from_millis(20));
    assert_eq!(world.arrived(0), [1, 2]);
    world.wire.clock().advance_by(Duration::from_millis(10));
    assert_eq!(world.arrived(0), [0]);
    assert_eq!(world.wire.next_arrival(), None);
}

#[test]
fn a_script_loses_doubles_and_overtakes_exactly_what_it_says() {
    let mut world = world(1);
    world.wire.set_script(Direction::AToB, |frame: &[u8], _: u64| match frame.last() {
        Some(1) => Fate::LOST,
        Some(2) => Fate { copies: 3, ..Fate::DELIVERED },
        Some(4) => Fate { overtaken_by: 2, ..Fate::DELIVERED },
        _ => Fate::DELIVERED,
    });
    for number in 0..8 {
        world.send(1, &[number]);
    }
    assert_eq!(world.arrived(0), [0, 2, 2, 2, 3, 5, 6, 4, 7]);
    world.wire.clear_script(Direction::AToB);
    world.send(1, &[1]);
    assert_eq!(world.arrived(0), [1]);
    world.assert_nothing_vanished();
}

#[test]
fn chance_keeps_its_odds_and_a_seed_repeats_itself() {
    let seed = 0x6a77;
    let chance = Chance { loss: 0.1, doubling: 0.2, reorder: 0.3, reorder_span: 4, ..Chance::default() };
    let run = |seed| {
        let mut world = world(1);
        world.wire.set_script(Direction::AToB, SeededScript::new(seed, chance));
        let mut all = Vec::new();
        for round in 0..50 {
            for number in 0..100 {
                assert!(world.send(1, &[number]), "seed {seed}, round {round}");
            }
            all.extend(world.arrived(0));
        }
        world.assert_nothing_vanished();
        (all, world.wire.counts(Direction::AToB))
    };
    let (first, counts) = run(seed);
    assert!((400..600).contains(&counts.lost) && (800..1000).contains(&counts.doubled), "seed {seed}: {counts:?}");
    assert!(first.windows(2).filter(|pair| pair[0] > pair[1]).count() > 200, "seed {seed}: hardly anything overtook");
    assert_eq!(run(seed).0, first, "seed {seed}");
    assert_ne!(run(seed + 1).0, first, "seed {seed}");
}

#[test]
fn a_cut_wire_loses_everything_until_it_is_joined() {
    let mut world = world(1);
    world.wire.cut();
    assert!(!world.ports[0].link_up() && !world.ports[1].link_up());
    assert!(world.send(1, b"x"));
    assert_eq!(world.arrived(0), []);
    world.wire.join();
    assert!(world.ports[1].link_up());
    world.send(1, b"y");
    assert_eq!(world.arrived(0), *b"y");
    assert_eq!(world.wire.counts(Direction::AToB).lost, 1);
}

#[test]
fn a_receiver_without_buffers_loses_frames_and_counts_them() {
    let mut world = world(1);
    let hoard: Vec<_> = std::iter::from_fn(|| world.pools[1].allocate()).collect();
    world.send(1, b"x");
    assert_eq!(world.arrived(0), []);
    assert_eq!(world.ports[1].statistics().no_buffer, 1);
    drop(hoard);
    world.send(1, b"y");
    assert_eq!(world.arrived(0), *b"y");
    world.assert_nothing_vanished();
    assert_eq!(world.pools[0].available(), 4 * DEPTH, "the sender's buffers came back all the same");
}

#[test]
fn two_threads_lose_nothing_between_them_however_they_interleave() {
    const FRAMES: usize = 20_000;
    let mut world = world(1);
    let (mut sender, mut receiver) = (world.a.remove(0), world.b.remove(0));
    let mut pool = world.pools[0].clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut burst = Burst::new();
            let mut sent = 0;
            while sent < FRAMES {
                while !burst.is_full()
                    && sent + burst.len() < FRAMES
                    && let Some(buffer) = pool.allocate()
                {
                    let number = (sent + burst.len()) as u32;
                    burst.push(filled(buffer, &udp_frame(1, 2, 3, &number.to_be_bytes())).unwrap());
                }
                sent += sender.transmit(&mut burst);
                std::thread::yield_now();
            }
        });
        let mut burst = Burst::new();
        let mut next = 0_u32;
        while (next as usize) < FRAMES {
            receiver.receive(&mut burst);
            for frame in burst.drain(..) {
                assert_eq!(frame.data()[42..], next.to_be_bytes());
                next += 1;
            }
            std::thread::yield_now();
        }
    });
    world.assert_nothing_vanished();
    assert_eq!([world.pools[0].available(), world.pools[1].available()], [4 * DEPTH; 2]);
}
