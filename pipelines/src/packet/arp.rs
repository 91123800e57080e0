//! ARP over Ethernet for IPv4 (RFC 826): enough to recognise a packet; the kernel answers it.

use std::net::Ipv4Addr;

use super::{MacAddress, bytes_at};

/// Bytes of an ARP packet for IPv4 over Ethernet.
pub const LENGTH: usize = 28;

/// What an ARP packet does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Asks who has the target's address.
    Request,
    /// Tells who has the sender's address.
    Reply,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// What it does.
    pub operation: Operation,
    /// The sender's MAC address.
    pub sender_mac: MacAddress,
    /// The sender's address; unspecified in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// The target's address.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Parses an ARP packet; `None` if it is truncated or for another hardware, protocol or operation.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let packet = bytes_at::<LENGTH>(data, 0)?;
        // Hardware Ethernet (1), protocol IPv4, lengths of their addresses.
        if bytes_at(packet, 0) != Some(&[0, 1, 8, 0, 6, 4]) {
            return None;
        }
        let operation = match u16::from_be_bytes(*bytes_at(packet, 6)?) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        Some(Self {
            operation,
            sender_mac: MacAddress(*bytes_at(packet, 8)?),
            sender: Ipv4Addr::from(*bytes_at::<4>(packet, 14)?),
            target: Ipv4Addr::from(*bytes_at::<4>(packet, 24)?),
        })
    }
}
