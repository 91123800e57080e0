//! The Internet checksum: RFC 1071, its incremental update (RFC 1624) and the pseudo-headers of IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Protocol;

/// A ones' complement sum under way.
///
/// The words are summed in the machine's byte order, which only turns the bytes of the result (RFC 1071 section 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds bytes that begin at an even offset of what is summed. Only the last piece may be of odd length.
    #[inline]
    #[must_use]
    pub fn bytes(self, data: &[u8]) -> Self {
        // 32-bit words into 64-bit lanes cannot overflow before 16 GiB, and compilers make vector code of it.
        let (words, rest) = data.as_chunks::<4>();
        let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        Self(fold_once(self.0) + fold_once(sum) + u64::from(u32::from_ne_bytes(last)))
    }

    /// Adds a 16-bit word.
    #[inline]
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        Self(fold_once(self.0) + u64::from(word.to_be()))
    }

    /// Adds another sum, over bytes that begin at an even offset too.
    #[inline]
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(fold_once(self.0) + fold_once(other.0))
    }

    /// The sum folded to 16 bits, not complemented: what a NIC wants in the field that it is to complete.
    #[inline]
    pub fn folded(self) -> u16 {
        let sum = fold_once(self.0);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the sum.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// The checksum as UDP writes it: zero would mean "none", so it is sent as all ones (RFC 768).
    #[inline]
    pub fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }

    /// Whether a sum over data that holds its own checksum is right.
    #[inline]
    pub fn is_right(self) -> bool {
        // Folding keeps the sum modulo 65,535, and makes zero of nothing but zero.
        self.0 != 0 && self.0.is_multiple_of(0xffff)
    }
}

/// Folds 64 bits into 33, so that a sum never overflows.
#[inline]
const fn fold_once(sum: u64) -> u64 {
    (sum >> 32) + (sum & 0xffff_ffff)
}

/// The checksum of `data`.
#[inline]
pub fn checksum(data: &[u8]) -> u16 {
    Sum::ZERO.bytes(data).checksum()
}

/// The sum of the pseudo-header over IPv4 (RFC 768, RFC 9293 section 3.1); `length` is of the transport's header and data.
#[inline]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: Protocol, length: u16) -> Sum {
    Sum::ZERO.bytes(&source.octets()).bytes(&destination.octets()).word(u16::from(protocol.0)).word(length)
}

/// The sum of the pseudo-header over IPv6 (RFC 8200 section 8.1); `length` is of the transport's header and data.
#[inline]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: Protocol, length: u32) -> Sum {
    let sum = Sum::ZERO.bytes(&source.octets()).bytes(&destination.octets());
    sum.word(u16::from(protocol.0)).bytes(&length.to_be_bytes())
}

/// The sum of the pseudo-header over the family of `destination`; of mixed families, the sum of both addresses.
#[inline]
pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: Protocol, length: u32) -> Sum {
    let add = |sum: Sum, address| match address {
        IpAddr::V4(address) => sum.bytes(&Ipv4Addr::octets(&address)),
        IpAddr::V6(address) => sum.bytes(&Ipv6Addr::octets(&address)),
    };
    // Over IPv4 the length has 16 bits; the zero bits above do not change the sum.
    add(add(Sum::ZERO, source), destination).word(u16::from(protocol.0)).bytes(&length.to_be_bytes())
}

/// The checksum after one of the words under it changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum >> 16) + (sum & 0xffff)) as u16
}

/// The checksum after `difference` was added to the sum under it.
#[inline]
#[must_use]
pub const fn add(checksum: u16, difference: u16) -> u16 {
    let sum = !checksum as u32 + difference as u32;
    !((sum >> 16) + (sum & 0xffff)) as u16
}

/// The checksum after bytes at an even offset changed from `old` to `new`, of one even length (RFC 1624).
#[inline]
#[must_use]
pub fn update_bytes(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    // Subtracting a sum is adding its complement.
    let difference = Sum::ZERO.word(!checksum).word(!Sum::ZERO.bytes(old).folded()).bytes(new);
    difference.checksum()
}
