//! The TCP header (RFC 9293) as far as a router looks at it: ports, flags and the maximum segment size.

use super::bytes_at;

/// Bytes of a header without options.
pub const HEADER_LENGTH: usize = 20;

/// Where the checksum stands in the header.
pub(crate) const CHECKSUM_OFFSET: usize = 16;

/// The flags of a segment, as they stand on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Opens a connection.
    pub const SYN: Self = Self(0x02);
    /// Breaks a connection.
    pub const RST: Self = Self(0x04);
    /// The acknowledgement counts.
    pub const ACK: Self = Self(0x10);

    /// Whether the segment asks for a connection.
    #[inline]
    pub const fn opens(self) -> bool {
        self.contains(Self::SYN) && !self.contains(Self::ACK)
    }

    /// Whether all flags of `other` are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a TCP header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tcp {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// The number of the first byte.
    pub sequence: u32,
    /// The number of the next byte that the sender expects.
    pub acknowledgement: u32,
    /// The flags.
    pub flags: Flags,
    /// Bytes of the header with its options, `20..=60`.
    pub header_length: u8,
}

/// A header without options, to be written. Its checksum is [`set_checksum`]'s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// The number of the first byte.
    pub sequence: u32,
    /// The number of the next byte that the sender expects.
    pub acknowledgement: u32,
    /// The flags.
    pub flags: Flags,
}

impl Header {
    /// Writes the header, with a window of nothing and a checksum of zero.
    pub fn write(&self, header: &mut [u8; HEADER_LENGTH]) {
        let ([s0, s1], [d0, d1]) = (self.source_port.to_be_bytes(), self.destination_port.to_be_bytes());
        let [n0, n1, n2, n3] = self.sequence.to_be_bytes();
        let [a0, a1, a2, a3] = self.acknowledgement.to_be_bytes();
        let words = (HEADER_LENGTH / 4) as u8;
        *header = [s0, s1, d0, d1, n0, n1, n2, n3, a0, a1, a2, a3, words << 4, self.flags.0, 0, 0, 0, 0, 0, 0];
    }
}

/// Writes the checksum into the header at the front of a segment; no effect on a truncated one.
pub fn set_checksum(segment: &mut [u8], checksum: u16) {
    if let Some(field) = super::bytes_at_mut(segment, CHECKSUM_OFFSET) {
        *field = checksum.to_be_bytes();
    }
}

impl Tcp {
    /// Parses the header at the front of a segment; `None` if it is truncated or its length is impossible.
    #[inline]
    pub fn parse(l4: &[u8]) -> Option<Self> {
        let [s0, s1, d0, d1, n0, n1, n2, n3, a0, a1, a2, a3, offset, flags, ..] = *bytes_at::<HEADER_LENGTH>(l4, 0)?;
        let header_length = (offset >> 4) * 4;
        if usize::from(header_length) < HEADER_LENGTH || usize::from(header_length) > l4.len() {
            return None;
        }
        Some(Self {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            sequence: u32::from_be_bytes([n0, n1, n2, n3]),
            acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
            flags: Flags(flags),
            header_length,
        })
    }

    /// Where the value of the maximum segment size stands in the segment that was parsed; `None` if it has no such
    /// option or options that contradict themselves.
    pub fn mss_offset(&self, l4: &[u8]) -> Option<usize> {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        const MAXIMUM_SEGMENT_SIZE: u8 = 2;
        let header = l4.get(..usize::from(self.header_length))?;
        let mut at = HEADER_LENGTH;
        // At most 40 bytes of options, each turn takes one or more.
        while let Some(kind) = header.get(at) {
            match *kind {
                END => return None,
                NO_OPERATION => at += 1,
                kind => {
                    let length = usize::from(*header.get(at + 1)?);
                    if length < 2 || at + length > header.len() {
                        return None;
                    }
                    if kind == MAXIMUM_SEGMENT_SIZE {
                        return (length == 4).then_some(at + 2);
                    }
                    at += length;
                }
            }
        }
        None
    }
}
