//! What an attacker can send: however it comes about, nothing of it is accepted and each packet is dropped for one reason.

use std::time::Duration;

use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::packet::ipv4;
use jetway_pipelines::wireguard::Endpoint;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::bench::packets::Inner;
use super::bench::*;

const SEED: u64 = 0x6a65_7477_6179;
const CASES: usize = 120_000;

/// Messages of which an attacker has a copy.
struct Copies {
    /// Data messages that arrived; the first is a keepalive.
    delivered: Vec<Vec<u8>>,
    /// Data messages that were held up on the way: none may arrive but as it was sealed.
    undelivered: Vec<Vec<u8>>,
    /// Of both directions, all of which arrived.
    initiations: Vec<Vec<u8>>,
    responses: Vec<Vec<u8>>,
    cookie_replies: Vec<Vec<u8>>,
}

/// A node that has been initiator and responder, with a session, and what was sent.
fn eavesdrop(random: &mut StdRng) -> (World, Copies) {
    let mut world = World::new(1, &[Family::V4]);
    world.peers[0].endpoint.store(Endpoint::configured(world.clients[0].address));
    // The node initiates, by a packet; the client's response is caught on the way.
    world.receive(0, LAN, [packets::frame(MACS[1], neighbour_mac(server(Family::V4)), &packet_to_client(&world))]);
    world.clients[0].hearing = Hearing::None;
    world.exchange();
    let from_node = world.clients[0].datagrams[0].1.clone();
    world.clients[0].hearing = Hearing::Good;
    world.clients[0].process(&from_node);
    let response = world.clients[0].outbox[0].clone();
    world.exchange();
    // The client initiates.
    world.now += Duration::from_millis(100);
    let initiation = world.clients[0].initiation();
    world.clients[0].outbox.push(initiation.clone());
    world.exchange();
    let responses = world.clients[0].datagrams.iter().map(|(_, message)| message.clone()).filter(|m| m[0] == 2);
    let responses: Vec<Vec<u8>> = responses.chain([response]).collect();
    assert_eq!(responses.len(), 2);
    let messages = |world: &mut World| -> Vec<Vec<u8>> {
        let lengths = [0, 28, 64, 100, 333, 576];
        let packets = lengths.map(|length| match length {
            0 => Vec::new(),
            _ => Inner::udp(world.inner(0, Family::V4), server(Family::V4), length).bytes(),
        });
        packets.iter().map(|packet| world.clients[0].seal(packet)).collect()
    };
    let delivered = messages(&mut world);
    world.clients[0].outbox = delivered.clone();
    world.exchange();
    assert_eq!(world.take_sent(LAN).len(), delivered.len() - 1);
    let undelivered = messages(&mut world);
    let receivers = [&delivered[0], &initiation].map(|message| message[4..8].to_vec());
    let cookie_replies = receivers.map(|receiver| {
        let mut reply = vec![3, 0, 0, 0];
        reply.extend(receiver);
        reply.resize(64, 0);
        random.fill_bytes(&mut reply[8..]);
        reply
    });
    let initiations = vec![initiation, from_node];
    (world, Copies { delivered, undelivered, initiations, responses, cookie_replies: cookie_replies.into() })
}

fn packet_to_client(world: &World) -> Vec<u8> {
    Inner::udp(server(Family::V4), world.inner(0, Family::V4), 100).bytes()
}

fn one_of<'a>(random: &mut StdRng, list: &'a [Vec<u8>]) -> &'a [u8] {
    &list[random.random_range(0..list.len())]
}

/// A message that no honest sender sends now.
fn message(random: &mut StdRng, copies: &Copies) -> Vec<u8> {
    let (original, fresh) = match random.random_range(0..9) {
        0 | 1 => (one_of(random, &copies.delivered), false),
        2..=4 => (one_of(random, &copies.undelivered), true),
        5 | 6 => (one_of(random, &copies.initiations), false),
        7 => (one_of(random, &copies.responses), false),
        _ => (one_of(random, &copies.cookie_replies), false),
    };
    let mut message = original.to_vec();
    match random.random_range(0..6) {
        0 if !fresh => {}
        0 | 1 => message.truncate(random.random_range(0..message.len())),
        2 => {
            let more = random.random_range(1..600);
            message.extend((0..more).map(|_| random.random::<u8>()));
        }
        // Each bit counts once, so that no flip undoes another.
        3 => {
            let bit = random.random_range(0..message.len() * 8);
            message[bit / 8] ^= 1 << (bit % 8);
        }
        4 => {
            let from = random.random_range(4..message.len());
            let old = message.clone();
            while message == old {
                random.fill_bytes(&mut message[from..]);
            }
        }
        // All that an attacker knows is right: the type and the receiver; the counter is one that was not used.
        _ => {
            random.fill_bytes(&mut message[8..]);
            if random.random_range(0..4) == 0 {
                random.fill_bytes(&mut message[4..8]);
            }
            if random.random_range(0..8) == 0 {
                message[0] = random.random_range(0..=u8::MAX);
            }
        }
    }
    message
}

/// The message as a frame, which may be broken itself.
fn hostile_frame(random: &mut StdRng, world: &World, copies: &Copies) -> Vec<u8> {
    let message = message(random, copies);
    let from = match random.random_range(0..3) {
        0 => world.clients[0].address,
        1 => format!("203.0.113.{}:{}", random.random_range(1..255), random.random_range(1..=u16::MAX))
            .parse()
            .expect("a socket address"),
        _ => format!("[2001:db8:5::{:x}]:4000", random.random_range(1..u16::MAX)).parse().expect("a socket address"),
    };
    let to = match from.is_ipv4() {
        true => "198.51.100.1:51820".parse().expect("a socket address"),
        false => "[2001:db8::1]:51820".parse().expect("a socket address"),
    };
    let mut frame = world.frame_from(from, to, random.random(), &message);
    match random.random_range(0..16) {
        0 => frame.truncate(random.random_range(0..frame.len())),
        // A datagram that says to be longer than its packet, or shorter than its header.
        1 => {
            let udp = if from.is_ipv4() { 14 + ipv4::HEADER_LENGTH } else { 14 + 40 };
            let length = if random.random() { random.random_range(0..8) } else { random.random_range(3000..60000) };
            frame[udp + 4..udp + 6].copy_from_slice(&u16::to_be_bytes(length));
        }
        _ => {}
    }
    frame
}

#[test]
fn nothing_that_is_replayed_cut_stretched_flipped_or_forged_is_accepted_and_each_is_dropped_for_one_reason() {
    println!("seed {SEED:#x}");
    let mut random = StdRng::seed_from_u64(SEED);
    let (mut world, copies) = eavesdrop(&mut random);
    let worker = |world: &World| std::sync::Arc::clone(&world.workers[0].counters);
    let counters = worker(&world);
    let endpoint = world.peers[0].endpoint.load();
    let session = world.peers[0].sending_session().map(|session| session.remote_index);
    let gains = |world: &World| {
        let traffic = &world.peers[0].traffic.received_bytes;
        let ways = [&counters.sent, &counters.punted, &counters.created, &counters.opened, &counters.handed_off];
        (ways.map(|counter| counter.get()), traffic.load(std::sync::atomic::Ordering::Relaxed))
    };
    let (before, consumed) = (gains(&world), world.drops(DropReason::Consumed));
    world.refused.clear();
    let mut cases = 0;
    while cases < CASES {
        let burst = random.random_range(1..=64);
        let frames: Vec<Vec<u8>> = (0..burst).map(|_| hostile_frame(&mut random, &world, &copies)).collect();
        let dropped = counters.dropped();
        world.receive(0, WAN, frames);
        assert_eq!(counters.dropped() - dropped, burst, "each is dropped for one reason");
        world.settle();
        assert_eq!(gains(&world), before, "something was accepted");
        // What passed the gate was refused by the handshaker.
        assert_eq!(world.drops(DropReason::Consumed) - consumed, world.refused.len() as u64);
        cases += burst as usize;
        // Slow enough that nobody is asked for a cookie, and within the life of the session.
        world.now += Duration::from_millis(40);
    }
    assert_eq!(world.peers[0].endpoint.load(), endpoint, "the peer was moved");
    assert_eq!(world.peers[0].sending_session().map(|session| session.remote_index), session);
    // Each gate had something to refuse.
    for reason in [
        DropReason::EthernetTruncated,
        DropReason::Ipv4Malformed,
        DropReason::Ipv6Malformed,
        DropReason::UdpMalformed,
        DropReason::WireguardMalformed,
        DropReason::WireguardBadMac1,
        DropReason::WireguardNoSession,
        DropReason::WireguardForged,
        DropReason::WireguardReplayed,
    ] {
        assert!(world.drops(reason) > 100, "{}: {}", reason.name(), world.drops(reason));
    }
    // The session took no harm: what was held up is still good, once.
    let late: Vec<Vec<u8>> = copies.undelivered.iter().map(|message| world.client_frame(0, message)).collect();
    world.receive(0, WAN, late);
    world.exchange();
    assert_eq!(world.take_sent(LAN).len(), copies.undelivered.len() - 1);
}
