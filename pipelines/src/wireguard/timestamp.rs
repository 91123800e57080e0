//! TAI64N timestamps, by which a responder knows a replayed initiation.

use std::time::Duration;

/// The wall clock: time since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct WallClock(pub Duration);

impl WallClock {
    /// Nanoseconds since 1970, up to the year 2554.
    pub fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Seconds of TAI64's label of 1970-01-01 00:00:00 UTC, ten of them leap seconds.
const EPOCH: u64 = (1 << 62) + 10;
/// The clock is shown in steps of 2^24 ns (16.8 ms), so that initiations do not tell exact times; two initiations
/// that a peer accepts are at least 20 ms apart.
const STEP: u32 = 1 << 24;
const SECOND: u32 = 1_000_000_000;

/// A timestamp as it goes into an initiation: 8 bytes of seconds and 4 of nanoseconds, big-endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Tai64n([u8; 12]);

impl Tai64n {
    /// The timestamp of `wall`, rounded down to the step.
    pub fn of(wall: WallClock) -> Self {
        Self::from_parts(EPOCH.wrapping_add(wall.0.as_secs()), wall.0.subsec_nanos() & !(STEP - 1))
    }

    /// The timestamp of `wall`, or the first one after `last` if the clock has not gone on since.
    ///
    /// So initiations are accepted even after the wall clock was set back.
    pub fn following(last: Self, wall: WallClock) -> Self {
        Self::of(wall).max(last.next())
    }

    /// A received timestamp.
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// The bytes as they are sent.
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    fn next(self) -> Self {
        let [a, b, c, d, e, f, g, h, nanos @ ..] = self.0;
        let seconds = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let nanos = u32::from_be_bytes(nanos).saturating_add(STEP);
        if nanos >= SECOND { Self::from_parts(seconds.wrapping_add(1), 0) } else { Self::from_parts(seconds, nanos) }
    }

    fn from_parts(seconds: u64, nanos: u32) -> Self {
        let mut bytes = [0; 12];
        let (high, low) = bytes.split_at_mut(8);
        high.copy_from_slice(&seconds.to_be_bytes());
        low.copy_from_slice(&nanos.to_be_bytes());
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanos: u32) -> WallClock {
        WallClock(Duration::new(seconds, nanos))
    }

    #[test]
    fn the_label_is_that_of_tai64n_with_its_nanoseconds_in_steps() {
        let bytes = hex::encode(Tai64n::of(at(1_600_000_000, 0x1234_5678)).as_bytes());
        assert_eq!(bytes, "400000005f5e100a12000000");
    }

    #[test]
    fn timestamps_order_as_their_times() {
        let stamps = [at(0, 0), at(0, STEP), at(0, 999_999_999), at(1, 0), at(1 << 40, 5)].map(Tai64n::of);
        assert!(stamps.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn timestamps_go_on_although_the_clock_was_set_back() {
        let mut last = Tai64n::of(at(1_000, 0));
        for _ in 0..200 {
            let next = Tai64n::following(last, at(500, 0));
            assert!(next > last);
            last = next;
        }
        assert!(last < Tai64n::of(at(1_005, 0)));
        assert_eq!(Tai64n::following(last, at(2_000, 0)), Tai64n::of(at(2_000, 0)));
    }
}
