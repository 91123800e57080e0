//! Which datagram a fragment belongs to, and which part of it it is (RFC 791 section 3.2, RFC 8200 section 4.5).

use std::net::IpAddr;

use super::{Fragment, Parsed, Protocol, bytes_at, ipv6};

/// What a fragment says of its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentHeader {
    /// Which datagram it belongs to.
    pub datagram: Datagram,
    /// The datagram's number among those of its ends.
    pub identification: u32,
    /// The first byte of the datagram's payload that it holds.
    pub start: u32,
    /// The byte behind the last.
    pub end: u32,
}

/// The ends of a datagram, and what it carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Datagram {
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// What it carries. IPv6 knows it of the first fragment only, so there it is that of the fragment header.
    pub protocol: Protocol,
    /// Its number among those of its ends.
    pub identification: u32,
}

impl FragmentHeader {
    /// Reads the header of the fragment that was parsed; `None` if it is none, or is cut.
    pub fn of(packet: &[u8], parsed: &Parsed) -> Option<Self> {
        if parsed.fragment == Fragment::No {
            return None;
        }
        let (identification, units, begin, protocol) = match parsed.source {
            IpAddr::V4(_) => {
                let [i0, i1, f0, f1] = *bytes_at::<4>(packet, 4)?;
                let units = u16::from_be_bytes([f0, f1]) & 0x1fff;
                (u32::from(u16::from_be_bytes([i0, i1])), units, u32::from(parsed.l4_offset), parsed.protocol)
            }
            IpAddr::V6(_) => {
                let (offset, [next, _, f0, f1, i0, i1, i2, i3]) = ipv6::fragment_header(packet)?;
                let units = u16::from_be_bytes([f0, f1]) >> 3;
                let begin = offset as u32 + ipv6::FRAGMENT_HEADER_LENGTH as u32;
                (u32::from_be_bytes([i0, i1, i2, i3]), units, begin, Protocol(next))
            }
        };
        let start = u32::from(units) * 8;
        let end = start + parsed.total_length.checked_sub(begin)?;
        let Parsed { source, destination, .. } = *parsed;
        let datagram = Datagram { source, destination, protocol, identification };
        Some(Self { datagram, identification, start, end })
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
        assert_eq!((header.identification, header.start, header.end), (0x1234, 16, 32));
        assert_eq!(header.datagram.protocol, Protocol::UDP);
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
        assert_eq!((header.identification, header.start, header.end), (7, 64, 88));
    }
}
