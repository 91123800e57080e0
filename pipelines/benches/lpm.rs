//! How long the longest-prefix-match table takes, and how much memory: `cargo bench -p jetway-pipelines --bench lpm`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jetway_pipelines::lpm::Lpm;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const SEED: u64 = 0x1bad_5eed;
const LOOKUPS: usize = 1 << 20;

/// Lookups between two looks at the clock.
const BATCH: usize = 1024;

/// What the allocator gave out and did not get back, with what it adds to each piece.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

/// A piece as glibc rounds it: 8 bytes of header, multiples of 16, 32 at least.
fn rounded(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call goes unchanged to the system allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(rounded(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(rounded(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How the hosts of a table lie.
#[derive(Clone, Copy, Debug)]
enum Spread {
    /// One after the other, as a provisioner hands them out.
    Dense,
    /// Anywhere.
    Random,
}

fn hosts(count: usize, spread: Spread, random: &mut SmallRng) -> Vec<IpAddr> {
    let v4 = (0..count as u32).map(|host| match spread {
        Spread::Dense => Ipv4Addr::from_bits(0x0a00_0000 + host),
        Spread::Random => Ipv4Addr::from_bits(random.random()),
    });
    let v4: Vec<Ipv4Addr> = v4.collect();
    let v6 = (0..count as u128).map(|host| match spread {
        Spread::Dense => Ipv6Addr::from_bits((0xfd00_0008 << 96) + host),
        Spread::Random => Ipv6Addr::from_bits(random.random()),
    });
    v4.into_iter().map(IpAddr::V4).chain(v6.map(IpAddr::V6).collect::<Vec<_>>()).collect()
}

fn host_net(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(address) => Ipv4Net::from(address).into(),
        IpAddr::V6(address) => Ipv6Net::from(address).into(),
    }
}

/// The median over batches that are shorter than a time slice, so that neighbours on the machine count little.
fn nanos_per_lookup(table: &Lpm<Arc<u32>>, addresses: &[IpAddr]) -> f64 {
    let batch_nanos = |batch: &[IpAddr]| {
        let start = Instant::now();
        for address in batch {
            black_box(table.lookup(black_box(*address)).map(Arc::as_ptr));
        }
        start.elapsed().as_nanos() as f64 / batch.len() as f64
    };
    let mut nanos: Vec<f64> = addresses.chunks(BATCH).map(batch_nanos).collect();
    nanos.sort_by(f64::total_cmp);
    nanos[nanos.len() / 2]
}

fn measure(count: usize, spread: Spread) {
    let mut random = SmallRng::seed_from_u64(SEED);
    let hosts = hosts(count, spread, &mut random);
    let values: Vec<Arc<u32>> = (0..hosts.len() as u32).map(Arc::new).collect();
    let before = ALLOCATED.load(Ordering::Relaxed);
    let start = Instant::now();
    let mut table: Lpm<Arc<u32>> =
        hosts.iter().zip(&values).map(|(host, value)| (host_net(*host), Arc::clone(value))).collect();
    let build = start.elapsed();
    let bytes = ALLOCATED.load(Ordering::Relaxed) - before;

    let (v4, v6) = hosts.split_at(count);
    let pick = |from: &[IpAddr], random: &mut SmallRng| -> Vec<IpAddr> {
        (0..LOOKUPS).map(|_| from[random.random_range(0..from.len())]).collect()
    };
    let random_v4 = nanos_per_lookup(&table, &pick(v4, &mut random));
    let random_v6 = nanos_per_lookup(&table, &pick(v6, &mut random));
    let hot_v4 = nanos_per_lookup(&table, &vec![v4[count / 2]; LOOKUPS]);
    let hot_v6 = nanos_per_lookup(&table, &vec![v6[count / 2]; LOOKUPS]);

    let mut changes: Vec<f64> = (0..1000u32)
        .map(|_| {
            let published = table.clone();
            let host = hosts[random.random_range(0..hosts.len())];
            let start = Instant::now();
            table.insert(host_net(host), Arc::clone(&values[0]));
            let nanos = start.elapsed().as_nanos() as f64;
            black_box(published);
            nanos / 1000.0
        })
        .collect();
    changes.sort_by(f64::total_cmp);
    println!(
        "{spread:?} {count:>8} of each family: build {:>8.2} ms, {:>5.1} B/prefix | lookup hot v4 {hot_v4:>5.1} v6 \
         {hot_v6:>5.1} ns, random v4 {random_v4:>6.1} v6 {random_v6:>6.1} ns | insert beside a clone: median {:.2} p99 {:.2} us",
        build.as_secs_f64() * 1e3,
        bytes as f64 / table.len() as f64,
        changes[500],
        changes[990],
    );
}

fn main() {
    println!("seed {SEED:#x}");
    for spread in [Spread::Dense, Spread::Random] {
        for count in [1, 1_000, 100_000, 1_000_000] {
            measure(count, spread);
        }
    }
}
