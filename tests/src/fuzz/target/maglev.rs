//! Members of any weights and states, for the promises of a table and of a choice.

use std::collections::HashSet;

use jetway_pipelines::dispatch::maglev::{Identity, Maglev, Member, SlotsMoved};
use jetway_pipelines::dispatch::selection::{How, choose};

use crate::fuzz::Outcome;
use crate::fuzz::source::Source;

/// Sizes of tables, not all of them primes.
const SIZES: [u32; 8] = [0, 3, 7, 8, 31, 251, 1009, 65_536];

/// A table gives every member a slot, the order of members does not matter, and a choice is a member that takes flows.
pub fn maglev(data: &[u8]) -> Outcome {
    let mut source = Source::new(data);
    let size = SIZES[usize::from(source.byte() % 8)];
    let hash = u64::from_be_bytes(source.array());
    let down: HashSet<u16> = source.bytes(64).iter().map(|position| u16::from(*position)).collect();
    let mut members = Vec::new();
    while !source.is_empty() && members.len() < 300 {
        let name = source.bytes(4);
        members.push(Member { identity: Identity::of(name), weight: u16::from_be_bytes(source.array()) });
    }
    let table = match Maglev::build(size, &members) {
        Ok(table) => table,
        Err(error) => return Outcome::of(std::mem::discriminant(&error)),
    };
    let loads = table.loads(members.len());
    assert!(loads.iter().all(|load| *load >= 1), "{loads:?}");
    assert_eq!(loads.iter().sum::<u32>(), size);
    if members.iter().map(|member| member.identity).collect::<HashSet<_>>().len() == members.len() {
        members.reverse();
        let reversed = Maglev::build(size, &members).expect("the same members make a table");
        let last = members.len() as u16 - 1;
        assert_eq!(table.slots_moved(&reversed, |position| Some(last - position)), SlotsMoved::default());
    }
    let chosen = choose(&table, hash, |position| !down.contains(&position), members.len());
    assert!(
        chosen.is_none_or(|chosen| usize::from(chosen.position) < members.len() && !down.contains(&chosen.position))
    );
    assert!(down.contains(&table.lookup(hash)) || chosen.map(|chosen| chosen.how) == Some(How::Slot));
    Outcome::of((size, members.len().min(40), chosen.map(|chosen| chosen.how)))
}
