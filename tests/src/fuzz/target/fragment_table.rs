//! Sequences of fragments, against what a receiver would put together from those that pass.

use std::collections::HashMap;

use jetway_pipelines::dispatch::fragment_table::{
    COPY_WITHIN, DatagramKey, FragmentRange, FragmentTable, LIFETIME, Rest, Verdict,
};
use jetway_pipelines::packet::Protocol;
use jetway_pipelines::time::Instant;

use crate::fuzz::Outcome;
use crate::fuzz::source::Source;

/// Fragments of one input at most.
const MAX_FRAGMENTS: usize = 400;

/// What passed of a datagram: its decision, when it began, the ranges, and whether one was refused.
struct Passed {
    decision: u32,
    began: Instant,
    ranges: Vec<FragmentRange>,
    refused: bool,
}

/// Whatever is sent, fragments that pass under one first fragment never overlap, go where that one went, and end with
/// the first that is refused.
pub fn fragment_table(data: &[u8]) -> Outcome {
    let mut source = Source::new(data);
    let mut table = FragmentTable::new(usize::from(source.byte() % 8), [1, 2, 3, 4]);
    let mut now = Instant::ZERO;
    let mut passed: HashMap<DatagramKey, Passed> = HashMap::new();
    let mut kinds = 0u8;
    for decision in 0..MAX_FRAGMENTS as u32 {
        if source.is_empty() {
            break;
        }
        let [what, offset, length, wait] = source.array();
        now += COPY_WITHIN * u32::from(wait / 64) + LIFETIME * u32::from(wait % 64 == 63);
        let key = DatagramKey {
            source: [1; 16],
            destination: [2; 16],
            identification: u32::from(what % 8),
            protocol: if what & 8 == 0 { Protocol::UDP } else { Protocol::TCP },
            origin: 0,
        };
        let rest = if what & 16 == 0 { Rest::Follows } else { Rest::Ends };
        let Some(range) = FragmentRange::new(u32::from(offset) * 8, u32::from(length), rest) else {
            kinds |= 1;
            continue;
        };
        let verdict = match offset {
            0 => table.first(&key, range, decision, now),
            _ => table.later(&key, range, now),
        };
        assert!(table.len() <= table.capacity());
        match verdict {
            Verdict::Known(mine) if mine == decision => {
                assert_eq!(offset, 0, "a later fragment decided");
                passed.insert(key, Passed { decision, began: now, ranges: vec![range], refused: false });
                kinds |= 2;
            }
            Verdict::Known(other) => {
                let known = passed.get_mut(&key).expect("a datagram whose first fragment passed");
                assert_eq!(other, known.decision);
                assert!(!known.refused && now.since(known.began) <= LIFETIME);
                for earlier in &known.ranges {
                    assert!(range.end() <= earlier.start() || earlier.end() <= range.start(), "{range:?} {earlier:?}");
                }
                assert!(key.protocol != Protocol::TCP || range.start() >= 16);
                known.ranges.push(range);
                kinds |= 4;
            }
            Verdict::Duplicate => {
                assert!(passed.get(&key).is_some_and(|known| known.ranges.contains(&range)), "{range:?} is no copy");
                kinds |= 8;
            }
            Verdict::Unknown => {
                assert_ne!(offset, 0, "a first fragment is never unknown");
                kinds |= 16;
            }
            Verdict::Refused(_) => {
                passed.entry(key).and_modify(|known| known.refused = true);
                kinds |= 32;
            }
        }
    }
    Outcome::of((kinds, table.len(), passed.len()))
}
