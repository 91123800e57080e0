//! When a server is probed and what the answers make of it: pure, given results, the time and a seed.
//!
//! ```text
//!            fall failures in a row            rise successes in a row
//!       up ------------------------> down ------------------------------> up
//!        |                            ^
//!        | passive signal             | failures of early probes, in quick succession
//!        +--------> suspect ----------+
//!                      |  an early probe is answered
//!                      +--------------------------------------------------> up
//! ```
//!
//! A new server is suspect: it serves, and is asked at once. Draining and disabled are the operator's, not ours.

use std::time::Duration;

use jetway_pipelines::dispatch::Health;
use jetway_pipelines::time::Instant;

/// How a server is to be probed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// From the beginning of one probe to that of the next, on average.
    pub interval: Duration,
    /// The time after which a probe has failed.
    pub timeout: Duration,
    /// Failures in a row that make a server down; never 0.
    pub fall: u8,
    /// Successes in a row that make it up again; never 0.
    pub rise: u8,
}

/// From the end of an early probe that failed to the next one. A WireGuard gateway ignores initiations of one peer
/// that are less than 20 ms apart.
pub const EARLY_GAP: Duration = Duration::from_millis(25);
/// The time of an early probe at least. With it a server that answers nothing at all is down 650 ms after the first
/// early probe began, and within [`EARLY_REST`] more after the signal.
pub const EARLY_TIMEOUT: Duration = Duration::from_millis(200);
/// An early probe waits so many times as long as the server usually takes to answer, if that is longer.
const PATIENCE: u32 = 4;
/// Failures of early probes in a row that make a suspect down, if `fall` is not less.
pub const EARLY_FALL: u8 = 3;
/// From the beginning of one suspicion to that of the next, so that a stream of signals is no stream of probes.
pub const EARLY_REST: Duration = Duration::from_millis(250);

/// What a probe came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The server answered, after this time.
    Answered(Duration),
    /// It did not answer in time, or refused.
    Failed,
    /// It could not be asked, by a fault of this node's.
    Unknown,
}

/// Names one probe of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(u64);

/// A probe to be made now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    /// To be given back with the outcome.
    pub ticket: Ticket,
    /// The time after which it has failed.
    pub timeout: Duration,
    /// Whether it is made out of turn.
    pub urgency: Urgency,
}

/// Whether a probe is made out of turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// It is the server's turn.
    Regular,
    /// The server is suspect.
    Early,
}

/// The health of one server.
#[derive(Debug)]
pub struct Machine {
    policy: Policy,
    health: Health,
    /// Results in a row that speak against the present state.
    contrary: u8,
    due: Instant,
    /// The probe under way, with when it began.
    under_way: Option<(Ticket, Instant)>,
    last_ticket: u64,
    suspected: Instant,
    /// Whether a signal came during the last suspicion or too soon after it, and waits.
    signalled: bool,
    usual: Option<Duration>,
    /// Whether it still has its first regular probe before it.
    is_new: bool,
    chance: u64,
}

impl Machine {
    /// A server that nobody asked yet: suspect, and due now. Every server needs a seed of its own.
    pub fn new(policy: Policy, seed: u64, now: Instant) -> Self {
        Self {
            policy,
            health: Health::Suspect,
            contrary: 0,
            due: now,
            under_way: None,
            // Servers have different seeds, so that no result fits the server that comes in another's place.
            last_ticket: seed,
            suspected: now,
            signalled: false,
            usual: None,
            is_new: true,
            chance: seed,
        }
    }

    /// What is known of the server.
    pub fn health(&self) -> Health {
        self.health
    }

    /// How long the server takes to answer, lately; `None` if it never did.
    pub fn usual_latency(&self) -> Option<Duration> {
        self.usual
    }

    /// When there is something to do next: a probe to begin. `None` while one is under way and nothing else waits.
    pub fn due(&self) -> Option<Instant> {
        let signal = self.has_waiting_signal().then(|| self.suspected + EARLY_REST);
        match self.under_way {
            Some(_) => signal,
            None => Some(signal.map_or(self.due, |signal| signal.min(self.due))),
        }
    }

    /// The probe to make now, if one is due.
    ///
    /// What is under way from before is not waited for, and its result will not count.
    pub fn begin(&mut self, now: Instant) -> Option<Order> {
        if self.has_waiting_signal() && self.suspected + EARLY_REST <= now {
            self.start_suspicion(now);
        }
        if self.under_way.is_some() || self.due > now {
            return None;
        }
        self.last_ticket = self.last_ticket.wrapping_add(1);
        let ticket = Ticket(self.last_ticket);
        self.under_way = Some((ticket, now));
        let (urgency, timeout) = match self.health {
            Health::Suspect => (Urgency::Early, self.early_timeout()),
            Health::Up | Health::Down => (Urgency::Regular, self.policy.timeout),
        };
        Some(Order { ticket, timeout, urgency })
    }

    /// Takes in what a probe came to.
    pub fn finish(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        let Some((_, begun)) = self.under_way.filter(|(current, _)| *current == ticket) else { return };
        self.under_way = None;
        if let Outcome::Answered(took) = outcome {
            // As TCP smooths its round-trip time (RFC 6298): an eighth of the new to seven of the old.
            self.usual = Some(self.usual.map_or(took, |usual| (usual * 7 + took) / 8));
        }
        let next = match (self.health, outcome) {
            (Health::Suspect, Outcome::Answered(_)) => Some(Health::Up),
            (Health::Suspect, Outcome::Failed) => self.against(self.policy.fall.min(EARLY_FALL), Health::Down),
            (Health::Up, Outcome::Failed) => self.against(self.policy.fall, Health::Down),
            (Health::Down, Outcome::Answered(_)) => self.against(self.policy.rise, Health::Up),
            (Health::Up, Outcome::Answered(_)) | (Health::Down, Outcome::Failed) => {
                self.contrary = 0;
                None
            }
            (_, Outcome::Unknown) => None,
        };
        if let Some(next) = next {
            self.become_(next);
        }
        self.due = match self.health {
            Health::Suspect if outcome != Outcome::Unknown => now + EARLY_GAP,
            Health::Suspect => now + EARLY_REST,
            // Servers that came together spread over an interval at once.
            Health::Up | Health::Down if std::mem::take(&mut self.is_new) => {
                now + self.policy.interval.mul_f64(self.random_share())
            }
            Health::Up | Health::Down => (begun + self.jittered_interval()).max(now),
        };
    }

    /// Takes in a sign of trouble that workers saw: an unreachable error, a refused or repeated connection attempt.
    pub fn signal(&mut self, now: Instant) {
        match self.health {
            Health::Up if self.suspected + EARLY_REST <= now => self.start_suspicion(now),
            // It may have come after the probe that will acquit the server.
            Health::Up | Health::Suspect => self.signalled = true,
            Health::Down => {}
        }
    }

    /// Probes differently from now on; what is known of the server stays.
    pub fn set_policy(&mut self, policy: Policy, now: Instant) {
        self.policy = policy;
        self.due = self.due.min(now + self.jittered_interval());
    }

    fn has_waiting_signal(&self) -> bool {
        self.signalled && self.health == Health::Up
    }

    fn start_suspicion(&mut self, now: Instant) {
        self.become_(Health::Suspect);
        self.signalled = false;
        self.suspected = now;
        self.under_way = None;
        self.due = now;
    }

    /// Counts a result against the present state; gives `next` after `limit` of them.
    fn against(&mut self, limit: u8, next: Health) -> Option<Health> {
        self.contrary += 1;
        (self.contrary >= limit).then_some(next)
    }

    fn become_(&mut self, health: Health) {
        self.health = health;
        self.contrary = 0;
        self.signalled &= health != Health::Down;
    }

    fn early_timeout(&self) -> Duration {
        let patient = self.usual.map_or(self.policy.timeout, |usual| (usual * PATIENCE).max(EARLY_TIMEOUT));
        patient.min(self.policy.timeout)
    }

    /// Seven to nine eighths of the interval, so that servers which were probed together do not stay together.
    fn jittered_interval(&mut self) -> Duration {
        let eighth = self.policy.interval / 8;
        eighth * 7 + (eighth * 2).mul_f64(self.random_share())
    }

    /// From 0 to 1, by SplitMix64 (Steele, Lea, Flood 2014).
    fn random_share(&mut self) -> f64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = ((mixed ^ (mixed >> 31)) >> 32) as u32;
        f64::from(high) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
