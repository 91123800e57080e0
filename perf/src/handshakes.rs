//! Handshakes a second that one core answers or begins, their parts, and what packets notice of them.

mod boringtun;
mod meanwhile;
mod responder;

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

use jetway_pipelines::wireguard::kdf::{Secret, kdf};
use jetway_pipelines::wireguard::x25519::{KeyPair, agree_burst};

use self::responder::Responder;
use crate::result::{Part, Row};
use crate::sample::{Contestant, Effort, compare, ratio, time};

/// Initiations that the handshake thread takes together when so many wait.
pub const TOGETHER: usize = 8;

/// Measures both parts of the handshake beside boringtun, then what they are made of, then packets meanwhile.
pub fn measure(effort: Effort, core: usize) -> Part {
    let mut part = Part::default();
    let responder = RefCell::new(Responder::new());
    // What is kept of each peer is worked out before, as on a node that has run for a while.
    responder.borrow_mut().meet_all();
    let pair = RefCell::new(boringtun::Pair::new());
    let contestant = |name, packets, run| Contestant { name, packets, run };
    type Run<'a> = Box<dyn FnMut() -> Duration + 'a>;
    let answered = vec![
        contestant("jetway", TOGETHER, Box::new(|| responder.borrow_mut().answer(TOGETHER)) as Run<'_>),
        contestant("jetway", 1, Box::new(|| responder.borrow_mut().answer(1))),
        contestant("boringtun", 1, Box::new(|| pair.borrow_mut().answer())),
    ];
    add(&mut part, "handshake answered", answered, effort);
    let begun = vec![
        contestant("jetway", 1, Box::new(|| responder.borrow_mut().begin_and_finish()) as Run<'_>),
        contestant("boringtun", 1, Box::new(|| pair.borrow_mut().begin_and_finish())),
    ];
    add(&mut part, "handshake begun and ended", begun, effort);
    add(&mut part, "shared secret (X25519)", parts::agreements(), effort);
    add(&mut part, "key pair (X25519)", vec![parts::key_pair()], effort);
    add(&mut part, "two keys (HMAC-BLAKE2s)", vec![parts::keys()], effort);
    part.quantities.extend(meanwhile::measure(effort, core));
    part
}

fn add(part: &mut Part, scenario: &str, mut contestants: Vec<Contestant<'_>>, effort: Effort) {
    let bursts: Vec<_> = contestants.iter().map(|contestant| contestant.packets).collect();
    let outcomes = compare(&mut contestants, effort);
    for (outcome, burst) in outcomes.iter().zip(bursts) {
        let mut row = Row::new(scenario, outcome.name, outcome.nanoseconds, outcome.spread);
        (row.burst, row.ratio) = (Some(burst), Some(ratio(outcome, &outcomes[0])));
        part.rows.push(row);
    }
}

/// The parts of a handshake, each alone.
mod parts {
    use super::*;

    pub fn agreements() -> Vec<Contestant<'static>> {
        [TOGETHER, 1].map(agreement).into()
    }

    fn agreement(together: usize) -> Contestant<'static> {
        let keys = KeyPair::new(&[0x42; 32]);
        let publics: Vec<_> = (0..together as u8).map(|n| *KeyPair::new(&[n; 32]).public()).collect();
        let run = move || {
            let mut agreements: Vec<_> = publics.iter().map(|public| keys.agreement(public)).collect();
            let ((), took) = time(|| agree_burst(&mut agreements));
            assert!(agreements.iter().all(|agreement| agreement.shared.is_some()));
            took
        };
        Contestant { name: "jetway", packets: together, run: Box::new(run) }
    }

    pub fn key_pair() -> Contestant<'static> {
        Contestant { name: "jetway", packets: 1, run: Box::new(|| time(|| KeyPair::new(black_box(&[7; 32]))).1) }
    }

    pub fn keys() -> Contestant<'static> {
        let run = || time(|| black_box::<[Secret; 2]>(kdf(black_box(&[1; 32]), black_box(&[2; 32])))).1;
        Contestant { name: "jetway", packets: 1, run: Box::new(run) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_initiation_is_answered() {
        let part = measure(Effort { rounds: 2, pieces: 3 }, 0);
        assert!(part.rows.iter().all(|row| row.ns_per_packet > 0.0));
        assert!(part.quantities.iter().all(|quantity| quantity.value > 1.0), "a turn takes microseconds: {part:?}");
    }
}
