//! The ICMP header for IPv4 (RFC 792).

use super::bytes_at;

/// Bytes of the header, with the word whose meaning depends on the type.
pub const HEADER_LENGTH: usize = 8;

/// A message's type (the IANA registry "ICMP Type Numbers").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Kind(pub u8);

impl Kind {
    /// Answers [`Kind::ECHO`].
    pub const ECHO_REPLY: Self = Self(0);
    /// A packet could not be delivered.
    pub const UNREACHABLE: Self = Self(3);
    /// Deprecated (RFC 6633).
    pub const SOURCE_QUENCH: Self = Self(4);
    /// There is a better first hop.
    pub const REDIRECT: Self = Self(5);
    /// Asks for an echo.
    pub const ECHO: Self = Self(8);
    /// A packet's hops, or the time for its reassembly, ran out.
    pub const TIME_EXCEEDED: Self = Self(11);
    /// A packet's header made no sense.
    pub const PARAMETER_PROBLEM: Self = Self(12);

    /// Whether such a message tells of another packet: it is never answered by an error, and quotes that packet.
    #[inline]
    pub fn is_error(self) -> bool {
        matches!(
            self,
            Self::UNREACHABLE | Self::SOURCE_QUENCH | Self::REDIRECT | Self::TIME_EXCEEDED | Self::PARAMETER_PROBLEM
        )
    }
}

/// The code of [`Kind::UNREACHABLE`] that says: it needs fragmentation and forbids it.
pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;

/// What an ICMP header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Icmp {
    /// The type.
    pub kind: Kind,
    /// The code, whose meaning depends on the type.
    pub code: u8,
    /// The word whose meaning depends on the type.
    pub rest: [u8; 4],
}

impl Icmp {
    /// Parses the header at the front of a message; `None` if it is truncated.
    #[inline]
    pub fn parse(l4: &[u8]) -> Option<Self> {
        let [kind, code, _, _, rest @ ..] = *bytes_at::<HEADER_LENGTH>(l4, 0)?;
        Some(Self { kind: Kind(kind), code, rest })
    }

    /// The beginning of the packet that an error tells of.
    pub fn embedded<'a>(&self, l4: &'a [u8]) -> Option<&'a [u8]> {
        if self.kind.is_error() { l4.get(HEADER_LENGTH..) } else { None }
    }

    /// The MTU of the next hop in "fragmentation needed" (RFC 1191); 0 from routers that do not tell.
    pub fn next_hop_mtu(&self) -> Option<u16> {
        let [_, _, m0, m1] = self.rest;
        (self.kind == Kind::UNREACHABLE && self.code == CODE_FRAGMENTATION_NEEDED).then(|| u16::from_be_bytes([m0, m1]))
    }
}
