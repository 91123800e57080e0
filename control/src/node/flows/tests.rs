use jetway_engine::links::{self, OtherEnds, WorkerLinks};
use jetway_pipelines::buffer::HeapBuf;
use jetway_pipelines::dispatch::flow_scan::Progress;
use jetway_pipelines::dispatch::flow_table::{self, FlowKey, FlowKind, Lifetime};
use jetway_pipelines::dispatch::{FlowTable, Tick};
use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::packet::Protocol;

use super::*;

const NOW: Tick = Tick(100);

/// Workers that do nothing but what control orders.
struct World {
    desk: FlowDesk,
    control: Vec<OrderLink>,
    workers: Vec<(WorkerLinks<HeapBuf>, FlowTable)>,
}

impl World {
    /// With so many flows on each worker, half of them at server 0 and half at server 1.
    fn new(flows: &[u16]) -> Self {
        let (links, OtherEnds { orders, .. }) = links::connect(flows.len() as u16);
        let table = |count: &u16| {
            let mut table = FlowTable::new(usize::from(*count) + 1, [1, 2, 3, 4]);
            for port in 0..*count {
                let key = FlowKey {
                    source: [1; 16],
                    destination: [2; 16],
                    source_port: port,
                    destination_port: 443,
                    protocol: Protocol::TCP,
                    kind: FlowKind::Forward,
                    origin: 0,
                };
                let decision = flow_table::Decision::new(BackendIndex(u32::from(port % 2)), 0);
                table.insert(table.hash(&key), key, decision, Lifetime::TcpEstablished, NOW).unwrap();
            }
            table
        };
        let workers = links.into_iter().zip(flows.iter().map(table)).collect();
        Self { desk: FlowDesk::default(), control: orders, workers }
    }

    fn ask(&mut self, task: FlowTask, limit: usize) -> Result<oneshot::Receiver<Found>, Failure> {
        self.desk.ask(&mut self.control, Wanted { task, filter: FlowFilter::default(), limit }, 2)
    }

    /// Has every worker carry out one order, and control take what comes back.
    fn turn(&mut self) {
        for (links, table) in &mut self.workers {
            if let Some(mut order) = links.orders.receive() {
                match &mut order {
                    Order::Flows(scan) => while scan.step(table, NOW) == Progress::GoesOn {},
                    Order::Foresee(question) => question.decision = Some(Decision::AskCookie),
                }
                links.orders_done.push(order).unwrap();
                links.orders.acknowledge();
            }
        }
        self.desk.take_done(&mut self.control);
    }

    fn answer(&mut self, mut answer: oneshot::Receiver<Found>) -> Found {
        for _ in 0..100 {
            self.turn();
            if let Ok(found) = answer.try_recv() {
                return found;
            }
        }
        panic!("no answer in 100 turns");
    }
}

#[test]
fn flows_of_all_workers_come_together_however_many_there_are() {
    let mut world = World::new(&[10_000, 0, 3]);
    let answer = world.ask(FlowTask::List, usize::MAX).unwrap();
    let found = world.answer(answer);
    assert_eq!((found.flows.len(), found.matched, found.has_more), (10_003, 10_003, false));
    assert_eq!(found.flows.iter().filter(|(worker, _)| *worker == WorkerId(2)).count(), 3);
}

#[test]
fn no_more_are_shown_than_were_asked_for_and_the_rest_is_told_of() {
    let mut world = World::new(&[10_000, 10_000]);
    let answer = world.ask(FlowTask::List, 10).unwrap();
    let found = world.answer(answer);
    assert_eq!((found.flows.len(), found.has_more), (10, true));
    let answer = world.ask(FlowTask::List, 20_000).unwrap();
    let found = world.answer(answer);
    assert_eq!((found.flows.len(), found.has_more), (20_000, false));
}

#[test]
fn counting_and_forgetting_say_how_many_by_server() {
    let mut world = World::new(&[7, 4]);
    for task in [FlowTask::Count, FlowTask::Forget] {
        let answer = world.ask(task, 0).unwrap();
        let found = world.answer(answer);
        assert_eq!((found.matched, found.counts, found.flows.len()), (11, vec![6, 5], 0));
    }
    let answer = world.ask(FlowTask::Count, 0).unwrap();
    assert_eq!(world.answer(answer).matched, 0);
}

#[test]
fn more_questions_than_workers_have_room_for_are_refused_and_none_is_lost() {
    let mut world = World::new(&[5]);
    let answers: Vec<_> = std::iter::from_fn(|| world.ask(FlowTask::Count, 0).ok()).collect();
    assert_eq!(answers.len(), links::ORDERS);
    for answer in answers {
        assert_eq!(world.answer(answer).matched, 5);
    }
    assert!(world.ask(FlowTask::Count, 0).is_ok());
}

#[test]
fn every_worker_says_what_it_would_do_with_a_handshake_message() {
    let mut world = World::new(&[5, 5]);
    let from = "203.0.113.9:1234".parse().unwrap();
    let answer = world.desk.foresee(&mut world.control, from, AddressProof::None).unwrap();
    let found = world.answer(answer);
    assert_eq!(found.decisions, [0, 1].map(|worker| (WorkerId(worker), Decision::AskCookie)));
}

#[test]
fn who_goes_away_leaves_nothing_behind() {
    let mut world = World::new(&[20_000]);
    drop(world.ask(FlowTask::List, usize::MAX).unwrap());
    for _ in 0..10 {
        world.turn();
    }
    assert_eq!(world.control[0].orders.outstanding(), 0);
    assert!(world.desk.open.is_empty());
}
