use jetway_pipelines::dispatch::maglev::{Identity, Maglev, Member};
use proptest::prelude::*;

use super::*;

const SLOTS: u32 = 65_537;
const POLICY: Policy = Policy { slots: SLOTS, slots_per_minute: 656, fresh_for: Duration::from_secs(15) };

fn at(seconds: u64) -> Instant {
    Instant::from_nanos((1_000 + seconds) * 1_000_000_000)
}

fn servers(weights: &[u16]) -> Vec<(BackendIndex, u16)> {
    (0..).map(BackendIndex).zip(weights.iter().copied()).collect()
}

fn shares(weights: &Weights, servers: &[(BackendIndex, u16)]) -> Vec<f64> {
    let all: Vec<f64> = servers.iter().map(|(index, _)| f64::from(weights.weight(*index).unwrap())).collect();
    let sum: f64 = all.iter().sum();
    all.into_iter().map(|weight| weight / sum).collect()
}

fn table(slots: u32, weights: &Weights, servers: &[(BackendIndex, u16)]) -> Maglev {
    let member = |(index, _): &(BackendIndex, u16)| Member {
        identity: Identity::of(&index.0.to_be_bytes()),
        weight: weights.weight(*index).unwrap(),
    };
    Maglev::build(slots, &servers.iter().map(member).collect::<Vec<_>>()).unwrap()
}

#[test]
fn without_reports_servers_have_the_weights_of_the_file() {
    let servers = servers(&[1, 1000, 30]);
    let mut weights = Weights::new(POLICY, &servers, at(0));
    for second in 0..600 {
        assert_eq!(weights.step(at(second)), Step::Unchanged);
    }
    let shares = shares(&weights, &servers);
    for (share, weight) in shares.iter().zip([1.0, 1000.0, 30.0]) {
        assert!((share * 1031.0 / weight - 1.0).abs() < 1e-9, "{shares:?}");
    }
}

#[test]
fn servers_of_unequal_strength_come_to_equal_load_and_rest() {
    let servers = servers(&[1, 1, 1, 1]);
    let strength = [2.0, 1.0, 1.0, 0.8];
    let mut weights = Weights::new(Policy { slots_per_minute: 6_554, ..POLICY }, &servers, at(0));
    let load = |weights: &Weights| -> Vec<f64> {
        shares(weights, &servers).iter().zip(strength).map(|(share, strength)| 2.4 * share / strength).collect()
    };
    let mut last_change = 0;
    for second in 0..7_200 {
        if second % 5 == 0 {
            for ((index, _), load) in servers.iter().zip(load(&weights)) {
                weights.report(*index, load, at(second));
            }
        }
        if weights.step(at(second)) == Step::Changed {
            last_change = second;
        }
    }
    let loads = load(&weights);
    let mean = loads.iter().sum::<f64>() / 4.0;
    assert!(loads.iter().all(|load| (load - mean).abs() < DEAD_BAND + 0.02), "{loads:?}");
    assert!(last_change < 3_600, "still moving after {last_change} s");
}

#[test]
fn a_server_that_says_nothing_any_more_comes_back_to_its_weight() {
    let servers = servers(&[1, 1]);
    let mut weights = Weights::new(Policy { slots_per_minute: SLOTS, ..POLICY }, &servers, at(0));
    for second in 0..600 {
        weights.report(servers[0].0, 0.9, at(second));
        weights.report(servers[1].0, 0.1, at(second));
        weights.step(at(second));
    }
    let busy = shares(&weights, &servers)[0];
    assert!(busy < 0.2, "{busy}");
    assert!(weights.load(servers[0].0, at(600)).is_some_and(|load| load > 0.8));
    for second in 600..1_800 {
        weights.step(at(second));
    }
    assert!((shares(&weights, &servers)[0] - 0.5).abs() < 0.01);
    assert_eq!(weights.load(servers[0].0, at(1_800)), None);
}

#[test]
fn a_server_that_stays_keeps_its_factor_when_others_come_and_weights_change() {
    let before = servers(&[1, 1]);
    let mut weights = Weights::new(Policy { slots_per_minute: SLOTS, ..POLICY }, &before, at(0));
    for second in 0..600 {
        weights.report(before[0].0, 0.9, at(second));
        weights.report(before[1].0, 0.1, at(second));
        weights.step(at(second));
    }
    let ratio = |weights: &Weights| {
        f64::from(weights.weight(BackendIndex(0)).unwrap()) / f64::from(weights.weight(BackendIndex(1)).unwrap())
    };
    let learned = ratio(&weights);
    weights.configure(POLICY, &[(BackendIndex(1), 10), (BackendIndex(0), 10), (BackendIndex(7), 10)]);
    assert!((ratio(&weights) / learned - 1.0).abs() < 0.02, "{} was {learned}", ratio(&weights));
    assert!(weights.weight(BackendIndex(7)).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever servers say, whenever: nobody starves, and no minute moves more slots than the budget, in real tables.
    #[test]
    fn the_budget_holds_in_every_minute_and_nobody_starves(
        configured in prop::collection::vec(1..=1000_u16, 1..12),
        budget in 1..2_000_u32,
        reports in prop::collection::vec((0..12_usize, 0.0..=1.2_f64), 400),
    ) {
        const SMALL: u32 = 16_381;
        let servers = servers(&configured);
        let policy = Policy { slots: SMALL, slots_per_minute: budget, ..POLICY };
        let mut weights = Weights::new(policy, &servers, at(0));
        let mut current = table(SMALL, &weights, &servers);
        let mut moves: Vec<(u64, u32)> = Vec::new();
        for (second, (server, load)) in (0..).step_by(3).zip(&reports) {
            weights.report(BackendIndex(*server as u32), *load, at(second));
            if weights.step(at(second)) == Step::Changed {
                let next = table(SMALL, &weights, &servers);
                let moved = current.slots_moved(&next, Some).of_staying;
                if moved > weights.limit().unwrap() {
                    weights.take_back();
                    prop_assert!(table(SMALL, &weights, &servers) == current, "others after taking back");
                } else {
                    weights.charge(moved);
                    moves.push((second, moved));
                    current = next;
                }
            }
            for (index, weight) in &servers {
                let factor = f64::from(weights.weight(*index).unwrap()) / f64::from(*weight) / f64::from(weights.unit);
                prop_assert!((LEAST - 0.01..=MOST + 0.01).contains(&factor) && weights.weight(*index) > Some(0));
            }
        }
        for (start, _) in &moves {
            let within = moves.iter().filter(|(second, _)| (*start..start + 60).contains(second));
            let sum: u32 = within.map(|(_, moved)| *moved).sum();
            prop_assert!(sum <= budget, "{sum} of {budget} slots in the minute from {start}: {moves:?}");
        }
    }
}
