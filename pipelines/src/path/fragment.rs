//! Cuts an IPv4 packet, whole or a fragment itself, that its sender allows to be cut (RFC 791 section 3.2, RFC 1812
//! section 4.2.2.7).

use super::outputs::Outputs;
use super::packet::{BURST, Packet, Packets, Verdict};
use super::pipeline::{Pipeline, Scene};
use crate::buffer::PacketBuf;
use crate::drop_reason::DropReason;
use crate::packet::{Parsed, checksum};

/// Cuts `packet` into fragments of at most `mtu` bytes, which go on into `made` with `verdict`; what is in `made` already
/// is sent on first if they do not fit beside it.
///
/// Returns the verdict for the original: it ends here, consumed by its fragments. All fragments are made or none.
pub fn fragment<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'t, B>,
    verdict: &Verdict<'t>,
    mtu: u16,
    made: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) -> Verdict<'t> {
    let header_length = usize::from(packet.parsed.l4_offset);
    // Offsets count in units of 8 bytes.
    let step = usize::from(mtu).saturating_sub(header_length) & !7;
    let payload = packet.buffer.data().len().saturating_sub(header_length);
    if step == 0 || payload.div_ceil(step) > BURST {
        return Verdict::Drop(DropReason::TooBig);
    }
    if payload.div_ceil(step) > made.remaining_capacity() {
        pipeline.forward_made(made, scene, out);
    }
    let before = made.len();
    match cut(packet, verdict, step, made, out) {
        Ok(()) => {
            pipeline.counters.created.add((made.len() - before) as u64);
            Verdict::Drop(DropReason::Consumed)
        }
        Err(reason) => {
            made.truncate(before);
            Verdict::Drop(reason)
        }
    }
}

fn cut<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'t, B>,
    verdict: &Verdict<'t>,
    step: usize,
    made: &mut Packets<'t, B>,
    out: &mut O,
) -> Result<(), DropReason> {
    let data = packet.buffer.data();
    let header_length = usize::from(packet.parsed.l4_offset);
    let (header, payload) = data.split_at_checked(header_length).ok_or(DropReason::Ipv4Malformed)?;
    for (number, chunk) in payload.chunks(step).enumerate() {
        let last = if (number + 1) * step >= payload.len() { Place::Last } else { Place::Before };
        let mut buffer = out.allocate().ok_or(DropReason::BufferPoolEmpty)?;
        buffer.grow_back(header_length + chunk.len()).map_err(|_| DropReason::BufferNoRoom)?;
        let bytes = buffer.data_mut();
        let (head, body) = bytes.split_at_mut_checked(header_length).ok_or(DropReason::BufferNoRoom)?;
        head.copy_from_slice(header);
        body.copy_from_slice(chunk);
        mark(head, number * step, header_length + chunk.len(), last).ok_or(DropReason::Ipv4Malformed)?;
        let parsed = Parsed::from_ip(buffer.data()).map_err(|_| DropReason::Ipv4Malformed)?;
        let piece = Packet { buffer, parsed, origin: packet.origin, server: packet.server, verdict: *verdict };
        // The caller has made room.
        made.try_push(piece).map_err(|_| DropReason::TooBig)?;
    }
    Ok(())
}

/// Whether another fragment follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Last,
}

/// Writes a fragment's place into its header: total length, flag, offset in bytes, checksum.
///
/// The header is still that of the packet that is cut: where that was a fragment, offsets count from its own, and more
/// fragments follow the last piece if they followed it.
fn mark(header: &mut [u8], offset: usize, length: usize, place: Place) -> Option<()> {
    let [high, low] = *header.get(6..)?.first_chunk()?;
    let original = u16::from_be_bytes([high, low]);
    let more = match place {
        Place::Before => MORE_FRAGMENTS,
        Place::Last => original & MORE_FRAGMENTS,
    };
    let units = usize::from(original & OFFSET) + offset / 8;
    let units = u16::try_from(units).ok().filter(|units| *units <= OFFSET)?;
    header.get_mut(2..4)?.copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    header.get_mut(6..8)?.copy_from_slice(&(more | units).to_be_bytes());
    header.get_mut(10..12)?.fill(0);
    let sum = checksum::checksum(header);
    header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// The flag MF beside the 13 bits of the offset.
const MORE_FRAGMENTS: u16 = 1 << 13;
/// The offset.
const OFFSET: u16 = MORE_FRAGMENTS - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::ipv4;

    /// The flags and offset of the pieces at 0 and 800 bytes of a packet with these.
    fn pieces(original: u16) -> [Option<u16>; 2] {
        [(0, Place::Before), (800, Place::Last)].map(|(offset, place)| {
            let mut header = [0; 20];
            header[0] = 0x45;
            header[6..8].copy_from_slice(&original.to_be_bytes());
            mark(&mut header, offset, 820, place)?;
            assert!(ipv4::checksum_is_right(&header));
            Some(u16::from_be_bytes([header[6], header[7]]))
        })
    }

    #[test]
    fn the_pieces_of_a_fragment_take_its_place_in_the_datagram() {
        assert_eq!(pieces(0), [Some(MORE_FRAGMENTS), Some(100)]);
        assert_eq!(pieces(MORE_FRAGMENTS | 185), [Some(MORE_FRAGMENTS | 185), Some(MORE_FRAGMENTS | 285)]);
        assert_eq!(pieces(185), [Some(MORE_FRAGMENTS | 185), Some(285)]);
        assert_eq!(pieces(OFFSET), [Some(MORE_FRAGMENTS | OFFSET), None]);
    }
}
