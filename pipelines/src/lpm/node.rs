//! One node of a trie: six bits of the address, its short prefixes, and its children.

use std::sync::Arc;

use jetway_aead::prefetch_read;

use super::address::{Address, Prefix, STRIDE};

/// What hangs in a place of the trie: a lone prefix, or a node for several.
#[derive(Clone, Debug)]
pub(super) enum Slot<A, V> {
    /// The only prefix below this place.
    Leaf {
        /// The prefix's bits. Not a [`Prefix`] with its padding, so that the whole fits 32 bytes for IPv6.
        bits: A,
        /// The prefix's length.
        length: u8,
        /// Its value.
        value: V,
    },
    /// Two or more prefixes below this place.
    Node(Arc<Node<A, V>>),
}

impl<A: Address, V> Slot<A, V> {
    /// The slot of a lone prefix.
    pub(super) fn leaf(prefix: Prefix<A>, value: V) -> Self {
        Self::Leaf { bits: prefix.bits, length: prefix.length, value }
    }

    /// The bits that everything below this place shares.
    pub(super) fn prefix(&self) -> Prefix<A> {
        match self {
            Self::Leaf { bits, length, .. } => Prefix { bits: *bits, length: *length },
            Self::Node(node) => node.prefix(),
        }
    }

    /// The occupied slot of this node, if it is one, in or below which `prefix` belongs.
    pub(super) fn way_to(&self, prefix: &Prefix<A>) -> Option<(u8, &Self)> {
        match self {
            Self::Leaf { .. } => None,
            Self::Node(node) => match node.place(prefix) {
                Place::Slot(chunk) => node.slot(chunk).map(|slot| (chunk, slot)),
                Place::Value(_) | Place::Outside => None,
            },
        }
    }

    /// The value of a lone prefix.
    pub(super) fn into_value(self) -> Option<V> {
        match self {
            Self::Leaf { value, .. } => Some(value),
            Self::Node(_) => None,
        }
    }
}

impl<A: Address, V: Clone> Slot<A, V> {
    /// The slot of this node, to be changed; a node that somebody shares is copied.
    pub(super) fn child_mut(&mut self, chunk: u8) -> Option<&mut Self> {
        match self {
            Self::Leaf { .. } => None,
            Self::Node(node) => Arc::make_mut(node).slot_mut(chunk),
        }
    }
}

/// Decides the six bits before the last `shift` bits of an address.
///
/// Both arrays hold only what is there; the place of an entry is the number of bits set before its own.
/// A node is the lowest that covers all its prefixes: it holds two entries or more.
///
/// ```text
///  bits of the address   | all equal to `base` | chunk (6) | shift |
///  a prefix that ends in the chunk             ^^^^^^ -> values, at heap place (1 << n) | first n bits of the chunk
///  a prefix that covers the whole chunk               ^^^^ -> slots, at place chunk
/// ```
///
/// What every lookup needs comes first, so that it is fetched at once.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Node<A, V> {
    base: A,
    shift: u8,
    slots_at: u64,
    slots: Vec<Slot<A, V>>,
    values_at: u64,
    values: Vec<V>,
}

/// Where a prefix belongs at a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Outside the node: it shares fewer bits with the node's base than the node stands for.
    Outside,
    /// Among the node's own values, at this heap place (`1..64`).
    Value(u8),
    /// In or below the slot of this chunk (`0..64`).
    Slot(u8),
}

/// For each heap place of the longest prefixes in a node (`32..64`, less 32): that place and all that contain it.
const CONTAINING: [u64; 32] = {
    let mut table = [0; 32];
    let mut place = 32;
    while place < 64 {
        let mut ancestor = place;
        while ancestor > 0 {
            table[place - 32] |= 1u64 << ancestor;
            ancestor >>= 1;
        }
        place += 1;
    }
    table
};

impl<A: Address, V> Node<A, V> {
    /// The node for two prefixes, or for a prefix and a node, that share exactly `common` leading bits.
    pub(super) fn covering(bits: A, common: u8) -> Self {
        // The strides end at multiples of STRIDE before the address's end; the node's is the first that reaches
        // beyond the common bits. All bits common (equal prefixes) never comes here, but would give the last.
        let shift = (A::BITS - common.min(A::BITS - 1) - 1) / STRIDE * STRIDE;
        let base = bits.truncate(Self::covered_at(shift));
        Self { base, shift, values_at: 0, slots_at: 0, values: Vec::new(), slots: Vec::new() }
    }

    /// How many leading bits every address below a node at `shift` shares. The first stride has only two bits.
    fn covered_at(shift: u8) -> u8 {
        A::BITS.saturating_sub(shift + STRIDE)
    }

    /// The bits that all prefixes below share, and how many they are.
    pub(super) fn prefix(&self) -> Prefix<A> {
        Prefix { bits: self.base, length: Self::covered_at(self.shift) }
    }

    /// The slot to which `address` belongs, if it belongs to this node at all.
    #[inline]
    pub(super) fn chunk(&self, address: A) -> Option<u8> {
        (self.base.common(address) >= Self::covered_at(self.shift)).then(|| address.chunk(self.shift))
    }

    /// Where `prefix` belongs.
    pub(super) fn place(&self, prefix: &Prefix<A>) -> Place {
        if prefix.length < Self::covered_at(self.shift) || !self.prefix().contains(prefix.bits) {
            return Place::Outside;
        }
        let chunk = prefix.bits.chunk(self.shift);
        // Bits of the prefix that lie behind the chunk's first bit: the first stride counts four bits too many,
        // which are zero in every chunk there.
        let inside = (prefix.length + STRIDE) - (A::BITS - self.shift);
        if inside >= STRIDE { Place::Slot(chunk) } else { Place::Value((1 << inside) | (chunk >> (STRIDE - inside))) }
    }

    /// The value of the longest of the node's own prefixes that covers `chunk`.
    #[inline]
    pub(super) fn longest_value(&self, chunk: u8) -> Option<&V> {
        let containing = CONTAINING.get(usize::from(chunk >> 1))?;
        let candidates = self.values_at & containing;
        if candidates == 0 {
            return None;
        }
        self.values.get(rank(self.values_at, candidates.ilog2() as u8))
    }

    /// The value at a heap place.
    pub(super) fn value(&self, place: u8) -> Option<&V> {
        if is_set(self.values_at, place) { self.values.get(rank(self.values_at, place)) } else { None }
    }

    /// What hangs at `chunk`.
    #[inline]
    pub(super) fn slot(&self, chunk: u8) -> Option<&Slot<A, V>> {
        if is_set(self.slots_at, chunk) { self.slots.get(rank(self.slots_at, chunk)) } else { None }
    }

    /// How many strides of the address come after the node's own.
    #[inline]
    pub(super) fn strides_below(&self) -> u8 {
        self.shift / STRIDE
    }

    /// Has its memory fetched, without what hangs in it.
    pub(super) fn prefetch(&self) {
        prefetch_read(&self.base);
        prefetch_read(&self.values_at);
    }

    /// Has the place fetched in which what belongs to `address` hangs.
    pub(super) fn prefetch_slot(&self, address: A) {
        if let Some(slot) = self.chunk(address).and_then(|chunk| self.slot(chunk)) {
            prefetch_read(slot);
        }
    }

    /// What hangs at `chunk`, to be changed.
    fn slot_mut(&mut self, chunk: u8) -> Option<&mut Slot<A, V>> {
        if is_set(self.slots_at, chunk) { self.slots.get_mut(rank(self.slots_at, chunk)) } else { None }
    }

    /// Puts in a prefix that belongs to this node and gives back the value it had. What else hangs in its slot
    /// is lost: the caller has gone down to the last node.
    pub(super) fn put(&mut self, prefix: Prefix<A>, value: V) -> Option<V> {
        match self.place(&prefix) {
            Place::Value(place) => put(&mut self.values_at, &mut self.values, place, value),
            Place::Slot(chunk) => {
                put(&mut self.slots_at, &mut self.slots, chunk, Slot::leaf(prefix, value))?.into_value()
            }
            Place::Outside => None,
        }
    }

    /// Puts in a node that belongs below this one.
    pub(super) fn put_node(&mut self, node: Arc<Self>) {
        let chunk = node.base.chunk(self.shift);
        put(&mut self.slots_at, &mut self.slots, chunk, Slot::Node(node));
    }

    /// Takes a prefix that this node or a leaf of it holds.
    pub(super) fn take(&mut self, prefix: &Prefix<A>) -> Option<V> {
        match self.place(prefix) {
            Place::Value(place) => take(&mut self.values_at, &mut self.values, place),
            Place::Slot(chunk) => take(&mut self.slots_at, &mut self.slots, chunk)?.into_value(),
            Place::Outside => None,
        }
    }

    /// If a single entry is left, takes it out as what may hang in the node's own place.
    pub(super) fn take_last(&mut self) -> Option<Slot<A, V>> {
        if self.values.len() + self.slots.len() != 1 {
            return None;
        }
        if let Some(slot) = self.slots.pop() {
            self.slots_at = 0;
            return Some(slot);
        }
        let place = self.values_at.trailing_zeros() as u8;
        let prefix = self.value_prefix(place);
        take(&mut self.values_at, &mut self.values, place).map(|value| Slot::leaf(prefix, value))
    }

    /// The prefix that the heap place `place` (`1..64`) stands for.
    fn value_prefix(&self, place: u8) -> Prefix<A> {
        let inside = place.max(1).ilog2() as u8;
        let chunk = (place & !(1 << inside)) << (STRIDE - inside);
        let bits = self.base.union(A::from_chunk(chunk, self.shift));
        Prefix { bits, length: inside + A::BITS - self.shift - STRIDE }
    }

    /// The node's own prefixes with their values.
    pub(super) fn own_values(&self) -> impl Iterator<Item = (Prefix<A>, &V)> {
        places(self.values_at).zip(&self.values).map(|(place, value)| (self.value_prefix(place), value))
    }

    /// Everything that hangs in the node, by ascending address.
    pub(super) fn slots(&self) -> std::slice::Iter<'_, Slot<A, V>> {
        self.slots.iter()
    }
}

/// Whether bit `place` is set.
#[inline]
fn is_set(bitmap: u64, place: u8) -> bool {
    bitmap >> (place & 63) & 1 == 1
}

/// How many bits are set below `place`: where the entry of that place stands in its array.
#[inline]
fn rank(bitmap: u64, place: u8) -> usize {
    (bitmap & ((1 << (place & 63)) - 1)).count_ones() as usize
}

/// The places that are set, ascending.
fn places(mut bitmap: u64) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let place = (bitmap != 0).then_some(bitmap.trailing_zeros() as u8)?;
        bitmap &= bitmap - 1;
        Some(place)
    })
}

fn put<T>(bitmap: &mut u64, entries: &mut Vec<T>, place: u8, entry: T) -> Option<T> {
    let at = rank(*bitmap, place);
    if is_set(*bitmap, place) {
        return entries.get_mut(at).map(|old| std::mem::replace(old, entry));
    }
    if entries.len() == entries.capacity() {
        // Growing by an eighth wastes little of the memory of a table that is built once and then read.
        entries.reserve_exact(entries.len() / 8 + 1);
    }
    *bitmap |= 1 << (place & 63);
    entries.insert(at.min(entries.len()), entry);
    None
}

fn take<T>(bitmap: &mut u64, entries: &mut Vec<T>, place: u8) -> Option<T> {
    if !is_set(*bitmap, place) {
        return None;
    }
    let at = rank(*bitmap, place);
    *bitmap &= !(1 << (place & 63));
    (at < entries.len()).then(|| entries.remove(at))
}
