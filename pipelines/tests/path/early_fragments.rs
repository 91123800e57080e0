//! Fragments of datagrams to services that come before the first one, which alone tells where they go.

use std::time::Duration;

use jetway_config::Persistence;
use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::packet::Protocol;

use crate::bench::packets::{Inner, cut, frame, set_fragment};
use crate::bench::services::{SERVICE_PORT, ServicePlan, servers, service_address};
use crate::bench::{Family, LAN, MACS, WAN, World, neighbour_mac};
use crate::dispatch::{destination, gateway, plain_client, udp_service};

/// Bytes of a datagram's payload in each of its pieces.
const PIECE: usize = 800;
/// How many pieces wait at most.
const WAIT_AT_MOST: usize = 256;
/// How long they wait.
const PATIENCE: Duration = Duration::from_millis(100);

/// Three pieces of a datagram of a client in clear.
fn pieces(identification: u16) -> Vec<Vec<u8>> {
    let client = plain_client(Family::V4, identification % 200).ip();
    let mut whole = Inner::udp(client, service_address(Family::V4), 20 + 3 * PIECE - 8).fragmentable(identification);
    whole.set_udp(4000, SERVICE_PORT);
    cut(&whole.bytes(), PIECE)
}

fn world() -> World {
    let mut world = World::new(1, &[]);
    world.offer([udp_service(&servers(Family::V4, 1..=4), Family::V4)]);
    world
}

/// These pieces come from a client in one burst.
fn burst<'a>(world: &mut World, pieces: impl IntoIterator<Item = &'a Vec<u8>>) {
    let mac = neighbour_mac(gateway(Family::V4));
    let frames: Vec<_> = pieces.into_iter().map(|piece| frame(MACS[0], mac, piece)).collect();
    world.receive(0, WAN, frames);
    world.settle();
}

/// Where pieces of payloads that were sent begin, in order.
fn offsets(sent: &[Vec<u8>]) -> Vec<usize> {
    let mut offsets: Vec<_> =
        sent.iter().map(|packet| usize::from(u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff) * 8).collect();
    offsets.sort_unstable();
    offsets
}

#[test]
fn a_datagram_reaches_one_server_whole_in_whatever_order_its_fragments_come() {
    for (number, order) in [[1, 2, 0], [2, 1, 0], [1, 0, 2], [2, 0, 1], [0, 2, 1]].into_iter().enumerate() {
        for together in [true, false] {
            let mut world = world();
            let pieces = pieces(1 + number as u16);
            let in_order = order.map(|place| &pieces[place]);
            if together {
                burst(&mut world, in_order);
            } else {
                in_order.into_iter().for_each(|piece| burst(&mut world, [piece]));
            }
            let sent = world.take_sent(LAN);
            assert_eq!(offsets(&sent), [0, PIECE, 2 * PIECE], "{order:?}: {:?}", world.losses());
            assert!(sent.iter().all(|piece| destination(piece) == destination(&sent[0])), "{order:?}");
            let early = order.iter().take_while(|place| **place != 0).count() as u64;
            assert_eq!((world.workers[0].counters.fragments_early.get(), world.held()), (early, 0), "{order:?}");
            assert_eq!(world.losses(), [], "{order:?}");
        }
    }
}

#[test]
fn a_tunnel_s_client_is_served_in_whatever_order_its_fragments_come() {
    let mut world = World::connected(1, &[Family::V4]);
    let plan = ServicePlan { persistence: Persistence::Client, ..ServicePlan::nat(Family::V4, Protocol::UDP) };
    world.offer([plan.service(&servers(Family::V4, 1..=4))]);
    let client = world.inner(0, Family::V4);
    let mut whole = Inner::udp(client, service_address(Family::V4), 20 + 2 * PIECE).fragmentable(5);
    whole.set_udp(4000, SERVICE_PORT);
    for piece in cut(&whole.bytes(), PIECE).iter().rev() {
        world.client_sends(0, piece);
    }
    assert_eq!(offsets(&world.take_sent(LAN)), [0, PIECE]);
    assert_eq!((world.losses(), world.punted.len()), (vec![], 0));
}

#[test]
fn what_never_gets_a_first_fragment_is_dropped_after_its_time_and_not_before() {
    let mut world = world();
    let pieces = pieces(7);
    burst(&mut world, &pieces[1..]);
    world.now += PATIENCE - Duration::from_nanos(1);
    world.settle();
    assert_eq!((world.held(), world.losses()), (2, vec![]));
    world.now += Duration::from_nanos(1);
    world.settle();
    assert_eq!((world.held(), world.losses()), (0, vec![("fragment_unknown", 2)]));
    // The first one goes on by itself, and nothing of the others is left.
    burst(&mut world, &pieces[..1]);
    assert_eq!(offsets(&world.take_sent(LAN)), [0]);
}

#[test]
fn what_waits_when_its_service_goes_is_decided_about_all_the_same() {
    for first_comes in [true, false] {
        let mut world = world();
        let pieces = pieces(8);
        // Together, so that the first one does not release the others before the service goes.
        let mac = neighbour_mac(gateway(Family::V4));
        let order = pieces.iter().skip(1).chain(first_comes.then_some(&pieces[0]));
        let frames: Vec<_> = order.map(|piece| frame(MACS[0], mac, piece)).collect();
        world.receive(0, WAN, frames);
        world.offer([]);
        world.now += PATIENCE;
        world.settle();
        assert_eq!(world.held(), 0);
        let sent = world.take_sent(LAN).len() + world.take_sent(WAN).len() + world.punted.len();
        let lost: u64 = world.losses().iter().map(|(_, count)| count).sum();
        assert_eq!((sent as u64 + lost, world.drops(DropReason::Undecided)), (2 + u64::from(first_comes), 0));
    }
}

#[test]
fn a_flood_of_later_fragments_takes_a_bounded_part_of_the_room_for_a_bounded_time() {
    let mut world = world();
    let strays: Vec<_> = (0..1_000).map(|number| pieces(number).swap_remove(1)).collect();
    burst(&mut world, &strays);
    assert_eq!(world.held(), WAIT_AT_MOST as u64);
    assert_eq!(world.drops(DropReason::HeldQueueFull), 1_000 - WAIT_AT_MOST as u64);
    // Whoever comes in order is served.
    burst(&mut world, &pieces(2_000));
    assert_eq!(offsets(&world.take_sent(LAN)), [0, PIECE, 2 * PIECE]);
    world.now += PATIENCE;
    // A turn gives up some at most.
    (0..WAIT_AT_MOST).for_each(|_| world.settle());
    assert_eq!((world.held(), world.drops(DropReason::FragmentUnknown)), (0, WAIT_AT_MOST as u64));
    let late = pieces(2_001);
    burst(&mut world, late.iter().rev());
    assert_eq!(offsets(&world.take_sent(LAN)), [0, PIECE, 2 * PIECE]);
}

#[test]
fn what_waited_and_overlaps_goes_nowhere() {
    let mut world = world();
    let pieces = pieces(9);
    let mut overlapping = pieces[1].clone();
    set_fragment(&mut overlapping, PIECE - 8, true);
    burst(&mut world, [&overlapping, &pieces[2], &pieces[1], &pieces[0]]);
    assert_eq!(offsets(&world.take_sent(LAN)), [0]);
    assert_eq!((world.losses(), world.held()), (vec![("fragment_overlap", 3)], 0));
}
