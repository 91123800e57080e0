//! What going down and coming back does to flows.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::dispatch::maglev::{Identity, Member};

fn table(weights: &[u16]) -> Maglev {
    let members: Vec<Member> = weights
        .iter()
        .enumerate()
        .map(|(number, weight)| Member { identity: Identity::of(format!("s{number}").as_bytes()), weight: *weight })
        .collect();
    Maglev::build(4099, &members).unwrap()
}

fn hashes(count: u64) -> impl Iterator<Item = u64> {
    let hasher = SelectionHasher::new([1, 2]);
    (0..count).map(move |flow| hasher.hash(&flow.to_le_bytes()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn flows_of_live_backends_stay_when_others_go_down(
        weights in prop::collection::vec(1u16..20, 1..60),
        down in prop::collection::hash_set(0u16..60, 0..30),
        further in 0u16..60,
    ) {
        let maglev = table(&weights);
        let mut more = down.clone();
        more.insert(further);
        for hash in hashes(500) {
            let choice = |down: &HashSet<u16>| {
                choose(&maglev, hash, |position| !down.contains(&position), weights.len())
            };
            let (before, after) = (choice(&down), choice(&more));
            match before {
                Some(chosen) if !more.contains(&chosen.position) => prop_assert_eq!(after, before),
                _ => prop_assert!(after.is_none_or(|chosen| !more.contains(&chosen.position))),
            }
            prop_assert_eq!(after.is_none(), (0..weights.len() as u16).all(|position| more.contains(&position)));
            if let Some(Chosen { position, how: How::Slot }) = before {
                prop_assert_eq!(position, maglev.lookup(hash));
            }
        }
    }
}

#[test]
fn a_dead_backends_flows_spread_over_the_rest_by_weight() {
    let weights = [5, 1, 2, 3, 4];
    let maglev = table(&weights);
    let mut taken = [0u32; 5];
    let moved = hashes(600_000).filter(|hash| maglev.lookup(*hash) == 0);
    for hash in moved {
        let chosen = choose(&maglev, hash, |position| position != 0, 5).unwrap();
        assert_eq!(chosen.how, How::Rehash);
        taken[usize::from(chosen.position)] += 1;
    }
    let all = f64::from(taken.iter().sum::<u32>());
    assert!(all > 190_000.0);
    for (position, weight) in weights.iter().enumerate().skip(1) {
        let (share, due) = (f64::from(taken[position]) / all, f64::from(*weight) / 10.0);
        assert!((share / due - 1.0).abs() < 0.03, "{position} has {share} of {due}");
    }
}

#[test]
fn the_last_live_backend_gets_every_flow() {
    let maglev = table(&[1; 200]);
    let mut scanned = 0;
    for hash in hashes(1000) {
        let chosen = choose(&maglev, hash, |position| position == 123, 200).unwrap();
        assert_eq!(chosen.position, 123);
        scanned += usize::from(chosen.how == How::Scan);
    }
    assert!(scanned > 800, "{scanned}");
}

#[test]
fn a_scan_is_bounded_however_many_members_there_are() {
    let maglev = table(&[1; 4000]);
    let asked = std::cell::Cell::new(0);
    let refuse = |_| {
        asked.set(asked.get() + 1);
        false
    };
    assert_eq!(choose(&maglev, 7, refuse, 4000), None);
    assert_eq!(asked.get(), 1 + usize::from(REHASHES) + SCANNED);
}

#[test]
fn choices_are_the_same_in_every_release_and_on_every_machine() {
    let hasher = SelectionHasher::new([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
    // The vectors that SipHash-1-3's authors and Rust's standard library test with.
    assert_eq!(hasher.hash(&[]), 0xabac_0158_050f_c4dc);
    // SplitMix64 from state 0.
    assert_eq!(rehash(0, 1), 0xe220_a839_7b1d_cdaf);
    assert_eq!(rehash(0, 2), 0x6e78_9e6a_a1b9_65f4);
}
