//! The receiver index on the wire: node, worker and slot behind a keyed permutation.
//!
//! ```text
//!   31      24 23                       0
//!  +----------+---------+---------------+   SPECK32/64 under the cluster's key
//!  |   node   | worker  |     slot      |  ----------------------------------->  what the peer sees
//!  +----------+---------+---------------+
//!               as many bits as the workers need
//! ```
//! Whoever has the key finds a message's node and worker without any state. To others indices look random: they do
//! not tell how many sessions, workers or nodes there are.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ids::{NodeId, SlotIndex, WorkerId};

const LOCAL_BITS: u32 = 24;
const ROUNDS: usize = 22;

/// The secret behind the indices of a cluster: the same on every node that is to route for another.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct IndexKey([u8; 8]);

impl IndexKey {
    /// A key of these bytes.
    pub const fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for IndexKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IndexKey(..)")
    }
}

/// How this node's indices are laid out. Cheap to copy to each worker.
#[derive(Clone)]
pub struct IndexLayout {
    node: NodeId,
    workers: u16,
    slot_bits: u32,
    cipher: Speck,
}

impl IndexLayout {
    /// The layout of node `node` with `workers` workers (at least one), fixed for the life of the process.
    pub fn new(node: NodeId, workers: u16, key: &IndexKey) -> Self {
        let workers = workers.max(1);
        let worker_bits = u16::BITS - (workers - 1).leading_zeros();
        Self { node, workers, slot_bits: LOCAL_BITS - worker_bits, cipher: Speck::new(key) }
    }

    /// The node whose indices these are.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// How many workers there are.
    pub fn workers(&self) -> u16 {
        self.workers
    }

    /// How many slots each worker has at most: at least 256.
    pub fn slots_per_worker(&self) -> u32 {
        1 << self.slot_bits
    }

    /// The index that stands for `slot` of `worker`, both within this layout.
    pub fn encode(&self, worker: WorkerId, slot: SlotIndex) -> u32 {
        debug_assert!(worker.0 < self.workers && slot.0 < self.slots_per_worker());
        let plain = u32::from(self.node.0) << LOCAL_BITS | u32::from(worker.0) << self.slot_bits | slot.0;
        self.cipher.encrypt(plain)
    }

    /// What `index` stands for; `None` if it names a worker that this node's layout does not have.
    ///
    /// Another node's index gives that node's number, and a worker and slot that mean nothing here.
    pub fn decode(&self, index: u32) -> Option<(NodeId, WorkerId, SlotIndex)> {
        let plain = self.cipher.decrypt(index);
        let node = NodeId((plain >> LOCAL_BITS) as u8);
        let local = plain & ((1 << LOCAL_BITS) - 1);
        let worker = (local >> self.slot_bits) as u16;
        let slot = SlotIndex(local & (self.slots_per_worker() - 1));
        (worker < self.workers).then_some((node, WorkerId(worker), slot))
    }

    /// The node that gave `index` out, under whatever layout of its own.
    pub fn node_of(&self, index: u32) -> NodeId {
        NodeId((self.cipher.decrypt(index) >> LOCAL_BITS) as u8)
    }

    /// The worker and slot of this node that `index` stands for, if it is one of ours.
    pub fn decode_local(&self, index: u32) -> Option<(WorkerId, SlotIndex)> {
        let (node, worker, slot) = self.decode(index)?;
        (node == self.node).then_some((worker, slot))
    }
}

impl std::fmt::Debug for IndexLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexLayout").field("node", &self.node).field("workers", &self.workers).finish_non_exhaustive()
    }
}

/// SPECK32/64 ("The SIMON and SPECK Families of Lightweight Block Ciphers", 2013): a 32-bit permutation.
///
/// It hides structure; no security of the protocol rests on it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Speck([u16; ROUNDS]);

impl Speck {
    fn new(key: &IndexKey) -> Self {
        let [a, b, c, d, e, f, g, h] = key.0;
        let mut word = u16::from_le_bytes([a, b]);
        let mut others = [u16::from_le_bytes([c, d]), u16::from_le_bytes([e, f]), u16::from_le_bytes([g, h])];
        let mut rounds = [0; ROUNDS];
        for (number, round) in rounds.iter_mut().enumerate() {
            *round = word;
            (others[number % 3], word) = forward(others[number % 3], word, number as u16);
        }
        others.zeroize();
        Self(rounds)
    }

    fn encrypt(&self, block: u32) -> u32 {
        let (x, y) = self.0.iter().fold(halves(block), |(x, y), round| forward(x, y, *round));
        joined(x, y)
    }

    fn decrypt(&self, block: u32) -> u32 {
        let (x, y) = self.0.iter().rev().fold(halves(block), |(x, y), round| backward(x, y, *round));
        joined(x, y)
    }
}

fn forward(x: u16, y: u16, round: u16) -> (u16, u16) {
    let x = x.rotate_right(7).wrapping_add(y) ^ round;
    (x, y.rotate_left(2) ^ x)
}

fn backward(x: u16, y: u16, round: u16) -> (u16, u16) {
    let y = (y ^ x).rotate_right(2);
    ((x ^ round).wrapping_sub(y).rotate_left(7), y)
}

fn halves(block: u32) -> (u16, u16) {
    ((block >> 16) as u16, block as u16)
}

fn joined(x: u16, y: u16) -> u32 {
    u32::from(x) << 16 | u32::from(y)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn speck_gives_the_papers_test_vector() {
        // Key 1918 1110 0908 0100, plaintext 6574 694c, ciphertext a868 42f2: words from the highest down.
        let key = IndexKey::new([0x00, 0x01, 0x08, 0x09, 0x10, 0x11, 0x18, 0x19]);
        let cipher = Speck::new(&key);
        assert_eq!(cipher.encrypt(0x6574_694c), 0xa868_42f2);
        assert_eq!(cipher.decrypt(0xa868_42f2), 0x6574_694c);
    }

    #[test]
    fn worker_bits_are_as_few_as_the_workers_need() {
        let cases = [(0, 24), (1, 24), (2, 23), (3, 22), (4, 22), (5, 21), (256, 16), (257, 15), (u16::MAX, 8)];
        for (workers, slot_bits) in cases {
            let layout = IndexLayout::new(NodeId(1), workers, &IndexKey::new([7; 8]));
            assert_eq!(layout.slots_per_worker(), 1 << slot_bits, "{workers} workers");
        }
    }

    #[test]
    fn an_index_of_a_worker_that_does_not_exist_stands_for_nothing() {
        let key = IndexKey::new([3; 8]);
        let (three, four) = (IndexLayout::new(NodeId(0), 3, &key), IndexLayout::new(NodeId(0), 4, &key));
        let index = four.encode(WorkerId(3), SlotIndex(9));
        assert_eq!(three.decode(index), None);
        assert_eq!(four.decode(index), Some((NodeId(0), WorkerId(3), SlotIndex(9))));
    }

    #[test]
    fn another_nodes_index_names_that_node_and_is_not_ours() {
        let key = IndexKey::new([9; 8]);
        let (here, there) = (IndexLayout::new(NodeId(1), 2, &key), IndexLayout::new(NodeId(200), 2, &key));
        let index = there.encode(WorkerId(1), SlotIndex(77));
        assert_eq!(here.decode(index).map(|(node, ..)| node), Some(NodeId(200)));
        assert_eq!(here.decode_local(index), None);
    }

    proptest! {
        #[test]
        fn every_place_has_one_index_and_every_index_one_place(
            key: [u8; 8], node: u8, workers in 1u16..600, worker: u16, slot: u32, index: u32,
        ) {
            let layout = IndexLayout::new(NodeId(node), workers, &IndexKey::new(key));
            let place = (WorkerId(worker % workers), SlotIndex(slot % layout.slots_per_worker()));
            prop_assert_eq!(layout.decode_local(layout.encode(place.0, place.1)), Some(place));
            if let Some((worker, slot)) = layout.decode_local(index) {
                prop_assert_eq!(layout.encode(worker, slot), index);
            }
        }
    }
}
