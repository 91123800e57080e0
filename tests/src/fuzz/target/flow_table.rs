//! Sequences of changes to a flow table, against a map.

use std::collections::HashMap;

use jetway_pipelines::dispatch::flow_table::{
    Cursor, Decision, FlowKey, FlowKind, FlowTable, Full, Lifetime, Pass, Status, Tick, Verdict, address_bytes,
};
use jetway_pipelines::ids::BackendIndex;
use jetway_pipelines::packet::Protocol;
use jetway_pipelines::packet::tcp::Flags;

use crate::fuzz::Outcome;
use crate::fuzz::source::Source;

/// Changes that one input makes at most.
const MAX_CHANGES: usize = 400;

/// A decision, and the class and the time of the last touch.
type Known = (Decision, Lifetime, u32);

/// The table always holds what the map holds, and refuses a flow only when a bucket's worth of others are there.
pub fn flow_table(data: &[u8]) -> Outcome {
    let mut source = Source::new(data);
    let mut table = FlowTable::new(usize::from(source.byte() % 32), [1, 2, 3, 4]);
    let mut now = u32::from_be_bytes(source.array());
    let mut model: HashMap<FlowKey, Known> = HashMap::new();
    let mut cursor = Cursor::default();
    let (mut kinds, mut refused) = (0u16, 0u32);
    for number in 0..MAX_CHANGES as u32 {
        if source.is_empty() {
            break;
        }
        let change = source.byte() % 8;
        let lifetime = Lifetime::ALL[usize::from(source.byte()) % Lifetime::ALL.len()];
        let key = key(&mut source);
        let hash = table.hash(&key);
        table.prefetch(hash);
        table.prefetch_entry(hash, Tick(now));
        let found = table.find(hash, &key, Tick(now));
        let known = model.get(&key).filter(|known| is_live(known, now)).copied();
        assert_eq!(found.and_then(|id| table.get(id)).map(|flow| (flow.key, flow.decision)), known.map(|k| (key, k.0)));
        assert_eq!(found.and_then(|id| table.lifetime(id)), known.map(|known| known.1));
        kinds |= 1 << change | u16::from(found.is_some()) << 8;
        match (change, found) {
            (0..=2, _) => match table.insert(hash, key, decision(number), lifetime, Tick(now)) {
                Ok(_) => drop(model.insert(key, (decision(number), lifetime, now))),
                Err(Full) => {
                    assert!(known.is_none() && live(&model, now) >= 8, "{key:?} was refused");
                    refused += 1;
                }
            },
            (3, Some(id)) => {
                let after = known.map_or(lifetime, |known| known.1.after_segment(Flags(source.byte())));
                table.touch(id, after, Tick(now));
                model.entry(key).and_modify(|known| (known.1, known.2) = (after, now));
            }
            (4, Some(id)) => assert_eq!(table.remove(id), model.remove(&key).map(|known| known.0)),
            (5, _) => now = now.wrapping_add(u32::from(u16::from_be_bytes(source.array()))),
            (6, _) => {
                let before = live(&model, now);
                let mut removed = 0;
                let gone = |decision: &Decision| decision.position.is_multiple_of(2);
                let all = table.buckets();
                let pass = table
                    .clear_matching(&mut Cursor::default(), all, Tick(now), &mut removed, |flow| gone(&flow.decision));
                assert_eq!(pass, Pass::Finished);
                model.retain(|_, known| is_live(known, now) && !gone(&known.0));
                assert_eq!((table.len(), removed), (model.len(), (before - model.len()) as u64));
            }
            (7, _) => {
                table.scan(&mut cursor, usize::from(source.byte() % 4), Tick(now), |visited| {
                    let known = model.get(&visited.flow.key).filter(|known| is_live(known, now));
                    assert!(visited.status == Status::Expired || known.is_some(), "{visited:?} is not known");
                    Verdict::Keep
                });
            }
            (3 | 4 | 8.., _) => {}
        }
        assert!(table.len() >= live(&model, now) && table.len() <= table.capacity());
    }
    Outcome::of((kinds, table.buckets(), refused.min(3), model.len().min(20)))
}

fn is_live((_, lifetime, seen): &Known, now: u32) -> bool {
    now.wrapping_sub(*seen) <= lifetime.ticks()
}

fn live(model: &HashMap<FlowKey, Known>, now: u32) -> usize {
    model.values().filter(|known| is_live(known, now)).count()
}

/// A key of few bits that vary, so that flows meet.
fn key(source: &mut Source<'_>) -> FlowKey {
    let byte = source.byte();
    FlowKey {
        source: address_bytes(std::net::Ipv4Addr::new(10, 0, 0, byte & 15).into()),
        destination: address_bytes(std::net::Ipv6Addr::LOCALHOST.into()),
        source_port: u16::from(byte >> 4 & 3),
        destination_port: 443,
        protocol: if byte & 64 == 0 { Protocol::TCP } else { Protocol::UDP },
        kind: if byte & 128 == 0 { FlowKind::Forward } else { FlowKind::Answer },
        origin: 0,
    }
}

fn decision(number: u32) -> Decision {
    Decision::new(BackendIndex(number), number as u16)
}
