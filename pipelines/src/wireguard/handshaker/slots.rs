//! The receive slots of all workers: who has which, and when one may be given out again.

use std::collections::VecDeque;

use crate::ids::{PeerIndex, SlotIndex, WorkerId};
use crate::wireguard::index::IndexLayout;

/// Freed slots wait in a row of at least this many, so that a slot's late messages do not meet its next session.
const REST: usize = 64;

/// A slot with the index that stands for it on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub worker: WorkerId,
    pub slot: SlotIndex,
    pub index: u32,
}

/// The slots of all workers.
pub(super) struct Slots {
    layout: IndexLayout,
    limit: u32,
    workers: Vec<WorkerSlots>,
}

#[derive(Default)]
struct WorkerSlots {
    states: Vec<State>,
    free: VecDeque<SlotIndex>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    /// A handshake or session of this peer has it.
    Taken(PeerIndex),
    /// The worker was told to empty it and has not answered yet.
    Leaving,
}

impl Slots {
    /// Slots as `layout` has them, at most `limit` for each worker.
    pub fn new(layout: IndexLayout, limit: u32) -> Self {
        let workers = (0..layout.workers()).map(|_| WorkerSlots::default()).collect();
        Self { limit: limit.min(layout.slots_per_worker()), layout, workers }
    }

    /// Gives `owner` a slot of `worker`; `None` if all are taken.
    pub fn take(&mut self, worker: WorkerId, owner: PeerIndex) -> Option<Place> {
        let slots = self.workers.get_mut(worker.index())?;
        let untouched = SlotIndex(slots.states.len() as u32);
        let slot = if slots.free.len() > REST || untouched.0 >= self.limit {
            slots.free.pop_front()?
        } else {
            slots.states.push(State::Free);
            untouched
        };
        *slots.states.get_mut(slot.index())? = State::Taken(owner);
        Some(Place { worker, slot, index: self.layout.encode(worker, slot) })
    }

    /// Takes back a slot in which no receiver was ever installed.
    pub fn release(&mut self, place: Place) {
        self.free(place.worker, place.slot);
    }

    /// Notes that the worker was told to empty a slot.
    pub fn leave(&mut self, place: Place) {
        if let Some(state) = self.state(place.worker, place.slot) {
            *state = State::Leaving;
        }
    }

    /// Notes that the worker has emptied a slot.
    pub fn removed(&mut self, worker: WorkerId, slot: SlotIndex) {
        if self.state(worker, slot).is_some_and(|state| *state == State::Leaving) {
            self.free(worker, slot);
        }
    }

    /// Whose handshake or session `index` stands for.
    pub fn owner(&self, index: u32) -> Option<PeerIndex> {
        let (worker, slot) = self.layout.decode_local(index)?;
        match self.workers.get(worker.index())?.states.get(slot.index())? {
            State::Taken(owner) => Some(*owner),
            State::Free | State::Leaving => None,
        }
    }

    /// The worker at which a peer without a session is at home.
    pub fn default_home(&self, peer: PeerIndex) -> WorkerId {
        WorkerId((peer.0 % u32::from(self.layout.workers())) as u16)
    }

    /// How many slots are taken or leaving.
    pub fn in_use(&self) -> usize {
        self.workers.iter().map(|worker| worker.states.len() - worker.free.len()).sum()
    }

    fn free(&mut self, worker: WorkerId, slot: SlotIndex) {
        let Some(slots) = self.workers.get_mut(worker.index()) else { return };
        if let Some(state) = slots.states.get_mut(slot.index())
            && *state != State::Free
        {
            *state = State::Free;
            slots.free.push_back(slot);
        }
    }

    fn state(&mut self, worker: WorkerId, slot: SlotIndex) -> Option<&mut State> {
        self.workers.get_mut(worker.index())?.states.get_mut(slot.index())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::wireguard::index::IndexKey;

    const WORKER: WorkerId = WorkerId(1);
    const OWNER: PeerIndex = PeerIndex(7);

    fn slots(limit: u32) -> Slots {
        Slots::new(IndexLayout::new(NodeId(3), 2, &IndexKey::new([1; 8])), limit)
    }

    #[test]
    fn an_index_leads_to_its_owner_until_its_slot_is_left() {
        let mut slots = slots(10);
        let place = slots.take(WORKER, OWNER).unwrap();
        assert_eq!(slots.owner(place.index), Some(OWNER));
        slots.leave(place);
        assert_eq!((slots.owner(place.index), slots.in_use()), (None, 1));
        slots.removed(place.worker, place.slot);
        assert_eq!(slots.in_use(), 0);
    }

    #[test]
    fn a_slot_is_not_given_out_before_its_worker_has_emptied_it() {
        let mut slots = slots(2);
        let places = [slots.take(WORKER, OWNER).unwrap(), slots.take(WORKER, OWNER).unwrap()];
        assert_eq!(slots.take(WORKER, OWNER), None);
        slots.leave(places[0]);
        assert_eq!(slots.take(WORKER, OWNER), None);
        slots.removed(places[0].worker, places[0].slot);
        slots.removed(places[0].worker, places[0].slot);
        assert_eq!(slots.take(WORKER, OWNER), Some(places[0]));
        assert_eq!(slots.take(WORKER, OWNER), None);
    }

    #[test]
    fn a_freed_slot_rests_while_there_are_others() {
        let mut slots = slots(1000);
        let mut last = None;
        for _ in 0..200 {
            let place = slots.take(WORKER, OWNER).unwrap();
            assert_ne!(Some(place), last);
            slots.release(place);
            last = Some(place);
        }
        assert!(slots.workers[1].states.len() <= REST + 2, "and the table does not grow without need");
    }
}
