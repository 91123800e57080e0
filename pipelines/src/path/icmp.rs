//! Tells a packet's sender why it went no further.

use super::outputs::Outputs;
use super::packet::{Origin, Packet, Packets, Verdict};
use super::pipeline::{Pipeline, Scene};
use crate::buffer::PacketBuf;
use crate::packet::Parsed;
use crate::packet::icmp_error::{Arrival, Cause, IcmpError};

/// Makes the ICMP or ICMPv6 error about `packet` and puts it into `made`, to be routed like any packet of the node.
///
/// Nothing is made in answer to what RFC 1812 section 4.3.2.7 and RFC 4443 section 2.4 forbid, beyond the meter,
/// or when no buffer is free: the packet's drop is counted all the same.
pub fn tell_sender<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &Packet<'t, B>,
    cause: Cause,
    made: &mut Packets<'t, B>,
    pipeline: &mut Pipeline<B>,
    scene: &Scene<'t>,
    out: &mut O,
) {
    let source = match packet.origin {
        Origin::Port(port) => scene.tables.port(port).map(|entry| entry.source),
        Origin::Tunnel(tunnel) => scene.tables.tunnel(tunnel).map(|entry| entry.source),
        // The kernel learns of its own packets' fate from its own tables.
        Origin::Node => None,
    };
    let Some(source) = source.and_then(|source| source.towards(packet.parsed.source)) else { return };
    // Frames to several stations went to the kernel before they could be routed.
    let error = IcmpError::about(packet.buffer.data(), &packet.parsed, Arrival::Unicast, cause);
    let Ok(error) = error else { return };
    if made.is_full() || !pipeline.icmp_meter.allow(scene.now) {
        return;
    }
    let Some(mut buffer) = out.allocate() else { return };
    if error.append(source, &mut buffer).is_err() {
        return;
    }
    let Ok(parsed) = Parsed::from_ip(buffer.data()) else { return };
    pipeline.counters.created.add(1);
    made.push(Packet::made(buffer, parsed, Verdict::Route));
}
