//! Cuts an IPv4 packet that its sender allows to be cut (RFC 791 section 3.2, RFC 1812 section 4.2.2.7).

use super::outputs::Outputs;
use super::packet::{Packet, Packets, Verdict};
use super::pipeline::Pipeline;
use crate::buffer::PacketBuf;
use crate::drop_reason::DropReason;
use crate::packet::{Parsed, checksum};

/// Cuts `packet` into fragments of at most `mtu` bytes, which go on into `made` with `verdict`.
///
/// Returns the verdict for the original: it ends here, consumed by its fragments. All fragments are made or none.
pub fn fragment<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'t, B>,
    verdict: &Verdict<'t>,
    mtu: u16,
    made: &mut Packets<'t, B>,
    pipeline: &Pipeline<B>,
    out: &mut O,
) -> Verdict<'t> {
    let before = made.len();
    match cut(packet, verdict, usize::from(mtu), made, out) {
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
    mtu: usize,
    made: &mut Packets<'t, B>,
    out: &mut O,
) -> Result<(), DropReason> {
    let data = packet.buffer.data();
    let header_length = usize::from(packet.parsed.l4_offset);
    let (header, payload) = data.split_at_checked(header_length).ok_or(DropReason::Ipv4Malformed)?;
    // Offsets count in units of 8 bytes.
    let step = mtu.saturating_sub(header_length) & !7;
    if step == 0 {
        return Err(DropReason::TooBig);
    }
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
        let piece = Packet { buffer, parsed, origin: packet.origin, verdict: verdict.clone() };
        made.try_push(piece).map_err(|_| DropReason::HeldQueueFull)?;
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
fn mark(header: &mut [u8], offset: usize, length: usize, place: Place) -> Option<()> {
    let more = match place {
        Place::Before => MORE_FRAGMENTS,
        Place::Last => 0,
    };
    let units = u16::try_from(offset / 8).ok().filter(|units| *units < MORE_FRAGMENTS)?;
    header.get_mut(2..4)?.copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    header.get_mut(6..8)?.copy_from_slice(&(more | units).to_be_bytes());
    header.get_mut(10..12)?.fill(0);
    let sum = checksum::checksum(header);
    header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// The flag MF beside the 13 bits of the offset.
const MORE_FRAGMENTS: u16 = 1 << 13;
