use jetway_aead::Aead;
use jetway_pipelines::buffer::HeapBuf;
use jetway_pipelines::dispatch::direct_flows::DirectFlows;
use jetway_pipelines::dispatch::flow_scan::{FlowFilter, FlowScan, FlowTask};
use jetway_pipelines::ids::{NodeId, WorkerId};
use jetway_pipelines::path::Settings;
use jetway_pipelines::wireguard::index::{IndexKey, IndexLayout};
use jetway_sync::published::Publisher;

use super::*;
use crate::links::{self, ORDERS, OtherEnds};

/// Never asked: there are no ports.
struct NoBuffers;

impl BufferPool<HeapBuf> for NoBuffers {
    fn allocate(&mut self) -> Option<HeapBuf> {
        None
    }
}

#[test]
fn orders_come_back_in_their_order_after_turns_that_each_did_a_part() {
    let (mut links, OtherEnds { mut orders, .. }) = links::connect::<HeapBuf>(1);
    let mut publisher = Publisher::new(Arc::new(Tables::default()));
    let counters = Arc::new(WorkerCounters::default());
    let pipeline = Pipeline::new(Settings {
        node: NodeId(1),
        worker: WorkerId(0),
        index_layout: IndexLayout::new(NodeId(1), 1, &IndexKey::new([7; 8])),
        aead: Aead::best(),
        counters: Arc::clone(&counters),
        flows: 10_000,
        direct_flows: Arc::new(DirectFlows::new([1, 2, 3, 4])),
        hash_key: [1, 2, 3, 4],
    });
    let mut worker = Worker::new(publisher.reader(), pipeline, links.remove(0), vec![], Box::new(NoBuffers), counters);
    let control = &mut orders[0];
    let mut given = 0;
    while control.has_room() {
        given += 1;
        let scan = FlowScan::new(given, FlowTask::Count, FlowFilter::default(), 0);
        control.orders.send(Order::Flows(Box::new(scan)));
    }
    assert_eq!(given, ORDERS as u64);
    let mut turns = 0;
    while worker.turn(Instant::from_nanos(1)) == Turn::Busy {
        turns += 1;
    }
    assert!(turns > given, "the table takes more than one turn");
    assert_eq!(control.orders.outstanding(), 0);
    let ticket = |order| match order {
        Order::Flows(scan) => scan.ticket,
        Order::Foresee(question) => question.ticket,
    };
    let tickets: Vec<u64> = std::iter::from_fn(|| control.done.pop()).map(ticket).collect();
    assert_eq!(tickets, (1..=given).collect::<Vec<_>>());
    assert!(control.has_room());
}
