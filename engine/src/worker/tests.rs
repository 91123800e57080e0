use std::net::IpAddr;

use jetway_aead::Aead;
use jetway_config::{AllDown, Forward, OnDown, Persistence};
use jetway_pipelines::buffer::HeapBuf;
use jetway_pipelines::dispatch::Backend;
use jetway_pipelines::dispatch::direct_flows::DirectFlows;
use jetway_pipelines::dispatch::flow_scan::{FlowFilter, FlowScan, FlowTask};
use jetway_pipelines::dispatch::loss::Loss;
use jetway_pipelines::dispatch::maglev::{Identity, Maglev, Member};
use jetway_pipelines::dispatch::service::{Service, ServiceParts, Services, Socket};
use jetway_pipelines::ids::{BackendIndex, NodeId, QueueId, WorkerId};
use jetway_pipelines::packet::{MacAddress, Protocol};
use jetway_pipelines::path::Settings;
use jetway_pipelines::tables::{ChecksumBy, PortEntry, Route};
use jetway_pipelines::wireguard::index::{IndexKey, IndexLayout};
use jetway_sync::published::Publisher;

use super::*;
use crate::exits::PortAccess;
use crate::links::{self, ORDERS, OtherEnds};
use crate::port::PortQueue;
use crate::test_frames::udp_frame;

/// Never asked: there are no ports.
struct NoBuffers;

impl BufferPool<HeapBuf> for NoBuffers {
    fn allocate(&mut self) -> Option<HeapBuf> {
        None
    }
}

fn pipeline() -> (Pipeline<HeapBuf>, Arc<WorkerCounters>) {
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
    (pipeline, counters)
}

/// A queue that gives these frames, and takes so many of a burst.
struct Queue {
    frames: Vec<Vec<u8>>,
    room: usize,
}

impl PortQueue<HeapBuf> for Queue {
    fn id(&self) -> QueueId {
        QueueId(0)
    }

    fn receive(&mut self, burst: &mut Burst<HeapBuf>) -> usize {
        burst.extend(self.frames.drain(..).map(|frame| HeapBuf::from_packet(&frame)));
        burst.len()
    }

    fn transmit(&mut self, burst: &mut Burst<HeapBuf>) -> usize {
        burst.drain(..self.room.min(burst.len())).count()
    }
}

/// A service at 10.0.0.1 port 9 with one server, 10.0.0.9, behind the port 1; clients come by the port 0.
fn tables(server: &Arc<Backend>) -> Tables {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let mac = |last| MacAddress([2, 0, 0, 0, 0, last]);
    let service = Service::from(ServiceParts {
        socket: Socket { address: address("10.0.0.1"), port: 9, protocol: Protocol::UDP },
        persistence: Persistence::Flow,
        forward: Forward::Nat,
        on_down: OnDown::Move,
        all_down: AllDown::Serve,
        table: Maglev::build(7, &[Member { identity: Identity::of(b"server"), weight: 1 }]).expect("a table"),
        servers: [Arc::clone(server)].into(),
        gateways: None,
    });
    let route = |port| Route::Port { port, gateway: None, source: None, mtu: None };
    let routes = [("0.0.0.0/0", route(PortId(0))), ("10.0.0.9/32", route(PortId(1)))];
    Tables {
        epoch: 1,
        ports: [1, 2]
            .map(|last| PortEntry {
                mac: mac(last),
                mtu: 1500,
                l4_checksum: ChecksumBy::Software,
                source: Default::default(),
            })
            .into(),
        routes: routes.map(|(net, route)| (net.parse().expect("a network"), route)).into_iter().collect(),
        neighbours: Arc::new([((PortId(1), server.address), mac(9))].into_iter().collect()),
        services: Arc::new(Services::new(vec![Arc::new(service)], [1, 2])),
        ..Tables::default()
    }
}

#[test]
fn what_a_full_port_drops_of_a_servers_packets_is_counted_at_the_server() {
    let server = Arc::new(Backend::new(BackendIndex(7), "10.0.0.9".parse().expect("an address"), 80, 1));
    let (mut links, _others) = links::connect::<HeapBuf>(1);
    let mut publisher = Publisher::new(Arc::new(tables(&server)));
    let (pipeline, counters) = pipeline();
    // A frame with a priority tag takes the stages, the others the short way.
    let mut frames: Vec<_> = (0..5).map(|client| udp_frame(2, 1, 4000 + client, b"hello")).collect();
    frames[3].splice(12..12, [0x81, 0, 0xa0, 0]);
    let queues = [Queue { frames, room: 0 }, Queue { frames: vec![], room: 1 }];
    let ports = queues.map(|queue| PortShare::new(PortAccess::Queue(Box::new(queue)))).into();
    let mut worker = Worker::new(publisher.reader(), pipeline, links.remove(0), ports, Box::new(NoBuffers), counters);
    assert_eq!(worker.turn(Instant::from_nanos(1)), Turn::Busy);
    let sent: u64 = server.all_traffic().iter().map(|traffic| traffic.packets.get()).sum();
    assert_eq!((server.lost(Loss::PortFull), sent), (4, 5));
}

#[test]
fn orders_come_back_in_their_order_after_turns_that_each_did_a_part() {
    let (mut links, OtherEnds { mut orders, .. }) = links::connect::<HeapBuf>(1);
    let mut publisher = Publisher::new(Arc::new(Tables::default()));
    let (pipeline, counters) = pipeline();
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
