//! Has the kernel resolve the neighbours that packets wait for, and keep those in use fresh.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use jetway_pipelines::time::Instant;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as KernelNeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::sync::{mpsc, watch};

use super::event::{Interfaces, NeighbourState, Twin};
use super::netlink::RouteSocket;

/// A missing neighbour is asked for at most once in this time; the kernel itself repeats its question each second.
pub const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A stale neighbour in use is asked for at most once in this time.
pub const REFRESH_AGAIN: Duration = Duration::from_secs(30);
/// A neighbour that was only said to be used is in use no more after this; one that a packet once waited for is in
/// use for as long as the kernel knows it.
pub const IN_USE: Duration = Duration::from_secs(60);
/// Neighbours followed at most, so that a scan of a connected network costs bounded memory.
pub const CAPACITY: usize = 65_536;
/// Questions in one turn at most; the rest waits for the next.
const TURN: usize = 256;
/// How often the schedule is looked at.
const TICK: Duration = Duration::from_secs(1);

/// What the keeper is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NeighbourRequest {
    /// A packet waits for this neighbour.
    Missing(Twin, IpAddr),
    /// Packets go to this neighbour.
    Used(Twin, IpAddr),
    /// The kernel says this of the neighbour; `None`: it is not resolved.
    Observed(Twin, IpAddr, Option<NeighbourState>),
}

/// Decides when to ask for which neighbour. Pure: the time comes in as an argument.
#[derive(Debug, Default)]
pub struct NeighbourSchedule {
    neighbours: BTreeMap<(Twin, IpAddr), Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    state: Option<NeighbourState>,
    wanted: Wanted,
    asked: Option<Instant>,
    used: Option<Instant>,
    /// Whether it was resolved because a packet waited for it.
    resolved_for_us: bool,
}

/// Whether a packet waits for a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Wanted {
    #[default]
    No,
    Yes,
}

impl Entry {
    fn is_due(&self, now: Instant) -> bool {
        let interval = match (self.state, self.wanted) {
            (None, Wanted::Yes) => ASK_AGAIN,
            (Some(NeighbourState::Stale), Wanted::Yes | Wanted::No) if self.is_in_use(now) => REFRESH_AGAIN,
            (None | Some(NeighbourState::Stale), Wanted::No | Wanted::Yes)
            | (Some(NeighbourState::Fresh | NeighbourState::Permanent), Wanted::Yes | Wanted::No) => return false,
        };
        self.asked.is_none_or(|asked| now.since(asked) >= interval)
    }

    fn is_in_use(&self, now: Instant) -> bool {
        self.resolved_for_us || self.used.is_some_and(|used| now.since(used) < IN_USE)
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        !self.is_in_use(now) && self.asked.is_none_or(|asked| now.since(asked) >= REFRESH_AGAIN)
    }
}

impl NeighbourSchedule {
    /// Notes what is told. Beyond [`CAPACITY`] news of neighbours not yet followed are dropped.
    pub fn note(&mut self, request: NeighbourRequest, now: Instant) {
        let (twin, addr) = match request {
            NeighbourRequest::Missing(twin, addr)
            | NeighbourRequest::Used(twin, addr)
            | NeighbourRequest::Observed(twin, addr, _) => (twin, addr),
        };
        let is_known = self.neighbours.contains_key(&(twin, addr));
        if !is_known && self.neighbours.len() >= CAPACITY {
            return;
        }
        let entry = match request {
            // What the kernel says of neighbours that no packet goes to is nothing to keep fresh.
            NeighbourRequest::Observed(_, _, None) if !is_known => return,
            NeighbourRequest::Missing(..) | NeighbourRequest::Used(..) | NeighbourRequest::Observed(..) => {
                self.neighbours.entry((twin, addr)).or_default()
            }
        };
        match request {
            NeighbourRequest::Missing(..) => {
                entry.wanted = Wanted::Yes;
                entry.used = Some(now);
            }
            NeighbourRequest::Used(..) => entry.used = Some(now),
            NeighbourRequest::Observed(_, _, state) => {
                let was_waited_for = entry.wanted == Wanted::Yes || entry.asked.is_some();
                entry.resolved_for_us = state.is_some() && (entry.resolved_for_us || was_waited_for);
                entry.state = state;
                if state.is_some() {
                    entry.wanted = Wanted::No;
                }
            }
        }
    }

    /// The neighbours to ask for now, at most `limit`; they count as asked.
    pub fn due(&mut self, now: Instant, limit: usize) -> Vec<(Twin, IpAddr)> {
        let due = self.neighbours.iter_mut().filter(|(_, entry)| entry.is_due(now)).take(limit);
        due.map(|(key, entry)| {
            entry.asked = Some(now);
            // One packet's wait is one question; if it still waits, it says so again.
            entry.wanted = Wanted::No;
            *key
        })
        .collect()
    }

    /// Forgets unresolved neighbours that nobody wants any more, and unused ones when they come to be many.
    pub fn forget_unused(&mut self, now: Instant) {
        let is_crowded = self.neighbours.len() > CAPACITY / 2;
        self.neighbours.retain(|_, entry| !entry.is_forgettable(now) || (entry.state.is_some() && !is_crowded));
    }
}

/// Carries out a [`NeighbourSchedule`] through the kernel (`RTM_NEWNEIGH` with `NTF_USE`).
pub struct NeighbourKeeper {
    socket: RouteSocket,
    interfaces: watch::Receiver<Interfaces>,
    schedule: NeighbourSchedule,
}

impl NeighbourKeeper {
    /// For the network namespace of the calling thread. Must be called on a tokio runtime.
    pub fn open(interfaces: watch::Receiver<Interfaces>) -> io::Result<Self> {
        Ok(Self { socket: RouteSocket::open()?, interfaces, schedule: NeighbourSchedule::default() })
    }

    /// Works until the sender of `requests` is dropped.
    pub async fn run(mut self, mut requests: mpsc::Receiver<NeighbourRequest>) {
        let origin = tokio::time::Instant::now();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            let is_tick = tokio::select! {
                count = requests.recv_many(&mut batch, TURN) => match count {
                    0 => return,
                    _ => false,
                },
                _ = tick.tick() => true,
            };
            // One nanosecond on, because the origin itself stands for "never".
            let now = Instant::from_nanos(1) + origin.elapsed();
            batch.drain(..).for_each(|request| self.schedule.note(request, now));
            if is_tick {
                self.schedule.forget_unused(now);
            }
            for (twin, addr) in self.schedule.due(now, TURN) {
                self.ask(twin, addr).await;
            }
        }
    }

    async fn ask(&mut self, twin: Twin, addr: IpAddr) {
        let Some(index) = self.interfaces.borrow().index(twin) else { return };
        let mut message = NeighbourMessage::default();
        message.header.ifindex = index;
        message.header.state = KernelNeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        let (family, destination) = match addr {
            IpAddr::V4(addr) => (AddressFamily::Inet, NeighbourAddress::Inet(addr)),
            IpAddr::V6(addr) => (AddressFamily::Inet6, NeighbourAddress::Inet6(addr)),
        };
        message.header.family = family;
        message.attributes.push(NeighbourAttribute::Destination(destination));
        let request = RouteNetlinkMessage::NewNeighbour(message);
        // A refusal (the link is just going down, the kernel's table is full) is repeated with the next packet.
        if let Err(error) = self.socket.execute(request, NLM_F_ACK | NLM_F_CREATE).await {
            tracing::debug!(%addr, ?twin, %error, "the kernel does not resolve this neighbour");
        }
    }
}

#[cfg(test)]
mod tests;
