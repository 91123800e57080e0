//! The bytes of a datagram that came, by fragments.

use super::Refusal;

/// Most fragments of a datagram: the largest in pieces for the smallest receiver of IPv4 (65,535 bytes, 552 a fragment,
/// RFC 791 section 3.1) are 119.
pub const MAX_FRAGMENTS: usize = 128;

/// Bytes of the largest datagram: offset and length have to stay below.
const MAX_DATAGRAM: u32 = 65_535;

/// Whether fragments follow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rest {
    /// There is more behind this one.
    Follows,
    /// This is the last by position.
    Ends,
}

/// The bytes of a datagram's payload that a fragment has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FragmentRange {
    start: u16,
    /// Exclusive.
    end: u16,
    rest: Rest,
}

impl FragmentRange {
    /// The range of a fragment of `length` bytes at byte `offset`. `None` if no sender may make it (RFC 791 section 3.1,
    /// RFC 8200 section 4.5): it is empty, reaches beyond 65,535 bytes, or is not a multiple of 8 and not the last.
    pub fn new(offset: u32, length: u32, rest: Rest) -> Option<Self> {
        let end = offset.checked_add(length).filter(|end| *end <= MAX_DATAGRAM)?;
        let fits = offset.is_multiple_of(8) && length > 0 && (rest == Rest::Ends || length.is_multiple_of(8));
        fits.then_some(Self { start: offset as u16, end: end as u16, rest })
    }

    /// Its first byte's place.
    pub const fn start(self) -> u32 {
        self.start as u32
    }

    /// The place behind its last byte.
    pub const fn end(self) -> u32 {
        self.end as u32
    }
}

/// What a fragment is to those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    New,
    Copy,
    Refused(Refusal),
}

/// The fragments of one datagram that came, in the order of their bytes. None overlap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    ranges: [(u16, u16); MAX_FRAGMENTS],
    count: u8,
    /// Bytes of all of them.
    bytes: u16,
    /// Where the datagram ends, once its last fragment came.
    end: Option<u16>,
}

impl Received {
    pub(super) const fn new() -> Self {
        Self { ranges: [(0, 0); MAX_FRAGMENTS], count: 0, bytes: 0, end: None }
    }

    /// Takes note of a fragment, if it fits those that came.
    pub(super) fn arrive(&mut self, range: FragmentRange) -> Arrival {
        let FragmentRange { start, end, rest } = range;
        let count = usize::from(self.count);
        let ranges = self.ranges.get(..count).unwrap_or_default();
        let at = ranges.partition_point(|(other, _)| *other < start);
        let before = at.checked_sub(1).and_then(|before| ranges.get(before));
        let after = ranges.get(at);
        if after == Some(&(start, end)) {
            // A copy says the same of what follows, or one of the two lies.
            let says_the_same = (rest == Rest::Ends) == (self.end == Some(end));
            return if says_the_same { Arrival::Copy } else { Arrival::Refused(Refusal::Overlap) };
        }
        let overlaps = before.is_some_and(|(_, other)| *other > start) || after.is_some_and(|(other, _)| *other < end);
        let beyond_the_end = match (self.end, rest) {
            (Some(known), Rest::Follows) => end >= known,
            (Some(_), Rest::Ends) => true,
            (None, Rest::Follows) => false,
            (None, Rest::Ends) => ranges.last().is_some_and(|(_, other)| *other > end),
        };
        if overlaps || beyond_the_end {
            return Arrival::Refused(Refusal::Overlap);
        }
        if count == MAX_FRAGMENTS {
            return Arrival::Refused(Refusal::TooMany);
        }
        // `at <= count < MAX_FRAGMENTS`.
        self.ranges.copy_within(at..count, at + 1);
        self.ranges[at] = (start, end);
        self.count += 1;
        self.bytes += end - start;
        if rest == Rest::Ends {
            self.end = Some(end);
        }
        Arrival::New
    }

    /// Whether all bytes came.
    pub(super) fn is_complete(&self) -> bool {
        self.end == Some(self.bytes)
    }
}
