#[cfg(not(loom))]
mod plain {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::thread;

    use arrayvec::ArrayVec;

    use crate::spsc::channel;

    /// Items that go through a stress test: few enough for Miri.
    const ITEMS: u64 = if cfg!(miri) { 600 } else { 2_000_000 };

    #[test]
    fn items_come_out_in_the_order_in_which_they_went_in() {
        let (mut producer, mut consumer) = channel(4);
        for round in 0..10 {
            for item in 0..4 {
                producer.push(round * 10 + item).unwrap();
            }
            for item in 0..4 {
                assert_eq!(consumer.pop(), Some(round * 10 + item));
            }
        }
        assert_eq!(consumer.pop(), None);
    }

    #[test]
    fn a_full_ring_gives_the_item_back() {
        let (mut producer, mut consumer) = channel(3);
        assert_eq!(producer.capacity(), 4);
        for item in 0..4 {
            producer.push(item).unwrap();
        }
        assert_eq!(producer.push(4), Err(4));
        assert_eq!(producer.len(), 4);
        assert_eq!(consumer.pop(), Some(0));
        assert_eq!(producer.push(4), Ok(()));
    }

    #[test]
    fn a_burst_that_does_not_fit_stays_behind_in_order() {
        let (mut producer, mut consumer) = channel(4);
        let mut burst: ArrayVec<_, 8> = (0..6).collect();
        assert_eq!(producer.push_burst(&mut burst), 4);
        assert_eq!(burst.as_slice(), [4, 5]);
        let mut out: ArrayVec<_, 3> = ArrayVec::new();
        assert_eq!(consumer.pop_burst(&mut out), 3);
        assert_eq!(out.as_slice(), [0, 1, 2]);
        assert_eq!(producer.push_burst(&mut burst), 2);
        assert_eq!(consumer.drain(10).collect::<Vec<_>>(), [3, 4, 5]);
    }

    #[test]
    fn an_iterator_keeps_what_found_no_room() {
        let (mut producer, mut consumer) = channel(4);
        let mut items = 0..10;
        assert_eq!(producer.push_from(&mut items), 4);
        assert_eq!(items.next(), Some(4));
        assert_eq!(consumer.drain(2).count(), 2);
        assert_eq!(producer.push_from(&mut items), 2);
        assert_eq!(items, 7..10);
    }

    #[test]
    fn what_nobody_takes_is_dropped_with_the_ring() {
        let witness = Arc::new(());
        let (mut producer, mut consumer) = channel(8);
        for _ in 0..5 {
            producer.push(Arc::clone(&witness)).unwrap();
        }
        drop(consumer.pop());
        assert_eq!(Arc::strong_count(&witness), 5);
        drop(producer);
        assert_eq!(Arc::strong_count(&witness), 5, "what was pushed outlives its producer");
        assert_eq!(consumer.drain(2).count(), 2);
        drop(consumer);
        assert_eq!(Arc::strong_count(&witness), 1);
    }

    #[test]
    fn a_drain_dropped_half_way_leaves_the_rest_in_the_ring() {
        let (mut producer, mut consumer) = channel(8);
        producer.push_from(&mut (0..6));
        assert_eq!(consumer.drain(6).take(2).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(consumer.drain(6).collect::<Vec<_>>(), [2, 3, 4, 5]);
    }

    #[test]
    fn a_forgotten_drain_and_an_iterator_that_panics_lose_nothing() {
        let witness = Arc::new(());
        let (mut producer, mut consumer) = channel(8);
        let mut items = (0..3).map(|item| if item < 2 { Arc::clone(&witness) } else { panic!("as the test wants it") });
        assert!(catch_unwind(AssertUnwindSafe(|| producer.push_from(&mut items))).is_err());
        producer.push(Arc::clone(&witness)).unwrap();
        let mut drain = consumer.drain(8);
        drop(drain.next());
        std::mem::forget(drain);
        assert_eq!(Arc::strong_count(&witness), 3);
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&witness), 1);
    }

    #[test]
    fn each_end_notices_that_the_other_is_gone() {
        let (mut producer, consumer) = channel(2);
        assert!(!producer.is_closed() && !consumer.is_closed());
        drop(consumer);
        assert!(producer.is_closed());
        assert_eq!(producer.push(1), Ok(()), "the ring itself still has room");
        let (mut producer, mut consumer) = channel(2);
        producer.push(7).unwrap();
        drop(producer);
        assert!(consumer.is_closed());
        assert_eq!(consumer.pop(), Some(7));
    }

    #[test]
    fn two_threads_pass_millions_of_items_in_order_by_bursts_of_changing_size() {
        let (mut producer, mut consumer) = channel(64);
        let sender = thread::spawn(move || {
            let mut next = 0..ITEMS;
            let mut burst = ArrayVec::<Box<u64>, 17>::new();
            while !next.is_empty() || !burst.is_empty() {
                let wanted = (next.start % 17) as usize + 1;
                burst.extend(next.by_ref().take(wanted.saturating_sub(burst.len())).map(Box::new));
                if producer.push_burst(&mut burst) == 0 {
                    thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while !(consumer.is_closed() && consumer.is_empty()) {
            let max = (expected % 23) as usize + 1;
            let before = expected;
            for item in consumer.drain(max) {
                assert_eq!(*item, expected);
                expected += 1;
            }
            if before == expected {
                thread::yield_now();
            }
        }
        sender.join().unwrap();
        assert_eq!(expected, ITEMS);
    }
}

#[cfg(loom)]
mod in_every_interleaving {
    use loom::thread;

    use crate::spsc::channel;

    #[test]
    fn items_arrive_whole_and_in_order_though_the_ring_is_smaller_than_their_number() {
        loom::model(|| {
            let (mut producer, mut consumer) = channel(2);
            let sender = thread::spawn(move || {
                let mut items = (0..4_u8).map(Box::new);
                let mut sent = 0;
                for _ in 0..3 {
                    sent += producer.push_from(&mut items.by_ref().take(2));
                }
                sent
            });
            let mut received = 0;
            for _ in 0..2 {
                for item in consumer.drain(2) {
                    assert_eq!(*item, received);
                    received += 1;
                }
            }
            let sent = sender.join().unwrap();
            while let Some(item) = consumer.pop() {
                assert_eq!(*item, received);
                received += 1;
            }
            assert_eq!(usize::from(received), sent);
        });
    }

    #[test]
    fn the_last_end_to_go_drops_what_is_left() {
        loom::model(|| {
            let (mut producer, mut consumer) = channel(2);
            let witness = loom::sync::Arc::new(());
            let item = loom::sync::Arc::clone(&witness);
            let sender = thread::spawn(move || {
                producer.push(loom::sync::Arc::clone(&item)).unwrap();
                producer.push(item).unwrap();
            });
            drop(consumer.pop());
            drop(consumer);
            sender.join().unwrap();
            assert_eq!(loom::sync::Arc::strong_count(&witness), 1);
        });
    }

    #[test]
    fn closed_and_then_empty_means_that_nothing_was_missed() {
        loom::model(|| {
            let (mut producer, mut consumer) = channel(2);
            let sender = thread::spawn(move || producer.push(1).unwrap());
            let first = consumer.pop();
            if consumer.is_closed() {
                let second = consumer.pop();
                assert!(first.is_some() != second.is_some());
            }
            sender.join().unwrap();
        });
    }
}
