//! Where a peer was last heard from, readable by every thread without a lock.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A peer's outer address, with the address of ours that it talked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Endpoint {
    /// The peer's address and UDP port.
    pub remote: SocketAddr,
    /// Our address that it sent to, from which we answer; `None` lets the route choose.
    pub local: Option<IpAddr>,
}

impl Endpoint {
    /// An endpoint from configuration: the route chooses our address.
    pub const fn configured(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }

    fn to_words(self) -> [u64; WORDS] {
        let remote = address_words(self.remote.ip());
        let local = self.local.map_or([0, 0], address_words);
        [remote[0], remote[1], local[0], local[1]]
    }

    #[inline(always)]
    fn from_words(port: u16, words: [u64; WORDS]) -> Self {
        let remote = SocketAddr::new(address(words[0], words[1]), port);
        let local = (words[2] != 0 || words[3] != 0).then(|| address(words[2], words[3]));
        Self { remote, local }
    }
}

const WORDS: usize = 4;
/// Set in a cell's head while somebody changes it.
const CHANGING: u64 = 1 << 17;
/// Set in a cell's head if it holds an endpoint.
const PRESENT: u64 = 1 << 16;
/// Counts changes in a cell's head, above the other bits: no reader is held up for 2^46 of them.
const CHANGE: u64 = 1 << 18;

/// An address as two words; IPv4 as its IPv4-mapped IPv6 form (RFC 4291 section 2.5.5.2).
fn address_words(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

#[inline(always)]
fn address(high: u64, low: u64) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))).to_canonical()
}

/// A peer's endpoint as a sequence lock of plain atomics.
///
/// Writers are rare (a peer roamed); one that finds another at work gives up, since the peer's next packet
/// will bring the news again.
#[derive(Debug, Default)]
pub struct EndpointCell {
    /// The sequence, flags, and in the lowest 16 bits the port.
    head: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl EndpointCell {
    /// A cell that holds `endpoint`.
    pub fn new(endpoint: Option<Endpoint>) -> Self {
        let cell = Self::default();
        if let Some(endpoint) = endpoint {
            cell.store(endpoint);
        }
        cell
    }

    /// The endpoint, or `None` when none is known or a writer is just changing it for longer than we look.
    #[inline(always)]
    pub fn load(&self) -> Option<Endpoint> {
        const ATTEMPTS: usize = 64;
        for _ in 0..ATTEMPTS {
            let before = self.head.load(Ordering::Acquire);
            let words = std::array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before & CHANGING == 0 && before == self.head.load(Ordering::Relaxed) {
                return (before & PRESENT != 0).then(|| Endpoint::from_words(before as u16, words));
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Sets the endpoint. Returns whether it did: `false` when another thread was setting it.
    pub fn store(&self, endpoint: Endpoint) -> bool {
        let before = self.head.load(Ordering::Relaxed);
        let changing = before | CHANGING;
        if before == changing
            || self.head.compare_exchange(before, changing, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return false;
        }
        fence(Ordering::Release);
        for (cell, word) in self.words.iter().zip(endpoint.to_words()) {
            cell.store(word, Ordering::Relaxed);
        }
        let sequence = (before & !(CHANGE - 1)).wrapping_add(CHANGE);
        self.head.store(sequence | PRESENT | u64::from(endpoint.remote.port()), Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_comes_back_as_it_was_stored() {
        let cases = [
            Endpoint::configured("192.0.2.7:51820".parse().unwrap()),
            Endpoint { remote: "[2001:db8::1]:1".parse().unwrap(), local: Some("2001:db8::2".parse().unwrap()) },
            Endpoint { remote: "203.0.113.1:65535".parse().unwrap(), local: Some("198.51.100.1".parse().unwrap()) },
        ];
        for endpoint in cases {
            assert_eq!(EndpointCell::new(Some(endpoint)).load(), Some(endpoint));
        }
        assert_eq!(EndpointCell::new(None).load(), None);
    }

    #[test]
    fn a_reader_never_sees_half_of_two_endpoints() {
        let one = Endpoint::configured("10.0.0.1:1".parse().unwrap());
        let two = Endpoint { remote: "[2001:db8::2]:2".parse().unwrap(), local: Some("2001:db8::3".parse().unwrap()) };
        let cell = EndpointCell::new(Some(one));
        std::thread::scope(|scope| {
            scope.spawn(|| (0..20_000).for_each(|i| _ = cell.store(if i % 2 == 0 { two } else { one })));
            for _ in 0..20_000 {
                if let Some(seen) = cell.load() {
                    assert!(seen == one || seen == two, "torn: {seen:?}");
                }
            }
        });
    }
}
