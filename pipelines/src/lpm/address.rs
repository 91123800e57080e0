//! The addresses a trie is keyed by, as the plain integers of their bits.

/// Bits that one node of a trie decides.
pub(super) const STRIDE: u8 = 6;

/// An address as an unsigned integer in host order.
///
/// Strides are counted from the address's end, so that the last of them is whole: host routes, the bulk of
/// every allowed-IP table, then fill whole nodes. The first stride decides the two bits that are left over.
pub(super) trait Address: Copy + Eq + std::fmt::Debug {
    /// The address's width in bits; two more than a multiple of [`STRIDE`].
    const BITS: u8;

    /// The stride that ends `shift` bits before the address's end, `0..64`.
    fn chunk(self, shift: u8) -> u8;

    /// How many leading bits `self` and `other` share.
    fn common(self, other: Self) -> u8;

    /// The address with all but its first `length` bits cleared.
    fn truncate(self, length: u8) -> Self;

    /// The address whose stride before the last `shift` bits is `chunk`, all else zero.
    fn from_chunk(chunk: u8, shift: u8) -> Self;

    /// The bits that are set in either.
    fn union(self, other: Self) -> Self;
}

macro_rules! address {
    ($integer:ty) => {
        impl Address for $integer {
            const BITS: u8 = <$integer>::BITS as u8;

            fn chunk(self, shift: u8) -> u8 {
                (self.wrapping_shr(u32::from(shift)) as u8) & 63
            }

            fn common(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }

            fn truncate(self, length: u8) -> Self {
                self & !<$integer>::MAX.checked_shr(u32::from(length)).unwrap_or(0)
            }

            fn from_chunk(chunk: u8, shift: u8) -> Self {
                <$integer>::from(chunk).wrapping_shl(u32::from(shift))
            }

            fn union(self, other: Self) -> Self {
                self | other
            }
        }
    };
}

address!(u32);
address!(u128);

/// A prefix: its first `length` bits count, the rest are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prefix<A> {
    pub(super) bits: A,
    pub(super) length: u8,
}

impl<A: Address> Prefix<A> {
    /// The prefix of `address` that is `length` bits long.
    pub(super) fn new(address: A, length: u8) -> Self {
        let length = length.min(A::BITS);
        Self { bits: address.truncate(length), length }
    }

    /// Whether `address` lies in the prefix.
    #[inline]
    pub(super) fn contains(&self, address: A) -> bool {
        self.bits.common(address) >= self.length
    }
}
