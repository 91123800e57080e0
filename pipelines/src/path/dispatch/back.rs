//! A server's packet to a client: from then on it comes from the service.

use super::forward::signal;
use super::fragments::remember_first;
use super::send::{pass_on, rewrite};
use super::{Desk, FragmentFlow};
use crate::buffer::PacketBuf;
use crate::dispatch::Backend;
use crate::dispatch::nat::End;
use crate::dispatch::service::Service;
use crate::packet::tcp::{Flags, Tcp};
use crate::packet::{Fragment, Protocol};
use crate::path::outputs::Outputs;
use crate::path::packet::{Packet, Verdict};
use crate::path::route::{Refusal, clamp_for, way_to};

/// Sends what a server behind NAT answers on to the client.
///
/// No flow is looked up: a server's socket belongs to one service, so any worker can do it, whichever has the flow.
pub fn back<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    service: &'t Service,
    server: &'t Backend,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<Verdict<'t>, Refusal> {
    if refuses_connection(packet) {
        signal(server, desk);
    }
    if packet.parsed.fragment == Fragment::First {
        remember_first(packet, FragmentFlow::Back(service.socket), desk)?;
    }
    let length = u64::from(packet.parsed.total_length);
    let verdict = rewrite_and_send(packet, service, desk)?;
    count(server, length, desk);
    Ok(verdict)
}

/// Counts what came back from a server.
pub fn count<B: PacketBuf, O: Outputs<B>>(server: &Backend, length: u64, desk: &Desk<'_, '_, B, O>) {
    if let Some(traffic) = server.traffic(desk.pipeline.worker) {
        traffic.returned_packets.add(1);
        traffic.returned_bytes.add(length);
    }
}

/// Routes a server's packet by its destination, and makes it the service's.
///
/// An error about it quotes it as the server sent it, since the server would not know it otherwise.
pub fn rewrite_and_send<'t, B: PacketBuf, O: Outputs<B>>(
    packet: &mut Packet<'t, B>,
    service: &'t Service,
    desk: &mut Desk<'_, 't, B, O>,
) -> Result<Verdict<'t>, Refusal> {
    let way = way_to(packet.parsed.destination, desk.scene.tables)?;
    pass_on(packet, &way, None, desk, |packet, desk| {
        clamp_for(packet, way.into, desk.scene.tables);
        rewrite(packet, End::Source, (service.socket.address, service.socket.port))
    })
}

/// Whether it answers a SYN with a reset: nobody listens (RFC 9293 section 3.5.2).
fn refuses_connection<B: PacketBuf>(packet: &Packet<'_, B>) -> bool {
    packet.parsed.protocol == Protocol::TCP
        && Tcp::parse(packet.parsed.l4(packet.buffer.data()))
            .is_some_and(|segment| segment.flags.contains(Flags(Flags::RST.0 | Flags::ACK.0)) && segment.sequence == 0)
}
