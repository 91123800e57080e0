use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// The specification in a few lines: every counter ever accepted, and the highest of them.
#[derive(Default)]
struct Model {
    seen: HashSet<u64>,
    highest: Option<u64>,
}

impl Model {
    fn accept(&mut self, counter: u64) -> Result<(), Replay> {
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(Replay::Exhausted);
        }
        if self.highest.is_some_and(|highest| highest > counter && highest - counter > WINDOW) {
            return Err(Replay::TooOld);
        }
        if !self.seen.insert(counter) {
            return Err(Replay::Repeated);
        }
        self.highest = self.highest.max(Some(counter));
        Ok(())
    }
}

/// Counters that every session remembers one by one, with a ring or without.
const NEAR: u64 = (NEAR_WORDS - 1) * WORD_BITS;

#[test]
fn each_counter_in_order_is_accepted_once_and_takes_no_ring() {
    let (mut window, mut spare) = (ReplayWindow::default(), SpareWindows::new(1));
    for counter in 0..20_000 {
        assert_eq!(window.accept(counter, &mut spare), Ok(()));
        for back in [0, 1, 64, NEAR, NEAR + 64, WINDOW] {
            let seen = counter.checked_sub(back).map(|seen| window.accept(seen, &mut spare));
            assert!(matches!(seen, None | Some(Err(Replay::Repeated))), "{back} behind {counter}");
        }
    }
    assert!(window.ring.is_none());
}

#[test]
fn the_window_reaches_back_exactly_as_far_as_it_says() {
    let (mut window, mut spare) = (ReplayWindow::default(), SpareWindows::new(1));
    window.accept(100_000, &mut spare).unwrap();
    assert_eq!(window.accept(100_000 - WINDOW, &mut spare), Ok(()));
    assert_eq!(window.accept(100_000 - WINDOW, &mut spare), Err(Replay::Repeated));
    assert_eq!(window.accept(100_000 - WINDOW - 1, &mut spare), Err(Replay::TooOld));
}

#[test]
fn the_last_counter_of_a_session_is_the_one_before_reject_after_messages() {
    let (mut window, mut spare) = (ReplayWindow::default(), SpareWindows::new(1));
    assert_eq!(window.accept(REJECT_AFTER_MESSAGES, &mut spare), Err(Replay::Exhausted));
    assert_eq!(window.accept(u64::MAX, &mut spare), Err(Replay::Exhausted));
    assert_eq!(window.accept(REJECT_AFTER_MESSAGES - 1, &mut spare), Ok(()));
    assert_eq!(window.accept(REJECT_AFTER_MESSAGES - 1, &mut spare), Err(Replay::Repeated));
}

#[test]
fn a_look_changes_nothing() {
    let (mut window, mut spare) = (ReplayWindow::default(), SpareWindows::new(1));
    window.accept(5, &mut spare).unwrap();
    assert_eq!(window.check(1 << 40), Ok(()));
    assert_eq!(window.accept(4, &mut spare), Ok(()));
}

#[test]
fn a_ring_is_taken_when_a_missing_counter_is_no_longer_near() {
    let (mut window, mut spare) = (ReplayWindow::default(), SpareWindows::new(1));
    for counter in (0..NEAR + 64).filter(|counter| *counter != 7) {
        window.accept(counter, &mut spare).unwrap();
    }
    assert!(window.ring.is_none());
    window.accept(NEAR + 64, &mut spare).unwrap();
    assert!(window.ring.is_some());
    window.accept(7 + WINDOW, &mut spare).unwrap();
    assert_eq!(window.accept(7, &mut spare), Ok(()));
    assert_eq!(window.accept(7, &mut spare), Err(Replay::Repeated));
    assert_eq!(window.accept(6, &mut spare), Err(Replay::TooOld));
    assert_eq!(window.accept(8, &mut spare), Err(Replay::Repeated));
}

#[test]
fn without_a_ring_to_take_a_missing_counter_counts_as_seen_once_it_is_no_longer_near() {
    let (mut window, mut spare) = (ReplayWindow::default(), SpareWindows::new(0));
    let missing = [7, 90];
    for counter in (0..NEAR + 64).filter(|counter| !missing.contains(counter)) {
        window.accept(counter, &mut spare).unwrap();
    }
    window.accept(NEAR + 64, &mut spare).unwrap();
    assert_eq!(window.accept(7, &mut spare), Err(Replay::Repeated));
    assert_eq!(window.accept(90, &mut spare), Ok(()));
}

#[test]
fn a_session_that_ended_accepts_nothing_and_leaves_its_ring_to_the_next() {
    let (mut window, mut spare) = (ReplayWindow::default(), SpareWindows::new(1));
    window.accept(100_000, &mut spare).unwrap();
    window.end(&mut spare);
    for counter in [0, 99_999, 100_001, REJECT_AFTER_MESSAGES - 1] {
        assert_eq!(window.accept(counter, &mut spare), Err(Replay::TooOld));
    }
    let mut next = ReplayWindow::default();
    next.accept(50_000, &mut spare).unwrap();
    for counter in (50_000 - WINDOW..50_000).rev() {
        assert_eq!(next.accept(counter, &mut spare), Ok(()), "what the ring's last session saw is forgotten");
    }
}

#[test]
fn more_windows_are_asked_for_once_and_again_when_nobody_heard_it() {
    let mut spare = SpareWindows::new(READY / 2);
    assert!(!spare.wants_more());
    let ring = spare.take().unwrap();
    assert!(spare.wants_more());
    assert!(!spare.wants_more());
    spare.ask_again();
    assert!(spare.wants_more());
    spare.add(&mut Crate::new());
    assert!(!spare.wants_more());
    assert!(spare.put_back(ring).is_none());
    spare.add(&mut Crate::new());
    assert!(spare.put_back(Ring::new()).is_some(), "there is room for so many only");
}

/// Steps around the highest counter: small, at the edges of the near words and of the window, and far jumps over the ring.
fn step() -> impl Strategy<Value = i64> {
    let (near, edge) = (NEAR as i64, WINDOW as i64);
    prop_oneof![
        -4i64..4,
        -200i64..200,
        (-near - 130)..(-near + 130),
        near - 70..near + 200,
        (-edge - 70)..(-edge + 70),
        8_100i64..8_300,
        0i64..100_000
    ]
}

fn start() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..1_000, 0u64..10_000, any::<u64>(), REJECT_AFTER_MESSAGES - 20_000..REJECT_AFTER_MESSAGES]
}

/// Runs of counters, forwards or backwards, of which a few are left out: what a path with loss and reordering makes.
fn runs() -> impl Strategy<Value = Vec<(i64, u64, u64)>> {
    prop::collection::vec((step(), 1u64..700, 2u64..2_000), 1..30)
}

proptest! {
    #[test]
    fn the_window_agrees_with_a_set_of_all_counters(start in start(), steps in prop::collection::vec(step(), 1..400)) {
        let (mut window, mut spare, mut model) = (ReplayWindow::default(), SpareWindows::new(1), Model::default());
        let mut highest = start;
        for step in steps {
            let counter = highest.saturating_add_signed(step);
            prop_assert_eq!(window.check(counter), window.clone().accept(counter, &mut SpareWindows::new(1)));
            prop_assert_eq!(window.accept(counter, &mut spare), model.accept(counter), "counter {}", counter);
            highest = model.highest.unwrap_or(start);
        }
    }

    #[test]
    fn the_window_agrees_with_a_set_of_all_counters_over_long_runs_with_gaps(start in start(), runs in runs()) {
        let (mut window, mut spare, mut model) = (ReplayWindow::default(), SpareWindows::new(1), Model::default());
        let mut highest = start;
        for (step, length, gap) in runs {
            let first = highest.saturating_add_signed(step);
            for counter in (first..first.saturating_add(length)).filter(|counter| counter % gap != 1) {
                prop_assert_eq!(window.accept(counter, &mut spare), model.accept(counter), "counter {}", counter);
            }
            highest = model.highest.unwrap_or(start);
        }
    }

    #[test]
    fn a_window_that_gets_its_ring_late_or_never_accepts_no_counter_twice(
        start in start(),
        runs in runs(),
        ring_comes in 0usize..40,
    ) {
        let (mut window, mut spare, mut model) = (ReplayWindow::default(), SpareWindows::new(0), Model::default());
        let mut highest = start;
        for (number, (step, length, gap)) in runs.into_iter().enumerate() {
            if number == ring_comes {
                spare = SpareWindows::new(1);
            }
            let first = highest.saturating_add_signed(step);
            for counter in (first..first.saturating_add(length)).filter(|counter| counter % gap != 1) {
                let is_near = model.highest.is_none_or(|highest| counter.saturating_add(NEAR) >= highest);
                let (ours, theirs) = (window.accept(counter, &mut spare), model.accept(counter));
                prop_assert!(ours.is_err() || theirs.is_ok(), "accepted {} twice", counter);
                prop_assert!(!is_near || ours == theirs, "{} is near: {:?}, not {:?}", counter, ours, theirs);
            }
            highest = model.highest.unwrap_or(start);
        }
    }
}
