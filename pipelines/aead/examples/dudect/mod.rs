//! What looking for a dependence of time on secrets takes, as dudect does (Reparaz, Balasch and Verbauwhede, 2017): two classes of input
//! that differ in their secrets alone, and Welch's t-test between the times of both.
//!
//! Below 4.5 there is no evidence of a leak; above 10 there surely is one. Times above a percentile are cropped, at several
//! percentiles, because a machine's noise is all at the top; the largest t counts.

/// The classes: all secrets fixed, or random.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Fixed,
    Random,
}

impl Class {
    /// One of them.
    pub fn choose(random: &mut Random) -> Self {
        if random.next() & 1 == 0 { Self::Fixed } else { Self::Random }
    }

    /// Fills a secret. Both classes write the same bytes at the same places, and draw as many random numbers.
    pub fn fill(self, bytes: &mut [u8], random: &mut Random) {
        random.fill(bytes);
        let mask = if self == Self::Fixed { 0 } else { 0xff };
        bytes.iter_mut().for_each(|byte| *byte &= mask);
    }
}

/// A small generator with good enough statistics (splitmix64), so that a run can be repeated.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// The largest |t| over the croppings.
pub fn largest_t(times: &mut [(Class, f64)]) -> f64 {
    times.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    [50, 70, 80, 90, 95].into_iter().map(|percent| welch_t(&times[..times.len() * percent / 100])).fold(0.0, f64::max)
}

/// Welch's t statistic between the classes, without its sign.
fn welch_t(times: &[(Class, f64)]) -> f64 {
    let moments = |class: Class| {
        let of_class = || times.iter().filter(|(of, _)| *of == class).map(|(_, time)| time);
        let count = of_class().count() as f64;
        let mean = of_class().sum::<f64>() / count;
        let variance = of_class().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((fixed, fixed_error), (random, random_error)) = (moments(Class::Fixed), moments(Class::Random));
    ((fixed - random) / (fixed_error + random_error).sqrt()).abs()
}
