//! The flow table against a map, by random operations.

use std::collections::HashMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::ids::BackendIndex;
use crate::packet::Protocol;

fn key(number: u32) -> FlowKey {
    FlowKey {
        source: address_bytes(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()),
        destination: address_bytes("2001:db8::7".parse().unwrap()),
        source_port: number as u16,
        destination_port: 443,
        protocol: Protocol::UDP,
        kind: FlowKind::Forward,
        origin: 0,
    }
}

fn decision(number: u32) -> Decision {
    Decision::new(BackendIndex(number), number as u16)
}

fn insert(table: &mut FlowTable, number: u32, now: Tick) -> Result<FlowId, Full> {
    let key = key(number);
    table.insert(table.hash(&key), key, decision(number), Lifetime::Udp, now)
}

fn find(table: &FlowTable, number: u32, now: Tick) -> Option<FlowId> {
    let key = key(number);
    table.find(table.hash(&key), &key, now)
}

/// What the map knows of a flow.
#[derive(Clone, Copy, Debug)]
struct Known {
    decision: Decision,
    lifetime: Lifetime,
    seen: u32,
    id: FlowId,
}

impl Known {
    fn is_live(&self, now: u32) -> bool {
        now.wrapping_sub(self.seen) <= self.lifetime.ticks()
    }
}

/// How keys are hashed in a run.
#[derive(Clone, Copy, Debug)]
enum Hashing {
    /// As the table does.
    Keyed,
    /// Into few buckets with one of two tags, as an outsider would who knew the key.
    Colliding,
}

struct World {
    table: FlowTable,
    hashing: Hashing,
    model: HashMap<u32, Known>,
    now: u32,
    cursor: Cursor,
    refused: u64,
}

impl World {
    fn new(flows: usize, hashing: Hashing, now: u32) -> Self {
        let table = FlowTable::new(flows, [1, 2, 3, 4]);
        Self { table, hashing, model: HashMap::new(), now, cursor: Cursor::default(), refused: 0 }
    }

    fn hash(&self, number: u32) -> FlowHash {
        match self.hashing {
            Hashing::Keyed => self.table.hash(&key(number)),
            Hashing::Colliding => {
                let buckets = (self.table.buckets() as u32).min(3);
                FlowHash { first: number % buckets, second: number / 3 % buckets, tag: (number % 2) as u16 }
            }
        }
    }

    fn live(&self) -> usize {
        self.model.values().filter(|known| known.is_live(self.now)).count()
    }

    fn live_in(&self, bucket: u32) -> usize {
        let here = self.model.values().filter(|known| known.id.split().0 == bucket as usize);
        here.filter(|known| known.is_live(self.now)).count()
    }

    fn expected(&self, number: u32) -> Option<Known> {
        self.model.get(&number).filter(|known| known.is_live(self.now)).copied()
    }

    fn find(&self, number: u32) -> Option<FlowId> {
        let found = self.table.find(self.hash(number), &key(number), Tick(self.now));
        let expected = self.expected(number);
        assert_eq!(found, expected.map(|known| known.id), "flow {number}");
        if let (Some(id), Some(known)) = (found, expected) {
            let flow = Flow { key: key(number), decision: known.decision };
            assert_eq!(self.table.get(id), Some(&flow));
            assert_eq!(self.table.lifetime(id), Some(known.lifetime));
        }
        found
    }

    fn insert(&mut self, number: u32, decision: Decision, lifetime: Lifetime) {
        let inserted = self.table.insert(self.hash(number), key(number), decision, lifetime, Tick(self.now));
        self.inserted(number, decision, lifetime, inserted);
    }

    /// As packets do that come together: the places are told for all, then each flow is looked for, and added if it is not there.
    fn insert_burst(&mut self, numbers: [u32; 6], lifetime: Lifetime) {
        let now = Tick(self.now);
        let told = numbers.map(|number| self.table.prefetch_entry(self.hash(number), now));
        for (number, probable) in numbers.into_iter().zip(told) {
            let (hash, expected) = (self.hash(number), self.expected(number));
            let found = self.table.find_at(probable, hash, &key(number), now);
            assert_eq!(found, expected.map(|known| known.id), "flow {number}");
            if found.is_none() {
                let added = self.table.add(probable, hash, &key(number), decision(number), lifetime, now);
                self.inserted(number, decision(number), lifetime, added);
            }
        }
    }

    /// Holds what became of an insertion against the model, and notes it there.
    fn inserted(&mut self, number: u32, decision: Decision, lifetime: Lifetime, inserted: Result<FlowId, Full>) {
        let hash = self.hash(number);
        let expected = self.expected(number);
        match inserted {
            Ok(id) => {
                assert!(expected.is_none_or(|known| known.id == id), "flow {number} has two places");
                assert!([hash.first as usize, hash.second as usize].contains(&id.split().0));
                let evicted = self.model.iter().find(|(other, known)| **other != number && known.id == id);
                assert!(evicted.is_none_or(|(_, known)| !known.is_live(self.now)), "{evicted:?} was evicted");
                self.model.retain(|other, known| *other == number || known.id != id);
                self.model.insert(number, Known { decision, lifetime, seen: self.now, id });
            }
            Err(Full) => {
                assert_eq!(expected.map(|known| known.id), None);
                assert_eq!((self.live_in(hash.first), self.live_in(hash.second)), (WAYS, WAYS), "not full");
                self.refused += 1;
            }
        }
    }

    /// Visits the whole table: it holds what the model holds, each once.
    fn scan_all(&mut self) {
        let (now, mut live) = (self.now, 0);
        let model = &self.model;
        let mut cursor = Cursor::default();
        loop {
            let pass = self.table.scan(&mut cursor, 3, Tick(now), |visited| {
                let number = u32::from_be_bytes(*visited.flow.key.source.last_chunk().unwrap()) - 0x0a00_0000;
                let known = model.get(&number).unwrap_or_else(|| panic!("{number} is not in the model"));
                assert_eq!(visited.status == Status::Live, known.is_live(now));
                assert_eq!((visited.lifetime, visited.idle), (known.lifetime, now.wrapping_sub(known.seen)));
                live += usize::from(visited.status == Status::Live);
                Verdict::Keep
            });
            if pass == Pass::Finished {
                break;
            }
        }
        assert_eq!(live, self.live());
        assert_eq!(self.table.len(), live, "after a scan only live flows occupy places");
        self.model.retain(|_, known| known.is_live(now));
    }

    fn step(&mut self, random: &mut SmallRng, keys: u32) {
        let number = random.random_range(0..keys);
        let lifetime = Lifetime::ALL[random.random_range(0..Lifetime::ALL.len())];
        match random.random_range(0..1000) {
            0..400 => {
                self.find(number);
            }
            400..600 => self.insert(number, decision(random.random()), lifetime),
            600..700 => self.insert_burst(std::array::from_fn(|_| random.random_range(0..keys)), lifetime),
            700..850 => {
                if let Some(id) = self.find(number) {
                    self.table.touch(id, lifetime, Tick(self.now));
                    let known = self.model.get_mut(&number).unwrap();
                    (known.lifetime, known.seen) = (lifetime, self.now);
                }
            }
            850..900 => {
                if let Some(id) = self.find(number) {
                    let changed = decision(random.random());
                    *self.table.get_mut(id).unwrap() = changed;
                    self.model.get_mut(&number).unwrap().decision = changed;
                }
            }
            900..960 => {
                if let Some(id) = self.find(number) {
                    assert_eq!(self.table.remove(id), self.model.remove(&number).map(|known| known.decision));
                    assert_eq!(self.table.get(id), None);
                    assert_eq!(self.table.remove(id), None);
                }
            }
            960..990 => self.now = self.now.wrapping_add(random.random_range(0..40)),
            990..994 => self.now = self.now.wrapping_add(random.random_range(0..30_000)),
            994..998 => self.clear(number),
            _ => self.scan_all(),
        }
    }

    /// Clears the flows of some decisions from a few buckets.
    fn clear(&mut self, number: u32) {
        let from = self.cursor.0;
        let mut removed = 0;
        let matches = |decision: &Decision| decision.server.0 % 4 == number % 4;
        self.table.clear_matching(&mut self.cursor, 2, Tick(self.now), &mut removed, |flow| matches(&flow.decision));
        let before = self.live();
        let now = self.now;
        let visited = |known: &Known| (from..from + 2).contains(&known.id.split().0);
        self.model.retain(|_, known| !visited(known) || known.is_live(now) && !matches(&known.decision));
        assert_eq!(removed, (before - self.live()) as u64);
    }
}

/// Random operations in all.
const OPERATIONS: usize = 1_000_000;

#[test]
fn a_million_random_operations_do_what_a_map_does() {
    let seed = std::env::var("JETWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("JETWAY_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    // A roomy table, a full one, one bucket, and keys that collide; two of them while ticks wrap.
    let runs = [
        (400, 300, Hashing::Keyed, 0),
        (60, 400, Hashing::Keyed, u32::MAX - 10_000),
        (1, 20, Hashing::Keyed, 77),
        (60, 90, Hashing::Colliding, u32::MAX - 100),
    ];
    for (flows, keys, hashing, now) in runs {
        let mut world = World::new(flows, hashing, now);
        for _ in 0..OPERATIONS / runs.len() {
            world.step(&mut random, keys);
        }
        world.scan_all();
        if keys as usize > world.table.capacity() || matches!(hashing, Hashing::Colliding) {
            assert!(world.refused > 0, "{flows} flows, {keys} keys: the table was never full");
        }
    }
}

#[test]
fn as_many_flows_as_the_table_is_made_for_find_a_place() {
    let mut table = FlowTable::new(100_000, [5, 6, 7, 8]);
    for number in 0..100_000 {
        insert(&mut table, number, Tick(0)).unwrap();
    }
    assert_eq!(table.len(), 100_000);
    assert!((0..100_000).all(|number| find(&table, number, Tick(1)).is_some()));
    assert!((100_000..200_000).all(|number| find(&table, number, Tick(1)).is_none()));
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old() {
    let mut table = FlowTable::new(5, [5, 6, 7, 8]);
    let kept: Vec<u32> = (0..100).filter(|number| insert(&mut table, *number, Tick(0)).is_ok()).collect();
    assert_eq!((kept.len(), table.len()), (8, 8));
    let last = Tick(Lifetime::Udp.ticks());
    assert!(kept.iter().all(|number| find(&table, *number, last).is_some()));
    assert_eq!(insert(&mut table, 100, last), Err(Full));
    let later = Tick(last.0 + 1);
    assert!(kept.iter().all(|number| find(&table, *number, later).is_none()));
    assert_eq!(insert(&mut table, 100, later).map(|_| table.len()), Ok(1));
}

#[test]
fn keys_that_differ_anywhere_are_different_flows() {
    let mut table = FlowTable::new(100, [5, 6, 7, 8]);
    let first = key(0);
    let variants = [
        first,
        FlowKey { source: [1; 16], ..first },
        FlowKey { destination: [1; 16], ..first },
        FlowKey { source_port: 9, ..first },
        FlowKey { destination_port: 9, ..first },
        FlowKey { protocol: Protocol::TCP, ..first },
        FlowKey { kind: FlowKind::Answer, ..first },
        FlowKey { origin: 9, ..first },
    ];
    // All under one hash: only the comparison of keys can tell them apart.
    let hash = table.hash(&first);
    for (number, key) in variants.iter().enumerate() {
        assert_eq!(table.find(hash, key, Tick(0)), None);
        table.insert(hash, *key, decision(number as u32), Lifetime::Udp, Tick(0)).unwrap();
    }
    for (number, key) in variants.iter().enumerate() {
        let id = table.find(hash, key, Tick(0)).unwrap();
        assert_eq!(table.get(id).unwrap().decision, decision(number as u32));
    }
    let hashes: std::collections::HashSet<String> =
        variants.iter().map(|key| format!("{:?}", table.hash(key))).collect();
    assert_eq!(hashes.len(), variants.len(), "some field is not hashed");
}

#[test]
fn a_key_decides_the_buckets() {
    let places = |secret| {
        let table = FlowTable::new(100_000, secret);
        (0..100).map(|number| table.hash(&key(number))).collect::<Vec<_>>()
    };
    assert_eq!(places([1, 2, 3, 4]), places([1, 2, 3, 4]));
    let same = places([1, 2, 3, 4]).iter().zip(places([1, 2, 3, 5])).filter(|(a, b)| **a == *b).count();
    assert_eq!(same, 0);
}

#[test]
fn a_flow_takes_at_most_128_bytes() {
    let table = FlowTable::new(1_000_000, [1, 2, 3, 4]);
    let bytes = size_of_val(&*table.heads) + size_of_val(&*table.flows);
    assert!(bytes <= BYTES_PER_FLOW * 1_000_000 && BYTES_PER_FLOW <= 128, "{bytes}");
}
