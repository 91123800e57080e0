//! Goes through a flow table a few buckets at a time, and takes back the places of expired flows on the way.

use super::{Flow, FlowTable, Lifetime, Status, Tick, WAYS};

/// Where a scan that goes on from turn to turn stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor(pub(super) usize);

/// Whether a scan came to the end of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// There are buckets left.
    Unfinished,
    /// All buckets were visited since the cursor was new; it begins anew.
    Finished,
}

/// A flow that a scan came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Visited<'a> {
    /// The flow.
    pub flow: &'a Flow,
    /// Its lifetime class.
    pub lifetime: Lifetime,
    /// Ticks since it was last seen.
    pub idle: u32,
    /// Whether it is one.
    pub status: Status,
}

/// What a visitor wants of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It stays, if it is live.
    Keep,
    /// It is removed.
    Remove,
}

impl FlowTable {
    /// Shows the flows of the next `buckets` buckets to `visit`, which says what becomes of them. The places of expired
    /// ones are taken back whatever it says.
    pub fn scan(
        &mut self,
        cursor: &mut Cursor,
        buckets: usize,
        now: Tick,
        mut visit: impl FnMut(Visited<'_>) -> Verdict,
    ) -> Pass {
        let end = cursor.0.saturating_add(buckets).min(self.heads.len());
        let from = cursor.0.min(end);
        let flows = self.flows.chunks_exact(WAYS).skip(from);
        for (head, flows) in self.heads.iter_mut().take(end).skip(from).zip(flows) {
            for (way, flow) in flows.iter().enumerate() {
                let (Some(status), Some(lifetime)) = (head.status(way, now), head.lifetimes[way]) else { continue };
                let idle = now.since(head.last[way].minus(lifetime.ticks()));
                let visited = Visited { flow, lifetime, idle, status };
                match (visit(visited), status) {
                    (Verdict::Keep, Status::Live) => {}
                    (Verdict::Remove, _) | (_, Status::Expired) => {
                        head.lifetimes[way] = None;
                        self.occupied -= 1;
                    }
                }
            }
        }
        let pass = if end == self.heads.len() { Pass::Finished } else { Pass::Unfinished };
        cursor.0 = if pass == Pass::Finished { 0 } else { end };
        pass
    }

    /// Removes the live flows of the next `buckets` buckets that `matches` says, and adds how many to `removed`.
    pub fn clear_matching(
        &mut self,
        cursor: &mut Cursor,
        buckets: usize,
        now: Tick,
        removed: &mut u64,
        mut matches: impl FnMut(&Flow) -> bool,
    ) -> Pass {
        self.scan(cursor, buckets, now, |visited| {
            if visited.status == Status::Expired || !matches(visited.flow) {
                return Verdict::Keep;
            }
            *removed += 1;
            Verdict::Remove
        })
    }
}
