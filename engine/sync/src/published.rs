//! The table swap: control publishes snapshots by pointer, workers read them without locks, and what was replaced is
//! freed by control when no worker can hold it any more.
//!
//! This is quiescent-state based reclamation (QSBR; Hart et al., "Performance of memory reclamation for lockless
//! synchronization", 2007). A domain has an epoch that grows with everything retired. A worker announces at the top of
//! each turn which epoch it has seen; what was retired in epoch `e` is freed when every worker that is online has
//! announced `e` or later. A worker that sleeps goes offline, so that it holds nothing up.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc as Snapshot;

use crate::primitive::{Arc, AtomicPtr, AtomicU64, CachePadded, Mutex, Ordering, fence};

/// What a reader announces while it sleeps: it holds nothing.
const OFFLINE: u64 = u64::MAX;
/// What a reader announces when it is dropped: it can be forgotten.
const GONE: u64 = u64::MAX - 1;

/// Control's end: publishes snapshots of `T` and frees those that nobody reads any more.
///
/// Snapshots are `std::sync::Arc`s so that control may keep one to build the next from; readers never touch the count.
pub struct Publisher<T: Send + Sync + 'static> {
    shared: Arc<Shared<T>>,
    latest: Snapshot<T>,
    /// What some reader may still hold: oldest first, with the epoch that every reader must have seen.
    retired: VecDeque<(u64, Box<dyn Send>)>,
}

/// A worker's end: reads the latest snapshot.
pub struct Reader<T: Send + Sync + 'static> {
    shared: Arc<Shared<T>>,
    announced: Arc<Announced>,
    /// The epoch in `announced`.
    seen: u64,
    /// The snapshot that `get` lends out.
    current: *const T,
}

// SAFETY: a reader is its fields; the raw pointer is used as a `&T`, which `T: Sync` allows on any thread. What
// keeps the snapshot alive (the announced epoch) moves with the reader.
unsafe impl<T: Send + Sync + 'static> Send for Reader<T> {}

impl<T: Send + Sync + 'static> Publisher<T> {
    /// A publisher whose first snapshot is `first`.
    pub fn new(first: Snapshot<T>) -> Self {
        let domain = Arc::new(Domain::new());
        let shared = Arc::new(Shared { current: AtomicPtr::new(Snapshot::as_ptr(&first).cast_mut()), domain });
        Self { shared, latest: first, retired: VecDeque::new() }
    }

    /// One more reader. It counts until it is dropped.
    pub fn reader(&mut self) -> Reader<T> {
        let domain = &self.shared.domain;
        let announced = Arc::new(Announced::new(OFFLINE));
        domain.readers.lock().expect("no panic while the lock is held").push(Arc::clone(&announced));
        let (seen, current) = go_online(&self.shared, &announced);
        Reader { shared: Arc::clone(&self.shared), announced, seen, current }
    }

    /// The snapshot that was published last.
    pub fn latest(&self) -> &Snapshot<T> {
        &self.latest
    }

    /// Makes `next` the snapshot that readers get from their next refresh on, and retires the one before.
    pub fn publish(&mut self, next: Snapshot<T>) {
        // Release: who sees the pointer sees the snapshot behind it.
        self.shared.current.store(Snapshot::as_ptr(&next).cast_mut(), Ordering::Release);
        let previous = std::mem::replace(&mut self.latest, next);
        self.retire(previous);
    }

    /// Keeps `garbage` alive until every reader has passed a quiescent point from now on.
    ///
    /// The caller has made it unreachable for readers before (swapped the pointer to it, say): only who got hold of it
    /// before this call may still use it.
    pub fn retire(&mut self, garbage: impl Send + 'static) {
        // Release: a reader that sees the new epoch sees that the thing is gone.
        let epoch = self.shared.domain.epoch.fetch_add(1, Ordering::Release) + 1;
        self.retired.push_back((epoch, Box::new(garbage)));
    }

    /// Frees, on this thread, what every reader has passed. Returns how many things that were.
    pub fn reclaim(&mut self) -> usize {
        if self.retired.is_empty() {
            return 0;
        }
        let passed = self.shared.domain.passed();
        let count = self.retired.partition_point(|(epoch, _)| *epoch <= passed);
        self.retired.drain(..count);
        count
    }

    /// How many things still wait to be freed.
    pub fn waiting(&self) -> usize {
        self.retired.len()
    }
}

impl<T: Send + Sync + 'static> Drop for Publisher<T> {
    /// Leaves to the domain what some reader may still hold, the last snapshot with it: it is freed with the last reader.
    fn drop(&mut self) {
        self.retire(Snapshot::clone(&self.latest));
        self.reclaim();
        let mut orphans = self.shared.domain.orphans.lock().expect("no panic while the lock is held");
        orphans.extend(self.retired.drain(..).map(|(_, garbage)| garbage));
    }
}

impl<T: Send + Sync + 'static> Reader<T> {
    /// Announces that this thread holds nothing from before now, and moves on to the latest snapshot. Returns whether there
    /// is a new one. One acquire load when nothing changed. To be called at the top of a turn.
    pub fn refresh(&mut self) -> bool {
        // Acquire: whoever raised the epoch had stored its pointer before.
        let epoch = self.shared.domain.epoch.load(Ordering::Acquire);
        if epoch == self.seen {
            return false;
        }
        let before = self.current;
        self.current = self.shared.current.load(Ordering::Acquire);
        self.seen = epoch;
        // Release: all that we read before through older pointers happened before whoever sees this frees them.
        self.announced.epoch.store(epoch, Ordering::Release);
        !std::ptr::eq(before, self.current)
    }

    /// The snapshot of the last refresh; it stays valid until the next.
    pub fn get(&self) -> &T {
        // SAFETY: `current` came from a live `Arc` in `publish` (or `new`). Its owner keeps it until this reader has announced an
        // epoch later than the one in which it was replaced, which `refresh` and `offline_while` do only together with
        // taking a newer pointer; both need `&mut self`, so the reference returned here is gone by then. If the publisher
        // was dropped, the domain, which we hold through `shared`, owns the snapshot.
        unsafe { &*self.current }
    }

    /// Runs `sleep` while this reader is offline, so that it holds nothing up however long that takes, and refreshes after.
    ///
    /// As with [`Reader::refresh`], the thread must not hold on to anything that may be retired meanwhile.
    pub fn offline_while<R>(&mut self, sleep: impl FnOnce() -> R) -> R {
        /// Goes online again even when `sleep` panics, since `get` may be called after that.
        struct Offline<'a, T: Send + Sync + 'static>(&'a mut Reader<T>);

        impl<T: Send + Sync + 'static> Drop for Offline<'_, T> {
            fn drop(&mut self) {
                (self.0.seen, self.0.current) = go_online(&self.0.shared, &self.0.announced);
            }
        }

        let offline = Offline(self);
        offline.0.announced.epoch.store(OFFLINE, Ordering::Release);
        sleep()
    }
}

impl<T: Send + Sync + 'static> Drop for Reader<T> {
    fn drop(&mut self) {
        self.announced.epoch.store(GONE, Ordering::Release);
    }
}

/// Announces the current epoch and takes the pointer: what a reader does that held nothing until now.
fn go_online<T>(shared: &Shared<T>, announced: &Announced) -> (u64, *const T) {
    let epoch = shared.domain.epoch.load(Ordering::Acquire);
    // Release: what this reader read before it went offline happened before whoever sees this frees it.
    announced.epoch.store(epoch, Ordering::Release);
    // Pairs with the fence in `Domain::passed`: either that side sees our announcement and keeps what we may be about to
    // read, or we see the pointer that it stored before it looked.
    fence(Ordering::SeqCst);
    (epoch, shared.current.load(Ordering::Acquire))
}

/// What publisher and readers share.
struct Shared<T> {
    /// The latest snapshot; owned by `Publisher::latest`, or by the domain's orphans when there is no publisher any more.
    current: AtomicPtr<T>,
    domain: Arc<Domain>,
}

/// The epoch and who has seen it.
struct Domain {
    /// Raised with everything that is retired.
    epoch: CachePadded<AtomicU64>,
    /// Only control's threads lock this: to add a reader, and to look how far all are.
    readers: Mutex<Vec<Arc<Announced>>>,
    /// What the publisher left behind when it was dropped while readers might still hold it.
    orphans: Mutex<Vec<Box<dyn Send>>>,
}

/// The epoch that one reader has seen, on a cache line of its own.
struct Announced {
    epoch: CachePadded<AtomicU64>,
}

impl Announced {
    fn new(epoch: u64) -> Self {
        Self { epoch: CachePadded::new(AtomicU64::new(epoch)) }
    }
}

impl Domain {
    fn new() -> Self {
        Self {
            epoch: CachePadded::new(AtomicU64::new(1)),
            readers: Mutex::new(Vec::new()),
            orphans: Mutex::new(Vec::new()),
        }
    }

    /// The latest epoch that every online reader has seen. Forgets readers that are gone.
    fn passed(&self) -> u64 {
        let mut passed = self.epoch.load(Ordering::Acquire);
        // Pairs with the fence in `go_online`.
        fence(Ordering::SeqCst);
        let mut readers = self.readers.lock().expect("no panic while the lock is held");
        readers.retain(|reader| {
            // Acquire: what the reader did before it announced this happened before we free anything.
            match reader.epoch.load(Ordering::Acquire) {
                GONE => return false,
                OFFLINE => {}
                epoch => passed = passed.min(epoch),
            }
            true
        });
        passed
    }
}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("latest", &self.latest).field("waiting", &self.waiting()).finish()
    }
}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("seen", &self.seen).field("current", self.get()).finish()
    }
}

#[cfg(test)]
#[path = "published/tests.rs"]
mod tests;
