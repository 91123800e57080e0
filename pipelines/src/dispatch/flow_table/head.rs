//! The head of a bucket: who may be in it, and who expired, in one cache line.

use super::{Lifetime, Status, Tick, WAYS};

/// What one cache line says about a bucket's flows.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Head {
    /// Four tags a word, so that four are compared at once.
    tags: [u64; 2],
    /// The last tick of each flow's life, if it is not seen again.
    pub last: [Tick; WAYS],
    pub lifetimes: [Option<Lifetime>; WAYS],
}

impl Head {
    /// Of a bucket without flows.
    pub const VACANT: Self = Self { tags: [0; 2], last: [Tick(0); WAYS], lifetimes: [None; WAYS] };

    /// The ways with this tag, vacant and expired ones among them.
    #[inline]
    pub fn with_tag(&self, tag: u16) -> Ways {
        const LOW_15: u64 = 0x7fff_7fff_7fff_7fff;
        let searched = u64::from(tag) * 0x0001_0001_0001_0001;
        // The upper bit of each 16 that are equal, and no other.
        let equal = |tags: u64| {
            let difference = tags ^ searched;
            !(((difference & LOW_15) + LOW_15) | difference | LOW_15)
        };
        Ways(equal(self.tags[0]) >> 15 | equal(self.tags[1]) >> 14)
    }

    /// Whether there is a flow at `way`, and whether it is live; `None` if the place is vacant.
    #[inline]
    pub fn status(&self, way: usize, now: Tick) -> Option<Status> {
        let _occupied = self.lifetimes.get(way).copied()??;
        Some(if now.is_after(*self.last.get(way)?) { Status::Expired } else { Status::Live })
    }

    /// A bit for each way with a live flow.
    #[inline]
    pub fn live(&self, now: Tick) -> u32 {
        let mut live = 0;
        for (way, (lifetime, last)) in self.lifetimes.iter().zip(&self.last).enumerate() {
            live |= u32::from(lifetime.is_some() & !now.is_after(*last)) << way;
        }
        live
    }

    /// A bit for each way with a flow.
    #[inline]
    pub fn occupied(&self) -> u32 {
        let mut occupied = 0;
        for (way, lifetime) in self.lifetimes.iter().enumerate() {
            occupied |= u32::from(lifetime.is_some()) << way;
        }
        occupied
    }

    /// Writes down a flow at `way`.
    #[inline]
    pub fn occupy(&mut self, way: usize, tag: u16, lifetime: Lifetime, now: Tick) {
        let shift = way % 4 * 16;
        if let Some(tags) = self.tags.get_mut(way / 4) {
            *tags = *tags & !(0xffff << shift) | u64::from(tag) << shift;
        }
        self.touch(way, lifetime, now);
    }

    /// Lets a lifetime begin at `way`. A line that says so already is not written to.
    #[inline]
    pub fn touch(&mut self, way: usize, lifetime: Lifetime, now: Tick) {
        if let (Some(class), Some(last)) = (self.lifetimes.get_mut(way), self.last.get_mut(way)) {
            let until = now.plus(lifetime.ticks());
            if *last != until || *class != Some(lifetime) {
                *last = until;
                *class = Some(lifetime);
            }
        }
    }
}

/// Some of a bucket's ways: bit 16·n for way n, bit 16·n + 1 for way n + 4.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways(u64);

impl Iterator for Ways {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit / 16 + bit % 2 * 4)
    }
}
