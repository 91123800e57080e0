//! Whose probe is next: the machines of all servers, those that are suspect before the others, and not too many at once.

use std::collections::{BTreeSet, HashMap};

use jetway_pipelines::dispatch::Health;
use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::time::Instant;

use super::machine::{Machine, Order, Outcome, Policy, Urgency};

/// How many probes may be under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Those whose turn it is.
    pub regular: usize,
    /// Those of suspect servers, beside the others: a suspect need not wait for servers that do not answer.
    pub early: usize,
}

/// When each server is asked.
#[derive(Debug)]
pub struct Schedule {
    limits: Limits,
    servers: HashMap<BackendIndex, Server>,
    regular: Lane,
    early: Lane,
}

#[derive(Debug)]
struct Server {
    machine: Machine,
    /// Where it stands in a lane.
    place: Option<(Urgency, Instant)>,
}

#[derive(Debug, Default)]
struct Lane {
    due: BTreeSet<(Instant, BackendIndex)>,
    under_way: usize,
}

impl Schedule {
    /// Nobody to ask yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, servers: HashMap::new(), regular: Lane::default(), early: Lane::default() }
    }

    /// Asks a server from now on. `seed` must be another for every server.
    pub fn add(&mut self, index: BackendIndex, policy: Policy, seed: u64, now: Instant) {
        self.remove(index);
        self.servers.insert(index, Server { machine: Machine::new(policy, seed, now), place: None });
        self.place(index);
    }

    /// Asks a server differently from now on.
    pub fn change(&mut self, index: BackendIndex, policy: Policy, now: Instant) {
        self.with(index, |machine| machine.set_policy(policy, now));
    }

    /// Asks a server no more.
    pub fn remove(&mut self, index: BackendIndex) {
        if let Some(Server { place: Some((urgency, due)), .. }) = self.servers.remove(&index) {
            self.lane(urgency).due.remove(&(due, index));
        }
    }

    /// Takes in a sign of trouble.
    pub fn signal(&mut self, index: BackendIndex, now: Instant) {
        self.with(index, |machine| machine.signal(now));
    }

    /// The next probe to make now. Each is to be ended by [`Schedule::finish`].
    pub fn begin(&mut self, now: Instant) -> Option<(BackendIndex, Order)> {
        loop {
            let (early, regular) =
                (self.early.next(self.limits.early, now), self.regular.next(self.limits.regular, now));
            let index = early.or(regular)?;
            if let Some(order) = self.with(index, |machine| machine.begin(now)).flatten() {
                self.lane(order.urgency).under_way += 1;
                return Some((index, order));
            }
        }
    }

    /// Takes in what a probe came to, also of a server that is not asked any more.
    pub fn finish(&mut self, index: BackendIndex, order: Order, outcome: Outcome, now: Instant) {
        let lane = self.lane(order.urgency);
        lane.under_way = lane.under_way.saturating_sub(1);
        self.with(index, |machine| machine.finish(order.ticket, outcome, now));
    }

    /// When there is something to begin next, unless something ends before.
    pub fn due(&self) -> Option<Instant> {
        let early = self.early.first(self.limits.early);
        early.into_iter().chain(self.regular.first(self.limits.regular)).min()
    }

    /// What is known of a server.
    pub fn machine(&self, index: BackendIndex) -> Option<&Machine> {
        self.servers.get(&index).map(|server| &server.machine)
    }

    /// Probes under way.
    pub fn under_way(&self) -> usize {
        self.regular.under_way + self.early.under_way
    }

    fn with<R>(&mut self, index: BackendIndex, change: impl FnOnce(&mut Machine) -> R) -> Option<R> {
        let result = self.servers.get_mut(&index).map(|server| change(&mut server.machine));
        self.place(index);
        result
    }

    /// Puts a server where it belongs.
    fn place(&mut self, index: BackendIndex) {
        let Some(server) = self.servers.get_mut(&index) else { return };
        let urgency = match server.machine.health() {
            Health::Suspect => Urgency::Early,
            Health::Up | Health::Down => Urgency::Regular,
        };
        let place = server.machine.due().map(|due| (urgency, due));
        let before = std::mem::replace(&mut server.place, place);
        if before == place {
            return;
        }
        if let Some((urgency, due)) = before {
            self.lane(urgency).due.remove(&(due, index));
        }
        if let Some((urgency, due)) = place {
            self.lane(urgency).due.insert((due, index));
        }
    }

    fn lane(&mut self, urgency: Urgency) -> &mut Lane {
        match urgency {
            Urgency::Regular => &mut self.regular,
            Urgency::Early => &mut self.early,
        }
    }
}

impl Lane {
    fn first(&self, limit: usize) -> Option<Instant> {
        self.due.first().filter(|_| self.under_way < limit).map(|(due, _)| *due)
    }

    fn next(&self, limit: usize, now: Instant) -> Option<BackendIndex> {
        self.due.first().filter(|(due, _)| self.under_way < limit && *due <= now).map(|(_, index)| *index)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const POLICY: Policy =
        Policy { interval: Duration::from_secs(5), timeout: Duration::from_secs(1), fall: 3, rise: 2 };

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    fn settled(limits: Limits, servers: u32) -> Schedule {
        let mut schedule = Schedule::new(limits);
        for number in 0..servers {
            schedule.add(BackendIndex(number), POLICY, u64::from(number) << 32, at(0));
        }
        while let Some((index, order)) = schedule.begin(at(0)) {
            schedule.finish(index, order, Outcome::Answered(Duration::from_millis(1)), at(1));
        }
        schedule
    }

    #[test]
    fn a_suspect_is_asked_although_silent_servers_take_every_other_place() {
        let mut schedule = settled(Limits { regular: 2, early: 1 }, 4);
        let orders: Vec<_> = std::iter::from_fn(|| schedule.begin(at(6_000))).collect();
        assert_eq!((orders.len(), schedule.under_way()), (2, 2));
        assert_eq!(schedule.due(), None, "all places are taken");
        let suspect = (0..4).map(BackendIndex).find(|index| orders.iter().all(|(asked, _)| asked != index)).unwrap();
        schedule.signal(suspect, at(6_001));
        assert_eq!(schedule.due(), Some(at(6_001)));
        let (index, order) = schedule.begin(at(6_001)).unwrap();
        assert_eq!((index, order.urgency), (suspect, Urgency::Early));
        assert!(schedule.begin(at(6_001)).is_none());
    }

    #[test]
    fn a_server_that_was_removed_is_forgotten_and_its_last_probe_gives_its_place_back() {
        let mut schedule = settled(Limits { regular: 1, early: 1 }, 2);
        let (index, order) = schedule.begin(at(6_000)).unwrap();
        schedule.remove(index);
        assert!(schedule.machine(index).is_none() && schedule.begin(at(6_000)).is_none());
        // Another server gets the number, and the old answer is none of its.
        schedule.add(index, POLICY, 99, at(6_000));
        schedule.finish(index, order, Outcome::Answered(Duration::ZERO), at(6_001));
        assert_eq!(schedule.machine(index).unwrap().health(), Health::Suspect);
        assert_eq!(schedule.under_way(), 0);
        assert_eq!(schedule.begin(at(6_001)).map(|(asked, _)| asked), Some(index));
    }

    #[test]
    fn ten_thousand_servers_are_asked_two_thousand_times_a_second_and_evenly() {
        let mut schedule = settled(Limits { regular: 4_096, early: 256 }, 10_000);
        let mut by_second = Vec::new();
        for second in 0..60 {
            let mut count = 0;
            for millis in (second * 1_000..(second + 1) * 1_000).step_by(10) {
                while let Some((index, order)) = schedule.begin(at(millis)) {
                    schedule.finish(index, order, Outcome::Answered(Duration::from_millis(1)), at(millis));
                    count += 1;
                }
            }
            by_second.push(count);
        }
        let all: u32 = by_second.iter().sum();
        assert!((115_000..=125_000).contains(&all), "{all} probes in a minute");
        assert!(by_second.iter().all(|count| (1_500..=2_500).contains(count)), "{by_second:?}");
    }
}
