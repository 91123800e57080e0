//! The table against a list that is searched from end to end.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::Lpm;
use super::node::{Node, Slot};

/// The obvious table: every prefix in a list.
#[derive(Clone, Default)]
struct Model(HashMap<IpNet, u32>);

impl Model {
    fn lookup(&self, address: IpAddr) -> Option<&u32> {
        let containing = self.0.iter().filter(|(net, _)| net.contains(&address));
        containing.max_by_key(|(net, _)| net.prefix_len()).map(|(_, value)| value)
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Addresses that share long and short beginnings, as those of tunnels do.
fn crowded_bits() -> impl Strategy<Value = u128> {
    let heads =
        prop_oneof![Just(0u128), Just(u128::MAX), Just(0x0a08_0000_u128 << 96), Just(0xfd00_0008 << 96), any::<u128>()];
    (heads, any::<u128>(), 0u32..=128).prop_map(|(head, tail, shared)| {
        let mask = u128::MAX.checked_shr(shared).unwrap_or(0);
        (head & !mask) | (tail & mask & 0x0303_0303_0303_0303_0303_0303_0303_0303)
    })
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        crowded_bits().prop_map(|bits| Ipv4Addr::from_bits((bits >> 96) as u32).into()),
        crowded_bits().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
    ]
}

fn any_net() -> impl Strategy<Value = IpNet> {
    let length = prop_oneof![any::<u8>(), Just(255u8), Just(24), Just(64), 0u8..10];
    (any_address(), length).prop_map(|(address, length)| match address {
        IpAddr::V4(address) => Ipv4Net::new(address, length.min(32)).unwrap().trunc().into(),
        IpAddr::V6(address) => Ipv6Net::new(address, length.min(128)).unwrap().trunc().into(),
    })
}

#[derive(Clone, Debug)]
enum Change {
    Insert(IpNet),
    Remove(prop::sample::Index),
    RemoveAny(IpNet),
    Clone,
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => any_net().prop_map(Change::Insert),
        3 => any::<prop::sample::Index>().prop_map(Change::Remove),
        1 => any_net().prop_map(Change::RemoveAny),
        1 => Just(Change::Clone),
    ]
}

fn assert_same(table: &Lpm<u32>, model: &Model, addresses: &[IpAddr]) {
    assert_eq!(table.len(), model.0.len());
    let all: HashMap<IpNet, u32> = table.iter().map(|(net, value)| (net, *value)).collect();
    assert_eq!(all, model.0);
    let edges = model.0.keys().flat_map(|net| [net.network(), net.broadcast()]);
    for address in addresses.iter().copied().chain(edges) {
        assert_eq!(table.lookup(address), model.lookup(address), "{address}");
    }
    for (net, value) in &model.0 {
        assert_eq!(table.get(net), Some(value), "{net}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_of_changes_leaves_what_a_list_would_hold_and_clones_as_they_were(
        changes in prop::collection::vec(any_change(), 1..120),
        addresses in prop::collection::vec(any_address(), 20),
    ) {
        let mut table = Lpm::new();
        let mut model = Model::default();
        let mut kept = Vec::new();
        for (value, change) in changes.into_iter().enumerate() {
            match change {
                Change::Insert(net) => {
                    prop_assert_eq!(table.insert(net, value as u32), model.0.insert(net, value as u32));
                }
                Change::Remove(index) if !model.0.is_empty() => {
                    let mut nets: Vec<IpNet> = model.0.keys().copied().collect();
                    nets.sort();
                    let net = *index.get(&nets);
                    prop_assert_eq!(table.remove(&net), model.0.remove(&net));
                }
                Change::Remove(_) => {}
                Change::RemoveAny(net) => prop_assert_eq!(table.remove(&net), model.0.remove(&net)),
                Change::Clone => kept.push((table.clone(), model.clone())),
            }
            prop_assert_eq!(table.len(), model.0.len());
        }
        assert_same(&table, &model, &addresses);
        for (table, model) in &kept {
            assert_same(table, model, &addresses);
        }
        for net in model.0.keys() {
            prop_assert!(table.remove(net).is_some());
        }
        prop_assert!(table.is_empty() && table.iter().next().is_none());
    }
}

#[test]
fn an_empty_table_finds_nothing() {
    let table = Lpm::<u32>::new();
    assert_eq!(table.lookup(address("10.0.0.1")), None);
    assert_eq!(table.lookup(address("::")), None);
    assert_eq!(table.get(&net("0.0.0.0/0")), None);
}

#[test]
fn the_longest_of_nested_prefixes_wins_at_every_length() {
    let host = Ipv6Addr::from_bits(0x5a5a_5a5a_5a5a_5a5a_5a5a_5a5a_5a5a_5a5a);
    let mut table = Lpm::new();
    for length in (0..=128).rev() {
        table.insert(Ipv6Net::new(host, length).unwrap().into(), length);
    }
    assert_eq!(table.len(), 129);
    for length in 0..=128u8 {
        // The address that leaves the nested prefixes behind bit `length`.
        let left = if length == 128 { host } else { Ipv6Addr::from_bits(host.to_bits() ^ (1 << (127 - length))) };
        assert_eq!(table.lookup_v6(left), Some(&length));
    }
}

#[test]
fn the_families_do_not_mix() {
    let table: Lpm<u32> = [(net("0.0.0.0/0"), 4), (net("::/0"), 6)].into_iter().collect();
    assert_eq!(table.lookup(address("192.0.2.1")), Some(&4));
    assert_eq!(table.lookup(address("::ffff:192.0.2.1")), Some(&6));
}

#[test]
fn host_bits_of_a_prefix_do_not_count() {
    let mut table = Lpm::new();
    table.insert(net("10.1.2.3/8"), 1);
    assert_eq!(table.get(&net("10.0.0.0/8")), Some(&1));
    assert_eq!(table.iter().next(), Some((net("10.0.0.0/8"), &1)));
}

#[test]
fn a_change_copies_only_the_way_to_it() {
    let value = Arc::new(());
    let mut table: Lpm<Arc<()>> = (0..100_000u32)
        .map(|host| (Ipv4Net::from(Ipv4Addr::from_bits(0x0a08_0000 + host)).into(), Arc::clone(&value)))
        .collect();
    let published = table.clone();
    let before = Arc::strong_count(&value);
    table.insert(net("10.8.200.200/32"), Arc::new(()));
    // One node of hosts is copied with its 64 values, less the one that was replaced; nodes above hold none.
    assert_eq!(Arc::strong_count(&value) - before, 63);
    drop(table);
    assert_eq!(Arc::strong_count(&value), 100_001);
    assert_eq!(published.len(), 100_000);
}

#[test]
fn removal_leaves_no_node_behind() {
    let mut table = Lpm::new();
    table.insert(net("10.8.0.1/32"), 1);
    for host in 2..=254 {
        table.insert(Ipv4Net::from(Ipv4Addr::new(10, 8, 0, host)).into(), 2);
    }
    for host in 2..=254 {
        table.remove(&Ipv4Net::from(Ipv4Addr::new(10, 8, 0, host)).into());
    }
    assert!(matches!(table.v4.root(), Some(Slot::Leaf { value: 1, .. })));
}

#[test]
fn slots_of_reference_counted_values_are_small() {
    assert_eq!(size_of::<Slot<u32, Arc<()>>>(), 16);
    assert_eq!(size_of::<Slot<u128, Arc<()>>>(), 32);
    assert!(size_of::<Node<u128, Arc<()>>>() <= 96);
}
