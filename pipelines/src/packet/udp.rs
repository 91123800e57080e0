//! The UDP header (RFC 768).

use std::net::IpAddr;

use crate::drop_reason::DropReason;

use super::checksum::{self, Sum};
use super::{Parsed, Protocol, bytes_at};

/// Bytes of the header.
pub const HEADER_LENGTH: usize = 8;

/// Where the checksum stands in the header.
pub(crate) const CHECKSUM_OFFSET: usize = 6;

/// Why bytes are no UDP datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UdpError {
    /// Malformed: it ends within its header.
    #[error("the datagram ends within its UDP header")]
    Truncated,
    /// Malformed: its length is less than the header's or more than the IP packet holds.
    #[error("the length in the UDP header is impossible")]
    Length,
    /// Malformed: its checksum is wrong, or lacks where IPv6 demands one.
    #[error("the UDP checksum is wrong")]
    Checksum,
}

impl From<UdpError> for DropReason {
    fn from(error: UdpError) -> Self {
        match error {
            UdpError::Truncated | UdpError::Length => Self::UdpMalformed,
            UdpError::Checksum => Self::UdpBadChecksum,
        }
    }
}

/// What a UDP header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Udp {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Bytes of header and payload.
    pub length: u16,
    /// The checksum; zero for none.
    pub checksum: u16,
}

impl Udp {
    /// Parses the header of an unfragmented datagram: what [`Parsed::l4`] gives. An IP packet may be longer than the
    /// datagram in it.
    #[inline]
    pub fn parse(l4: &[u8]) -> Result<Self, UdpError> {
        let [s0, s1, d0, d1, l0, l1, c0, c1] = *bytes_at(l4, 0).ok_or(UdpError::Truncated)?;
        let length = u16::from_be_bytes([l0, l1]);
        if usize::from(length) < HEADER_LENGTH || usize::from(length) > l4.len() {
            return Err(UdpError::Length);
        }
        Ok(Self {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            length,
            checksum: u16::from_be_bytes([c0, c1]),
        })
    }

    /// The payload of the datagram that was parsed.
    #[inline]
    pub fn payload<'a>(&self, l4: &'a [u8]) -> &'a [u8] {
        l4.get(HEADER_LENGTH..usize::from(self.length)).unwrap_or_default()
    }

    /// Verifies the checksum of the datagram that was parsed, in the packet `ip`. None is right over IPv4, wrong over
    /// IPv6 (RFC 8200 section 8.1).
    #[inline]
    pub fn verify_checksum(&self, ip: &Parsed, l4: &[u8]) -> Result<(), UdpError> {
        if self.checksum == 0 {
            return if ip.is_ipv4() { Ok(()) } else { Err(UdpError::Checksum) };
        }
        let datagram = l4.get(..usize::from(self.length)).ok_or(UdpError::Length)?;
        let sum = checksum::pseudo(ip.source, ip.destination, Protocol::UDP, u32::from(self.length)).bytes(datagram);
        if sum.is_right() { Ok(()) } else { Err(UdpError::Checksum) }
    }
}

/// What stands in the checksum field of a datagram that we make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// Zero: only over IPv4, or over IPv6 under the conditions of RFC 6935.
    None,
    /// The field as [`checksum_of`] or [`offload_seed`] computed it.
    Value(u16),
}

/// Writes a header for a datagram of `length` bytes with the header.
#[inline]
pub fn write(
    header: &mut [u8; HEADER_LENGTH],
    source_port: u16,
    destination_port: u16,
    length: u16,
    checksum: Checksum,
) {
    let checksum = match checksum {
        Checksum::None => 0,
        Checksum::Value(value) => value,
    };
    let ([s0, s1], [d0, d1]) = (source_port.to_be_bytes(), destination_port.to_be_bytes());
    let ([l0, l1], [c0, c1]) = (length.to_be_bytes(), checksum.to_be_bytes());
    *header = [s0, s1, d0, d1, l0, l1, c0, c1];
}

/// The checksum of a datagram whose checksum field is zero.
#[inline]
pub fn checksum_of(source: IpAddr, destination: IpAddr, datagram: &[u8]) -> u16 {
    pseudo_header(source, destination, datagram.len()).bytes(datagram).udp_checksum()
}

/// What a NIC that completes the checksum wants in its field: the sum of the pseudo-header.
#[inline]
pub fn offload_seed(source: IpAddr, destination: IpAddr, length: u16) -> u16 {
    pseudo_header(source, destination, usize::from(length)).folded()
}

fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> Sum {
    checksum::pseudo(source, destination, Protocol::UDP, length as u32)
}
