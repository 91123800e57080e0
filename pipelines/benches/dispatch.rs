//! What dispatch costs, building Maglev tables and looking flows up: `cargo bench -p jetway-pipelines --bench dispatch`.

fn main() {
    maglev::builds();
    flows::lookups();
}

mod maglev {
    use std::hint::black_box;
    use std::time::Instant;

    use jetway_pipelines::dispatch::maglev::{Identity, Maglev, Member};

    /// Prints the median time of building tables for 1,000 backends.
    pub fn builds() {
        for size in [65_537, 655_373] {
            for (name, weight) in
                [("equal", (|_| 1) as fn(u16) -> u16), ("1..=10", |n| 1 + n % 10), ("1..=1000", |n| 1 + n)]
            {
                let members: Vec<Member> = (0..1000)
                    .map(|n| Member { identity: Identity::of(format!("server-{n}").as_bytes()), weight: weight(n) })
                    .collect();
                let mut millis: Vec<f64> = (0..if size < 100_000 { 101 } else { 11 })
                    .map(|_| {
                        let start = Instant::now();
                        black_box(Maglev::build(size, black_box(&members)).is_ok());
                        start.elapsed().as_secs_f64() * 1e3
                    })
                    .collect();
                millis.sort_by(f64::total_cmp);
                println!(
                    "maglev {size:>7} slots, 1,000 backends, weights {name:<9} {:>7.2} ms",
                    millis[millis.len() / 2]
                );
            }
        }
    }
}

mod flows {
    use std::hint::black_box;
    use std::time::Instant;

    use jetway_pipelines::dispatch::flow_table::{
        BYTES_PER_FLOW, Decision, FlowKey, FlowKind, FlowTable, Lifetime, Tick, address_bytes,
    };
    use jetway_pipelines::ids::BackendIndex;
    use jetway_pipelines::packet::Protocol;

    /// Packets that are looked up together.
    const BURST: usize = 32;

    /// Bursts between two looks at the clock.
    const BURSTS: usize = 32;

    const DECISION: Decision = Decision::new(BackendIndex(2), 4);

    /// The key of a flow's number: made, not loaded, so that the table's loads are all that is slow.
    fn key(number: u32) -> FlowKey {
        FlowKey {
            source: address_bytes(std::net::Ipv4Addr::from_bits(0x0a00_0000 + (number >> 8)).into()),
            destination: address_bytes(std::net::Ipv4Addr::new(192, 0, 2, 1).into()),
            source_port: 1024 + (number & 0xff) as u16,
            destination_port: 443,
            protocol: Protocol::UDP,
            kind: FlowKind::Forward,
            origin: 0,
        }
    }

    /// A number below `flows`, not in any order.
    fn shuffled(step: u64, flows: u32) -> u32 {
        let mixed = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (((mixed >> 32) * u64::from(flows)) >> 32) as u32
    }

    /// Looks a burst up as a worker does, and keeps what is new.
    fn burst(table: &mut FlowTable, keys: &[FlowKey; BURST], now: Tick) {
        let hashes = std::array::from_fn::<_, BURST, _>(|packet| {
            let hash = table.hash(&keys[packet]);
            table.prefetch(hash);
            hash
        });
        for hash in hashes {
            table.prefetch_entry(hash, now);
        }
        for (key, hash) in keys.iter().zip(hashes) {
            match table.find(hash, key, now) {
                Some(id) => {
                    table.touch(id, Lifetime::Udp, now);
                    black_box(table.get(id).map(|flow| flow.decision));
                }
                None => {
                    black_box(table.insert(hash, *key, DECISION, Lifetime::Udp, now).is_ok());
                }
            }
        }
    }

    /// Prints the median nanoseconds a packet of bursts whose flows have the numbers that `number` gives.
    fn measure(name: &str, table: &mut FlowTable, batches: u64, now: Tick, number: impl Fn(u64) -> u32) {
        let mut step = 0;
        let mut nanos: Vec<f64> = (0..batches)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..BURSTS {
                    let keys = std::array::from_fn(|packet| key(number(step + packet as u64)));
                    step += BURST as u64;
                    burst(table, black_box(&keys), now);
                }
                start.elapsed().as_nanos() as f64 / (BURSTS * BURST) as f64
            })
            .collect();
        nanos.sort_by(f64::total_cmp);
        println!("{name:<48} {:>7.1} ns a packet", nanos[nanos.len() / 2]);
    }

    /// Prints what lookups and insertions cost at several numbers of flows.
    pub fn lookups() {
        println!("flows: {BYTES_PER_FLOW} bytes each");
        for (name, flows) in [("1 k", 1_000), ("100 k", 100_000), ("1 M", 1_000_000), ("10 M", 10_000_000u32)] {
            let mut table = FlowTable::new(flows as usize, [1, 2, 3, 4]);
            let batches = u64::from(flows) / (BURSTS * BURST) as u64 + 1;
            measure(&format!("all new, into a table for {name}"), &mut table, batches, Tick(0), |step| step as u32);
            let kept = table.len();
            measure(&format!("one hot flow among {name}"), &mut table, 1000, Tick(1), |_| flows / 2);
            measure(&format!("any of {name}"), &mut table, 2000, Tick(2), |step| shuffled(step, flows));
            assert_eq!(table.len(), kept, "a flow was not found");
        }
    }
}
