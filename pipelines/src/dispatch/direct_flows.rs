//! Flows to servers of a service that were begun at the servers' own addresses: their answers are not the service's.
//!
//! All workers share the table, since a flow's two directions may come to different ones. It holds fingerprints, not
//! flows: a place is one word, which any worker may write at any time.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::dispatch::flow_table::address_bytes;
use crate::packet::Protocol;
use crate::time::Instant;

/// Flows that are told apart from others by their bucket.
const WAYS: usize = 4;
/// Buckets: 128 KiB in all.
const BUCKETS: usize = 4096;
/// How long a flow counts after its client's last packet: as long as an open connection (see `Lifetime`).
const SECONDS: u64 = super::flow_table::Lifetime::TcpEstablished.duration().as_secs();
/// The lower bits of a place are the second in which its flow was last seen, the others the fingerprint.
const TIME_BITS: u32 = 20;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// The two ends of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// Who began it.
    pub client: (IpAddr, u16),
    /// The server's own address and port.
    pub server: (IpAddr, u16),
    /// What is spoken.
    pub protocol: Protocol,
}

/// Fingerprints of such flows.
#[derive(Debug)]
pub struct DirectFlows {
    places: Box<[AtomicU64]>,
    hasher: ahash::RandomState,
    any: AtomicBool,
}

impl DirectFlows {
    /// None yet. `key` is secret, so that nobody outside can make another's flow seem direct.
    pub fn new(key: [u64; 4]) -> Self {
        let [k0, k1, k2, k3] = key;
        Self {
            places: (0..BUCKETS * WAYS).map(|_| AtomicU64::new(0)).collect(),
            hasher: ahash::RandomState::with_seeds(k0, k1, k2, k3),
            any: AtomicBool::new(false),
        }
    }

    /// Notes a client's packet. In a full bucket the flow that was silent for longest makes room.
    pub fn note(&self, flow: &Ends, now: Instant) {
        let (bucket, tag) = self.place_of(flow);
        let second = now.as_seconds() & TIME;
        let known = bucket.iter().find(|place| place.load(Ordering::Relaxed) & !TIME == tag);
        let age = |place: &&AtomicU64| match place.load(Ordering::Relaxed) {
            0 => u64::MAX,
            word => second.wrapping_sub(word) & TIME,
        };
        if let Some(place) = known.or_else(|| bucket.iter().max_by_key(age)) {
            let word = tag | second;
            if place.load(Ordering::Relaxed) != word {
                place.store(word, Ordering::Relaxed);
            }
        }
        if !self.any.load(Ordering::Relaxed) {
            self.any.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a server's packet belongs to such a flow.
    pub fn has(&self, flow: &Ends, now: Instant) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let (bucket, tag) = self.place_of(flow);
        bucket
            .iter()
            .map(|place| place.load(Ordering::Relaxed))
            .any(|word| word & !TIME == tag && (now.as_seconds() & TIME).wrapping_sub(word) & TIME <= SECONDS)
    }

    fn place_of(&self, flow: &Ends) -> (&[AtomicU64], u64) {
        let Ends { client, server, protocol } = flow;
        let ports = u64::from(client.1) << 24 | u64::from(server.1) << 8 | u64::from(protocol.0);
        let hash = self.hasher.hash_one((address_bytes(client.0), address_bytes(server.0), ports));
        let first = hash as usize % BUCKETS * WAYS;
        // Never the tag of a place that is vacant.
        (self.places.get(first..first + WAYS).unwrap_or_default(), hash & !TIME | 1 << TIME_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(client: u32) -> Ends {
        Ends {
            client: (IpAddr::from(client.to_be_bytes()), 5000),
            server: (IpAddr::from([192, 0, 2, 1]), 80),
            protocol: Protocol::TCP,
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_flow_counts_until_its_client_was_silent_for_long() {
        let flows = DirectFlows::new([1, 2, 3, 4]);
        assert!(!flows.has(&flow(1), at(1)));
        flows.note(&flow(1), at(1));
        assert!(flows.has(&flow(1), at(1 + SECONDS)) && !flows.has(&flow(2), at(1)));
        assert!(!flows.has(&flow(1), at(2 + SECONDS)));
        flows.note(&flow(1), at(SECONDS));
        assert!(flows.has(&flow(1), at(2 * SECONDS)));
    }

    #[test]
    fn when_there_are_too_many_those_that_are_silent_for_longest_go() {
        let flows = DirectFlows::new([5, 6, 7, 8]);
        for number in 0..200_000 {
            flows.note(&flow(number), at(1 + u64::from(number) / 100));
        }
        let now = at(2000);
        let kept = |range: std::ops::Range<u32>| range.filter(|number| flows.has(&flow(*number), now)).count();
        assert!(kept(196_000..200_000) > 3_900 && kept(0..4_000) < 100);
    }

    #[test]
    fn the_seconds_may_wrap() {
        let flows = DirectFlows::new([1, 2, 3, 4]);
        flows.note(&flow(1), at(TIME));
        assert!(flows.has(&flow(1), at(TIME + 5)));
    }
}
