//! Finds the packet that a dispatcher put into another one: where it begins, if it may be taken out.

use std::net::IpAddr;

use ipnet::IpNet;
use jetway_config::Encapsulation;

use super::encapsulation::kind_of;
use crate::buffer::ChecksumState;
use crate::drop_reason::DropReason;
use crate::lpm::Lpm;
use crate::packet::udp::{self, Udp};
use crate::packet::{EtherType, Fragment, Parsed, Protocol};

/// From whom packets inside others are taken, and in which ways.
#[derive(Clone, Debug)]
pub struct Decapsulation {
    from: Lpm<()>,
    kinds: Vec<Encapsulation>,
}

impl Decapsulation {
    /// Takes packets out of those that come from these networks in these ways.
    pub fn new(from: impl IntoIterator<Item = IpNet>, kinds: &[Encapsulation]) -> Self {
        Self { from: from.into_iter().map(|net| (net, ())).collect(), kinds: kinds.to_vec() }
    }

    /// How a packet to the node encapsulates another, if that is one of the ways.
    pub fn kind_of(&self, outer: &Parsed) -> Option<Encapsulation> {
        kind_of(outer).filter(|kind| self.kinds.contains(kind))
    }

    /// Whether packets from there are believed.
    pub fn trusts(&self, source: IpAddr) -> bool {
        self.from.lookup(source).is_some()
    }
}

/// A packet inside another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inside {
    /// Where it begins, from the outer IP header on.
    pub offset: usize,
    /// Its IP version.
    pub ethertype: EtherType,
}

/// Bytes of a GRE header without options (RFC 2784 section 2).
const GRE_LENGTH: usize = 4;
/// Bytes of a GUE header of variant 0 without extension fields.
const GUE_LENGTH: usize = 4;

/// Finds the packet inside `outer`, whose bytes are `ip`. Of GRE and GUE only plain headers are understood, as Jetway, the kernel
/// and IPVS send them: keys, checksums of GRE and sequence numbers are for tunnels, which this is none of.
pub fn find_inside(
    kind: Encapsulation,
    outer: &Parsed,
    ip: &[u8],
    checksum_by_nic: ChecksumState,
) -> Result<Inside, DropReason> {
    // Reassembly would cost memory for everybody's fragments: the dispatcher's links have to carry whole packets.
    if outer.fragment != Fragment::No {
        return Err(DropReason::OuterFragment);
    }
    let payload = outer.l4(ip);
    let start = ip.len().saturating_sub(payload.len());
    let (length, ethertype) = match kind {
        Encapsulation::Ipip => (0, of_protocol(outer.protocol.0)?),
        Encapsulation::Gre => (GRE_LENGTH, gre(payload)?),
        Encapsulation::Gue => {
            let datagram = Udp::parse(payload)?;
            match checksum_by_nic {
                ChecksumState::Good if datagram.checksum != 0 => {}
                ChecksumState::Bad => return Err(DropReason::UdpBadChecksum),
                ChecksumState::Good | ChecksumState::Unknown => datagram.verify_checksum(outer, payload)?,
            }
            let (length, ethertype) = gue(datagram.payload(payload))?;
            (udp::HEADER_LENGTH + length, ethertype)
        }
    };
    Ok(Inside { offset: start + length, ethertype })
}

fn of_protocol(protocol: u8) -> Result<EtherType, DropReason> {
    match Protocol(protocol) {
        Protocol::IPV4 => Ok(EtherType::IPV4),
        Protocol::IPV6 => Ok(EtherType::IPV6),
        _ => Err(DropReason::EncapsulationMalformed),
    }
}

/// Without options, version 0.
fn gre(payload: &[u8]) -> Result<EtherType, DropReason> {
    match payload.first_chunk::<GRE_LENGTH>() {
        Some([0, 0, high, low]) => match EtherType(u16::from_be_bytes([*high, *low])) {
            ip @ (EtherType::IPV4 | EtherType::IPV6) => Ok(ip),
            _ => Err(DropReason::EncapsulationMalformed),
        },
        Some(_) | None => Err(DropReason::EncapsulationMalformed),
    }
}

/// Variant 1 is the packet itself; variant 0 has a header, here one that names the packet's protocol and nothing else.
fn gue(payload: &[u8]) -> Result<(usize, EtherType), DropReason> {
    match payload.first_chunk::<GUE_LENGTH>() {
        Some([first, ..]) if first >> 4 == 4 => Ok((0, EtherType::IPV4)),
        Some([first, ..]) if first >> 4 == 6 => Ok((0, EtherType::IPV6)),
        Some([0, protocol, 0, 0]) => Ok((GUE_LENGTH, of_protocol(*protocol)?)),
        Some(_) | None => Err(DropReason::EncapsulationMalformed),
    }
}

#[cfg(test)]
mod tests;
