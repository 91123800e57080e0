//! Handshakes a second that one core answers or begins, their parts, and what packets notice of them.

mod boringtun;
mod meanwhile;
mod responder;

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;

use jetway_pipelines::wireguard::kdf::{Secret, kdf};
use jetway_pipelines::wireguard::x25519::{KeyPair, agree_burst};

use self::meanwhile::Meanwhile;
use self::responder::Responder;
use crate::interleave::Interleaved;
use crate::result::Row;
use crate::sample::{Contestant, ratio, time};

/// Initiations that the handshake thread takes together when so many wait.
pub const TOGETHER: usize = 8;

/// Prepares both parts of the handshake beside boringtun, then what they are made of, then packets meanwhile.
pub fn prepare(run: &mut Interleaved, core: usize) {
    let mut responder = Responder::new();
    // What is kept of each peer is worked out before, as on a node that has run for a while.
    responder.meet_all();
    let responder = Rc::new(RefCell::new(responder));
    let pair = Rc::new(RefCell::new(boringtun::Pair::new()));
    let answer = |together| {
        let responder = Rc::clone(&responder);
        Contestant::new("jetway", together, move || responder.borrow_mut().answer(together))
    };
    let (others, their_beginning) = (Rc::clone(&pair), pair);
    let others = Contestant::new("boringtun", 1, move || others.borrow_mut().answer());
    add(run, "handshake answered", vec![answer(TOGETHER), answer(1), others]);
    let begun = vec![
        Contestant::new("jetway", 1, move || responder.borrow_mut().begin_and_finish()),
        Contestant::new("boringtun", 1, move || their_beginning.borrow_mut().begin_and_finish()),
    ];
    add(run, "handshake begun and ended", begun);
    add(run, "shared secret (X25519)", parts::agreements());
    add(run, "key pair (X25519)", vec![parts::key_pair()]);
    add(run, "two keys (HMAC-BLAKE2s)", vec![parts::keys()]);
    run.add(Meanwhile::on(core));
}

fn add(run: &mut Interleaved, scenario: &'static str, contestants: Vec<Contestant>) {
    let bursts: Vec<_> = contestants.iter().map(|contestant| contestant.packets).collect();
    run.compare(contestants, move |outcomes, part| {
        for (outcome, burst) in outcomes.iter().zip(&bursts) {
            let mut row = Row::new(scenario, outcome.name, outcome.nanoseconds, outcome.spread);
            (row.burst, row.ratio) = (Some(*burst), Some(ratio(outcome, &outcomes[0])));
            part.rows.push(row);
        }
    });
}

/// The parts of a handshake, each alone.
mod parts {
    use super::*;

    pub fn agreements() -> Vec<Contestant> {
        [TOGETHER, 1].map(agreement).into()
    }

    fn agreement(together: usize) -> Contestant {
        let keys = KeyPair::new(&[0x42; 32]);
        let publics: Vec<_> = (0..together as u8).map(|n| *KeyPair::new(&[n; 32]).public()).collect();
        let run = move || {
            let mut agreements: Vec<_> = publics.iter().map(|public| keys.agreement(public)).collect();
            let ((), took) = time(|| agree_burst(&mut agreements));
            assert!(agreements.iter().all(|agreement| agreement.shared.is_some()));
            took
        };
        Contestant::new("jetway", together, run)
    }

    pub fn key_pair() -> Contestant {
        Contestant::new("jetway", 1, || time(|| KeyPair::new(black_box(&[7; 32]))).1)
    }

    pub fn keys() -> Contestant {
        let run = || time(|| black_box::<[Secret; 2]>(kdf(black_box(&[1; 32]), black_box(&[2; 32])))).1;
        Contestant::new("jetway", 1, run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Effort;

    #[test]
    fn every_initiation_is_answered() {
        let mut run = Interleaved::default();
        prepare(&mut run, 0);
        let part = run.measure_all(Effort { rounds: 2, pieces: 3, settling: std::time::Duration::ZERO });
        assert!(part.rows.iter().all(|row| row.ns_per_packet > 0.0));
        assert!(part.quantities.iter().all(|quantity| quantity.value > 1.0), "a turn takes microseconds: {part:?}");
    }
}
