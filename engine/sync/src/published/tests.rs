#[cfg(not(loom))]
mod plain {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use crate::published::Publisher;

    #[test]
    fn a_reader_sees_the_latest_snapshot_after_its_refresh_and_not_before() {
        let mut publisher = Publisher::new(Arc::new(1));
        let mut reader = publisher.reader();
        assert_eq!(*reader.get(), 1);
        assert!(!reader.refresh());
        publisher.publish(Arc::new(2));
        publisher.publish(Arc::new(3));
        assert_eq!(*reader.get(), 1);
        assert!(reader.refresh());
        assert_eq!(*reader.get(), 3);
        assert!(!reader.refresh());
        assert_eq!(*publisher.reader().get(), 3, "a late reader starts with the latest");
    }

    #[test]
    fn a_snapshot_is_freed_only_when_every_reader_has_passed_it() {
        let first = Arc::new(1);
        let mut publisher = Publisher::new(Arc::clone(&first));
        let mut readers = [publisher.reader(), publisher.reader()];
        publisher.publish(Arc::new(2));
        assert_eq!(publisher.reclaim(), 0);
        readers[0].refresh();
        assert_eq!(publisher.reclaim(), 0);
        assert_eq!((Arc::strong_count(&first), publisher.waiting()), (2, 1));
        readers[1].refresh();
        assert_eq!(publisher.reclaim(), 1);
        assert_eq!((Arc::strong_count(&first), publisher.waiting()), (1, 0));
    }

    #[test]
    fn what_is_retired_waits_for_a_refresh_though_the_snapshot_stays() {
        let mut publisher = Publisher::new(Arc::new(1));
        let mut reader = publisher.reader();
        let session = Arc::new("session");
        publisher.retire(Arc::clone(&session));
        assert_eq!(publisher.reclaim(), 0);
        assert!(!reader.refresh(), "the snapshot did not change");
        assert_eq!(publisher.reclaim(), 1);
        assert_eq!(Arc::strong_count(&session), 1);
    }

    #[test]
    fn neither_a_sleeping_nor_a_dropped_reader_holds_anything_up() {
        let mut publisher = Publisher::new(Arc::new(1));
        let (mut sleeper, mortal) = (publisher.reader(), publisher.reader());
        publisher.publish(Arc::new(2));
        let freed = sleeper.offline_while(|| {
            assert_eq!(publisher.reclaim(), 0, "the other reader still holds the first");
            drop(mortal);
            publisher.reclaim()
        });
        assert_eq!(freed, 1);
        assert_eq!(*sleeper.get(), 2, "waking up is a refresh");
        publisher.publish(Arc::new(3));
        assert_eq!(publisher.reclaim(), 0, "the sleeper is awake again");
    }

    #[test]
    fn a_reader_is_online_again_though_its_sleep_panicked() {
        let mut publisher = Publisher::new(Arc::new(1));
        let mut reader = publisher.reader();
        let sleep = std::panic::AssertUnwindSafe(|| reader.offline_while(|| panic!("as the test wants it")));
        assert!(std::panic::catch_unwind(sleep).is_err());
        publisher.publish(Arc::new(2));
        assert_eq!(publisher.reclaim(), 0);
        assert_eq!(*reader.get(), 1);
    }

    #[test]
    fn readers_and_what_they_hold_outlive_the_publisher() {
        let (first, garbage) = (Arc::new(1), Arc::new(2));
        let mut publisher = Publisher::new(Arc::clone(&first));
        let mut reader = publisher.reader();
        publisher.retire(Arc::clone(&garbage));
        publisher.publish(Arc::new(3));
        drop(publisher);
        assert_eq!(*reader.get(), 1);
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&garbage)), (2, 2));
        reader.refresh();
        assert_eq!(*reader.get(), 3);
        drop(reader);
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&garbage)), (1, 1));
    }

    /// A snapshot that says of itself whether it was freed.
    struct Mortal {
        number: u64,
        alive: AtomicBool,
    }

    impl Drop for Mortal {
        fn drop(&mut self) {
            self.alive.store(false, Ordering::Relaxed);
        }
    }

    #[test]
    fn readers_that_come_go_and_sleep_never_see_a_freed_snapshot_or_go_back_in_time() {
        const SNAPSHOTS: u64 = if cfg!(miri) { 100 } else { 200_000 };
        let snapshot = |number| Arc::new(Mortal { number, alive: AtomicBool::new(true) });
        let mut publisher = Publisher::new(snapshot(0));
        let readers: Vec<_> = (0..3).map(|_| publisher.reader()).collect();
        thread::scope(|scope| {
            for (index, mut reader) in readers.into_iter().enumerate() {
                scope.spawn(move || {
                    let mut last = 0;
                    while last < SNAPSHOTS {
                        match (last as usize + index) % 3 {
                            0 => reader.offline_while(thread::yield_now),
                            _ => {
                                reader.refresh();
                            }
                        }
                        let seen = reader.get();
                        assert!(seen.alive.load(Ordering::Relaxed), "snapshot {} is freed", seen.number);
                        assert!(seen.number >= last);
                        last = seen.number;
                        thread::yield_now();
                    }
                });
            }
            for number in 1..=SNAPSHOTS {
                publisher.publish(snapshot(number));
                publisher.reclaim();
                if publisher.waiting() > 64 {
                    thread::yield_now();
                }
            }
        });
        publisher.reclaim();
        assert_eq!(publisher.waiting(), 0);
    }
}

#[cfg(loom)]
mod in_every_interleaving {
    use std::sync::Arc;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use crate::published::{Publisher, Reader};

    /// A snapshot whose reading and freeing loom watches: it fails the test if they are not ordered.
    struct Watched(UnsafeCell<u32>);

    // SAFETY: that this holds is what the tests below are about.
    unsafe impl Sync for Watched {}
    // SAFETY: a number may move to any thread.
    unsafe impl Send for Watched {}

    impl Watched {
        fn new(number: u32) -> Arc<Self> {
            Arc::new(Self(UnsafeCell::new(number)))
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.0.with_mut(|number| {
                // SAFETY: as for `Sync`.
                unsafe { *number = u32::MAX }
            });
        }
    }

    fn read(reader: &Reader<Watched>) -> u32 {
        reader.get().0.with(|number| {
            // SAFETY: as for `Sync`.
            unsafe { *number }
        })
    }

    #[test]
    fn no_snapshot_is_freed_under_a_reader() {
        loom::model(|| {
            let mut publisher = Publisher::new(Watched::new(0));
            let mut reader = publisher.reader();
            let worker = thread::spawn(move || {
                let first = read(&reader);
                reader.refresh();
                let second = read(&reader);
                assert!(first == 0 && second <= 2);
            });
            publisher.publish(Watched::new(1));
            publisher.reclaim();
            publisher.publish(Watched::new(2));
            publisher.reclaim();
            worker.join().unwrap();
        });
    }

    #[test]
    fn no_snapshot_is_freed_under_a_reader_that_wakes_up() {
        loom::model(|| {
            let mut publisher = Publisher::new(Watched::new(0));
            let mut reader = publisher.reader();
            let worker = thread::spawn(move || {
                assert_eq!(read(&reader), 0);
                reader.offline_while(|| {});
                assert!(read(&reader) <= 1);
            });
            publisher.publish(Watched::new(1));
            publisher.reclaim();
            worker.join().unwrap();
            publisher.reclaim();
            assert_eq!(publisher.waiting(), 0);
        });
    }
}
