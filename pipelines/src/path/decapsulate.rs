//! Takes the packet that a dispatcher put into another one out of it: from then on it is as if it had come by itself.

use super::packet::Packet;
use crate::buffer::{ChecksumState, PacketBuf};
use crate::dispatch::decapsulation::{self, Decapsulation, Inside};
use crate::drop_reason::DropReason;
use crate::ids::PortId;
use crate::packet::ecn::{self, Ecn, Inconsistent};
use crate::packet::{EtherType, Parsed, ethernet, ipv4};
use crate::tables::{Route, Tables};
use jetway_config::Encapsulation;

/// Bytes of the two addresses of an Ethernet header.
const ADDRESSES: usize = ethernet::HEADER_LENGTH - 2;

/// Leaves the inner packet behind the frame's Ethernet header, parsed; the frame's IP header was at `l3`.
///
/// The outer packet has to come from whom the configuration names, and by the port that leads there, so that nobody elsewhere can
/// pretend to be a dispatcher (RFC 3704). The inner DSCP and hop limit stay (RFC 2983 section 3.1, RFC 2003 section 3.1).
pub fn take_out<B: PacketBuf>(
    packet: &mut Packet<'_, B>,
    kind: Encapsulation,
    decapsulation: &Decapsulation,
    port: PortId,
    l3: usize,
    tables: &Tables,
) -> Result<(), DropReason> {
    let by_nic = packet.buffer.l4_checksum();
    let length = packet.parsed.total_length as usize;
    let ip = packet.buffer.data().get(l3..l3.saturating_add(length)).unwrap_or_default();
    let (inside, ecn) = read_inside(&mut packet.parsed, ip, by_nic, (kind, decapsulation), port, tables)?;
    let inner_ecn = packet.parsed.ecn();
    move_ethernet_header(packet, l3, inside);
    if ecn != inner_ecn
        && let Some(inner) = packet.buffer.data_mut().get_mut(ethernet::HEADER_LENGTH..)
    {
        packet.parsed.set_ecn(inner, ecn);
    }
    // What the NIC said was of the outer packet.
    packet.buffer.forget_checksums();
    Ok(())
}

/// Reads the packet inside another one, whose bytes are `ip`, over what was parsed of the outer. Returns where it lies, and the
/// ECN that it goes on with.
pub(super) fn read_inside(
    parsed: &mut Parsed,
    ip: &[u8],
    checksum_by_nic: ChecksumState,
    (kind, decapsulation): (Encapsulation, &Decapsulation),
    port: PortId,
    tables: &Tables,
) -> Result<(Inside, Ecn), DropReason> {
    let leads_there = |route: &Route| matches!(route, Route::Port { port: by, .. } if *by == port);
    if !decapsulation.trusts(parsed.source) || !tables.routes.lookup(parsed.source).is_some_and(leads_there) {
        return Err(DropReason::EncapsulationUntrusted);
    }
    let outer_ecn = parsed.ecn();
    let inside = decapsulation::find_inside(kind, parsed, ip, checksum_by_nic)?;
    let inner = ip.get(inside.offset..).unwrap_or_default();
    match inside.ethertype {
        EtherType::IPV4 => {
            parsed.read_ipv4(inner).map_err(|_| DropReason::EncapsulationMalformed)?;
            if !ipv4::checksum_is_right(inner) {
                return Err(DropReason::Ipv4BadChecksum);
            }
        }
        _ => parsed.read_ipv6(inner).map_err(|_| DropReason::EncapsulationMalformed)?,
    }
    let ecn = ecn::decapsulate(parsed.ecn(), outer_ecn).map_err(|Inconsistent| DropReason::EcnInconsistent)?;
    Ok((inside, ecn))
}

/// Cuts the outer headers and tags out of the frame, and what stands behind the inner packet.
fn move_ethernet_header<B: PacketBuf>(packet: &mut Packet<'_, B>, l3: usize, inside: Inside) {
    let addresses: Option<[u8; ADDRESSES]> = packet.buffer.data().first_chunk().copied();
    packet.buffer.trim_front((l3 + inside.offset).saturating_sub(ethernet::HEADER_LENGTH));
    packet.buffer.truncate(ethernet::HEADER_LENGTH + packet.parsed.total_length as usize);
    let EtherType(ethertype) = inside.ethertype;
    let header = packet.buffer.data_mut().first_chunk_mut::<{ ethernet::HEADER_LENGTH }>();
    if let (Some(header), Some(addresses)) = (header, addresses) {
        let (to, kind) = header.split_at_mut(ADDRESSES);
        to.copy_from_slice(&addresses);
        kind.copy_from_slice(&ethertype.to_be_bytes());
    }
}
