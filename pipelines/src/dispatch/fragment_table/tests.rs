//! The fragment table against bytes in a map, by random fragments.

use std::collections::{HashMap, VecDeque};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn key(identification: u32, protocol: Protocol) -> DatagramKey {
    DatagramKey { source: [1; 16], destination: [2; 16], identification, protocol, origin: 0 }
}

fn udp(identification: u32) -> DatagramKey {
    key(identification, Protocol::UDP)
}

fn range(offset: u32, length: u32, rest: Rest) -> FragmentRange {
    FragmentRange::new(offset, length, rest).unwrap()
}

fn more(offset: u32, length: u32) -> FragmentRange {
    range(offset, length, Rest::Follows)
}

fn last(offset: u32, length: u32) -> FragmentRange {
    range(offset, length, Rest::Ends)
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn table(capacity: usize) -> FragmentTable<u32> {
    FragmentTable::new(capacity, [1, 2, 3, 4])
}

const OVERLAP: Verdict<u32> = Verdict::Refused(Refusal::Overlap);

#[test]
fn later_fragments_follow_the_first_in_any_order() {
    let mut table = table(4);
    assert_eq!(table.later(&udp(1), last(2960, 100), at(0)), Verdict::Unknown);
    assert_eq!(table.first(&udp(1), more(0, 1480), 7, at(0)), Verdict::Known(7));
    assert_eq!(table.later(&udp(1), last(2960, 100), at(1)), Verdict::Known(7));
    assert_eq!(table.later(&udp(2), more(1480, 1480), at(1)), Verdict::Unknown);
    assert_eq!(table.later(&key(1, Protocol::TCP), more(1480, 1480), at(1)), Verdict::Unknown);
    assert_eq!(table.len(), 1);
    assert_eq!(table.later(&udp(1), more(1480, 1480), at(1)), Verdict::Known(7));
    assert!(table.is_empty(), "a whole datagram needs no memory");
}

#[test]
fn an_overlap_ends_the_datagram() {
    for overlapping in [more(8, 8), more(1472, 16), more(2960, 8), last(2968, 8), more(4000, 8), last(2952, 16)] {
        let mut table = table(4);
        table.first(&udp(1), more(0, 1480), 7, at(0));
        table.later(&udp(1), last(2952, 100), at(0));
        assert_eq!(table.later(&udp(1), overlapping, at(1)), OVERLAP, "{overlapping:?}");
        assert_eq!(table.later(&udp(1), more(1480, 1472), at(1)), OVERLAP, "a good one after {overlapping:?}");
        assert_eq!(table.first(&udp(1), more(0, 1480), 8, at(29_000)), OVERLAP);
    }
}

#[test]
fn an_end_before_what_came_is_an_overlap() {
    let mut table = table(4);
    table.first(&udp(1), more(0, 1480), 7, at(0));
    table.later(&udp(1), more(2960, 1480), at(0));
    assert_eq!(table.later(&udp(1), last(1480, 8), at(0)), OVERLAP);
}

#[test]
fn exact_copies_are_dropped_and_hurt_nothing() {
    let mut table = table(4);
    table.first(&udp(1), more(0, 1480), 7, at(0));
    assert_eq!(table.first(&udp(1), more(0, 1480), 7, at(1)), Verdict::Duplicate);
    table.later(&udp(1), last(2960, 8), at(0));
    assert_eq!(table.later(&udp(1), last(2960, 8), at(1)), Verdict::Duplicate);
    assert_eq!(table.later(&udp(1), more(1480, 1480), at(1)), Verdict::Known(7));
}

#[test]
fn an_identification_that_comes_round_is_a_new_datagram() {
    let mut table = table(4);
    table.first(&udp(1), more(0, 1480), 7, at(0));
    table.later(&udp(1), more(1480, 1480), at(0));
    assert_eq!(table.first(&udp(1), more(0, 1480), 8, at(1001)), Verdict::Known(8));
    assert_eq!(table.later(&udp(1), more(1480, 1480), at(1001)), Verdict::Known(8));
}

#[test]
fn a_datagram_is_forgotten_after_its_lifetime() {
    let mut table = table(4);
    table.first(&udp(1), more(0, 1480), 7, at(0));
    assert_eq!(table.later(&udp(1), more(1480, 8), at(30_000)), Verdict::Known(7));
    assert_eq!(table.later(&udp(1), more(1488, 8), at(30_001)), Verdict::Unknown);
    assert!(table.is_empty());
}

#[test]
fn the_oldest_makes_room() {
    let mut table = table(3);
    for number in 0..5 {
        table.first(&udp(number), more(0, 8), number, at(u64::from(number)));
    }
    assert_eq!(table.len(), 3);
    let known: Vec<bool> =
        (0..5).map(|number| table.later(&udp(number), more(8, 8), at(9)) == Verdict::Known(number)).collect();
    assert_eq!(known, [false, false, true, true, true]);
}

#[test]
fn a_datagram_in_too_many_pieces_is_refused() {
    let mut table = table(3);
    table.first(&udp(1), more(0, 8), 7, at(0));
    for number in 1..MAX_FRAGMENTS as u32 {
        assert_eq!(table.later(&udp(1), more(number * 8, 8), at(0)), Verdict::Known(7));
    }
    let one_more = table.later(&udp(1), more(MAX_FRAGMENTS as u32 * 8, 8), at(0));
    assert_eq!(one_more, Verdict::Refused(Refusal::TooMany));
}

#[test]
fn fragments_that_hide_tcp_flags_are_refused() {
    let tcp = |number| key(number, Protocol::TCP);
    let tiny = Verdict::Refused(Refusal::Tiny);
    let mut table = table(3);
    assert_eq!(table.first(&tcp(1), more(0, 8), 7, at(0)), tiny);
    assert_eq!(table.later(&tcp(1), more(8, 8), at(0)), tiny);
    assert_eq!(table.first(&tcp(2), more(0, 16), 7, at(0)), Verdict::Known(7));
    assert_eq!(table.later(&tcp(2), last(8, 64), at(0)), tiny);
    assert_eq!(table.first(&udp(3), more(0, 8), 7, at(0)), Verdict::Known(7));
}

#[test]
fn ranges_that_no_sender_may_make_are_refused() {
    use Rest::{Ends, Follows};
    for (offset, length, rest) in
        [(0, 0, Ends), (8, 0, Follows), (4, 8, Follows), (8, 7, Follows), (65_528, 8, Ends), (u32::MAX - 7, 8, Ends)]
    {
        assert_eq!(FragmentRange::new(offset, length, rest), None, "{offset} {length} {rest:?}");
    }
    assert!(FragmentRange::new(65_528, 7, Ends).is_some());
}

/// A datagram as the model knows it.
#[derive(Clone, Debug)]
struct Known {
    decision: u32,
    began: u64,
    refused: Option<Refusal>,
    pieces: Vec<(FragmentRange, Rest)>,
}

impl Known {
    /// Every byte by itself: what a receiver would see.
    fn arrive(&mut self, range: FragmentRange, rest: Rest) -> Verdict<u32> {
        if let Some(refusal) = self.refused {
            return Verdict::Refused(refusal);
        }
        if self.pieces.contains(&(range, rest)) {
            return Verdict::Duplicate;
        }
        let bytes = |range: FragmentRange| range.start()..range.end();
        let overlaps = self.pieces.iter().any(|(other, _)| bytes(*other).any(|byte| bytes(range).contains(&byte)));
        self.pieces.push((range, rest));
        let ends: Vec<u32> =
            self.pieces.iter().filter(|(_, rest)| *rest == Rest::Ends).map(|(range, _)| range.end()).collect();
        let contradicts = ends.len() > 1
            || ends.iter().any(|end| {
                self.pieces
                    .iter()
                    .any(|(range, rest)| range.end() > *end || range.end() == *end && *rest == Rest::Follows)
            });
        if overlaps || contradicts {
            self.refused = Some(Refusal::Overlap);
            return OVERLAP;
        }
        Verdict::Known(self.decision)
    }

    fn is_complete(&self) -> bool {
        let end = self.pieces.iter().find(|(_, rest)| *rest == Rest::Ends).map(|(range, _)| range.end());
        end.is_some_and(|end| self.pieces.iter().map(|(range, _)| range.end() - range.start()).sum::<u32>() == end)
    }
}

/// Forgets what is live of a datagram.
fn forget(model: &mut HashMap<u32, Known>, order: &mut VecDeque<(u32, u64)>, number: u32) {
    if let Some(known) = model.remove(&number) {
        order.retain(|other| *other != (number, known.began));
    }
}

#[test]
fn random_fragments_get_what_a_map_of_bytes_says() {
    let seed = std::env::var("JETWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("JETWAY_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut table = table(6);
    let mut model: HashMap<u32, Known> = HashMap::new();
    // By age, with when they began; those whose time is over lie in front until their places are taken back.
    let mut order: VecDeque<(u32, u64)> = VecDeque::new();
    let mut now = 0;
    let mut outcomes = [0u32; 4];
    for step in 0..200_000u32 {
        now += match random.random_range(0..1000) {
            0..900 => random.random_range(0..20),
            900..999 => random.random_range(0..3000),
            _ => 40_000,
        };
        let number = random.random_range(0..9);
        let rest = if random.random_range(0..4) == 0 { Rest::Ends } else { Rest::Follows };
        let start = random.random_range(0..6) * 8;
        let range = range(start, random.random_range(1..3) * 8, rest);
        for _ in 0..2 {
            order.pop_front_if(|(_, began)| now - *began > 30_000);
        }
        model.retain(|_, known| now - known.began <= 30_000);
        let mut verdict = match model.get_mut(&number) {
            Some(known) => known.arrive(range, rest),
            None => Verdict::Unknown,
        };
        let is_new = match model.get(&number) {
            None => true,
            Some(known) => verdict == Verdict::Duplicate && now - known.began > 1000,
        };
        if start == 0 && is_new {
            let known = Known { decision: step, began: now, refused: None, pieces: vec![(range, rest)] };
            forget(&mut model, &mut order, number);
            if !known.is_complete() {
                if order.len() == 6 {
                    let (oldest, began) = order.pop_front().unwrap();
                    model.retain(|number, known| (*number, known.began) != (oldest, began));
                }
                order.push_back((number, now));
                model.insert(number, known);
            }
            verdict = Verdict::Known(step);
        } else if model.get(&number).is_some_and(|known| known.refused.is_none() && known.is_complete()) {
            forget(&mut model, &mut order, number);
        }
        let actual = match start {
            0 => table.first(&udp(number), range, step, at(now)),
            _ => table.later(&udp(number), range, at(now)),
        };
        assert_eq!(actual, verdict, "step {step}, datagram {number}, {range:?}");
        assert_eq!(table.len(), order.len());
        outcomes[match actual {
            Verdict::Known(_) => 0,
            Verdict::Unknown => 1,
            Verdict::Duplicate => 2,
            Verdict::Refused(_) => 3,
        }] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 1000), "{outcomes:?}");
}
