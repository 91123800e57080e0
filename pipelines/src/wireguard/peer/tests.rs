use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use jetway_aead::Key;

use super::*;
use crate::wireguard::Role;
use crate::wireguard::send_counter::{GENERATIONS, SEQUENCE_BITS, SendCounter};
use crate::wireguard::session::NoNonces;

fn peer() -> Peer {
    Peer::new(PeerIndex(0), TunnelId(0), [1; 32])
}

/// What tells of each part of itself that it belongs to session `number`.
fn half(number: u32, role: Role) -> SendingHalf {
    SendingHalf {
        key: Key::from_words([u64::from(number); 4]),
        counter: SendCounter::new(generation(number)).expect("there is such a generation"),
        created: Instant::from_nanos(u64::from(number)),
        remote_index: number,
        role,
    }
}

fn generation(number: u32) -> u16 {
    (number % u32::from(GENERATIONS)) as u16
}

/// The number of the session to send with, and the nonce that it gives.
fn send(peer: &Peer) -> Option<(u32, u64)> {
    let mut key = Key::new(&[0; 32]);
    let session = peer.sending_session()?;
    let nonce = session.reserve(1, &mut key).expect("nobody replaces it meanwhile");
    assert_eq!(key.to_words(), [u64::from(session.remote_index); 4]);
    Some((session.remote_index, nonce & ((1 << SEQUENCE_BITS) - 1)))
}

#[test]
fn a_next_session_is_sent_with_as_soon_as_it_is_confirmed_and_counts_on_when_it_is_the_current_one() {
    let peer = peer();
    assert_eq!(send(&peer), None);
    peer.set_current(&half(1, Role::Initiator));
    assert_eq!((send(&peer), send(&peer)), (Some((1, 0)), Some((1, 1))));
    let next = peer.set_next(&half(2, Role::Responder));
    assert_eq!((send(&peer), peer.has_confirmed_next()), (Some((1, 2)), false));
    assert!(peer.confirm(next));
    assert!(!peer.confirm(next), "that is no news");
    assert_eq!((send(&peer), peer.has_confirmed_next()), (Some((2, 0)), true));
    peer.promote_next();
    assert_eq!((send(&peer), peer.has_confirmed_next()), (Some((2, 1)), false));
}

#[test]
fn the_first_session_may_be_one_that_waits_for_its_confirmation() {
    let peer = peer();
    let first = peer.set_next(&half(1, Role::Responder));
    assert_eq!(send(&peer), None);
    let second = peer.set_next(&half(2, Role::Responder));
    assert!(!peer.confirm(first), "it was replaced");
    assert_eq!(send(&peer), None);
    assert!(peer.confirm(second));
    assert_eq!(send(&peer), Some((2, 0)));
}

#[test]
fn a_session_that_we_initiated_takes_the_place_of_all_others() {
    for is_confirmed in [false, true] {
        let peer = peer();
        peer.set_current(&half(1, Role::Initiator));
        let next = peer.set_next(&half(2, Role::Responder));
        assert!(!is_confirmed || peer.confirm(next));
        peer.set_current(&half(3, Role::Initiator));
        assert_eq!((send(&peer), peer.has_confirmed_next()), (Some((3, 0)), false));
        assert!(!peer.confirm(next));
        assert_eq!(send(&peer), Some((3, 1)));
    }
}

#[test]
fn who_has_found_a_session_gets_nothing_of_it_once_it_is_replaced_or_wiped() {
    let (peer, mut key) = (peer(), Key::new(&[0; 32]));
    peer.set_current(&half(1, Role::Initiator));
    let found = peer.sending_session().expect("there is one");
    peer.set_current(&half(2, Role::Initiator));
    assert_eq!(found.reserve(1, &mut key), Err(NoNonces::Replaced));
    let found = peer.sending_session().expect("there is one");
    peer.clear_sessions();
    assert_eq!(found.reserve(1, &mut key), Err(NoNonces::Replaced));
    assert_eq!(key.to_words(), [0; 4], "the key was wiped");
    assert!(peer.sending_session().is_none());
    peer.set_current(&half(3, Role::Initiator));
    assert_eq!(send(&peer), Some((3, 0)));
}

#[test]
fn who_has_found_a_session_keeps_it_until_the_next_one_takes_its_place() {
    let (peer, mut key) = (peer(), Key::new(&[0; 32]));
    peer.set_current(&half(1, Role::Initiator));
    let found = peer.sending_session().expect("there is one");
    let next = peer.set_next(&half(2, Role::Responder));
    assert!(peer.confirm(next));
    assert!(found.reserve(1, &mut key).is_ok(), "it is still there");
    peer.promote_next();
    assert_eq!(found.reserve(1, &mut key), Err(NoNonces::Replaced));
    assert_eq!(key.to_words(), [0; 4], "the key was wiped");
}

/// Workers send and confirm while the handshaker goes through sessions as fast as it can.
#[test]
fn whatever_the_handshaker_does_no_nonce_is_given_twice_and_each_goes_with_the_key_of_its_session() {
    const SESSIONS: u32 = 100_000;
    const WORKERS: usize = 3;
    let (peer, stop) = (Arc::new(peer()), Arc::new(AtomicBool::new(false)));
    let to_confirm = Arc::new(std::sync::Mutex::new(None));
    peer.set_current(&half(1, Role::Initiator));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (peer, stop, to_confirm) = (Arc::clone(&peer), Arc::clone(&stop), Arc::clone(&to_confirm));
            thread::spawn(move || {
                let (mut given, mut replaced) = (HashMap::<u32, Vec<(u64, u64)>>::new(), 0);
                let mut key = Key::new(&[0; 32]);
                while !stop.load(Ordering::Relaxed) {
                    let session = peer.sending_session().expect("there always is one");
                    let number = session.remote_index;
                    assert_eq!(session.created.as_nanos(), u64::from(number), "halves of two sessions");
                    match session.reserve(3, &mut key) {
                        Ok(nonce) => {
                            assert_eq!(key.to_words(), [u64::from(number); 4], "another session's key");
                            assert_eq!(
                                nonce >> SEQUENCE_BITS,
                                u64::from(generation(number)),
                                "another session's nonce"
                            );
                            given.entry(number).or_default().push((nonce, 3));
                        }
                        Err(NoNonces::Replaced) => replaced += 1,
                        Err(NoNonces::UsedUp) => panic!("it has 2^48"),
                    }
                    if let Some(session) = to_confirm.lock().expect("nobody panicked").take() {
                        peer.confirm(session);
                    }
                }
                (given, replaced)
            })
        })
        .collect();
    for number in 2..SESSIONS {
        if number % 3 == 0 {
            peer.set_current(&half(number, Role::Initiator));
            continue;
        }
        *to_confirm.lock().expect("nobody panicked") = Some(peer.set_next(&half(number, Role::Responder)));
        // Mostly somebody has confirmed it by then; else it is replaced.
        for _ in 0..number % 64 {
            std::hint::spin_loop();
        }
        if peer.has_confirmed_next() {
            peer.promote_next();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut given = HashMap::<u32, Vec<(u64, u64)>>::new();
    let mut replaced = 0;
    for worker in workers {
        let (of_worker, times) = worker.join().expect("a worker");
        replaced += times;
        for (number, nonces) in of_worker {
            given.entry(number).or_default().extend(nonces);
        }
    }
    println!("{} sessions gave nonces; {replaced} were replaced under way", given.len());
    for (number, mut nonces) in given {
        nonces.sort_unstable();
        let twice = nonces.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0);
        assert_eq!(twice, None, "session {number} gave nonces twice");
    }
}
