//! Lowers the maximum segment size that TCP peers announce to what fits the way between them.

use super::checksum;
use super::tcp::{self, Flags, Tcp};
use super::{Fragment, Parsed, Protocol, bytes_at_mut, ipv4, ipv6};

/// The largest segments that fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MssLimit {
    /// Over IPv4.
    pub v4: u16,
    /// Over IPv6.
    pub v6: u16,
}

impl MssLimit {
    /// What fits packets of `mtu` bytes without IP or TCP options (RFC 6691).
    pub const fn for_mtu(mtu: u16) -> Self {
        Self {
            v4: mtu.saturating_sub((ipv4::HEADER_LENGTH + tcp::HEADER_LENGTH) as u16),
            v6: mtu.saturating_sub((ipv6::HEADER_LENGTH + tcp::HEADER_LENGTH) as u16),
        }
    }
}

/// What [`clamp_mss`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clamped {
    /// Nothing: the packet opens no TCP connection, or its header is malformed.
    NotSyn,
    /// Nothing: it announces no size. Peers then assume 536 or 1,220 bytes, which fit (RFC 9293 section 3.7.1).
    NoOption,
    /// Nothing: what it announces fits.
    Fits,
    /// The size was lowered.
    Lowered {
        /// What was announced.
        from: u16,
    },
}

/// Lowers the maximum segment size in a SYN or SYN-ACK and corrects its checksum; it never raises one.
#[inline]
pub fn clamp_mss(packet: &mut [u8], parsed: &Parsed, limit: MssLimit) -> Clamped {
    if parsed.protocol != Protocol::TCP || parsed.fragment == Fragment::Later {
        return Clamped::NotSyn;
    }
    let limit = if parsed.is_ipv4() { limit.v4 } else { limit.v6 };
    clamp_segment(parsed.l4_mut(packet), limit)
}

fn clamp_segment(segment: &mut [u8], limit: u16) -> Clamped {
    let Some(header) = Tcp::parse(segment) else { return Clamped::NotSyn };
    if !header.flags.contains(Flags::SYN) || header.flags.contains(Flags::RST) {
        return Clamped::NotSyn;
    }
    let Some(offset) = header.mss_offset(segment) else { return Clamped::NoOption };
    let Some(value) = bytes_at_mut(segment, offset) else { return Clamped::NoOption };
    let old = u16::from_be_bytes(*value);
    if old <= limit {
        return Clamped::Fits;
    }
    *value = limit.to_be_bytes();
    if let Some(field) = bytes_at_mut(segment, tcp::CHECKSUM_OFFSET) {
        // Behind an odd number of one-byte options the value straddles two of the checksum's words: its bytes then
        // weigh the other way round.
        let (from, to) = if offset % 2 == 0 { (old, limit) } else { (old.swap_bytes(), limit.swap_bytes()) };
        *field = checksum::update(u16::from_be_bytes(*field), from, to).to_be_bytes();
    }
    Clamped::Lowered { from: old }
}
