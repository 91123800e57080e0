//! From whom the node takes packets that are inside others.

use ipnet::IpNet;

/// What a packet is put into on its way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encapsulation {
    /// Another IP packet (RFC 2003, RFC 2473, RFC 4213).
    Ipip,
    /// GRE (RFC 2784).
    Gre,
    /// UDP to port 6080 (draft-ietf-intarea-gue).
    Gue,
}

impl Encapsulation {
    /// The UDP port of GUE (the IANA registry "Service Name and Transport Protocol Port Number").
    pub const GUE_PORT: u16 = 6080;

    /// Its word in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gre => "gre",
            Self::Gue => "gue",
        }
    }
}

/// Packets that dispatchers put into others are taken out of them: those that come from one of these networks, in one of
/// these ways. Whoever can send from there can send from any address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decapsulate {
    /// The dispatchers' addresses, by which they send to this node. At least one network; none is everybody.
    pub from: Vec<IpNet>,
    /// At least one.
    pub kinds: Vec<Encapsulation>,
}
