//! Which backend a new flow goes to: its Maglev slot's, or another one if that takes no new flows.
//!
//! Nothing is rebuilt when a backend goes down. Its flows are hashed again, each to a slot that depends on nothing but the
//! flow's own hash, so every dispatcher with the same view agrees and no other backend's flow moves.

use siphasher::sip::SipHasher13;

use super::maglev::Maglev;

/// Further slots that are tried. With half of the backends down, one flow in 10⁵ finds none.
pub const REHASHES: u8 = 16;

/// Members that are asked one by one after that.
pub const SCANNED: usize = 256;

/// How a backend was found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum How {
    /// The hash's slot leads to it.
    Slot,
    /// The slot's backend takes no new flows, and it is that of a further slot.
    Rehash,
    /// It was the first that takes new flows in a row of members.
    Scan,
}

/// The backend for a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Chosen {
    /// Its position among the table's members.
    pub position: u16,
    /// How it was found.
    pub how: How,
}

/// Chooses a backend for a flow of this hash among the `members` members that the table was built from.
/// `takes_new_flows` tells which positions may be chosen. `None` if all may not, or so many that neither [`REHASHES`]
/// slots nor [`SCANNED`] members lead to one that may.
pub fn choose(maglev: &Maglev, hash: u64, takes_new_flows: impl Fn(u16) -> bool, members: usize) -> Option<Chosen> {
    let position = maglev.lookup(hash);
    if takes_new_flows(position) {
        return Some(Chosen { position, how: How::Slot });
    }
    choose_another(maglev, hash, takes_new_flows, members)
}

#[cold]
fn choose_another(maglev: &Maglev, hash: u64, takes_new_flows: impl Fn(u16) -> bool, members: usize) -> Option<Chosen> {
    let rehashed = (1..=REHASHES).map(|round| maglev.lookup(rehash(hash, round)));
    if let Some(position) = rehashed.into_iter().find(|position| takes_new_flows(*position)) {
        return Some(Chosen { position, how: How::Rehash });
    }
    let start = ((u128::from(rehash(hash, REHASHES + 1)) * members as u128) >> 64) as usize;
    let scanned = (start..members).chain(0..start).take(SCANNED).filter_map(|position| u16::try_from(position).ok());
    scanned.into_iter().find(|position| takes_new_flows(*position)).map(|position| Chosen { position, how: How::Scan })
}

/// The hash of a further round: Steele and others' SplitMix64, which is a bijection for each round. Part of what
/// dispatchers agree on.
const fn rehash(hash: u64, round: u8) -> u64 {
    let mut mixed = hash.wrapping_add((round as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Hashes what a choice depends on (a flow, or a client) alike on all dispatchers with the same key: SipHash-1-3. The
/// flow table's hash would not do, as it differs between builds and machines.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelectionHasher {
    key: [u64; 2],
}

impl SelectionHasher {
    /// A hasher under `key`: the same on all dispatchers of a service, and best kept from outsiders, who could otherwise
    /// aim at one backend.
    pub const fn new(key: [u64; 2]) -> Self {
        Self { key }
    }

    /// The hash of these bytes, good enough in all bits for [`Maglev::lookup`].
    #[inline]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let [k0, k1] = self.key;
        SipHasher13::new_with_keys(k0, k1).hash(bytes)
    }
}

#[cfg(test)]
mod tests;
