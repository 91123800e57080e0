//! The paper's example, its figures, and what a change of members moves.

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::dispatch::selection::choose;

/// The paper's larger size.
const LARGE: u32 = 655_373;

fn member(name: &str, weight: u16) -> Member {
    Member { identity: Identity::of(name.as_bytes()), weight }
}

/// `count` members of weight 1; different ones for each seed.
fn equal(seed: usize, count: usize) -> Vec<Member> {
    (0..count).map(|number| member(&format!("{seed}: server-{number}"), 1)).collect()
}

fn build(size: u32, members: &[Member]) -> Maglev {
    Maglev::build(size, members).unwrap()
}

fn listed<'a>(preferences: &'a [&'a [u32]]) -> Vec<Candidate<impl Iterator<Item = u32> + 'a>> {
    let candidate = |(position, slots): (usize, &'a &'a [u32])| Candidate {
        position: position as u16,
        weight: 1,
        preferences: slots.iter().copied(),
    };
    preferences.iter().enumerate().map(candidate).collect()
}

/// Table 1 of the paper.
const PAPER: [&[u32]; 3] = [&[3, 0, 4, 1, 5, 2, 6], &[0, 2, 4, 6, 1, 3, 5], &[3, 4, 5, 6, 0, 1, 2]];

#[test]
fn the_papers_example_is_filled_as_in_the_paper() {
    assert_eq!(*populate(7, &mut listed(&PAPER)), [1, 0, 1, 0, 2, 2, 0]);
    let mut without_b1 = listed(&PAPER);
    without_b1.remove(1);
    assert_eq!(*populate(7, &mut without_b1), [0, 0, 0, 0, 2, 2, 2]);
}

#[test]
fn preferences_are_offset_and_skip_and_give_every_slot_once() {
    let paper = Identity { offset: 3, skip: 3 };
    assert_eq!(paper.preferences(7).take(7).collect::<Vec<_>>(), PAPER[0]);
    for name in ["a", "b", "192.0.2.1:80", ""] {
        let mut slots: Vec<u32> = Identity::of(name.as_bytes()).preferences(251).take(251).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..251).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn the_hash_of_names_is_siphash_as_its_authors_publish_it() {
    // The first and the 16th vector of the reference implementation: key 00..0f, message 00..(n-1).
    let hasher = SipHasher24::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
    assert_eq!(hasher.hash(&[]), 0x726f_db47_dd0e_0e31);
    assert_eq!(hasher.hash(&std::array::from_fn::<u8, 15, _>(|byte| byte as u8)), 0xa129_ca61_49be_45e5);
}

#[test]
fn a_table_is_the_same_in_every_release_and_on_every_machine() {
    // As the first release built it.
    let expected = [2, 2, 2, 1, 2, 2, 1, 2, 1, 1, 0, 2, 2, 1, 1, 2, 2, 2, 1, 2, 2, 2, 0, 2, 1, 1, 0, 2, 0, 1, 0];
    let table = build(31, &[member("erp-1", 1), member("erp-2", 2), member("erp-3", 3)]);
    assert_eq!(table.slots(), expected, "dispatchers of two releases would disagree");
}

#[test]
fn the_order_in_which_members_are_listed_does_not_matter() {
    let members: Vec<Member> = (0..50).map(|number| member(&format!("s{number}"), 1 + number % 3)).collect();
    let reversed: Vec<Member> = members.iter().rev().copied().collect();
    let moved = build(1009, &members).slots_moved(&build(1009, &reversed), |position| Some(49 - position));
    assert_eq!(moved, SlotsMoved::default());
}

#[test]
fn sizes_that_make_no_table_are_refused() {
    let three = equal(0, 3);
    for size in [0, 1, 2, 4, 65_536, MAX_SIZE, u32::MAX] {
        assert_eq!(Maglev::build(size, &three), Err(BuildError::Size(size)));
    }
    assert_eq!(Maglev::build(7, &[]), Err(BuildError::NoMembers));
    assert_eq!(Maglev::build(7, &equal(0, 8)), Err(BuildError::TooManyMembers { members: 8, size: 7 }));
    let most = vec![three[0]; MAX_MEMBERS + 1];
    let refused = BuildError::TooManyMembers { members: MAX_MEMBERS + 1, size: LARGE };
    assert_eq!(Maglev::build(LARGE, &most), Err(refused));
}

#[test]
fn as_many_members_as_there_may_be_get_a_slot_each() {
    let table = build(DEFAULT_SIZE, &equal(0, MAX_MEMBERS));
    let loads = table.loads(MAX_MEMBERS);
    assert_eq!(loads.iter().sum::<u32>(), DEFAULT_SIZE);
    assert!(loads.iter().all(|load| (1..=2).contains(load)));
}

#[test]
fn equal_members_are_as_even_as_in_the_paper() {
    for (size, most) in [(DEFAULT_SIZE, 1.00706), (LARGE, 1.00096)] {
        let loads = build(size, &equal(0, 1000)).loads(1000);
        let mean = f64::from(size) / 1000.0;
        let worst = f64::from(*loads.iter().max().unwrap()) / mean;
        assert!(worst <= most + 5e-6, "{size}: {worst}");
    }
}

/// The median over seeds of the share of all slots that move between survivors when `leave` of 1,000 members leave.
fn survivors_moved(size: u32, leave: usize, seeds: usize) -> f64 {
    let mut shares: Vec<f64> = (0..seeds)
        .map(|seed| {
            let members = equal(seed, 1000);
            let staying = 1000 - leave;
            let after = build(size, &members[..staying]);
            let stays = |position: u16| Some(position).filter(|_| usize::from(position) < staying);
            f64::from(build(size, &members).slots_moved(&after, stays).of_staying) / f64::from(size)
        })
        .collect();
    shares.sort_by(f64::total_cmp);
    shares[seeds / 2]
}

/// The figures are those of another run of the paper's algorithm. Names decide by chance what moves: one seed is within
/// 12 % of the median, and a median of few seeds within 1.5 % of that of many.
const CHANCE: f64 = 1.015;

#[test]
fn members_that_leave_move_few_slots_of_those_that_stay() {
    for (leave, figure) in [(1, 0.00575), (10, 0.02325), (100, 0.03545)] {
        let share = survivors_moved(DEFAULT_SIZE, leave, 31);
        println!("{DEFAULT_SIZE} slots, {leave} of 1,000 leave: {:.3} %", share * 100.0);
        assert!(share <= figure * CHANCE, "{leave} leave: {share}");
    }
}

#[test]
fn in_a_larger_table_they_move_fewer() {
    for (leave, figure) in [(1, 0.00326), (10, 0.00575), (100, 0.01042)] {
        let share = survivors_moved(LARGE, leave, 5);
        println!("{LARGE} slots, {leave} of 1,000 leave: {:.3} %", share * 100.0);
        assert!(share <= figure * CHANCE, "{leave} leave: {share}");
    }
}

#[test]
fn a_member_of_little_weight_is_not_starved() {
    let mut members = equal(0, 100);
    members[7].weight = u16::MAX;
    let loads = build(DEFAULT_SIZE, &members).loads(100);
    assert!(loads.iter().all(|load| *load >= 1));
    assert!(loads[7] > DEFAULT_SIZE - 200);
    members[3].weight = 0;
    assert_eq!(build(DEFAULT_SIZE, &members).loads(100)[3], 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A share of 100 slots or more comes out within 1 %.
    #[test]
    fn slots_are_in_proportion_to_weights(weights in prop::collection::vec(1u16..=1000, 1..200)) {
        let members: Vec<Member> =
            weights.iter().enumerate().map(|(number, weight)| member(&format!("s{number}"), *weight)).collect();
        let loads = build(DEFAULT_SIZE, &members).loads(members.len());
        let slots_a_weight = f64::from(DEFAULT_SIZE) / weights.iter().map(|weight| f64::from(*weight)).sum::<f64>();
        for (load, weight) in loads.iter().zip(&weights) {
            let share = slots_a_weight * f64::from(*weight);
            prop_assert!(*load >= 1);
            prop_assert!(share < 100.0 || (f64::from(*load) / share - 1.0).abs() <= 0.01, "{load} of {share}");
        }
    }

    /// What moves is what the member gains or loses, and of the others' slots among themselves at most 2 %.
    #[test]
    fn a_members_weight_moves_its_own_slots_and_at_most_2_percent_of_others(
        weights in prop::collection::vec(1u16..=100, 2..300),
        changed: prop::sample::Index,
        weight in 1u16..=100,
    ) {
        let mut members: Vec<Member> =
            weights.iter().enumerate().map(|(number, weight)| member(&format!("s{number}"), *weight)).collect();
        let changed = changed.index(members.len());
        let before = build(DEFAULT_SIZE, &members);
        members[changed].weight = weight;
        let after = build(DEFAULT_SIZE, &members);
        let others = before.slots().iter().zip(after.slots())
            .filter(|(from, to)| from != to && usize::from(**from) != changed && usize::from(**to) != changed)
            .count();
        prop_assert!(others as f64 <= 0.02 * f64::from(DEFAULT_SIZE), "{others} of others' slots moved");
    }

    #[test]
    fn every_hash_leads_to_a_member(hash: u64, count in 1usize..20) {
        let table = build(31, &equal(0, count));
        prop_assert!(usize::from(table.lookup(hash)) < count);
        prop_assert!(table.slot(hash) < 31);
    }
}

#[test]
fn hashes_from_end_to_end_reach_every_slot() {
    let table = build(DEFAULT_SIZE, &equal(0, 10));
    assert_eq!(table.slot(0), 0);
    assert_eq!(table.slot(u64::MAX), DEFAULT_SIZE as usize - 1);
    let width = u64::MAX / u64::from(DEFAULT_SIZE);
    assert!((0..u64::from(DEFAULT_SIZE)).all(|slot| table.slot(slot * width + width / 2) == slot as usize));
}

#[test]
fn tables_of_two_sizes_are_compared_by_where_hashes_lead() {
    let one = equal(0, 1);
    assert_eq!(build(31, &one).slots_moved(&build(DEFAULT_SIZE, &one), Some), SlotsMoved::default());
    let gone = build(31, &one).slots_moved(&build(61, &one), |_| None);
    assert_eq!(gone, SlotsMoved { of_leaving: 31, of_staying: 0 });
}

/// The paper's "Populate" as it stands there, one turn after another: the next turn is that of the candidate whose time
/// for it is earliest, of such times the heaviest's, of such weights that of the first identity.
fn populated(size: u32, members: &[Member]) -> Vec<u16> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|position| (members[*position].identity, *position));
    let weight = |position: usize| u64::from(members[position].weight.max(1));
    // When a member had so many turns, the time of its next is a fraction.
    let time = |position: usize, turns: u64| match turns {
        0 => (0, 1),
        _ => (2 * turns + 1, 2 * weight(position)),
    };
    let mut turns = vec![0; members.len()];
    let mut slots = vec![None; size as usize];
    for _ in 0..size {
        let next = order.iter().copied().min_by(|one, other| {
            let ((a, b), (c, d)) = (time(*one, turns[*one]), time(*other, turns[*other]));
            (a * d).cmp(&(c * b)).then(weight(*other).cmp(&weight(*one)))
        });
        let next = next.expect("there is a member");
        turns[next] += 1;
        let Identity { offset, skip } = members[next].identity;
        let (offset, skip) = (offset % u64::from(size), skip % u64::from(size - 1) + 1);
        let preferred = (0..u64::from(size)).map(|turn| ((offset + turn * skip) % u64::from(size)) as usize);
        let slot = preferred.into_iter().find(|slot| slots[*slot].is_none()).expect("a slot is free");
        slots[slot] = Some(next as u16);
    }
    slots.into_iter().flatten().collect()
}

#[test]
fn a_million_random_operations_lead_where_the_papers_algorithm_leads() {
    const OPERATIONS: usize = 1_000_000;
    let seed = std::env::var("JETWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("JETWAY_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let size = 251;
    let mut members = equal(0, 5);
    let (mut table, mut expected) = (build(size, &members), populated(size, &members));
    let mut down = [false; 20];
    let mut kinds = [0usize; 5];
    for operation in 0..OPERATIONS {
        let position = random.random_range(0..members.len());
        let kind = match random.random_range(0..1000) {
            0..5 if members.len() < down.len() => 0,
            5..10 if members.len() > 1 => 1,
            10..15 => 2,
            15..30 => 3,
            _ => 4,
        };
        kinds[kind] += 1;
        match kind {
            0 => members.insert(position, member(&format!("s{operation}"), random.random_range(0..40))),
            1 => drop(members.remove(position)),
            2 => members[position].weight = if random.random() { random.random_range(0..40) } else { random.random() },
            3 => down[position] = !down[position],
            _ => {
                let hash: u64 = random.random();
                let due = expected[((u128::from(hash) * u128::from(size)) >> 64) as usize];
                assert_eq!(table.lookup(hash), due, "operation {operation}: {members:?}");
                let takes = |position: u16| !down[usize::from(position)];
                let chosen = choose(&table, hash, takes, members.len()).map(|chosen| chosen.position);
                match chosen {
                    Some(chosen) if takes(due) => assert_eq!(chosen, due, "operation {operation}"),
                    Some(chosen) => assert!(takes(chosen), "operation {operation}: {chosen} is down"),
                    None => assert!((0..members.len() as u16).all(|position| !takes(position)), "{operation}"),
                }
            }
        }
        if kind < 3 {
            (table, expected) = (build(size, &members), populated(size, &members));
            assert_eq!(table.slots(), expected, "operation {operation}: {members:?}");
        }
    }
    println!("members added, removed, weighed anew, changed in state, and hashes looked up: {kinds:?}");
    assert!(kinds.iter().all(|count| *count > OPERATIONS / 500), "{kinds:?}");
}
