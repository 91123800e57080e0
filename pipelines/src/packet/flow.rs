//! A keyed hash over a packet's flow, to spread flows over workers.

use std::net::IpAddr;

use super::{Fragment, Parsed};

/// Hashes flows under a key, so that nobody outside can aim all flows at one worker.
#[derive(Clone, Debug)]
pub struct FlowHasher(ahash::RandomState);

impl FlowHasher {
    /// A hasher under `key`: the same key gives the same hashes.
    pub fn new(key: [u64; 4]) -> Self {
        let [k0, k1, k2, k3] = key;
        Self(ahash::RandomState::with_seeds(k0, k1, k2, k3))
    }

    /// The hash of a packet's flow: addresses, protocol and ports. All fragments of a datagram hash alike, as only
    /// the first of them has ports.
    #[inline]
    pub fn hash(&self, packet: &Parsed) -> u64 {
        let ports = match packet.fragment {
            Fragment::No => {
                packet.ports.map_or(0, |ports| u32::from(ports.source) << 16 | u32::from(ports.destination))
            }
            Fragment::First | Fragment::Later => 0,
        };
        let rest = u64::from(packet.protocol.0) << 32 | u64::from(ports);
        match (packet.source, packet.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.0.hash_one((u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits()), rest))
            }
            (source, destination) => self.0.hash_one((bits(source), bits(destination), rest)),
        }
    }
}

/// An address as 128 bits.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}
