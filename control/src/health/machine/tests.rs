use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

const DEFAULT: Policy = Policy { interval: Duration::from_secs(5), timeout: Duration::from_secs(1), fall: 3, rise: 2 };

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000_000 + millis * 1_000_000)
}

/// What a server does with a probe.
#[derive(Clone, Copy, PartialEq)]
enum Server {
    Answers(Duration),
    Refuses,
    Silent,
}

/// A machine and its server on a clock that jumps from one event to the next.
struct Watched {
    machine: Machine,
    server: Server,
    now: Instant,
    /// Probes under way with when they end and how.
    results: Vec<(Instant, Ticket, Outcome)>,
    begun: Vec<Instant>,
}

impl Watched {
    fn new(policy: Policy, server: Server) -> Self {
        Self { machine: Machine::new(policy, 7, at(0)), server, now: at(0), results: Vec::new(), begun: Vec::new() }
    }

    /// Lets everything happen that happens until `end`, or until `done`.
    fn run(&mut self, end: Instant, done: impl Fn(&Machine) -> bool) {
        while !done(&self.machine) {
            self.results.sort_by_key(|(end, ..)| *end);
            let result = self.results.first().map(|(end, ..)| *end);
            let Some(next) = result.into_iter().chain(self.machine.due()).min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if result == Some(next) {
                let (_, ticket, outcome) = self.results.remove(0);
                self.machine.finish(ticket, outcome, self.now);
            }
            if let Some(order) = self.machine.begin(self.now) {
                self.begun.push(self.now);
                let (after, outcome) = match self.server {
                    Server::Answers(after) if after <= order.timeout => (after, Outcome::Answered(after)),
                    Server::Refuses => (Duration::from_micros(100), Outcome::Failed),
                    Server::Answers(_) | Server::Silent => (order.timeout, Outcome::Failed),
                };
                self.results.push((self.now + after, order.ticket, outcome));
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        self.run(self.now + time, |_| false);
    }

    /// How long it takes until the server is `wanted`.
    fn until(&mut self, wanted: Health) -> Duration {
        let from = self.now;
        self.run(from + Duration::from_secs(1_000), |machine| machine.health() == wanted);
        assert_eq!(self.machine.health(), wanted);
        self.now.since(from)
    }
}

const QUICK: Server = Server::Answers(Duration::from_millis(2));

#[test]
fn a_new_server_is_asked_at_once_and_believed_after_one_answer() {
    let mut watched = Watched::new(DEFAULT, QUICK);
    assert_eq!(watched.machine.health(), Health::Suspect);
    assert_eq!(watched.until(Health::Up), Duration::from_millis(2));
    let mut dead = Watched::new(DEFAULT, Server::Refuses);
    assert!(dead.until(Health::Down) < Duration::from_millis(60));
}

#[test]
fn probes_come_at_the_interval_on_average_and_never_in_step() {
    let mut watched = Watched::new(DEFAULT, QUICK);
    watched.run_for(Duration::from_secs(5_000));
    let count = watched.begun.len();
    assert!((980..=1_020).contains(&count), "{count} probes in 1000 intervals");
    // The first regular probe comes at any part of an interval.
    watched.begun.remove(0);
    for pair in watched.begun.windows(2) {
        let between = pair[1].since(pair[0]);
        assert!((Duration::from_millis(4_375)..=Duration::from_millis(5_625)).contains(&between), "{between:?}");
    }
    let mut distinct: Vec<_> = watched.begun.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() > 900);
}

#[test]
fn a_server_is_down_after_three_failures_in_a_row_and_up_after_two_answers() {
    let mut watched = Watched::new(DEFAULT, QUICK);
    watched.run_for(Duration::from_secs(60));
    watched.server = Server::Silent;
    let before = watched.begun.len();
    let down = watched.until(Health::Down);
    assert_eq!(watched.begun.len() - before, 3);
    assert!(down < Duration::from_secs(18), "{down:?}");
    watched.server = QUICK;
    let before = watched.begun.len();
    watched.until(Health::Up);
    assert_eq!(watched.begun.len() - before, 2);
}

#[test]
fn one_answer_makes_up_for_two_failures() {
    let mut machine = Machine::new(DEFAULT, 1, at(0));
    let mut now = at(0);
    for outcome in [true, false, false, true, false, false, true] {
        now = machine.due().unwrap();
        let order = machine.begin(now).unwrap();
        let outcome = if outcome { Outcome::Answered(Duration::ZERO) } else { Outcome::Failed };
        machine.finish(order.ticket, outcome, now);
        assert_eq!(machine.health(), Health::Up);
    }
    assert!(machine.due().unwrap() > now);
}

#[test]
fn with_a_signal_a_killed_server_is_down_within_a_second_whenever_it_came() {
    let mut longest = Duration::ZERO;
    // The server dies at every moment of its interval, also just after a false alarm and while a probe is under way.
    for (server, bound) in [(Server::Silent, 905), (Server::Refuses, 305)] {
        for moment in (0..5_700).step_by(7) {
            for false_alarm in [0, 1, 3, 100, 249, 251] {
                let mut watched = Watched::new(DEFAULT, QUICK);
                watched.run_for(Duration::from_secs(60) + Duration::from_millis(moment));
                watched.machine.signal(watched.now);
                watched.run_for(Duration::from_millis(false_alarm));
                watched.server = server;
                watched.machine.signal(watched.now);
                let down = watched.until(Health::Down);
                assert!(down < Duration::from_millis(bound), "{down:?} at {moment} ms, {false_alarm} ms");
                longest = longest.max(down);
            }
        }
    }
    assert!(longest > Duration::from_millis(600), "the worst case was tried: {longest:?}");
}

#[test]
fn a_storm_of_signals_makes_at_most_four_early_probes_a_second() {
    let mut watched = Watched::new(DEFAULT, QUICK);
    watched.run_for(Duration::from_secs(10));
    let before = watched.begun.len();
    for _ in 0..10_000 {
        watched.machine.signal(watched.now);
        watched.run_for(Duration::from_millis(1));
    }
    let early = watched.begun.len() - before;
    assert!((30..=43).contains(&early), "{early} probes in 10 s");
    assert_ne!(watched.machine.health(), Health::Down);
}

#[test]
fn a_slow_server_is_given_the_time_that_it_usually_takes() {
    let mut watched = Watched::new(DEFAULT, Server::Answers(Duration::from_millis(190)));
    watched.run_for(Duration::from_secs(60));
    watched.server = Server::Answers(Duration::from_millis(700));
    watched.machine.signal(watched.now);
    watched.run_for(Duration::from_secs(3));
    assert_eq!(watched.machine.health(), Health::Up);
}

#[test]
fn a_probe_from_before_the_signal_acquits_nobody() {
    let mut machine = Machine::new(DEFAULT, 1, at(0));
    let first = machine.begin(at(0)).unwrap();
    machine.finish(first.ticket, Outcome::Answered(Duration::ZERO), at(1));
    let old = machine.begin(at(9_000)).unwrap();
    machine.signal(at(9_001));
    assert_eq!(machine.health(), Health::Suspect);
    let early = machine.begin(at(9_001)).unwrap();
    assert_eq!((early.urgency, early.timeout), (Urgency::Early, EARLY_TIMEOUT));
    machine.finish(old.ticket, Outcome::Answered(Duration::ZERO), at(9_002));
    assert_eq!(machine.health(), Health::Suspect);
    machine.finish(early.ticket, Outcome::Answered(Duration::ZERO), at(9_003));
    assert_eq!(machine.health(), Health::Up);
}

/// The same rules, told by the whole history of a state instead of by counts.
struct Model {
    policy: Policy,
    health: Health,
    /// What probes came to since the state began.
    history: Vec<bool>,
    under_way: Option<(Ticket, Instant)>,
    last_suspicion: Instant,
    waiting_signal: bool,
    /// The earliest and latest time of the next probe.
    next: (Instant, Instant),
    settled: bool,
}

impl Model {
    fn change(&mut self, health: Health) {
        self.health = health;
        self.history.clear();
        if health == Health::Down {
            self.waiting_signal = false;
        }
    }

    fn suspicion(&mut self, now: Instant) {
        self.change(Health::Suspect);
        self.waiting_signal = false;
        (self.last_suspicion, self.under_way, self.next) = (now, None, (now, now));
    }

    fn signal(&mut self, now: Instant) {
        if self.health == Health::Down {
            return;
        }
        match self.health == Health::Up && now.since(self.last_suspicion) >= EARLY_REST {
            true => self.suspicion(now),
            false => self.waiting_signal = true,
        }
    }

    fn finish(&mut self, ticket: Ticket, answered: Option<bool>, now: Instant) {
        let Some((current, begun)) = self.under_way else { return };
        if current != ticket {
            return;
        }
        self.under_way = None;
        self.history.extend(answered);
        let in_a_row = |wanted: bool| self.history.iter().rev().take_while(|one| **one == wanted).count();
        let (bad, good) = (in_a_row(false), in_a_row(true));
        match self.health {
            Health::Up if bad >= usize::from(self.policy.fall) => self.change(Health::Down),
            Health::Down if good >= usize::from(self.policy.rise) => self.change(Health::Up),
            _ if answered.is_none() => {}
            Health::Suspect if good > 0 => self.change(Health::Up),
            Health::Suspect if bad >= usize::from(self.policy.fall.min(EARLY_FALL)) => self.change(Health::Down),
            _ => {}
        }
        self.next = match self.health {
            Health::Suspect if answered.is_none() => (now + EARLY_REST, now + EARLY_REST),
            Health::Suspect => (now + EARLY_GAP, now + EARLY_GAP),
            _ if !self.settled => {
                self.settled = true;
                (now, now + self.policy.interval)
            }
            _ => {
                let eighth = self.policy.interval / 8;
                ((begun + eighth * 7).max(now), (begun + eighth * 9).max(now))
            }
        };
    }

    fn check(&self, machine: &Machine) {
        assert_eq!(machine.health(), self.health);
        let waits = self.waiting_signal && self.health == Health::Up;
        let signal = waits.then(|| self.last_suspicion + EARLY_REST);
        match (machine.due(), self.under_way) {
            (due, Some(_)) => assert_eq!(due, signal),
            (Some(due), None) => {
                let earliest = signal.map_or(self.next.0, |signal| signal.min(self.next.0));
                let latest = signal.map_or(self.next.1, |signal| signal.min(self.next.1));
                assert!((earliest..=latest).contains(&due), "{due:?} not in {earliest:?}..={latest:?}");
            }
            (None, None) => panic!("nothing will ever happen again"),
        }
    }
}

#[test]
fn a_million_random_operations_give_what_the_reference_model_gives() {
    const OPERATIONS: usize = 1_000_000;
    let seed = 0x6865_616c_7468;
    println!("seed {seed:#x}; replay with `cargo test -p jetway health::machine::tests::a_million`");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut done, mut seen) = (0, [0_usize; 3]);
    while done < OPERATIONS {
        let policy = Policy {
            interval: Duration::from_millis(random.random_range(100..10_000)),
            timeout: Duration::from_millis(random.random_range(10..2_000)),
            fall: random.random_range(1..6),
            rise: random.random_range(1..6),
        };
        let mut now = at(0);
        let mut machine = Machine::new(policy, random.next_u64(), now);
        let mut model = Model {
            policy,
            health: Health::Suspect,
            history: Vec::new(),
            under_way: None,
            last_suspicion: now,
            waiting_signal: false,
            next: (now, now),
            settled: false,
        };
        let bias = random.random_range(0.0..1.0);
        let mut tickets: Vec<Ticket> = Vec::new();
        for _ in 0..2_000 {
            done += 1;
            now = match random.random_range(0..4) {
                0 => now,
                1 => now + Duration::from_millis(random.random_range(0..300)),
                _ => machine.due().map_or(now, |due| due.max(now)),
            };
            match random.random_range(0..10) {
                0 => {
                    machine.signal(now);
                    model.signal(now);
                }
                1..5 => {
                    if model.waiting_signal
                        && model.health == Health::Up
                        && now.since(model.last_suspicion) >= EARLY_REST
                    {
                        model.suspicion(now);
                    }
                    let order = machine.begin(now);
                    assert!(order.is_none() || model.under_way.is_none() && model.next.0 <= now);
                    if let Some(order) = order {
                        let wanted = model.health == Health::Suspect;
                        assert_eq!(order.urgency == Urgency::Early, wanted);
                        assert!(order.timeout <= policy.timeout);
                        model.under_way = Some((order.ticket, now));
                        tickets.push(order.ticket);
                    } else {
                        assert!(model.under_way.is_some() || model.next.1 > now);
                    }
                }
                _ => {
                    let Some(last) = tickets.last().copied() else { continue };
                    // Now and then the result of a probe that nobody waits for any more.
                    let old = tickets[random.random_range(0..tickets.len())];
                    let ticket = if random.random_bool(0.2) { old } else { last };
                    let answered = random.random_bool(0.95).then(|| random.random_bool(bias));
                    let latency = Duration::from_millis(random.random_range(0..50));
                    let outcome = match answered {
                        Some(true) => Outcome::Answered(latency),
                        Some(false) => Outcome::Failed,
                        None => Outcome::Unknown,
                    };
                    machine.finish(ticket, outcome, now);
                    model.finish(ticket, answered, now);
                }
            }
            model.check(&machine);
            seen[machine.health() as usize] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > OPERATIONS / 20), "every state was visited: {seen:?}");
}
