//! A persistent longest-prefix-match table for IPv4 and IPv6: allowed IPs of tunnels and mirrored routes.
//!
//! A clone costs two reference counts; whoever then changes one of the two copies only the nodes on the way to
//! the change. So control keeps the newest table, adds a peer to a million in microseconds, and publishes a clone,
//! while workers still read the last one. A lookup allocates nothing and writes nothing.

mod address;
mod node;
#[cfg(test)]
mod tests;
mod trie;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use address::Prefix;
use trie::{Search, Trie};

/// Prefixes of both address families with a value each; the longest prefix that contains an address wins.
///
/// Host bits of a prefix are ignored (`10.0.0.1/8` is `10.0.0.0/8`). An IPv4-mapped IPv6 address is an IPv6
/// address here. Values should be cheap to clone (a number, an `Arc`): a changed node clones its values.
#[derive(Clone, Debug)]
pub struct Lpm<V> {
    v4: Trie<u32, V>,
    v6: Trie<u128, V>,
}

impl<V> Default for Lpm<V> {
    fn default() -> Self {
        Self { v4: Trie::default(), v6: Trie::default() }
    }
}

impl<V> Lpm<V> {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no prefix at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of the longest prefix that contains `address`.
    #[inline]
    pub fn lookup_v4(&self, address: Ipv4Addr) -> Option<&V> {
        self.v4.lookup(address.to_bits())
    }

    /// The value of the longest prefix that contains `address`.
    #[inline]
    pub fn lookup_v6(&self, address: Ipv6Addr) -> Option<&V> {
        self.v6.lookup(address.to_bits())
    }

    /// The value of the longest prefix that contains `address`.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Option<&V> {
        match address {
            IpAddr::V4(address) => self.lookup_v4(address),
            IpAddr::V6(address) => self.lookup_v6(address),
        }
    }

    /// Begins a lookup, and has memory fetched that it will need.
    ///
    /// For many lookups in a row in a large table: when this is done for all of them, then [`Approach::go_on`] for all, then
    /// [`Approach::finish`], they wait for memory together.
    #[inline]
    pub fn approach(&self, address: IpAddr) -> Approach<'_, V> {
        match address {
            IpAddr::V4(address) => Approach(Way::V4(self.v4.approach(address.to_bits()))),
            IpAddr::V6(address) => Approach(Way::V6(self.v6.approach(address.to_bits()))),
        }
    }

    /// The value of exactly this prefix.
    pub fn get(&self, net: &IpNet) -> Option<&V> {
        match net {
            IpNet::V4(net) => self.v4.get(&prefix_v4(net)),
            IpNet::V6(net) => self.v6.get(&prefix_v6(net)),
        }
    }

    /// All prefixes with their values, IPv4 first, in no order that may be relied on.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &V)> {
        let v4 = self.v4.iter().map(|(prefix, value)| (net_v4(prefix), value));
        v4.chain(self.v6.iter().map(|(prefix, value)| (net_v6(prefix), value)))
    }
}

/// A lookup that has come to the last node on its way, whose memory is being fetched.
#[derive(Debug)]
pub struct Approach<'t, V>(Way<'t, V>);

#[derive(Debug)]
enum Way<'t, V> {
    V4(Search<'t, u32, V>),
    V6(Search<'t, u128, V>),
}

impl<'t, V> Approach<'t, V> {
    /// Has the last memory fetched that the lookup needs.
    #[inline]
    pub fn go_on(&self) {
        match &self.0 {
            Way::V4(search) => search.prefetch_slot(),
            Way::V6(search) => search.prefetch_slot(),
        }
    }

    /// The value of the longest prefix that contains the address.
    #[inline]
    pub fn finish(&self) -> Option<&'t V> {
        match &self.0 {
            Way::V4(search) => search.finish(),
            Way::V6(search) => search.finish(),
        }
    }
}

impl<V: Clone> Lpm<V> {
    /// Sets the value of a prefix and gives back the one that it had.
    pub fn insert(&mut self, net: IpNet, value: V) -> Option<V> {
        match net {
            IpNet::V4(net) => self.v4.insert(prefix_v4(&net), value),
            IpNet::V6(net) => self.v6.insert(prefix_v6(&net), value),
        }
    }

    /// Removes a prefix and gives back its value; `None`, and nothing is copied, if it was not there.
    pub fn remove(&mut self, net: &IpNet) -> Option<V> {
        match net {
            IpNet::V4(net) => self.v4.remove(&prefix_v4(net)),
            IpNet::V6(net) => self.v6.remove(&prefix_v6(net)),
        }
    }
}

impl<V: Clone> Extend<(IpNet, V)> for Lpm<V> {
    fn extend<I: IntoIterator<Item = (IpNet, V)>>(&mut self, prefixes: I) {
        for (net, value) in prefixes {
            self.insert(net, value);
        }
    }
}

impl<V: Clone> FromIterator<(IpNet, V)> for Lpm<V> {
    fn from_iter<I: IntoIterator<Item = (IpNet, V)>>(prefixes: I) -> Self {
        let mut table = Self::new();
        table.extend(prefixes);
        table
    }
}

fn prefix_v4(net: &Ipv4Net) -> Prefix<u32> {
    Prefix::new(net.addr().to_bits(), net.prefix_len())
}

fn prefix_v6(net: &Ipv6Net) -> Prefix<u128> {
    Prefix::new(net.addr().to_bits(), net.prefix_len())
}

fn net_v4(prefix: Prefix<u32>) -> IpNet {
    // `Prefix::new` bounds every length by the address's width, so the constructor's assertion holds.
    Ipv4Net::new_assert(Ipv4Addr::from_bits(prefix.bits), prefix.length).into()
}

fn net_v6(prefix: Prefix<u128>) -> IpNet {
    // As for IPv4.
    Ipv6Net::new_assert(Ipv6Addr::from_bits(prefix.bits), prefix.length).into()
}
