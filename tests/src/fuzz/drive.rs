//! Runs a target for a bounded time on its corpus and on inputs made from it.
//!
//! `JETWAY_FUZZ_SECONDS` is the time for each target (1 if unset), `JETWAY_SEED` repeats a run's choices, and
//! `JETWAY_FUZZ_KEEP` is how many inputs that made something new happen are added to the corpus (none if unset).

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::mutate::{MAX_LENGTH, mutate};
use super::{Outcome, Target};

/// An input that takes longer is a finding: parsers and state machines do bounded work. Generous, as machines are shared.
const SLOWEST: Duration = Duration::from_secs(5);

/// How many inputs are mutated further at most.
const MAX_POOL: usize = 4096;

/// Runs `target` and panics at its first failure, after the failing input is written into its corpus.
pub fn drive(target: &Target) {
    let seed = seed();
    let time = Duration::from_secs_f64(number("JETWAY_FUZZ_SECONDS").unwrap_or(1.0));
    println!("fuzzing {} for {time:?}: JETWAY_SEED={seed}", target.name);
    let mut random = StdRng::seed_from_u64(seed);
    let mut pool = corpus(target);
    let kept = pool.len();
    let mut outcomes = HashSet::new();
    for input in &pool {
        outcomes.insert(run(target, input));
    }
    pool.push(Vec::new());
    let mut to_keep = number("JETWAY_FUZZ_KEEP").unwrap_or(0.0) as u32;
    let start = Instant::now();
    let mut runs = 0u64;
    while start.elapsed() < time {
        let input = &pool[random.random_range(0..pool.len())];
        let other = &pool[random.random_range(0..pool.len())];
        let input = mutate(input, other, &mut random);
        if outcomes.insert(run(target, &input)) && pool.len() < MAX_POOL {
            if to_keep > 0 {
                save(target, "kept", &input);
                to_keep -= 1;
            }
            pool.push(input);
        }
        runs += 1;
    }
    println!("{}: {kept} inputs kept, {runs} made, {} outcomes", target.name, outcomes.len());
}

/// Runs the target on one input; a panic or too much time ends the test.
fn run(target: &Target, input: &[u8]) -> Outcome {
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = start.elapsed();
    match result {
        Ok(outcome) if took < SLOWEST => outcome,
        Ok(_) => panic!("{} took {took:?} on one input; {}", target.name, save(target, "failed", input)),
        Err(cause) => {
            eprintln!("{} failed; {}", target.name, save(target, "failed", input));
            std::panic::resume_unwind(cause)
        }
    }
}

/// Writes an input into the corpus, where every later run begins with it, and says so.
fn save(target: &Target, why: &str, input: &[u8]) -> String {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(input);
    let path = folder(target).join(format!("{why}-{hash:016x}"));
    let written = fs::create_dir_all(folder(target)).and_then(|()| fs::write(&path, input));
    match written {
        Ok(()) => format!("the input is in {}, and the next run begins with it", path.display()),
        Err(error) => format!("the input could not be written to {}: {error}; it is {input:02x?}", path.display()),
    }
}

/// All files of the target's corpus, in the order of their names.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let further = target.further_corpus.iter().map(|folder| workspace().join(folder));
    let mut paths: Vec<PathBuf> = further.chain([folder(target)]).flat_map(|folder| files(&folder)).collect();
    paths.sort();
    let inputs = paths.iter().map(|path| match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => panic!("the kept input {} cannot be read: {error}", path.display()),
    });
    inputs.filter(|input| input.len() <= 4 * MAX_LENGTH).collect()
}

/// The files in a folder; none if it does not exist.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

fn folder(target: &Target) -> PathBuf {
    workspace().join("tests/fuzz/corpus").join(target.name)
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn seed() -> u64 {
    std::env::var("JETWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random)
}

fn number(variable: &str) -> Option<f64> {
    std::env::var(variable).ok()?.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}
