//! What the node asks of its workers, and what comes back.

use std::collections::HashMap;
use std::net::SocketAddr;

use jetway_engine::links::OrderLink;
use jetway_pipelines::dispatch::flow_scan::{FlowFilter, FlowRecord, FlowScan, FlowTask};
use jetway_pipelines::ids::WorkerId;
use jetway_pipelines::path::{HandshakeQuestion, Order};
use jetway_pipelines::wireguard::load::{AddressProof, Decision};
use tokio::sync::oneshot;

use crate::api::Failure;

/// Questions that wait for answers of workers.
#[derive(Debug, Default)]
pub struct FlowDesk {
    open: HashMap<u64, Question>,
    last_ticket: u64,
}

/// A question to all workers.
#[derive(Debug)]
struct Question {
    limit: usize,
    found: Found,
    /// Workers that have not come to the end of their tables.
    missing: usize,
    reply: oneshot::Sender<Found>,
}

/// What all workers found together.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Found {
    /// Flows, each with the worker that has it.
    pub flows: Vec<(WorkerId, FlowRecord)>,
    /// Whether there are more than were asked for.
    pub has_more: bool,
    /// Flows that were meant; with `has_more`, as far as was looked.
    pub matched: u64,
    /// How many of them are at each server, by its number.
    pub counts: Vec<u64>,
    /// What workers would do with the handshake message that was asked about.
    pub decisions: Vec<(WorkerId, Decision)>,
}

/// How much is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// What is done with the flows that are meant.
    pub task: FlowTask,
    /// Which are meant.
    pub filter: FlowFilter,
    /// Flows that are shown at most.
    pub limit: usize,
}

impl FlowDesk {
    /// Asks all workers. Servers have numbers below `servers`.
    pub fn ask(
        &mut self,
        workers: &mut [OrderLink],
        wanted: Wanted,
        servers: u32,
    ) -> Result<oneshot::Receiver<Found>, Failure> {
        self.ask_all(workers, wanted.limit, |ticket| {
            Order::Flows(Box::new(FlowScan::new(ticket, wanted.task, wanted.filter.clone(), servers)))
        })
    }

    /// Asks all workers what they would do with a handshake message to gateways.
    pub fn foresee(
        &mut self,
        workers: &mut [OrderLink],
        from: SocketAddr,
        proof: AddressProof,
    ) -> Result<oneshot::Receiver<Found>, Failure> {
        self.ask_all(workers, 0, |ticket| {
            Order::Foresee(Box::new(HandshakeQuestion { ticket, from, proof, decision: None }))
        })
    }

    fn ask_all(
        &mut self,
        workers: &mut [OrderLink],
        limit: usize,
        order: impl Fn(u64) -> Order,
    ) -> Result<oneshot::Receiver<Found>, Failure> {
        if workers.iter().any(|worker| !worker.has_room()) {
            return Err(Failure::new("the workers have enough other questions to answer", "ask again in a moment"));
        }
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        for worker in workers.iter_mut() {
            worker.orders.send(order(ticket));
        }
        let (reply, answer) = oneshot::channel();
        self.open.insert(ticket, Question { limit, found: Found::default(), missing: workers.len(), reply });
        Ok(answer)
    }

    /// Takes in what workers found, and has them go on where there is more.
    pub fn take_done(&mut self, workers: &mut [OrderLink]) {
        for (number, worker) in workers.iter_mut().enumerate() {
            let id = WorkerId(number as u16);
            while let Some(order) = worker.done.pop() {
                match order {
                    Order::Flows(mut scan) => {
                        if self.take(id, &mut scan) {
                            worker.orders.send(Order::Flows(scan));
                        }
                    }
                    Order::Foresee(question) => self.take_decision(id, &question),
                }
            }
            worker.orders.flush();
        }
    }

    /// Takes in what a worker found; returns whether it shall go on.
    fn take(&mut self, worker: WorkerId, scan: &mut FlowScan) -> bool {
        let Some(question) = self.open.get_mut(&scan.ticket) else { return false };
        if question.reply.is_closed() {
            // Whoever asked has gone away; what other workers bring back later belongs to nothing.
            self.open.remove(&scan.ticket);
            return false;
        }
        let found = &mut question.found;
        let room = question.limit.saturating_sub(found.flows.len());
        let mut flows = scan.take_found();
        found.flows.extend(flows.by_ref().take(room).map(|record| (worker, record)));
        found.has_more |= flows.next().is_some();
        drop(flows);
        if !scan.is_finished() && found.flows.len() < question.limit {
            return true;
        }
        found.has_more |= !scan.is_finished();
        found.matched += scan.matched();
        found.counts.resize(found.counts.len().max(scan.counts().len()), 0);
        for (sum, count) in found.counts.iter_mut().zip(scan.counts()) {
            *sum += count;
        }
        self.came_to_end(scan.ticket);
        false
    }

    fn take_decision(&mut self, worker: WorkerId, answer: &HandshakeQuestion) {
        let Some(question) = self.open.get_mut(&answer.ticket) else { return };
        question.found.decisions.extend(answer.decision.map(|decision| (worker, decision)));
        self.came_to_end(answer.ticket);
    }

    /// A worker has no more to say to a question.
    fn came_to_end(&mut self, ticket: u64) {
        let Some(question) = self.open.get_mut(&ticket) else { return };
        question.missing -= 1;
        if question.missing == 0
            && let Some(question) = self.open.remove(&ticket)
        {
            // Whoever asked may have gone away.
            let _ = question.reply.send(question.found);
        }
    }
}

#[cfg(test)]
mod tests;
