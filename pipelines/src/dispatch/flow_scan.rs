//! What control may want of a worker's flow table: to see, count or forget flows, a few buckets a turn.

use std::sync::Arc;

use ipnet::IpNet;

use super::flow_table::{
    ClientIdentity, Cursor, Flow, FlowKey, FlowKind, FlowTable, Lifetime, Pass, Status, Tick, Verdict,
};
use super::service::Socket;
use crate::ids::BackendIndex;

/// Buckets that one turn looks at: about as much work as a burst of packets.
pub const BUCKETS_PER_TURN: usize = 128;

/// Flows that a scan brings back at once.
pub const FLOWS_AT_ONCE: usize = 4_096;

/// Which flows are meant: those that fit everything that is said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlowFilter {
    /// To this service.
    pub service: Option<Socket>,
    /// Of clients with these addresses.
    pub client: Option<IpNet>,
    /// What peers with these addresses are known by, in order: a client inside a tunnel is bound to a server as its peer.
    pub peers: Arc<[ClientIdentity]>,
    /// At this server.
    pub server: Option<BackendIndex>,
}

impl FlowFilter {
    /// Whether a flow is meant. Where a server answers to an address that stands for a client, neither client nor service
    /// are known: such entries end with the flow that they answer.
    pub fn fits(&self, flow: &Flow) -> bool {
        let key = &flow.key;
        let at_server = self.server.is_none_or(|server| server == flow.decision.server);
        let to_service = || self.service.is_none_or(|service| service_of(key) == service);
        let has_address = || self.client.is_none_or(|net| net.contains(&key.source_address()));
        at_server
            && match key.kind {
                FlowKind::Forward => to_service() && has_address(),
                FlowKind::Client => to_service() && (has_address() || self.peers.binary_search(&key.source).is_ok()),
                FlowKind::Answer => self.service.is_none() && self.client.is_none(),
            }
    }
}

/// The service that a client's flow is to.
pub fn service_of(key: &FlowKey) -> Socket {
    Socket { address: key.destination_address(), port: key.destination_port, protocol: key.protocol }
}

/// What is wanted of the flows that are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowTask {
    /// To see them.
    List,
    /// To know how many there are at each server.
    Count,
    /// To have them forgotten: their next packets are dispatched anew.
    Forget,
    /// To see the one of this key.
    Find(FlowKey),
}

/// A flow as it was when the scan came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowRecord {
    /// The flow.
    pub flow: Flow,
    /// What its lifetime comes from.
    pub lifetime: Lifetime,
    /// Ticks since it was last seen.
    pub idle: u32,
}

/// Whether a scan has to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// In a later turn.
    GoesOn,
    /// It goes back to control: it is at its end, or has no room for more flows.
    Done,
}

/// A scan through one worker's flow table. Control makes it, with all memory that it will need, and frees it.
#[derive(Debug)]
pub struct FlowScan {
    /// Tells control what it belongs to.
    pub ticket: u64,
    task: FlowTask,
    filter: FlowFilter,
    found: Vec<FlowRecord>,
    counts: Box<[u64]>,
    matched: u64,
    cursor: Cursor,
    pass: Pass,
}

impl FlowScan {
    /// A scan from the beginning. Flows are counted by server for numbers below `servers`.
    pub fn new(ticket: u64, task: FlowTask, filter: FlowFilter, servers: u32) -> Self {
        let (room, servers) = match task {
            FlowTask::List => (FLOWS_AT_ONCE, 0),
            FlowTask::Count | FlowTask::Forget => (0, servers as usize),
            FlowTask::Find(_) => (1, 0),
        };
        Self {
            ticket,
            task,
            filter,
            found: Vec::with_capacity(room),
            counts: vec![0; servers].into_boxed_slice(),
            matched: 0,
            cursor: Cursor::default(),
            pass: Pass::Unfinished,
        }
    }

    /// Goes on through a worker's flow table, a bounded way.
    pub fn step(&mut self, flows: &mut FlowTable, now: Tick) -> Progress {
        if self.pass == Pass::Finished {
            return Progress::Done;
        }
        if let FlowTask::Find(key) = self.task {
            self.find(&key, flows, now);
            return Progress::Done;
        }
        let ways = flows.capacity() / flows.buckets().max(1);
        let room = match self.task {
            FlowTask::List => (self.found.capacity() - self.found.len()) / ways.max(1),
            FlowTask::Count | FlowTask::Forget | FlowTask::Find(_) => BUCKETS_PER_TURN,
        };
        if room == 0 {
            return Progress::Done;
        }
        let Self { task, filter, found, counts, matched, cursor, .. } = self;
        self.pass = flows.scan(cursor, room.min(BUCKETS_PER_TURN), now, |visited| {
            let flow = visited.flow;
            if visited.status == Status::Expired || !filter.fits(flow) {
                return Verdict::Keep;
            }
            // What people call a flow: neither a client's bond nor the other half of a flow.
            if flow.key.kind == FlowKind::Forward {
                *matched += 1;
                if let Some(count) = counts.get_mut(flow.decision.server.index()) {
                    *count += 1;
                }
                if found.len() < found.capacity() {
                    found.push(FlowRecord { flow: *flow, lifetime: visited.lifetime, idle: visited.idle });
                }
            }
            match task {
                FlowTask::Forget => Verdict::Remove,
                FlowTask::List | FlowTask::Count | FlowTask::Find(_) => Verdict::Keep,
            }
        });
        match self.pass {
            Pass::Finished => Progress::Done,
            Pass::Unfinished => Progress::GoesOn,
        }
    }

    fn find(&mut self, key: &FlowKey, flows: &FlowTable, now: Tick) {
        self.pass = Pass::Finished;
        let Some(id) = flows.find(flows.hash(key), key, now) else { return };
        let (Some(flow), Some(lifetime)) = (flows.get(id), flows.lifetime(id)) else { return };
        self.matched = 1;
        if self.found.len() < self.found.capacity() {
            self.found.push(FlowRecord { flow: *flow, lifetime, idle: flows.idle(id, now) });
        }
    }

    /// Whether it has come to the end.
    pub fn is_finished(&self) -> bool {
        self.pass == Pass::Finished
    }

    /// The flows that it found since the last time, oldest place first; there is room for more afterwards.
    pub fn take_found(&mut self) -> impl Iterator<Item = FlowRecord> {
        self.found.drain(..)
    }

    /// The flows that were meant, so far.
    pub fn matched(&self) -> u64 {
        self.matched
    }

    /// How many of them are at each server, by its number.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }
}

#[cfg(test)]
mod tests;
