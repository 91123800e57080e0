//! Which handshake messages a worker passes on under a flood: bounded work, bounded memory, and no stranger who locks
//! out a known peer.
//!
//! ```text
//! shows our cookie ----------------------> its source's bucket --> pass, else drop
//! from a known peer's endpoint ----------> that endpoint's bucket --> pass
//!                                            | else
//! anyone else ---------------------------> the strangers' bucket --> pass
//!                                            | else
//!                                          its source's bucket --> ask for a cookie, else drop
//! ```
//! Without a flood the strangers' bucket never runs dry, and nobody is asked for a cookie. In one, only strangers are.
//! A source is an IPv4 address or an IPv6 /64; sources share a bucket when their keyed hashes collide, which nobody
//! outside can bring about.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jetway_aead::prefetch_read;

use super::constants::REJECT_AFTER_TIME;
use crate::time::Instant;

/// Whether a message came from where an authenticated peer was just heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// Its address and port are those of a peer with a session.
    Yes,
    /// Nobody is known there.
    No,
}

/// What a message proves of its source address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressProof {
    /// Its mac2 shows a cookie that we sent to that address.
    Cookie,
    /// Nothing: the address may be a lie.
    None,
}

/// What to do with a handshake message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Hand it to the handshaker.
    Pass,
    /// Have the handshaker send a cookie to its source. A cookie reply, which cannot be asked for one, is dropped.
    AskCookie,
    /// Drop it.
    Drop,
}

/// So many in a row, and so many in a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// In a second.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

impl Rate {
    fn interval(self) -> u64 {
        1_000_000_000 / u64::from(self.per_second.max(1))
    }
}

/// The rates of a [`HandshakeLimiter`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// All strangers together, who then need no cookie.
    pub strangers: Rate,
    /// Each source that showed a cookie.
    pub proven: Rate,
    /// Each known endpoint.
    pub known: Rate,
    /// Cookies for each source.
    pub cookies: Rate,
}

impl Limits {
    /// The limits of one of `workers` workers: strangers may keep the handshake thread busy for about a quarter of its
    /// time; a source gets what the kernel gives it (20 a second, 5 at once).
    pub fn of_worker(workers: u16) -> Self {
        let workers = u32::from(workers.max(1));
        Self {
            strangers: Rate { per_second: (4_000 / workers).max(100), burst: (2_000 / workers).max(50) },
            proven: Rate { per_second: 20, burst: 5 },
            known: Rate { per_second: 2, burst: 5 },
            cookies: Rate { per_second: 20, burst: 5 },
        }
    }
}

/// A bucket: the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Default)]
struct Bucket(u64);

impl Bucket {
    fn has_any(self, now: Instant, rate: Rate) -> bool {
        let full_in = self.0.saturating_sub(now.as_nanos());
        full_in <= rate.interval() * u64::from(rate.burst.saturating_sub(1))
    }

    fn take(&mut self, now: Instant, rate: Rate) {
        self.0 = self.0.max(now.as_nanos()) + rate.interval();
    }
}

/// Buckets of one kind, as many as fit 32 KiB.
struct Buckets {
    buckets: Box<[Bucket; BUCKETS]>,
    rate: Rate,
}

const BUCKETS: usize = 4096;

impl Buckets {
    fn new(rate: Rate) -> Self {
        Self { buckets: Box::new([Bucket::default(); BUCKETS]), rate }
    }

    // Both remainders are below the array's length.
    fn has_any(&self, now: Instant, hash: u64) -> bool {
        self.buckets[hash as usize % BUCKETS].has_any(now, self.rate)
    }

    fn take(&mut self, now: Instant, hash: u64) {
        self.buckets[hash as usize % BUCKETS].take(now, self.rate);
    }
}

/// The bucket out of which a message is paid for, by the hash of its source or endpoint.
#[derive(Clone, Copy)]
enum Payer {
    Proven(u64),
    Known(u64),
    Strangers,
    /// For the cookie that it is answered with.
    Cookies(u64),
    /// None: it is dropped.
    Nobody,
}

/// Decides about handshake messages. Each worker owns one; it never allocates after its creation.
pub struct HandshakeLimiter {
    hasher: ahash::RandomState,
    strangers: Bucket,
    strangers_rate: Rate,
    proven: Buckets,
    known: Buckets,
    cookies: Buckets,
}

impl HandshakeLimiter {
    /// A limiter; `key` is random, so that nobody can make sources collide.
    pub fn new(limits: Limits, key: [u64; 4]) -> Self {
        Self {
            hasher: hasher(key),
            strangers: Bucket::default(),
            strangers_rate: limits.strangers,
            proven: Buckets::new(limits.proven),
            known: Buckets::new(limits.known),
            cookies: Buckets::new(limits.cookies),
        }
    }

    /// Decides about a message from `from`.
    pub fn judge(&mut self, now: Instant, from: SocketAddr, proof: AddressProof, known: Known) -> Decision {
        let payer = self.payer(now, from, proof, known);
        match payer {
            Payer::Proven(source) => self.proven.take(now, source),
            Payer::Known(endpoint) => self.known.take(now, endpoint),
            Payer::Strangers => self.strangers.take(now, self.strangers_rate),
            Payer::Cookies(source) => self.cookies.take(now, source),
            Payer::Nobody => {}
        }
        payer.into()
    }

    /// What [`HandshakeLimiter::judge`] would decide, without taking anything.
    pub fn foresee(&self, now: Instant, from: SocketAddr, proof: AddressProof, known: Known) -> Decision {
        self.payer(now, from, proof, known).into()
    }

    fn payer(&self, now: Instant, from: SocketAddr, proof: AddressProof, known: Known) -> Payer {
        let source = self.hasher.hash_one(source(from.ip()));
        if proof == AddressProof::Cookie {
            return if self.proven.has_any(now, source) { Payer::Proven(source) } else { Payer::Nobody };
        }
        if known == Known::Yes {
            let endpoint = self.hasher.hash_one(from);
            if self.known.has_any(now, endpoint) {
                return Payer::Known(endpoint);
            }
        }
        if self.strangers.has_any(now, self.strangers_rate) {
            return Payer::Strangers;
        }
        if self.cookies.has_any(now, source) { Payer::Cookies(source) } else { Payer::Nobody }
    }
}

impl From<Payer> for Decision {
    fn from(payer: Payer) -> Self {
        match payer {
            Payer::Proven(_) | Payer::Known(_) | Payer::Strangers => Self::Pass,
            Payer::Cookies(_) => Self::AskCookie,
            Payer::Nobody => Self::Drop,
        }
    }
}

/// Where peers with sessions were heard lately, as seen by one worker. Of fixed size: when it is too small, or two
/// endpoints collide, a peer is forgotten, and in a flood has to show a cookie as a stranger would.
pub struct KnownEndpoints {
    hasher: ahash::RandomState,
    sets: Box<[[Entry; WAYS]]>,
}

const WAYS: usize = 4;
/// An endpoint stays known for as long as a session made there can live.
const MEMORY: Duration = REJECT_AFTER_TIME;

/// Half of an endpoint's hash, and the second in which it was last heard; second 0 for none.
#[derive(Clone, Copy, Default)]
struct Entry {
    fingerprint: u32,
    second: u32,
}

impl KnownEndpoints {
    /// Room for about `capacity` endpoints, 8 bytes each, rounded up to a power of two; `key` is random.
    pub fn new(capacity: usize, key: [u64; 4]) -> Self {
        let sets = capacity.div_ceil(WAYS).next_power_of_two();
        Self { hasher: hasher(key), sets: vec![[Entry::default(); WAYS]; sets].into() }
    }

    /// Has the memory fetched that [`KnownEndpoints::note`] of `from` needs.
    pub fn prefetch(&self, from: SocketAddr) {
        if let Some([first, .., last]) = self.sets.get(self.place(from).0) {
            // A set may lie in two cache lines.
            prefetch_read(first);
            prefetch_read(last);
        }
    }

    /// Notes that an authentic message came from `from`. Once for a run of a peer's packets is enough.
    pub fn note(&mut self, now: Instant, from: SocketAddr) {
        let second = second(now);
        let (set, fingerprint) = self.place(from);
        let Some(set) = self.sets.get_mut(set) else { return };
        let same = set.iter_mut().find(|entry| entry.second != 0 && entry.fingerprint == fingerprint);
        let entry = match same {
            Some(entry) => Some(entry),
            None => set.iter_mut().min_by_key(|entry| entry.second),
        };
        if let Some(entry) = entry
            && (entry.second != second || entry.fingerprint != fingerprint)
        {
            *entry = Entry { fingerprint, second };
        }
    }

    /// Whether an authentic message came from `from` lately.
    pub fn knows(&self, now: Instant, from: SocketAddr) -> Known {
        let oldest = second(now).saturating_sub(MEMORY.as_secs() as u32).max(1);
        let (set, fingerprint) = self.place(from);
        let known = |entry: &Entry| entry.fingerprint == fingerprint && entry.second >= oldest;
        if self.sets.get(set).is_some_and(|set| set.iter().any(known)) { Known::Yes } else { Known::No }
    }

    fn place(&self, from: SocketAddr) -> (usize, u32) {
        let hash = self.hasher.hash_one(from);
        (hash as usize & (self.sets.len() - 1), (hash >> 32) as u32)
    }
}

/// Seconds from 1 on, for 136 years.
fn second(now: Instant) -> u32 {
    (now.as_nanos() / 1_000_000_000) as u32 + 1
}

fn hasher([a, b, c, d]: [u64; 4]) -> ahash::RandomState {
    ahash::RandomState::with_seeds(a, b, c, d)
}

/// What a single sender can be assumed to have only one of: an IPv4 address or an IPv6 /64.
fn source(address: IpAddr) -> u64 {
    match address.to_canonical() {
        // No /64 begins with 32 zero bits but those of ::/32, from which nobody sends.
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 4] = [1, 2, 3, 4];

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    fn stranger(number: u32) -> SocketAddr {
        SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0b00_0000 + number).into(), 1000)
    }

    fn limiter() -> HandshakeLimiter {
        HandshakeLimiter::new(Limits::of_worker(1), KEY)
    }

    /// Ten seconds of 50,000 strangers a second, each with a new address, and in every tenth `probe`.
    fn flood(limiter: &mut HandshakeLimiter, mut probe: impl FnMut(&mut HandshakeLimiter, Instant)) -> [u32; 3] {
        let mut counts = [0; 3];
        for number in 0..500_000u32 {
            let now = Instant::from_nanos(1_000_000_000 + u64::from(number) * 20_000);
            let decision = limiter.judge(now, stranger(number), AddressProof::None, Known::No);
            counts[decision as usize] += 1;
            if number % 50_000 == 49_999 {
                probe(limiter, now);
            }
        }
        counts
    }

    #[test]
    fn without_a_flood_nobody_is_asked_for_a_cookie() {
        let mut limiter = limiter();
        for number in 0..200 {
            let decision = limiter.judge(at(0), stranger(number), AddressProof::None, Known::No);
            assert_eq!(decision, Decision::Pass, "200 peers in the same moment");
        }
        for number in 0..10_000u32 {
            let now = at(1_000 + u64::from(number) * 10);
            assert_eq!(limiter.judge(now, stranger(7), AddressProof::None, Known::No), Decision::Pass);
        }
    }

    #[test]
    fn in_a_flood_strangers_are_asked_and_few_pass() {
        let [passed, asked, dropped] = flood(&mut limiter(), |_, _| {});
        assert!((40_000..43_000).contains(&passed), "4,000 a second and the burst: {passed}");
        assert!(asked > 400_000, "{asked}");
        assert!(dropped < 20_000, "{dropped}");
    }

    #[test]
    fn a_flood_of_strangers_does_not_stop_a_known_peer_or_a_proven_one() {
        let [known, proven] = ["192.0.2.1:5", "192.0.2.2:6"].map(|address| address.parse().unwrap());
        let mut probes = 0;
        flood(&mut limiter(), |limiter, now| {
            probes += 1;
            assert_eq!(limiter.judge(now, known, AddressProof::None, Known::Yes), Decision::Pass);
            assert_eq!(limiter.judge(now, proven, AddressProof::Cookie, Known::No), Decision::Pass);
        });
        assert_eq!(probes, 10);
    }

    #[test]
    fn a_new_client_in_a_flood_is_asked_for_a_cookie_and_then_passes() {
        let mut asked = 0;
        flood(&mut limiter(), |limiter, now| {
            let client = "198.51.100.1:9".parse().unwrap();
            match limiter.judge(now, client, AddressProof::None, Known::No) {
                Decision::Pass => {}
                Decision::AskCookie => asked += 1,
                Decision::Drop => panic!("the client was not even asked"),
            }
            assert_eq!(limiter.judge(now, client, AddressProof::Cookie, Known::No), Decision::Pass);
        });
        assert!(asked > 0);
    }

    #[test]
    fn a_proven_source_gets_20_a_second_and_5_at_once() {
        let mut limiter = limiter();
        let passes = |limiter: &mut HandshakeLimiter, now, address: &str| {
            let from = address.parse().unwrap();
            (0..100).filter(|_| limiter.judge(now, from, AddressProof::Cookie, Known::No) == Decision::Pass).count()
        };
        assert_eq!(passes(&mut limiter, at(0), "192.0.2.1:1"), 5);
        assert_eq!(passes(&mut limiter, at(50), "192.0.2.1:2"), 1, "whatever its port");
        assert_eq!(passes(&mut limiter, at(1_050), "192.0.2.1:3"), 5);
        assert_eq!(passes(&mut limiter, at(0), "[2001:db8:1:2::1]:1"), 5);
        assert_eq!(passes(&mut limiter, at(0), "[2001:db8:1:2:ffff::1]:1"), 0, "a /64 is one source");
        assert_eq!(passes(&mut limiter, at(0), "[2001:db8:1:3::1]:1"), 5);
    }

    #[test]
    fn who_forges_a_known_endpoint_only_has_its_owner_asked_for_a_cookie() {
        let mut limiter = limiter();
        let known = "192.0.2.1:5".parse().unwrap();
        while limiter.judge(at(0), stranger(0), AddressProof::None, Known::No) == Decision::Pass {}
        for _ in 0..5 {
            assert_eq!(limiter.judge(at(0), known, AddressProof::None, Known::Yes), Decision::Pass);
        }
        assert_eq!(limiter.judge(at(0), known, AddressProof::None, Known::Yes), Decision::AskCookie);
        assert_eq!(limiter.judge(at(0), known, AddressProof::Cookie, Known::Yes), Decision::Pass);
    }

    #[test]
    fn what_is_foreseen_is_what_is_decided_and_changes_nothing() {
        let mut limiter = limiter();
        let mut seen = [0; 3];
        for number in 0..60_000u32 {
            let from = stranger(number % 700);
            let proof = if number % 7 == 0 { AddressProof::Cookie } else { AddressProof::None };
            let known = if number % 5 == 0 { Known::Yes } else { Known::No };
            let now = Instant::from_nanos(1_000_000_000 + u64::from(number) * 20_000);
            let foreseen = [(); 3].map(|()| limiter.foresee(now, from, proof, known));
            let decided = limiter.judge(now, from, proof, known);
            assert_eq!(foreseen, [decided; 3], "message {number}");
            seen[decided as usize] += 1;
        }
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    }

    #[test]
    fn an_endpoint_is_known_for_as_long_as_its_session_can_live() {
        let mut endpoints = KnownEndpoints::new(1000, KEY);
        assert_eq!(endpoints.knows(at(0), stranger(1)), Known::No);
        endpoints.note(at(0), stranger(1));
        assert_eq!(endpoints.knows(at(179_000), stranger(1)), Known::Yes);
        assert_eq!(endpoints.knows(at(182_000), stranger(1)), Known::No);
        endpoints.note(at(182_000), stranger(1));
        assert_eq!(endpoints.knows(at(182_000), stranger(1)), Known::Yes);
        let other_port = SocketAddr::new(stranger(1).ip(), 1001);
        assert_eq!(endpoints.knows(at(182_000), other_port), Known::No);
    }

    #[test]
    fn a_full_table_keeps_those_who_were_heard_last() {
        let mut endpoints = KnownEndpoints::new(256, KEY);
        for number in 0..10_000u32 {
            endpoints.note(at(u64::from(number) * 10), stranger(number));
        }
        let kept = (9_900..10_000).filter(|n| endpoints.knows(at(100_000), stranger(*n)) == Known::Yes).count();
        assert!(kept > 80, "{kept}");
    }
}
