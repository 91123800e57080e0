//! The ICMPv6 header (RFC 4443).

use super::bytes_at;

/// Bytes of the header, with the word whose meaning depends on the type.
pub const HEADER_LENGTH: usize = 8;

/// A message's type (the IANA registry "ICMPv6 type Numbers").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Kind(pub u8);

impl Kind {
    /// A packet could not be delivered.
    pub const UNREACHABLE: Self = Self(1);
    /// A packet exceeds the next link's MTU.
    pub const PACKET_TOO_BIG: Self = Self(2);
    /// A packet's hops, or the time for its reassembly, ran out.
    pub const TIME_EXCEEDED: Self = Self(3);
    /// A packet's header made no sense.
    pub const PARAMETER_PROBLEM: Self = Self(4);
    /// Asks for an echo.
    pub const ECHO: Self = Self(128);
    /// Answers [`Kind::ECHO`].
    pub const ECHO_REPLY: Self = Self(129);
    /// Asks for a router (RFC 4861).
    pub const ROUTER_SOLICITATION: Self = Self(133);
    /// A router tells of itself (RFC 4861).
    pub const ROUTER_ADVERTISEMENT: Self = Self(134);
    /// Asks who has an address (RFC 4861).
    pub const NEIGHBOUR_SOLICITATION: Self = Self(135);
    /// Tells who has an address (RFC 4861).
    pub const NEIGHBOUR_ADVERTISEMENT: Self = Self(136);
    /// There is a better first hop (RFC 4861).
    pub const REDIRECT: Self = Self(137);

    /// Whether such a message is an error, known or not: it quotes another packet.
    #[inline]
    pub const fn is_error(self) -> bool {
        self.0 < 128
    }

    /// Whether such a message belongs to neighbour discovery, which never leaves its link.
    #[inline]
    pub fn is_neighbour_discovery(self) -> bool {
        (Self::ROUTER_SOLICITATION.0..=Self::REDIRECT.0).contains(&self.0)
    }
}

/// What an ICMPv6 header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Icmpv6 {
    /// The type.
    pub kind: Kind,
    /// The code, whose meaning depends on the type.
    pub code: u8,
    /// The word whose meaning depends on the type.
    pub rest: [u8; 4],
}

impl Icmpv6 {
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

    /// The MTU of the next hop in "packet too big".
    pub fn next_hop_mtu(&self) -> Option<u32> {
        (self.kind == Kind::PACKET_TOO_BIG).then(|| u32::from_be_bytes(self.rest))
    }
}
