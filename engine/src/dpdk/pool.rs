//! Pools of mbufs, one for each NUMA node that has ports.

use std::collections::HashMap;
use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dpdk_sys as sys;
use jetway_pipelines::buffer::{BufferPool, HEADROOM};

use super::device::buffer_size;
use super::eal::{Eal, last_error};
use super::mbuf::{Mbuf, free_burst};
use crate::port::{BURST, Burst};

// A fresh mbuf starts its packet behind DPDK's headroom, which therefore has to be ours.
const _: () = assert!(sys::SHIM_PKTMBUF_HEADROOM as usize == HEADROOM);

/// How large the pools are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolOptions {
    /// Mbufs in each pool. [`PoolOptions::buffers_for`] gives a safe number.
    pub buffers: u32,
    /// The largest MTU of any port.
    pub max_mtu: u16,
}

/// A pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Packets of this size do not fit an mbuf.
    #[error("an MTU of {0} bytes is more than an mbuf holds: use at most 60,000")]
    MtuTooLarge(u16),
    /// No memory.
    #[error(
        "no pool of {buffers} packet buffers of {size} bytes ({mib} MiB) could be made ({reason}): give the engine \
         more memory, or use fewer queues or descriptors"
    )]
    NoMemory {
        /// Buffers wanted.
        buffers: u32,
        /// Bytes of each.
        size: u32,
        /// MiB of all.
        mib: u64,
        /// DPDK's words.
        reason: String,
    },
}

impl PoolOptions {
    /// How many mbufs never run out: every descriptor of every queue may hold one, every worker's cache and bursts as
    /// well, and `elsewhere` of them (hand-off and host rings, packets held for a neighbour or session).
    pub fn buffers_for(queues: u32, descriptors_per_queue: u32, workers: u32, elsewhere: u32) -> u32 {
        let workers = workers * (3 * CACHE / 2 + 8 * BURST as u32);
        let wanted = queues * descriptors_per_queue + workers + elsewhere;
        // A mempool's ring wastes nothing when its size is a power of two less one.
        (wanted + 1).next_power_of_two().max(4096) - 1
    }

    /// The memory that an engine with `pools` such pools needs, in MiB: the buffers with their heads and the pools' rings,
    /// and what the EAL and its drivers take for themselves.
    pub fn memory_mib(&self, pools: u32) -> u32 {
        const ENVIRONMENT: u64 = 32;
        let pools = (self.pool_bytes() * u64::from(pools)) >> 20;
        u32::try_from(pools + pools / 16 + ENVIRONMENT).unwrap_or(u32::MAX)
    }

    /// The bytes of one pool on ordinary pages, where an object that fits a page does not cross into the next.
    fn pool_bytes(&self) -> u64 {
        const PAGE: u64 = 4096;
        let head = size_of::<sys::rte_mbuf>() as u64;
        // Before each mbuf its pool keeps a cache line of its own, and behind it up to one to spread them over channels.
        let object = u64::from(buffer_size(self.max_mtu)) + head + 64 + 64;
        let buffers = u64::from(self.buffers);
        match PAGE / object {
            0 => buffers * object,
            on_page => buffers.div_ceil(on_page) * PAGE,
        }
    }

    fn data_room(&self) -> Result<u16, PoolError> {
        u16::try_from(buffer_size(self.max_mtu)).map_err(|_| PoolError::MtuTooLarge(self.max_mtu))
    }
}

/// Mbufs that each registered thread keeps at hand.
const CACHE: u32 = 256;

/// The pools of an engine, made as its ports need them.
pub struct Pools {
    eal: Eal,
    options: PoolOptions,
    by_node: HashMap<Option<u32>, Pool>,
}

impl Pools {
    /// No pool yet.
    pub fn new(eal: &Eal, options: PoolOptions) -> Self {
        Self { eal: eal.clone(), options, by_node: HashMap::new() }
    }

    /// The EAL in which they live.
    pub fn eal(&self) -> &Eal {
        &self.eal
    }

    /// The largest MTU that their buffers are made for.
    pub fn max_mtu(&self) -> u16 {
        self.options.max_mtu
    }

    /// The pool on a NUMA node, or anywhere for `None`. A node without memory to spare gets the pool of all others.
    pub fn on_node(&mut self, node: Option<u32>) -> Result<Pool, PoolError> {
        // SAFETY: the EAL is running.
        let nodes = unsafe { sys::rte_socket_count() };
        // Ordinary pages belong to no node, and with one node there is nothing to tell apart.
        let node = node.filter(|_| nodes > 1 && self.eal.huge_pages());
        if let Some(pool) = self.by_node.get(&node) {
            return Ok(pool.clone());
        }
        let pool = match (Pool::create(&self.eal, self.options, node), node) {
            (Ok(pool), _) => pool,
            (Err(error), None) => return Err(error),
            (Err(error), Some(node)) => {
                tracing::warn!("NUMA node {node}: {error}; its ports use another node's memory, which is slower");
                self.on_node(None)?
            }
        };
        self.by_node.insert(node, pool.clone());
        Ok(pool)
    }
}

/// A pool of mbufs. Clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Mempool>);

struct Mempool {
    pool: NonNull<sys::rte_mempool>,
    buffers: u32,
    eal: Eal,
}

// SAFETY: a mempool may be used from any thread; DPDK's default (`ring_mp_mc`) synchronises its users.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Pool {
    fn create(eal: &Eal, options: PoolOptions, node: Option<u32>) -> Result<Self, PoolError> {
        let name = format!("jetway_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).unwrap_or_default();
        let data_room = options.data_room()?;
        let node = node.map_or(-1, |node| i32::try_from(node).unwrap_or(-1));
        let cache = CACHE.min(options.buffers / 4);
        // SAFETY: the EAL is running, and the name lives through the call, which copies it.
        let pool = unsafe { sys::rte_pktmbuf_pool_create(name.as_ptr(), options.buffers, cache, 0, data_room, node) };
        match NonNull::new(pool) {
            Some(pool) => Ok(Self(Arc::new(Mempool { pool, buffers: options.buffers, eal: eal.clone() }))),
            None => Err(PoolError::NoMemory {
                buffers: options.buffers,
                size: u32::from(data_room),
                mib: options.pool_bytes() >> 20,
                reason: last_error(),
            }),
        }
    }

    /// How many mbufs it was made with.
    pub fn buffers(&self) -> u32 {
        self.0.buffers
    }

    /// How many mbufs are free, those in threads' caches included. Exact while nobody allocates or frees.
    pub fn available(&self) -> u32 {
        self.0.available()
    }

    /// A way to allocate for one thread, which keeps up to a burst of mbufs in advance.
    pub fn allocator(&self) -> Allocator {
        Allocator { stock: Burst::new(), pool: self.clone() }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.0.pool.as_ptr()
    }
}

impl Mempool {
    fn available(&self) -> u32 {
        // SAFETY: the pool lives as long as `self`.
        unsafe { sys::rte_mempool_avail_count(self.pool.as_ptr()) }
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        // Every mbuf is back: a registered thread's frees came before its unregistering, which `Eal` waits for, and
        // another thread's free ends with the store that makes it count.
        if self.available() == self.buffers {
            // SAFETY: no mbuf of the pool is in use, and this was the last handle.
            unsafe { sys::rte_mempool_free(self.pool.as_ptr()) };
        } else {
            let missing = self.buffers - self.available();
            tracing::warn!("{missing} packet buffers are still in use while their pool ends: its memory is kept");
            // Their owners may still touch them: keep DPDK's memory mapped until the process ends.
            std::mem::forget(self.eal.clone());
        }
    }
}

/// Allocates mbufs for one thread, a burst at a time.
pub struct Allocator {
    stock: Burst<Mbuf>,
    pool: Pool,
}

impl Allocator {
    /// Takes a burst from the pool; what is left of it when it has no whole burst.
    #[cold]
    fn refill(&mut self) {
        let mut count = BURST as u32;
        let first = self.stock.as_mut_ptr().cast::<*mut sys::rte_mbuf>();
        while count > 0 {
            // SAFETY: the stock is empty (the caller saw it) and has room for BURST pointers, which is what Mbuf is;
            // on success `count` of them are fresh mbufs of one empty segment, ours alone.
            unsafe {
                if sys::shim_alloc_bulk(self.pool.as_ptr(), first, count) == 0 {
                    self.stock.set_len(count as usize);
                    return;
                }
            }
            count /= 2;
        }
    }
}

impl BufferPool<Mbuf> for Allocator {
    fn allocate(&mut self) -> Option<Mbuf> {
        if self.stock.is_empty() {
            self.refill();
        }
        self.stock.pop()
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        free_burst(&mut self.stock);
    }
}
