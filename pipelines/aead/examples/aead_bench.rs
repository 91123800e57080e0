//! Times a packet's sealing and opening by each backend, beside aws-lc-rs with a prepared key as the yardstick.
//!
//! `cargo run --release -p jetway-aead --example aead_bench -- [seconds per row] [filter]`. The implementations take turns burst by
//! burst, on the same buffers; a ratio is the median of the turns' ratios, its spread the quartiles. Hot caches: what is
//! timed has run for a while before.

use std::fmt::Write;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use jetway_aead::{Aead, Backend, Key, OpenJob, SealJob, TAG_LENGTH};

/// The simple IMIX: of twelve packets, seven small ones, four middling ones, one large.
const IMIX: [usize; 12] = [64, 64, 576, 64, 64, 576, 64, 1420, 576, 64, 64, 576];

/// Packets that are sealed, then opened, in one turn.
const PACKETS: usize = 64;

/// How long an implementation runs before a turn of it is timed: the caches and predictors were another's.
const WARM_UP: Duration = Duration::from_micros(200);

struct Scenario {
    name: String,
    lengths: [usize; PACKETS],
    burst: usize,
    keys: usize,
}

/// Nanoseconds a packet of one turn.
#[derive(Clone, Copy)]
struct Turn {
    seal: f64,
    open: f64,
}

/// As many keys as a power of two.
struct Bench {
    prepared: Vec<Key>,
    reference: Vec<LessSafeKey>,
    buffers: Vec<Vec<u8>>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(0.5);
    let filter = arguments.next().unwrap_or_default();
    let backends: Vec<Aead> = Backend::ALL.iter().filter_map(|&backend| Aead::with_backend(backend).ok()).collect();
    for backend in Backend::ALL {
        if let Err(error) = Aead::with_backend(backend) {
            println!("# not measured: {error}");
        }
    }
    println!("# ns a packet, median of turns: seal/open; (times as fast as aws-lc-rs: median [quartiles])");
    for scenario in scenarios().iter().filter(|scenario| scenario.name.contains(&filter)) {
        run(scenario, &backends, Duration::from_secs_f64(seconds));
    }
}

fn scenarios() -> Vec<Scenario> {
    let of = |length: usize, burst: usize, keys: usize| Scenario {
        name: format!("{length} B, burst {burst}, {keys} keys"),
        lengths: [length; PACKETS],
        burst,
        keys,
    };
    let mut all = Vec::new();
    for length in [0, 64, 128, 256, 512, 1024, 1420] {
        all.push(of(length, 32, 1));
    }
    all.extend([of(64, 32, 16), of(512, 32, 16), of(1420, 32, 16), of(8984, 32, 1)]);
    for keys in [1, 16] {
        let lengths = std::array::from_fn(|index| IMIX[index % IMIX.len()]);
        all.push(Scenario { name: format!("IMIX, burst 32, {keys} keys"), lengths, burst: 32, keys });
    }
    for burst in [1, 2, 3, 4, 6, 8, 12, 16, 64] {
        all.extend([of(64, burst, 16), of(1420, burst, 16)]);
    }
    all
}

fn run(scenario: &Scenario, backends: &[Aead], time: Duration) {
    let mut bench = Bench::new(scenario.keys, &scenario.lengths);
    // One row of turns for aws-lc-rs, then one for each backend.
    let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); 1 + backends.len()];
    let start = Instant::now();
    let mut counter = 0;
    while start.elapsed() < time {
        for (index, row) in turns.iter_mut().enumerate() {
            counter += PACKETS as u64;
            let mut turn = || match index.checked_sub(1) {
                None => bench.reference_turn(counter),
                Some(backend) => bench.turn(backends[backend], scenario.burst, counter),
            };
            let start = Instant::now();
            while start.elapsed() < WARM_UP {
                turn();
            }
            row.push(turn());
        }
    }
    let mut line = format!("{:26}", scenario.name);
    for (index, row) in turns.iter().enumerate() {
        let name = if index == 0 { "aws-lc-rs" } else { backends[index - 1].backend().name() };
        let [_, seal, _] = quartiles(row.iter().map(|turn| turn.seal));
        let [_, open, _] = quartiles(row.iter().map(|turn| turn.open));
        let _ = write!(line, " | {name} {seal:.1}/{open:.1}");
        if index > 0 {
            let seals = quartiles(turns[0].iter().zip(row).map(|(reference, turn)| reference.seal / turn.seal));
            let opens = quartiles(turns[0].iter().zip(row).map(|(reference, turn)| reference.open / turn.open));
            for [low, median, high] in [seals, opens] {
                let _ = write!(line, " {median:.2} [{low:.2}..{high:.2}]");
            }
        }
    }
    println!("{line}");
}

impl Bench {
    fn new(keys: usize, lengths: &[usize]) -> Self {
        let keys: Vec<[u8; 32]> = (0..keys).map(|index| [index as u8 + 1; 32]).collect();
        let prepared = keys.iter().map(Key::new).collect();
        let reference = (keys.iter())
            .map(|key| LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes")))
            .collect();
        let buffers = lengths.iter().map(|length| vec![0xa5; length + TAG_LENGTH]).collect();
        Self { prepared, reference, buffers }
    }

    fn turn(&mut self, aead: Aead, burst: usize, counter: u64) -> Turn {
        // To fill in the jobs is the caller's work, so it is not timed.
        let keys = self.prepared.iter().cycle();
        let mut jobs: Vec<SealJob<'_>> = (self.buffers.iter_mut().zip(keys).zip(counter..))
            .map(|((buffer, key), counter)| SealJob { key, counter, buffer })
            .collect();
        let start = Instant::now();
        jobs.chunks_mut(burst).for_each(|jobs| aead.seal_burst(jobs));
        let seal = start.elapsed();

        let keys = self.prepared.iter().cycle();
        let mut jobs: Vec<OpenJob<'_>> = (self.buffers.iter_mut().zip(keys).zip(counter..))
            .map(|((buffer, key), counter)| OpenJob { key, counter, buffer, authentic: false })
            .collect();
        let start = Instant::now();
        jobs.chunks_mut(burst).for_each(|jobs| aead.open_burst(jobs));
        let open = start.elapsed();
        assert!(jobs.iter().all(|job| job.authentic), "{aead:?}");
        Turn::new(seal, open)
    }

    fn reference_turn(&mut self, counter: u64) -> Turn {
        let nonce = |index: usize| {
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&(counter + index as u64).to_le_bytes());
            Nonce::assume_unique_for_key(nonce)
        };
        let start = Instant::now();
        for (index, buffer) in self.buffers.iter_mut().enumerate() {
            let (text, room) = buffer.split_last_chunk_mut::<TAG_LENGTH>().expect("room for a tag");
            let key = &self.reference[index & (self.reference.len() - 1)];
            let tag = key.seal_in_place_separate_tag(nonce(index), Aad::empty(), text).expect("short");
            room.copy_from_slice(tag.as_ref());
        }
        let seal = start.elapsed();
        let start = Instant::now();
        for (index, buffer) in self.buffers.iter_mut().enumerate() {
            let key = &self.reference[index & (self.reference.len() - 1)];
            key.open_in_place(nonce(index), Aad::empty(), buffer).expect("authentic");
        }
        Turn::new(seal, start.elapsed())
    }
}

impl Turn {
    fn new(seal: Duration, open: Duration) -> Self {
        let each = |time: Duration| time.as_nanos() as f64 / PACKETS as f64;
        Self { seal: each(seal), open: each(open) }
    }
}

/// The first quartile, the median and the third quartile.
fn quartiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
