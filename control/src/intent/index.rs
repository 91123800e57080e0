//! Gives out the numbers of peers.

use std::collections::VecDeque;

use jetway_pipelines::ids::PeerIndex;

/// Numbers of peers: dense, and reused as late as possible, so that what still names a removed peer by its number
/// is unlikely to meet another.
#[derive(Debug, Default)]
pub struct PeerIndices {
    next: u32,
    free: VecDeque<PeerIndex>,
}

impl PeerIndices {
    /// Numbers that may be free before they are given out again.
    const REST: usize = 1_024;

    /// A number that no peer has.
    pub fn take(&mut self) -> PeerIndex {
        let rested = if self.free.len() > Self::REST { self.free.pop_front() } else { None };
        rested.unwrap_or_else(|| {
            let index = PeerIndex(self.next);
            self.next += 1;
            index
        })
    }

    /// Takes back a number that [`PeerIndices::take`] gave.
    pub fn release(&mut self, index: PeerIndex) {
        debug_assert!(index.0 < self.next, "a number that was never given out");
        self.free.push_back(index);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_are_unique_while_in_use_and_stay_few_under_churn() {
        let mut indices = PeerIndices::default();
        let mut used: VecDeque<_> = (0..100).map(|_| indices.take()).collect();
        for _ in 0..100_000 {
            indices.release(used.pop_front().unwrap());
            let index = indices.take();
            assert!(!used.contains(&index));
            used.push_back(index);
        }
        assert_eq!(used.iter().collect::<HashSet<_>>().len(), 100);
        assert!(used.iter().all(|index| index.index() <= PeerIndices::REST + 101));
    }

    #[test]
    fn a_number_rests_before_it_is_given_out_again() {
        let mut indices = PeerIndices::default();
        let first = indices.take();
        indices.release(first);
        assert!((0..PeerIndices::REST).all(|_| indices.take() != first));
    }
}
