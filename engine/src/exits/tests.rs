use jetway_pipelines::buffer::HeapBuf;
use jetway_pipelines::ids::QueueId;

use super::*;
use crate::links::{self, HANDOFFS, OtherEnds};

/// A queue that takes so many packets of each burst.
struct Narrow(usize);

impl PortQueue<HeapBuf> for Narrow {
    fn id(&self) -> QueueId {
        QueueId(0)
    }

    fn receive(&mut self, _: &mut Burst<HeapBuf>) -> usize {
        0
    }

    fn transmit(&mut self, burst: &mut Burst<HeapBuf>) -> usize {
        burst.drain(..self.0.min(burst.len())).count()
    }
}

struct NoBuffers;

impl BufferPool<HeapBuf> for NoBuffers {
    fn allocate(&mut self) -> Option<HeapBuf> {
        None
    }
}

/// The exits of worker 0 of two, by these ports; the other worker takes nothing.
fn exits(accesses: Vec<PortAccess<HeapBuf>>) -> (Exits<HeapBuf>, Vec<Arc<PortLosses>>, impl Sized) {
    let (mut links, others): (_, OtherEnds<HeapBuf>) = links::connect(2);
    let own = links.remove(0);
    let ports: Vec<_> = accesses.into_iter().map(PortShare::new).collect();
    let losses = ports.iter().map(PortShare::losses).collect();
    let exits = Exits {
        ports,
        pool: Box::new(NoBuffers),
        punts: own.punts,
        handoffs: own.handoffs_out,
        handshake_events: own.handshake_events,
        control_events: own.control_events,
        counters: Arc::default(),
        lost: Lost::new(),
    };
    (exits, losses, (links, others))
}

fn lost(losses: &[Arc<PortLosses>]) -> Vec<(u64, u64)> {
    losses.iter().map(|port| (port.transmit_queue_full.get(), port.handoff_queue_full.get())).collect()
}

#[test]
fn what_a_full_transmit_queue_drops_is_counted_at_its_port_and_at_no_other() {
    let queue = |room| PortAccess::Queue(Box::new(Narrow(room)));
    let (mut exits, losses, _others) = exits(vec![queue(64), queue(3)]);
    for port in [0, 1, 1, 1, 1, 1, 0] {
        assert!(exits.send(PortId(port), HeapBuf::default()).is_ok());
    }
    exits.flush();
    assert_eq!(lost(&losses), [(0, 0), (2, 0)]);
    // A burst that is full goes out by itself.
    for _ in 0..=crate::port::BURST {
        assert!(exits.send(PortId(1), HeapBuf::default()).is_ok());
    }
    assert_eq!(lost(&losses), [(0, 0), (63, 0)]);
    let dropped = exits.counters.drops[DropReason::TransmitQueueFull as usize].get();
    assert_eq!((dropped, exits.counters.sent.get()), (63, 8), "the worker's own counters say the same");
}

#[test]
fn what_is_dropped_on_its_way_to_a_server_is_told_with_the_server_and_the_reason() {
    let queue = |room| PortAccess::Queue(Box::new(Narrow(room)));
    let (mut exits, _losses, _others) = exits(vec![queue(2), PortAccess::Through(WorkerId(1))]);
    let (full, handoff) = (DropReason::TransmitQueueFull, DropReason::HandoffQueueFull);
    let send = |exits: &mut Exits<HeapBuf>, port, server: Option<u32>| {
        let sent = match server {
            Some(server) => exits.send_to_server(PortId(port), HeapBuf::default(), BackendIndex(server)),
            None => exits.send(PortId(port), HeapBuf::default()),
        };
        assert!(sent.is_ok());
    };
    // The first two go out.
    for server in [Some(1), None, Some(2), None, Some(3)] {
        send(&mut exits, 0, server);
    }
    exits.flush();
    assert_eq!(exits.take_lost().collect::<Vec<_>>(), [(BackendIndex(2), full), (BackendIndex(3), full)]);
    assert_eq!(exits.take_lost().count(), 0);
    for number in 0..HANDOFFS as u32 + 2 {
        send(&mut exits, 1, Some(number));
    }
    exits.flush();
    let late = HANDOFFS as u32;
    let expected = [(BackendIndex(late), handoff), (BackendIndex(late + 1), handoff)];
    assert_eq!(exits.take_lost().collect::<Vec<_>>(), expected);
    // A burst that is full goes out by itself, and what it lost is not forgotten.
    for number in 0..=crate::port::BURST as u32 {
        send(&mut exits, 0, Some(number));
    }
    assert_eq!(exits.take_lost().count(), crate::port::BURST - 2);
}

#[test]
fn what_finds_no_room_on_the_way_to_the_worker_with_the_queue_is_counted_at_the_port() {
    let (mut exits, losses, _others) =
        exits(vec![PortAccess::Queue(Box::new(Narrow(64))), PortAccess::Through(WorkerId(1))]);
    for _ in 0..HANDOFFS + 5 {
        assert!(exits.send(PortId(1), HeapBuf::default()).is_ok());
    }
    exits.flush();
    assert_eq!(lost(&losses), [(0, 0), (0, 5)]);
    assert_eq!(exits.counters.dropped(), 5);
    assert_eq!(exits.counters.handed_off.get(), HANDOFFS as u64);
}
