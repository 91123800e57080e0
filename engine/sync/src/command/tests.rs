#[cfg(not(loom))]
mod plain {
    use std::thread;

    use crate::command::channel;

    #[test]
    fn commands_beyond_the_ring_wait_and_arrive_in_order() {
        let (mut sender, mut receiver) = channel(2);
        for command in 1..=7_u64 {
            assert_eq!(sender.send(command), command);
        }
        assert_eq!((sender.flush(), sender.outstanding()), (5, 7));
        let mut received = Vec::new();
        while received.len() < 7 {
            receiver.process(1, |command| received.push(command));
            sender.flush();
        }
        assert_eq!(received, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!((sender.acknowledged(), sender.outstanding()), (7, 0));
    }

    #[test]
    fn a_command_counts_only_when_it_was_carried_out() {
        let (mut sender, mut receiver) = channel(4);
        let number = sender.send("install session");
        assert_eq!(receiver.receive(), Some("install session"));
        assert_eq!(sender.acknowledged(), 0);
        receiver.acknowledge();
        assert_eq!(sender.acknowledged(), number);
    }

    #[test]
    fn a_turn_carries_out_no_more_than_it_was_allowed() {
        let (mut sender, mut receiver) = channel(8);
        for command in 0..5 {
            sender.send(command);
        }
        assert_eq!(receiver.process(3, drop), 3);
        assert_eq!(sender.acknowledged(), 3);
        assert_eq!(receiver.process(3, drop), 2);
        assert_eq!(receiver.process(3, drop), 0);
    }

    #[test]
    fn each_end_notices_that_the_other_is_gone() {
        let (mut sender, receiver) = channel(2);
        drop(receiver);
        sender.send(1);
        assert!(sender.is_closed());
        assert_eq!(sender.outstanding(), 1);
        let (sender, receiver) = channel::<()>(2);
        drop(sender);
        assert!(receiver.is_closed());
    }

    #[test]
    fn a_thread_carries_out_every_command_once_and_in_order() {
        const COMMANDS: u64 = if cfg!(miri) { 200 } else { 200_000 };
        let (mut sender, mut receiver) = channel(8);
        let worker = thread::spawn(move || {
            let mut last = 0;
            while last < COMMANDS {
                receiver.process(5, |command: u64| {
                    assert_eq!(command, last + 1);
                    last = command;
                });
                thread::yield_now();
            }
        });
        for command in 1..=COMMANDS {
            sender.send(command);
        }
        while sender.outstanding() > 0 {
            sender.flush();
            thread::yield_now();
        }
        worker.join().unwrap();
    }
}

#[cfg(loom)]
mod in_every_interleaving {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, Ordering};
    use loom::thread;

    use crate::command::channel;

    #[test]
    fn who_sees_the_acknowledgement_sees_what_the_command_did() {
        loom::model(|| {
            let (mut sender, mut receiver) = channel(2);
            let effect = Arc::new(AtomicU64::new(0));
            let seen = Arc::clone(&effect);
            for command in 1..=3_u64 {
                sender.send(command);
            }
            let worker = thread::spawn(move || {
                for _ in 0..2 {
                    receiver.process(1, |command| effect.store(command, Ordering::Relaxed));
                }
            });
            sender.flush();
            let acknowledged = sender.acknowledged();
            assert!(seen.load(Ordering::Relaxed) >= acknowledged);
            worker.join().unwrap();
            assert_eq!(sender.acknowledged(), 2);
        });
    }
}
