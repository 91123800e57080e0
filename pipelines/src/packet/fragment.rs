//! Which datagram a fragment belongs to, and which part of it it is (RFC 791 section 3.2, RFC 8200 section 4.5).

use std::net::IpAddr;

use super::{Fragment, Parsed, Protocol, bytes_at, ipv6};

/// What a fragment says of its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentHeader {
    /// What the datagram carries; of IPv6 what the fragment header names, which may be another extension header.
    pub protocol: Protocol,
    /// The datagram's number among those of its ends.
    pub identification: u32,
    /// Where in the datagram's payload the fragment begins, in bytes.
    pub offset: u32,
    /// Bytes of the payload that it holds.
    pub length: u32,
    /// Whether it is not the last by position.
    pub more_follow: bool,
}

impl FragmentHeader {
    /// Reads the header of the fragment that was parsed; `None` if it is none, or is cut.
    pub fn of(packet: &[u8], parsed: &Parsed) -> Option<Self> {
        if parsed.fragment == Fragment::No {
            return None;
        }
        let (identification, units, more_follow, begin, protocol) = match parsed.source {
            IpAddr::V4(_) => {
                let [i0, i1, f0, f1] = *bytes_at::<4>(packet, 4)?;
                let field = u16::from_be_bytes([f0, f1]);
                let identification = u32::from(u16::from_be_bytes([i0, i1]));
                (identification, field & 0x1fff, field & 0x2000 != 0, u32::from(parsed.l4_offset), parsed.protocol)
            }
            IpAddr::V6(_) => {
                let (offset, [next, _, f0, f1, i0, i1, i2, i3]) = ipv6::fragment_header(packet)?;
                let field = u16::from_be_bytes([f0, f1]);
                let begin = offset as u32 + ipv6::FRAGMENT_HEADER_LENGTH as u32;
                (u32::from_be_bytes([i0, i1, i2, i3]), field >> 3, field & 1 != 0, begin, Protocol(next))
            }
        };
        let length = parsed.total_length.checked_sub(begin)?;
        Some(Self { protocol, identification, offset: u32::from(units) * 8, length, more_follow })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_of_ipv4_names_its_datagram_and_its_bytes() {
        let mut packet = [0; 36];
        packet[..20]
            .copy_from_slice(&[0x45, 0, 0, 36, 0x12, 0x34, 0x20, 0x02, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1]);
        let parsed = Parsed::from_ip(&packet).unwrap();
        let header = FragmentHeader::of(&packet, &parsed).unwrap();
        assert_eq!((header.identification, header.offset, header.length), (0x1234, 16, 16));
        assert_eq!((header.protocol, header.more_follow), (Protocol::UDP, true));
        packet[6..8].fill(0);
        let whole = Parsed::from_ip(&packet).unwrap();
        assert_eq!(FragmentHeader::of(&packet, &whole), None);
    }

    #[test]
    fn a_fragment_of_ipv6_counts_from_behind_its_fragment_header() {
        let mut packet = [0; 40 + 8 + 8 + 24];
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 40, 0, 64]);
        // Hop-by-hop options of eight bytes, then the fragment header: offset 8 units, more to come, number 7.
        packet[40..48].copy_from_slice(&[44, 0, 1, 4, 0, 0, 0, 0]);
        packet[48..56].copy_from_slice(&[17, 0, 0, 0x41, 0, 0, 0, 7]);
        let parsed = Parsed::from_ip(&packet).unwrap();
        assert_eq!(parsed.fragment, Fragment::Later);
        let header = FragmentHeader::of(&packet, &parsed).unwrap();
        assert_eq!((header.identification, header.offset, header.length), (7, 64, 24));
    }
}
