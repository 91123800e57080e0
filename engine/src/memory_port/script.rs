//! What happens to the frames on a wire of plain memory.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// What happens to one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fate {
    /// How often it arrives: 0 if it is lost, 2 if it is doubled.
    pub copies: u8,
    /// How long it is under way.
    pub delay: Duration,
    /// How many later frames overtake it, as far as they are received in the same moment of virtual time and are
    /// on the wire by then. (Different delays reorder frames as well.)
    pub overtaken_by: u32,
}

impl Fate {
    /// It arrives once, at once and in order.
    pub const DELIVERED: Self = Self { copies: 1, delay: Duration::ZERO, overtaken_by: 0 };
    /// It never arrives.
    pub const LOST: Self = Self { copies: 0, ..Self::DELIVERED };
}

/// Decides over each frame of one direction.
pub trait Script: Send {
    /// The fate of `frame`, the `sequence`th (from 0) that the wire took.
    fn fate(&mut self, frame: &[u8], sequence: u64) -> Fate;
}

impl<F: FnMut(&[u8], u64) -> Fate + Send> Script for F {
    fn fate(&mut self, frame: &[u8], sequence: u64) -> Fate {
        self(frame, sequence)
    }
}

/// How likely a frame meets what. Probabilities are from 0.0 to 1.0.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Chance {
    /// That it is lost.
    pub loss: f64,
    /// That it arrives twice.
    pub doubling: f64,
    /// That up to [`Chance::reorder_span`] later frames overtake it.
    pub reorder: f64,
    /// How many frames overtake at most.
    pub reorder_span: u32,
    /// How long every frame is under way.
    pub delay: Duration,
    /// By how much more at most, evenly spread.
    pub jitter: Duration,
}

/// Chance from a seed: the same seed gives the same fates to the same number of frames.
#[derive(Debug)]
pub struct SeededScript {
    chance: Chance,
    random: SmallRng,
}

impl SeededScript {
    /// A script of `chance` under `seed`; print the seed where a test fails.
    pub fn new(seed: u64, chance: Chance) -> Self {
        Self { chance, random: SmallRng::seed_from_u64(seed) }
    }

    fn happens(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability.clamp(0.0, 1.0))
    }
}

impl Script for SeededScript {
    fn fate(&mut self, _frame: &[u8], _sequence: u64) -> Fate {
        let chance = self.chance;
        // Every draw is made for every frame, so that changing one probability does not shift the others' fates.
        let (lost, doubled, late) =
            (self.happens(chance.loss), self.happens(chance.doubling), self.happens(chance.reorder));
        let overtaken_by = self.random.random_range(0..=chance.reorder_span);
        let jitter = chance.jitter.mul_f64(self.random.random::<f64>());
        Fate {
            copies: if lost { 0 } else { 1 + u8::from(doubled) },
            delay: chance.delay + jitter,
            overtaken_by: if late { overtaken_by } else { 0 },
        }
    }
}
