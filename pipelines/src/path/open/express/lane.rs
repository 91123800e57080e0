//! What becomes of an opened message: the frame that leaves, if its inner packet is simple and its whole way known.

use std::net::IpAddr;

use crate::buffer::{ChecksumState, PacketBuf};
use crate::ids::{PortId, TunnelId};
use crate::packet::ecn::{self, Ecn};
use crate::packet::tcp::Flags;
use crate::packet::{ethernet, ipv4, ipv6};
use crate::path::classify::may_forward;
use crate::path::emit::LinkHeaders;
use crate::path::open::acceptance::check_allowed;
use crate::path::packet::Verdict;
use crate::path::route::way_to;
use crate::path::simple::{Addresses, Simple};
use crate::tables::Tables;
use crate::wireguard::Receiver;
use crate::wireguard::constants::TAG_SIZE;

/// Where inner packets go: mostly all of a burst the same way.
pub struct Lane<'t> {
    tables: &'t Tables,
    /// Whether an inner packet can concern a service; only the stages know what to do with it then.
    has_services: bool,
    /// The session and the ends of the last packet that was found to be allowed, and to go the way below.
    known: Option<(u8, Addresses)>,
    way: Option<Way>,
}

/// The way to one destination.
struct Way {
    destination: IpAddr,
    port: PortId,
    mtu: u16,
    headers: LinkHeaders,
}

impl<'t> Lane<'t> {
    /// For a burst.
    pub fn new(tables: &'t Tables) -> Self {
        Self { tables, has_services: !tables.services.is_empty(), known: None, way: None }
    }

    /// Makes of an opened message of a session, the number of a run, the frame that goes on, and says by which port. `None` if that is
    /// for the stages; then nothing is changed.
    #[inline(always)]
    pub fn make_frame<B: PacketBuf>(
        &mut self,
        buffer: &mut B,
        (run, tunnel): (u8, TunnelId),
        outer_ecn: Ecn,
        receiver: &mut Receiver,
    ) -> Option<PortId> {
        if self.has_services || buffer.headroom() < ethernet::HEADER_LENGTH {
            return None;
        }
        let (data, _tag) = buffer.data().split_last_chunk::<TAG_SIZE>()?;
        let simple = match data.first()? >> 4 {
            // What the NIC said was of the outer header.
            4 => Simple::of_ipv4(data, ChecksumState::Unknown),
            _ => Simple::of_ipv6(data),
        };
        let simple = simple.ok()?;
        // A connection learns from its first segments what fits through the tunnel.
        if simple.flags.contains(Flags::SYN) {
            return None;
        }
        let ecn = Ecn::of(simple.inner.traffic_class);
        if outer_ecn != Ecn::NotEct && ecn::decapsulate(ecn, outer_ecn) != Ok(ecn) {
            return None;
        }
        let ends = (run, simple.addresses);
        if self.known != Some(ends) {
            self.learn(simple.addresses, tunnel, receiver)?;
            self.known = Some(ends);
        }
        let way = self.way.as_ref().filter(|way| simple.length <= way.mtu)?;
        buffer.truncate(simple.length.into());
        let is_ipv4 = matches!(simple.addresses, Addresses::V4(..));
        match is_ipv4 {
            true => ipv4::decrement_ttl(buffer.data_mut()),
            false => ipv6::decrement_hop_limit(buffer.data_mut()),
        }?;
        buffer.grow_front(ethernet::HEADER_LENGTH).ok()?;
        *buffer.data_mut().first_chunk_mut()? = if is_ipv4 { way.headers.ipv4 } else { way.headers.ipv6 };
        Some(way.port)
    }

    /// Finds out whether packets between these addresses may leave the tunnel and go out of a port, and keeps their way.
    #[inline(never)]
    fn learn(&mut self, addresses: Addresses, tunnel: TunnelId, receiver: &mut Receiver) -> Option<()> {
        let (source, destination) = (addresses.source(), addresses.destination());
        check_allowed(source, tunnel, receiver, self.tables).ok()?;
        if !may_forward(source) {
            return None;
        }
        if self.way.as_ref().is_some_and(|way| way.destination == destination) {
            return Some(());
        }
        self.known = None;
        self.way = None;
        if self.tables.is_local(destination) || !may_forward(destination) {
            return None;
        }
        let way = way_to(destination, self.tables).ok()?;
        let Verdict::Emit { port, next_hop } = way.verdict else { return None };
        let headers = LinkHeaders::find(port, next_hop, self.tables).ok()?;
        self.way = Some(Way { destination, port, mtu: way.mtu, headers });
        Some(())
    }
}
