//! A persistent multibit trie over the prefixes of one address family.

use std::sync::Arc;

use super::address::{Address, Prefix};
use super::node::{Node, Place, Slot};

/// Prefixes of one address family with their values.
///
/// It is a tree bitmap (Eatherton, Varghese, Dittia: "Tree Bitmap", 2004) with strides of six bits and path
/// compression: a node stands only where prefixes part, and a place with one prefix below it holds just that.
#[derive(Clone, Debug)]
pub(super) struct Trie<A, V> {
    root: Option<Slot<A, V>>,
    len: usize,
}

impl<A, V> Default for Trie<A, V> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

/// A lookup on its way.
#[derive(Debug)]
pub(super) struct Search<'t, A, V> {
    address: A,
    /// Of the longest prefix so far.
    best: Option<&'t V>,
    next: Option<&'t Slot<A, V>>,
}

impl<'t, A: Address, V> Search<'t, A, V> {
    /// Goes on by what hangs at a node.
    #[inline(always)]
    fn pass(&mut self, node: &'t Node<A, V>) {
        let Some(chunk) = node.chunk(self.address) else {
            self.next = None;
            return;
        };
        self.best = node.longest_value(chunk).or(self.best);
        self.next = node.slot(chunk);
    }

    /// Goes the rest of the way.
    #[inline(always)]
    pub(super) fn finish(&self) -> Option<&'t V> {
        let mut search = Search { ..*self };
        // Each node decides bits behind those of the node above: at most 22 turns.
        while let Some(slot) = search.next {
            match slot {
                Slot::Leaf { bits, length, value } => {
                    return if bits.common(search.address) >= *length { Some(value) } else { search.best };
                }
                Slot::Node(node) => search.pass(node),
            }
        }
        search.best
    }

    /// Has the place fetched in which what is next hangs.
    #[inline]
    pub(super) fn prefetch_slot(&self) {
        if let Some(Slot::Node(node)) = self.next {
            node.prefetch_slot(self.address);
        }
    }
}

impl<A: Address, V> Trie<A, V> {
    #[cfg(test)]
    pub(super) fn root(&self) -> Option<&Slot<A, V>> {
        self.root.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value of the longest prefix that contains `address`.
    #[inline]
    pub(super) fn lookup(&self, address: A) -> Option<&V> {
        Search { address, best: None, next: self.root.as_ref() }.finish()
    }

    /// Goes the way of a lookup up to the last node, and has that fetched. Nodes before are few, and so in the cache.
    #[inline]
    pub(super) fn approach(&self, address: A) -> Search<'_, A, V> {
        let mut search = Search { address, best: None, next: self.root.as_ref() };
        while let Some(Slot::Node(node)) = search.next {
            if node.strides_below() == 0 {
                break;
            }
            search.pass(node);
            if node.strides_below() == 1
                && let Some(Slot::Node(last)) = search.next
            {
                last.prefetch();
                break;
            }
        }
        search
    }

    /// The value of exactly `prefix`.
    pub(super) fn get(&self, prefix: &Prefix<A>) -> Option<&V> {
        let mut next = self.root.as_ref();
        while let Some(slot) = next {
            match slot {
                Slot::Leaf { value, .. } => return (slot.prefix() == *prefix).then_some(value),
                Slot::Node(node) => match node.place(prefix) {
                    Place::Outside => return None,
                    Place::Value(place) => return node.value(place),
                    Place::Slot(chunk) => next = node.slot(chunk),
                },
            }
        }
        None
    }

    /// All prefixes with their values.
    pub(super) fn iter(&self) -> Iter<'_, A, V> {
        Iter { found: Vec::new(), waiting: self.root.iter().collect() }
    }
}

impl<A: Address, V: Clone> Trie<A, V> {
    /// Sets the value of `prefix` and gives back the one it had. Nodes that a clone shares are copied first.
    pub(super) fn insert(&mut self, prefix: Prefix<A>, value: V) -> Option<V> {
        let old = match self.root.as_mut() {
            Some(root) => insert_below(root, prefix, value),
            None => {
                self.root = Some(Slot::leaf(prefix, value));
                None
            }
        };
        self.len += usize::from(old.is_none());
        old
    }

    /// Removes `prefix` and gives back its value. Nothing is copied if it is not there.
    pub(super) fn remove(&mut self, prefix: &Prefix<A>) -> Option<V> {
        self.get(prefix)?;
        let removed = match self.root.as_mut()? {
            Slot::Leaf { .. } => self.root.take().and_then(Slot::into_value),
            root @ Slot::Node(_) => remove_below(root, prefix),
        };
        self.len -= usize::from(removed.is_some());
        removed
    }
}

fn insert_below<A: Address, V: Clone>(mut slot: &mut Slot<A, V>, prefix: Prefix<A>, value: V) -> Option<V> {
    while let Some((chunk, _)) = slot.way_to(&prefix) {
        slot = slot.child_mut(chunk)?;
    }
    let there = slot.prefix();
    match slot {
        Slot::Leaf { value: old, .. } if there == prefix => Some(std::mem::replace(old, value)),
        Slot::Node(node) if node.place(&prefix) != Place::Outside => Arc::make_mut(node).put(prefix, value),
        Slot::Leaf { .. } | Slot::Node(_) => {
            part(slot, prefix, value);
            None
        }
    }
}

/// Puts a node above `slot`, with what was there and the new prefix below it.
fn part<A: Address, V>(slot: &mut Slot<A, V>, prefix: Prefix<A>, value: V) {
    let there = slot.prefix();
    let common = there.bits.common(prefix.bits).min(there.length).min(prefix.length);
    let mut node = Node::covering(prefix.bits, common);
    node.put(prefix, value);
    let old = std::mem::replace(slot, Slot::Node(Arc::new(node)));
    // The node was made two lines above: nobody shares it.
    if let Slot::Node(node) = slot
        && let Some(node) = Arc::get_mut(node)
    {
        match old {
            Slot::Leaf { value, .. } => drop(node.put(there, value)),
            Slot::Node(below) => node.put_node(below),
        }
    }
}

/// Removes a prefix that is there.
fn remove_below<A: Address, V: Clone>(mut slot: &mut Slot<A, V>, prefix: &Prefix<A>) -> Option<V> {
    while let Some((chunk, Slot::Node(_))) = slot.way_to(prefix) {
        slot = slot.child_mut(chunk)?;
    }
    let Slot::Node(node) = slot else { return None };
    let node = Arc::make_mut(node);
    let removed = node.take(prefix);
    if let Some(last) = node.take_last() {
        *slot = last;
    }
    removed
}

/// Goes through all prefixes of a [`Trie`].
#[derive(Debug)]
pub(super) struct Iter<'a, A, V> {
    found: Vec<(Prefix<A>, &'a V)>,
    waiting: Vec<&'a Slot<A, V>>,
}

impl<'a, A: Address, V> Iterator for Iter<'a, A, V> {
    type Item = (Prefix<A>, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.found.pop() {
                return Some(found);
            }
            let slot = self.waiting.pop()?;
            match slot {
                Slot::Leaf { value, .. } => return Some((slot.prefix(), value)),
                Slot::Node(node) => {
                    self.found.extend(node.own_values());
                    self.waiting.extend(node.slots());
                }
            }
        }
    }
}
