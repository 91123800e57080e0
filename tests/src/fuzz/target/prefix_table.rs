//! Sequences of changes to a prefix table, against a list.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jetway_pipelines::lpm::Lpm;

use crate::fuzz::Outcome;
use crate::fuzz::source::Source;

/// Changes that one input makes at most.
const MAX_CHANGES: usize = 200;

/// Clones that are kept at most.
const MAX_CLONES: usize = 8;

/// The table always holds what the list holds, and clones what it held when they were made.
pub fn prefix_table(data: &[u8]) -> Outcome {
    let mut source = Source::new(data);
    let mut table = Lpm::new();
    let mut model = HashMap::new();
    let mut clones = Vec::new();
    let mut kinds = 0u8;
    for value in 0..MAX_CHANGES {
        if source.is_empty() {
            break;
        }
        let change = source.byte() % 8;
        kinds |= 1 << change;
        match change {
            0..=3 => {
                let net = net(&mut source);
                assert_eq!(table.insert(net, value), model.insert(net, value), "insert {net}");
            }
            4 | 5 => {
                let net = net(&mut source);
                assert_eq!(table.remove(&net), model.remove(&net), "remove {net}");
            }
            6 => {
                let address = address(&mut source);
                assert_eq!(table.lookup(address), lookup(&model, address), "look up {address}");
            }
            _ if clones.len() < MAX_CLONES => clones.push((table.clone(), model.clone())),
            _ => drop(clones.pop()),
        }
    }
    for (table, model) in clones.iter().chain([&(table, model)]) {
        assert_same(table, model);
    }
    Outcome::of((kinds, clones.len()))
}

fn assert_same(table: &Lpm<usize>, model: &HashMap<IpNet, usize>) {
    assert_eq!(table.len(), model.len());
    assert_eq!(table.iter().map(|(net, value)| (net, *value)).collect::<HashMap<_, _>>(), *model);
    for (net, value) in model {
        assert_eq!(table.get(net), Some(value), "{net}");
        for address in [net.network(), net.broadcast()] {
            assert_eq!(table.lookup(address), lookup(model, address), "look up {address}");
        }
    }
}

fn lookup(model: &HashMap<IpNet, usize>, address: IpAddr) -> Option<&usize> {
    let containing = model.iter().filter(|(net, _)| net.contains(&address));
    containing.max_by_key(|(net, _)| net.prefix_len()).map(|(_, value)| value)
}

/// An address of few bytes that vary, so that prefixes meet.
fn address(source: &mut Source<'_>) -> IpAddr {
    match source.byte() % 4 {
        0 => Ipv4Addr::from(source.array()).into(),
        1 => Ipv4Addr::new(10, 8, source.byte() & 3, source.byte()).into(),
        2 => Ipv6Addr::from(source.array::<16>()).into(),
        _ => Ipv6Addr::from_bits(
            0xfd00_0008 << 96 | u128::from(u16::from_be_bytes(source.array())) << (source.byte() & 63),
        )
        .into(),
    }
}

fn net(source: &mut Source<'_>) -> IpNet {
    let length = source.byte();
    match address(source) {
        IpAddr::V4(address) => Ipv4Net::new_assert(address, length % 33).trunc().into(),
        IpAddr::V6(address) => Ipv6Net::new_assert(address, length % 129).trunc().into(),
    }
}
