//! Explicit congestion notification through a tunnel (RFC 6040).

/// The ECN field of an IP header (RFC 3168 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Ecn {
    /// The transport does not know ECN.
    NotEct = 0b00,
    /// The transport knows ECN, codepoint 1.
    Ect1 = 0b01,
    /// The transport knows ECN, codepoint 0.
    Ect0 = 0b10,
    /// A router on the way was congested.
    Ce = 0b11,
}

impl Ecn {
    /// The field in a traffic class.
    #[inline]
    pub const fn of(traffic_class: u8) -> Self {
        match traffic_class & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// Whether the outer header shows what class of traffic is inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dscp {
    /// No: it is zero.
    #[default]
    Hide,
    /// Yes: it is that of the inner header.
    Copy,
}

/// The outer traffic class for an inner one: the ECN field is copied (RFC 6040 section 4.1, normal mode).
#[inline]
pub const fn encapsulate(inner_traffic_class: u8, dscp: Dscp) -> u8 {
    match dscp {
        Dscp::Hide => inner_traffic_class & 0b11,
        Dscp::Copy => inner_traffic_class,
    }
}

/// The packet has to be dropped: a router said "congested" of a packet whose transport would not understand it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an outer header marked congested on an inner packet without ECN")]
pub struct Inconsistent;

/// The ECN field of the packet that leaves the tunnel (RFC 6040 section 4.2, figure 4).
#[inline]
pub const fn decapsulate(inner: Ecn, outer: Ecn) -> Result<Ecn, Inconsistent> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::NotEct | Ecn::Ect0 | Ecn::Ect1) => Ok(Ecn::NotEct),
        (Ecn::NotEct, Ecn::Ce) => Err(Inconsistent),
        (Ecn::Ect0, Ecn::NotEct | Ecn::Ect0) => Ok(Ecn::Ect0),
        (Ecn::Ect0, Ecn::Ect1) => Ok(Ecn::Ect1),
        (Ecn::Ect1, Ecn::NotEct | Ecn::Ect0 | Ecn::Ect1) => Ok(Ecn::Ect1),
        (Ecn::Ect0 | Ecn::Ect1, Ecn::Ce) => Ok(Ecn::Ce),
        (Ecn::Ce, Ecn::NotEct | Ecn::Ect0 | Ecn::Ect1 | Ecn::Ce) => Ok(Ecn::Ce),
    }
}
