//! Packets that wait: for a peer's session, for a neighbour's link-layer address, or for the first fragment of their datagram.
//!
//! The memory is allocated once. A queue that is full drops its oldest packet, as a network queue that has
//! gone stale should; a table that is full refuses the new one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::dispatch::fragment_table::DatagramKey;
use crate::ids::{PeerIndex, PortId};
use crate::time::Instant;
use crate::wireguard::Peer;

/// Packets that one worker lets wait, over all queues.
pub const HELD_PACKETS: usize = 2048;
/// Packets that wait for one peer.
const PER_PEER: u16 = 128;
/// Packets that wait for one neighbour: a gateway stands for many hosts, whose first packets may come together.
const PER_NEIGHBOUR: u16 = 256;
/// Fragments that wait for the first of their datagram: the longest in pieces for links of 1,500 bytes has 45.
const PER_DATAGRAM: u16 = 64;
/// Fragments that wait for first ones, over all datagrams: anybody can send such, and they may not take the others' room.
const FRAGMENTS: u16 = 256;
/// How long a packet waits for a peer's session: as long as a handshake is tried.
const PEER_PATIENCE: Duration = crate::wireguard::constants::REKEY_ATTEMPT_TIME;
/// How long a packet waits for a neighbour: three probes of the kernel at one a second.
const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(3);
/// How long a fragment waits for the first of its datagram: packets that overtake others on the way are milliseconds ahead. VPP's
/// shallow virtual reassembly waits as long.
const FIRST_FRAGMENT_PATIENCE: Duration = Duration::from_millis(100);

/// What a packet waits for.
#[derive(Clone, Debug)]
pub enum WaitFor {
    /// A session with the peer; the packet is a bare inner packet.
    Session(Arc<Peer>),
    /// The neighbour's address; the packet is a bare outer IP packet.
    Neighbour(PortId, IpAddr),
    /// The first fragment of this datagram; the packet is one of its others, of a service.
    FirstFragment(DatagramKey),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Key {
    Peer(PeerIndex),
    Neighbour(PortId, IpAddr),
    Datagram(DatagramKey),
}

impl WaitFor {
    fn key(&self) -> Key {
        match self {
            Self::Session(peer) => Key::Peer(peer.index),
            Self::Neighbour(port, address) => Key::Neighbour(*port, *address),
            Self::FirstFragment(datagram) => Key::Datagram(*datagram),
        }
    }

    const fn limit(&self) -> u16 {
        match self {
            Self::Session(_) => PER_PEER,
            Self::Neighbour(..) => PER_NEIGHBOUR,
            Self::FirstFragment(_) => PER_DATAGRAM,
        }
    }

    const fn patience(&self) -> Duration {
        match self {
            Self::Session(_) => PEER_PATIENCE,
            Self::Neighbour(..) => NEIGHBOUR_PATIENCE,
            Self::FirstFragment(_) => FIRST_FRAGMENT_PATIENCE,
        }
    }

    const fn is_first_fragment(&self) -> bool {
        matches!(self, Self::FirstFragment(_))
    }
}

#[derive(Debug)]
struct Queue {
    waits_for: WaitFor,
    head: u16,
    tail: u16,
    count: u16,
    deadline: Instant,
}

#[derive(Debug)]
struct Entry<T> {
    packet: Option<T>,
    next: u16,
}

/// The waiting packets of one worker.
#[derive(Debug)]
pub struct Held<T> {
    entries: Vec<Entry<T>>,
    free_entries: Vec<u16>,
    queues: Vec<Option<Queue>>,
    free_queues: Vec<u16>,
    by_key: HashMap<Key, u16, ahash::RandomState>,
    cursor: usize,
    /// Those that wait for first fragments.
    fragments: u16,
}

/// What [`Held::look`] says of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// What the packets wait for is there: let them go.
    Ready,
    /// Not yet there.
    Wait,
    /// It will not come.
    GiveUp,
}

const NONE: u16 = u16::MAX;

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self {
            entries: (0..HELD_PACKETS).map(|_| Entry { packet: None, next: NONE }).collect(),
            free_entries: (0..HELD_PACKETS as u16).rev().collect(),
            queues: (0..HELD_PACKETS).map(|_| None).collect(),
            free_queues: (0..HELD_PACKETS as u16).rev().collect(),
            by_key: HashMap::with_capacity_and_hasher(2 * HELD_PACKETS, ahash::RandomState::default()),
            cursor: 0,
            fragments: 0,
        }
    }
}

impl<T> Held<T> {
    /// How many packets wait.
    pub fn len(&self) -> usize {
        HELD_PACKETS - self.free_entries.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets `packet` wait. Gives back the packet that has to go instead, if any: the oldest of its queue, or
    /// `packet` itself when there is no room at all.
    pub fn hold(&mut self, waits_for: WaitFor, packet: T, now: Instant) -> Option<T> {
        let is_fragment = waits_for.is_first_fragment();
        if is_fragment && self.fragments >= FRAGMENTS {
            return Some(packet);
        }
        let key = waits_for.key();
        let number = match self.by_key.get(&key) {
            Some(&number) => number,
            None => {
                let Some(number) = self.free_queues.pop() else { return Some(packet) };
                let deadline = now + waits_for.patience();
                let queue = Queue { waits_for, head: NONE, tail: NONE, count: 0, deadline };
                self.queues[number as usize] = Some(queue);
                self.by_key.insert(key, number);
                number
            }
        };
        let full = self.queues[number as usize].as_ref().is_some_and(|queue| queue.count >= queue.waits_for.limit());
        let victim = if full { self.take_first(number) } else { None };
        let Some(entry) = self.free_entries.pop() else {
            self.forget_if_empty(number);
            return Some(packet);
        };
        self.entries[entry as usize] = Entry { packet: Some(packet), next: NONE };
        self.fragments += u16::from(is_fragment);
        if let Some(queue) = self.queues[number as usize].as_mut() {
            match queue.tail {
                NONE => queue.head = entry,
                tail => self.entries[tail as usize].next = entry,
            }
            queue.tail = entry;
            queue.count += 1;
        }
        victim
    }

    /// Looks at up to `limit` queues in turn, each once, and gives the first that is done waiting, with how it
    /// ended.
    ///
    /// `ready` says whether what a queue waits for is there. Take its packets with [`Held::take`].
    pub fn look(
        &mut self,
        now: Instant,
        limit: usize,
        mut ready: impl FnMut(&WaitFor) -> Patience,
    ) -> Option<(QueueRef, Patience)> {
        let mut left = limit.min(self.by_key.len());
        for _ in 0..self.queues.len() {
            if left == 0 {
                break;
            }
            let number = self.cursor;
            self.cursor = (self.cursor + 1) % self.queues.len();
            let Some(queue) = self.queues[number].as_ref() else { continue };
            left -= 1;
            let verdict = match ready(&queue.waits_for) {
                Patience::Wait if now >= queue.deadline => Patience::GiveUp,
                verdict => verdict,
            };
            if verdict != Patience::Wait {
                return Some((QueueRef(number as u16), verdict));
            }
        }
        None
    }

    /// What the queue waits for.
    pub fn waits_for(&self, queue: &QueueRef) -> Option<&WaitFor> {
        self.queues[queue.0 as usize].as_ref().map(|queue| &queue.waits_for)
    }

    /// Takes the queue's oldest packet; once there is none the queue is gone.
    pub fn take(&mut self, queue: &QueueRef) -> Option<T> {
        let packet = self.take_first(queue.0);
        self.forget_if_empty(queue.0);
        packet
    }

    fn take_first(&mut self, number: u16) -> Option<T> {
        let queue = self.queues[number as usize].as_mut()?;
        if queue.head == NONE {
            return None;
        }
        let index = queue.head;
        let entry = &mut self.entries[index as usize];
        queue.head = entry.next;
        if queue.head == NONE {
            queue.tail = NONE;
        }
        queue.count -= 1;
        self.fragments -= u16::from(queue.waits_for.is_first_fragment());
        self.free_entries.push(index);
        entry.packet.take()
    }

    fn forget_if_empty(&mut self, number: u16) {
        let place = &mut self.queues[number as usize];
        if let Some(queue) = place.as_ref().filter(|queue| queue.count == 0) {
            self.by_key.remove(&queue.waits_for.key());
            *place = None;
            self.free_queues.push(number);
        }
    }
}

/// A queue that [`Held::look`] found; valid until its last packet is taken.
#[derive(Debug)]
pub struct QueueRef(u16);

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(last: u8) -> WaitFor {
        WaitFor::Neighbour(PortId(0), IpAddr::from([10, 0, 0, last]))
    }

    fn drain(held: &mut Held<u32>, now: Instant, answer: Patience) -> Vec<(Patience, Vec<u32>)> {
        let mut all = Vec::new();
        while let Some((queue, how)) = held.look(now, HELD_PACKETS, |_| answer) {
            let mut packets = Vec::new();
            while let Some(packet) = held.take(&queue) {
                packets.push(packet);
            }
            all.push((how, packets));
        }
        all
    }

    #[test]
    fn packets_leave_in_the_order_in_which_they_came() {
        let mut held = Held::default();
        for i in 0..10 {
            assert_eq!(held.hold(neighbour((i % 2) as u8), i, Instant::ZERO), None);
        }
        assert_eq!(held.len(), 10);
        let left = drain(&mut held, Instant::ZERO, Patience::Ready);
        assert_eq!(left, [(Patience::Ready, vec![0, 2, 4, 6, 8]), (Patience::Ready, vec![1, 3, 5, 7, 9])]);
        assert!(held.is_empty());
    }

    #[test]
    fn a_full_queue_gives_up_its_oldest_packet_and_a_full_table_the_new_one() {
        let mut held = Held::default();
        for i in 0..u32::from(PER_NEIGHBOUR) {
            assert_eq!(held.hold(neighbour(1), i, Instant::ZERO), None);
        }
        assert_eq!(held.hold(neighbour(1), 99, Instant::ZERO), Some(0));
        for i in 0..(HELD_PACKETS - usize::from(PER_NEIGHBOUR)) as u32 {
            let address = IpAddr::from((0x0b00_0000 + i).to_be_bytes());
            assert_eq!(held.hold(WaitFor::Neighbour(PortId(1), address), i, Instant::ZERO), None);
        }
        assert_eq!(held.hold(neighbour(2), 100, Instant::ZERO), Some(100));
        assert_eq!(held.len(), HELD_PACKETS);
    }

    #[test]
    fn fragments_take_no_more_than_their_share_and_give_it_back() {
        let fragment = |identification| {
            let (source, destination) = ([1; 16], [2; 16]);
            let protocol = crate::packet::Protocol::UDP;
            WaitFor::FirstFragment(DatagramKey { source, destination, identification, protocol, origin: 0 })
        };
        let mut held = Held::default();
        for round in 0..3u32 {
            for i in 0..u32::from(FRAGMENTS) {
                assert_eq!(held.hold(fragment(round * 1000 + i), i, Instant::ZERO), None);
            }
            assert_eq!(held.hold(fragment(7_000), 99, Instant::ZERO), Some(99));
            assert_eq!(held.hold(neighbour(1), 100, Instant::ZERO), None, "others have room");
            assert_eq!(drain(&mut held, Instant::ZERO + FIRST_FRAGMENT_PATIENCE, Patience::Ready).len(), 257);
            assert!(held.is_empty());
        }
        for i in 0..u32::from(PER_DATAGRAM) {
            assert_eq!(held.hold(fragment(1), i, Instant::ZERO), None);
        }
        assert_eq!(held.hold(fragment(1), 99, Instant::ZERO), Some(0), "one datagram does not take all of it");
    }

    #[test]
    fn packets_are_given_up_when_patience_ends_and_not_before() {
        let mut held = Held::default();
        assert_eq!(held.hold(neighbour(1), 7, Instant::ZERO), None);
        let just_before = Instant::ZERO + (NEIGHBOUR_PATIENCE - Duration::from_nanos(1));
        assert_eq!(drain(&mut held, just_before, Patience::Wait), []);
        let end = Instant::ZERO + NEIGHBOUR_PATIENCE;
        assert_eq!(drain(&mut held, end, Patience::Wait), [(Patience::GiveUp, vec![7])]);
    }
}
