//! The Maglev lookup table: a hash's backend, such that a change of backends moves hardly any other's hashes.
//!
//! Eisenbud and others, "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Each
//! backend prefers the slots in an order of its own, and they take turns at the first slot in their order that is still
//! free. Nothing but the members' identities and weights goes in, so every dispatcher builds the same table.

use std::collections::BTreeMap;

use siphasher::sip::SipHasher24;

/// Slots of a table unless something else is asked for: the paper's small size. Enough for about 650 backends to be
/// even within a percent.
pub const DEFAULT_SIZE: u32 = 65_537;

/// Most slots of a table: 2²⁴ would be 32 MiB.
pub const MAX_SIZE: u32 = 1 << 24;

/// Most members of a table: positions are `u16`, and one value says that a slot is free.
pub const MAX_MEMBERS: usize = FREE as usize;

/// A slot that nobody took yet; none is left in a finished table.
const FREE: u16 = u16::MAX;

/// Keys of the two hashes of a name (SipHash-2-4). Part of what dispatchers agree on: changing them moves every flow.
const OFFSET_KEY: (u64, u64) = (0x6a65_7477_6179_206d, 0x6167_6c65_7620_6f66);
const SKIP_KEY: (u64, u64) = (0x6a65_7477_6179_206d, 0x6167_6c65_7620_736b);

/// What a backend's order of slots comes from. The same name gives the same identity on every machine and in every
/// release.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identity {
    offset: u64,
    skip: u64,
}

impl Identity {
    /// The identity of the backend of this name: whatever bytes tell it from the others of its service and are the same
    /// on all dispatchers.
    pub fn of(name: &[u8]) -> Self {
        let hash = |(k0, k1)| SipHasher24::new_with_keys(k0, k1).hash(name);
        Self { offset: hash(OFFSET_KEY), skip: hash(SKIP_KEY) }
    }

    /// The order in which it prefers the slots of a table of `size` slots.
    fn preferences(self, size: u32) -> Preferences {
        let within = |hash: u64, bound: u32| (hash % u64::from(bound)) as u32;
        Preferences { next: within(self.offset, size), skip: within(self.skip, size - 1) + 1, size }
    }
}

/// A member of a table: a backend that hashes may lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Who it is.
    pub identity: Identity,
    /// Its share of the slots, in proportion to the other members' weights; 0 counts as 1.
    pub weight: u16,
}

/// Why there is no table of these sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BuildError {
    /// The permutations cover all slots only if the size is a prime.
    #[error("a table's size must be a prime from 3 to {MAX_SIZE}, and {0} is not")]
    Size(u32),
    /// Nobody to lead to.
    #[error("a table needs a member")]
    NoMembers,
    /// Each member gets a slot, and positions have 16 bits.
    #[error("{members} members are too many for a table of {size} slots (at most one a slot, and {MAX_MEMBERS})")]
    TooManyMembers {
        /// How many there are.
        members: usize,
        /// Slots of the table.
        size: u32,
    },
}

/// How many slots of a table lead elsewhere in another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SlotsMoved {
    /// Slots of members that are no longer there, which have to move.
    pub of_leaving: u32,
    /// Slots of members that are still there: disruption.
    pub of_staying: u32,
}

/// A finished table. A position is an index into the members that it was built from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Maglev {
    slots: Box<[u16]>,
}

impl Maglev {
    /// Builds a table of `size` slots (a prime). The order of `members` does not matter but for the positions.
    ///
    /// Every member gets at least one slot. Beyond that their slots are within one of their weights' shares of the
    /// table, so within 1 % of it if the share is 100 slots or more (as long as no member's share is so small that
    /// the one slot is more than its due). Takes time for about `size · ln(size)` steps: not for workers.
    pub fn build(size: u32, members: &[Member]) -> Result<Self, BuildError> {
        if !(3..=MAX_SIZE).contains(&size) || !is_prime(size) {
            return Err(BuildError::Size(size));
        }
        if members.is_empty() {
            return Err(BuildError::NoMembers);
        }
        if members.len() > MAX_MEMBERS || members.len() > size as usize {
            return Err(BuildError::TooManyMembers { members: members.len(), size });
        }
        // By identity, so that dispatchers whose lists are in different orders agree.
        let mut order: Vec<u16> = (0..members.len()).map(|position| position as u16).collect();
        order.sort_by_key(|position| (members[usize::from(*position)].identity, *position));
        let mut candidates: Vec<Candidate<Preferences>> = order
            .into_iter()
            .map(|position| {
                let member = members[usize::from(position)];
                Candidate { position, weight: member.weight.max(1), preferences: member.identity.preferences(size) }
            })
            .collect();
        Ok(Self { slots: populate(size, &mut candidates) })
    }

    /// Slots of the table.
    pub fn size(&self) -> u32 {
        // At most `MAX_SIZE`.
        self.slots.len() as u32
    }

    /// The position of the member that `hash` leads to.
    ///
    /// The slot is `hash · size / 2⁶⁴`: a multiplication in place of the paper's division. All bits of the hash must be
    /// good, the upper ones above all.
    #[inline]
    pub fn lookup(&self, hash: u64) -> u16 {
        self.slots.get(self.slot(hash)).copied().unwrap_or(FREE)
    }

    /// Asks for the slot of `hash` to be brought near.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if let Some(slot) = self.slots.get(self.slot(hash)) {
            jetway_aead::prefetch_read(slot);
        }
    }

    /// The slot that `hash` falls into, below [`Maglev::size`].
    #[inline]
    pub fn slot(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize
    }

    /// All slots: each is the position of a member.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// The number of slots of each of `members` members.
    pub fn loads(&self, members: usize) -> Vec<u32> {
        let mut loads = vec![0; members];
        for position in &self.slots {
            if let Some(load) = loads.get_mut(usize::from(*position)) {
                *load += 1;
            }
        }
        loads
    }

    /// How many slots lead to another member in `newer`, where the member at a position of this table has the position
    /// that `position_in_newer` says, or none. Tables of different sizes are compared at the middle of each slot.
    pub fn slots_moved(&self, newer: &Self, position_in_newer: impl Fn(u16) -> Option<u16>) -> SlotsMoved {
        let mut moved = SlotsMoved::default();
        let width = u64::MAX / u64::from(self.size());
        for (slot, position) in self.slots.iter().enumerate() {
            let middle = (slot as u64) * width + width / 2;
            let lookup = if newer.size() == self.size() { newer.slots[slot] } else { newer.lookup(middle) };
            match position_in_newer(*position) {
                None => moved.of_leaving += 1,
                Some(there) if there != lookup => moved.of_staying += 1,
                Some(_) => {}
            }
        }
        moved
    }
}

/// Whether a table may have this many slots.
pub fn is_prime(number: u32) -> bool {
    let number = u64::from(number);
    number >= 2 && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| number % divisor != 0)
}

/// All slots of a table in the order in which a backend prefers them: `(offset + j · skip) mod size`.
#[derive(Clone, Copy, Debug)]
struct Preferences {
    next: u32,
    skip: u32,
    size: u32,
}

impl Iterator for Preferences {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let slot = self.next;
        self.next += self.skip;
        if self.next >= self.size {
            self.next -= self.size;
        }
        Some(slot)
    }
}

/// A member that takes turns at the free slots.
#[derive(Clone, Debug)]
struct Candidate<P> {
    position: u16,
    weight: u16,
    preferences: P,
}

/// Fills a table: the candidates take turns at the first slot in their order that is free, one as often as its weight
/// says (the paper's "Populate", and its last paragraph for weights). Each candidate's `preferences` must give every
/// slot.
fn populate<P: Iterator<Item = u32>>(size: u32, candidates: &mut [Candidate<P>]) -> Box<[u16]> {
    let mut slots = vec![FREE; size as usize].into_boxed_slice();
    let mut free = if candidates.is_empty() { 0 } else { size };
    let mut groups: BTreeMap<u16, Vec<&mut Candidate<P>>> = BTreeMap::new();
    for candidate in candidates {
        groups.entry(candidate.weight).or_default().push(candidate);
    }
    // The heaviest first: of turns at one time, theirs comes first.
    let mut groups: Vec<Group<'_, P>> =
        groups.into_iter().rev().map(|(weight, members)| Group { weight, members, turns: 0, next: 0 }).collect();
    let weights: u64 = groups.iter().map(|group| u64::from(group.weight)).sum();
    let window = TURNS_IN_WINDOW * TIME_OF_WEIGHT_1 / weights.max(1);
    let mut turns: Vec<(u64, u16)> = Vec::new();
    let mut end = 0;
    while free > 0 {
        end += window;
        turns.clear();
        for (index, group) in groups.iter_mut().enumerate() {
            while group.next < end {
                turns.push((group.next, index as u16));
                group.advance();
            }
        }
        turns.sort_unstable();
        for (_, group) in &turns {
            for candidate in &mut groups[usize::from(*group)].members {
                if free == 0 {
                    return slots;
                }
                for slot in candidate.preferences.by_ref() {
                    let slot = &mut slots[slot as usize];
                    if *slot == FREE {
                        *slot = candidate.position;
                        free -= 1;
                        break;
                    }
                }
            }
        }
    }
    slots
}

/// Time between two turns of a candidate of weight 1. Turns of weights that differ are at different times or at exactly
/// the same: fractions of two weights of 16 bits differ by 2⁻³² or more.
const TIME_OF_WEIGHT_1: u64 = 1 << 34;

/// Turns that are put in order together, about.
const TURNS_IN_WINDOW: u64 = 4096;

/// The candidates of one weight, which have their turns at the same times.
///
/// Nothing but the candidate's own weight decides these times: turn 0 is at time 0, so that everybody gets a slot, and
/// turn n at (n + ½) / weight, so that by any later time a candidate had its share of turns, rounded. So another
/// candidate's weight does not change in which order the rest have their turns, and moves few of their slots.
struct Group<'a, P> {
    weight: u16,
    members: Vec<&'a mut Candidate<P>>,
    turns: u64,
    /// The time of the next turn.
    next: u64,
}

impl<P> Group<'_, P> {
    fn advance(&mut self) {
        self.turns += 1;
        // Below 2⁶⁰, as no candidate has more turns than there are slots and turns in a window.
        self.next = (2 * self.turns + 1) * (TIME_OF_WEIGHT_1 / 2) / u64::from(self.weight);
    }
}

#[cfg(test)]
mod tests;
