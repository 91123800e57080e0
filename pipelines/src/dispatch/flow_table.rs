//! A worker's flow table: what was decided for each flow, in memory that is taken once.
//!
//! ```text
//! key --hash--> two buckets and a tag
//!
//! heads  | 8 tags | 8 last ticks | 8 lifetimes |   one cache line a bucket: who may be here, and who expired
//! flows  | key, decision | ... (8 of them)         one cache line a flow
//! ```
//!
//! A flow lies in either of its two buckets, in the one that was emptier when it came, and never moves. One that has not
//! been seen for its lifetime counts as gone from then on, though its place is taken back only when an insertion or a
//! scan comes by. Nothing here evicts a live flow: a flood finds the table full, and established flows stay.
//!
//! For a burst: [`FlowTable::hash`] and [`FlowTable::prefetch`] for all packets, then [`FlowTable::prefetch_entry`] for
//! all, then [`FlowTable::find`] for each, so that the loads of all packets overlap.

mod head;
mod key;
mod lifetime;
mod scan;

use jetway_aead::prefetch_read;

use head::Head;
pub use key::{ClientIdentity, Decision, Flow, FlowKey, FlowKind, address_bytes};
pub use lifetime::{Lifetime, TICKS_PER_SECOND, Tick};
pub use scan::{Cursor, Pass, Verdict, Visited};

/// Flows of a bucket: as many as one cache line can tell apart.
const WAYS: usize = 8;

/// Places for each flow that the table is made for, times [`WAYS`]. With 5 of 8 places taken, both buckets of a flow are
/// full about once in 10⁸ insertions.
const PLACES_FOR_5: usize = 8;

/// Bytes for each flow that a table is made for: a place is an entry and its part of the bucket's head.
pub const BYTES_PER_FLOW: usize = (size_of::<Flow>() + size_of::<Head>() / WAYS) * PLACES_FOR_5 / 5 + 1;
const _: () = assert!(BYTES_PER_FLOW <= 128 && size_of::<Flow>() == 64 && size_of::<Head>() == 64);

/// Most flows that a table is made for: buckets have 24 bits of the hash each.
pub const MAX_FLOWS: usize = (1 << 24) * 5;

/// The place of a flow. Good until the next insertion, removal or scan.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowId(u32);

/// Where a key may be in one table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowHash {
    first: u32,
    second: u32,
    tag: u16,
}

/// What the heads of a key's buckets tell of it before any flow is near.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Probable {
    /// Its flow is probably here.
    Flow(FlowId),
    /// It has no flow; a new one would be put here.
    Vacancy(FlowId),
    /// It has no flow, and there is no place for one.
    #[default]
    Nothing,
}

/// Both buckets of a flow hold nothing but live flows: it cannot be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the flow table is full")]
pub struct Full;

/// Whether a flow counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// It was seen within its lifetime.
    Live,
    /// It was not: its place is taken back.
    Expired,
}

/// A table of flows. It allocates when it is made, touches all its memory then, and never again.
#[derive(Debug)]
pub struct FlowTable {
    heads: Box<[Head]>,
    flows: Box<[Flow]>,
    hasher: ahash::RandomState,
    occupied: usize,
}

impl FlowTable {
    /// A table for `flows` flows (at most [`MAX_FLOWS`]) that hashes under `key`: secret, so that nobody outside can aim
    /// at a bucket. It takes [`BYTES_PER_FLOW`] for each.
    pub fn new(flows: usize, key: [u64; 4]) -> Self {
        let [k0, k1, k2, k3] = key;
        let buckets = flows.clamp(1, MAX_FLOWS).div_ceil(5);
        Self {
            heads: vec![Head::VACANT; buckets].into_boxed_slice(),
            flows: vec![Flow::VACANT; buckets * WAYS].into_boxed_slice(),
            hasher: ahash::RandomState::with_seeds(k0, k1, k2, k3),
            occupied: 0,
        }
    }

    /// Where `key` may be.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        let hash = self.hasher.hash_one(key);
        // Bits 40.. choose one bucket, bits 8..32 the other; the tag is of the bits between.
        let bucket = |hash: u64| ((u128::from(hash) * self.heads.len() as u128) >> 64) as u32;
        FlowHash {
            first: bucket(hash),
            second: bucket(hash.rotate_left(32)),
            tag: (hash & 0xff | hash >> 24 & 0xff00) as u16,
        }
    }

    /// Asks for the heads of both buckets to be brought near.
    #[inline]
    pub fn prefetch(&self, hash: FlowHash) {
        for bucket in [hash.first, hash.second] {
            if let Some(head) = self.heads.get(bucket as usize) {
                prefetch_read(head);
            }
        }
    }

    /// Asks for the flow that this hash probably leads to, or for the place where a new one would be put, and tells it, once
    /// the heads are near.
    #[inline]
    pub fn prefetch_entry(&self, hash: FlowHash, now: Tick) -> Probable {
        let mut probable = Probable::Nothing;
        for bucket in [hash.first, hash.second] {
            let Some(head) = self.heads.get(bucket as usize) else { continue };
            if let Some(way) = head.with_tag(hash.tag).next() {
                let place = place(bucket, way);
                if let Some(flow) = self.flows.get(place) {
                    prefetch_read(flow);
                    if probable == Probable::Nothing {
                        probable = Probable::Flow(FlowId(place as u32));
                    }
                }
            }
        }
        if probable == Probable::Nothing
            && let Some(vacant) = vacancy(hash, (self.live_in(hash.first, now), self.live_in(hash.second, now)))
            && let Some(flow) = self.flows.get(vacant.0 as usize)
        {
            prefetch_read(flow);
            probable = Probable::Vacancy(vacant);
        }
        probable
    }

    /// As [`FlowTable::find`], with the place that [`FlowTable::prefetch_entry`] told.
    #[inline]
    pub fn find_at(&self, probable: Probable, hash: FlowHash, key: &FlowKey, now: Tick) -> Option<FlowId> {
        match probable {
            Probable::Flow(id)
                if self.flows.get(id.0 as usize).is_some_and(|flow| flow.key == *key) && self.is_live(id, now) =>
            {
                Some(id)
            }
            Probable::Flow(_) | Probable::Vacancy(_) | Probable::Nothing => self.find(hash, key, now),
        }
    }

    #[inline]
    fn is_live(&self, id: FlowId, now: Tick) -> bool {
        let (bucket, way) = id.split();
        self.heads.get(bucket).is_some_and(|head| head.status(way, now) == Some(Status::Live))
    }

    /// The live flow of this key. `hash` must be this table's hash of it.
    #[inline]
    pub fn find(&self, hash: FlowHash, key: &FlowKey, now: Tick) -> Option<FlowId> {
        self.find_in(hash.first, hash.tag, key, now).or_else(|| self.find_in(hash.second, hash.tag, key, now))
    }

    #[inline]
    fn find_in(&self, bucket: u32, tag: u16, key: &FlowKey, now: Tick) -> Option<FlowId> {
        let head = self.heads.get(bucket as usize)?;
        for way in head.with_tag(tag) {
            let place = place(bucket, way);
            if self.flows.get(place)?.key == *key && head.status(way, now) == Some(Status::Live) {
                return Some(FlowId(place as u32));
            }
        }
        None
    }

    /// Ticks since the flow at a place was last seen; 0 if there is no flow.
    pub fn idle(&self, id: FlowId, now: Tick) -> u32 {
        let (bucket, way) = id.split();
        let last = self.heads.get(bucket).and_then(|head| head.last.get(way).copied());
        last.zip(self.lifetime(id)).map_or(0, |(last, lifetime)| now.since(last.minus(lifetime.ticks())))
    }

    /// The flow at a place; `None` if there is none.
    #[inline]
    pub fn get(&self, id: FlowId) -> Option<&Flow> {
        self.lifetime(id)?;
        self.flows.get(id.0 as usize)
    }

    /// The flow at a place if it is live: the place may have been kept for long.
    pub fn live(&self, id: FlowId, now: Tick) -> Option<&Flow> {
        self.flows.get(id.0 as usize).filter(|_| self.is_live(id, now))
    }

    /// The decision at a place, to be changed; `None` if there is no flow.
    #[inline]
    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut Decision> {
        self.lifetime(id)?;
        self.flows.get_mut(id.0 as usize).map(|flow| &mut flow.decision)
    }

    /// The lifetime class of the flow at a place; `None` if there is no flow.
    #[inline]
    pub fn lifetime(&self, id: FlowId) -> Option<Lifetime> {
        let (bucket, way) = id.split();
        self.heads.get(bucket)?.lifetimes.get(way).copied()?
    }

    /// Notes that the flow was seen: its lifetime, `lifetime` from now on, begins anew.
    #[inline]
    pub fn touch(&mut self, id: FlowId, lifetime: Lifetime, now: Tick) {
        let (bucket, way) = id.split();
        if let Some(head) = self.heads.get_mut(bucket)
            && let Some(Some(_)) = head.lifetimes.get(way)
        {
            head.touch(way, lifetime, now);
        }
    }

    /// Keeps a decision for a flow. If the flow is there already, the decision takes the place of its old one.
    pub fn insert(
        &mut self,
        hash: FlowHash,
        key: FlowKey,
        decision: Decision,
        lifetime: Lifetime,
        now: Tick,
    ) -> Result<FlowId, Full> {
        match self.find(hash, &key, now) {
            Some(id) => self.write(id, hash, &key, decision, lifetime, now),
            None => self.add(Probable::Nothing, hash, &key, decision, lifetime, now),
        }
    }

    /// As [`FlowTable::insert`], for a flow that [`FlowTable::find`] has just not found, with what
    /// [`FlowTable::prefetch_entry`] told of it in this burst.
    #[inline]
    pub fn add(
        &mut self,
        probable: Probable,
        hash: FlowHash,
        key: &FlowKey,
        decision: Decision,
        lifetime: Lifetime,
        now: Tick,
    ) -> Result<FlowId, Full> {
        // Nothing has the key's tag, and no flow that came since then has taken the place.
        if let Probable::Vacancy(id) = probable
            && self.lifetime(id).is_none()
        {
            self.occupied += 1;
            return self.write(id, hash, key, decision, lifetime, now);
        }
        // Both: an expired flow of this key may be in either.
        let live = (self.reclaim(hash.first, now), self.reclaim(hash.second, now));
        let id = vacancy(hash, live).ok_or(Full)?;
        self.occupied += 1;
        self.write(id, hash, key, decision, lifetime, now)
    }

    #[inline]
    fn write(
        &mut self,
        id: FlowId,
        hash: FlowHash,
        key: &FlowKey,
        decision: Decision,
        lifetime: Lifetime,
        now: Tick,
    ) -> Result<FlowId, Full> {
        let (bucket, way) = id.split();
        let flow = self.flows.get_mut(id.0 as usize).ok_or(Full)?;
        flow.key = *key;
        flow.decision = decision;
        self.heads.get_mut(bucket).ok_or(Full)?.occupy(way, hash.tag, lifetime, now);
        Ok(id)
    }

    /// A bit for each way of a bucket with a live flow.
    #[inline]
    fn live_in(&self, bucket: u32, now: Tick) -> u32 {
        self.heads.get(bucket as usize).map_or(u32::MAX, |head| head.live(now))
    }

    /// Takes back the places of a bucket's expired flows; gives a bit for each way with a live one.
    #[inline]
    fn reclaim(&mut self, bucket: u32, now: Tick) -> u32 {
        let Some(head) = self.heads.get_mut(bucket as usize) else { return u32::MAX };
        let (live, occupied) = (head.live(now), head.occupied());
        if live != occupied {
            for (way, lifetime) in head.lifetimes.iter_mut().enumerate() {
                if live >> way & 1 == 0 && lifetime.take().is_some() {
                    self.occupied -= 1;
                }
            }
        }
        live
    }

    /// Forgets the flow at a place, and gives what was decided for it.
    pub fn remove(&mut self, id: FlowId) -> Option<Decision> {
        let (bucket, way) = id.split();
        self.heads.get_mut(bucket)?.lifetimes.get_mut(way)?.take()?;
        self.occupied -= 1;
        self.flows.get(id.0 as usize).map(|flow| flow.decision)
    }

    /// Places that are occupied: by live flows, and by expired ones whose place was not taken back yet. Right after a
    /// whole scan these are the live ones alone.
    pub fn len(&self) -> usize {
        self.occupied
    }

    /// Whether no place is occupied.
    pub fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Places of the table: 8 for 5 of the flows that it was made for.
    pub fn capacity(&self) -> usize {
        self.flows.len()
    }

    /// Buckets of the table: what a whole scan visits.
    pub fn buckets(&self) -> usize {
        self.heads.len()
    }
}

impl FlowHash {
    /// Bits that tell this flow from others.
    #[inline]
    pub fn entropy(self) -> u64 {
        // A multiplication spreads what little both buckets tell in a small table (Knuth, volume 3, section 6.4).
        (u64::from(self.first) << 32 | u64::from(self.second) ^ u64::from(self.tag)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            >> 16
    }
}

impl FlowId {
    /// The bucket, and the way in it.
    #[inline]
    const fn split(self) -> (usize, usize) {
        (self.0 as usize / WAYS, self.0 as usize % WAYS)
    }
}

/// A place without a live flow in the emptier bucket, by what is live in both.
#[inline]
fn vacancy(hash: FlowHash, (first, second): (u32, u32)) -> Option<FlowId> {
    let (bucket, live) =
        if second.count_ones() < first.count_ones() { (hash.second, second) } else { (hash.first, first) };
    let way = live.trailing_ones() as usize;
    (way < WAYS).then(|| FlowId(place(bucket, way) as u32))
}

/// Where the flow at `way` of `bucket` lies.
#[inline]
const fn place(bucket: u32, way: usize) -> usize {
    bucket as usize * WAYS + way
}

#[cfg(test)]
mod tests;
