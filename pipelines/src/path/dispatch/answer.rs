//! The IP header of what the node answers to a client in the name of a service.

use std::net::IpAddr;

use crate::buffer::PacketBuf;
use crate::packet::{Protocol, ipv4, ipv6};

/// Hops that an answer may go.
const HOPS: u8 = 64;

/// Puts an IP header before the segment or datagram in `buffer`; `None` if it has no room or the families differ.
pub fn put_ip_header<B: PacketBuf>(
    buffer: &mut B,
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    traffic_class: u8,
) -> Option<()> {
    let payload_length = u16::try_from(buffer.data().len()).ok()?;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            buffer.grow_front(ipv4::HEADER_LENGTH).ok()?;
            let header = ipv4::Header {
                source,
                destination,
                protocol,
                traffic_class,
                ttl: HOPS,
                fragmentation: ipv4::Fragmentation::Forbidden,
                total_length: payload_length.checked_add(ipv4::HEADER_LENGTH as u16)?,
            };
            header.write(buffer.data_mut().first_chunk_mut()?);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            buffer.grow_front(ipv6::HEADER_LENGTH).ok()?;
            let header = ipv6::Header {
                source,
                destination,
                protocol,
                traffic_class,
                flow_label: 0,
                hop_limit: HOPS,
                payload_length,
            };
            header.write(buffer.data_mut().first_chunk_mut()?);
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    }
    Some(())
}
