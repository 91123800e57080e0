//! What goes to the kernel, and how much of it.

use std::time::Duration;

use jetway_pipelines::drop_reason::DropReason;
use jetway_pipelines::packet::{EtherType, MacAddress, Protocol, checksum};
use jetway_pipelines::tables::Twin;

use super::bench::packets::{Inner, frame, frame_of, set_fragment};
use super::bench::*;

const BROADCAST: MacAddress = MacAddress([0xff; 6]);
const MULTICAST_V6: MacAddress = MacAddress([0x33, 0x33, 0xff, 0, 0, 1]);

fn arp() -> Vec<u8> {
    let request = [
        0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 1, 11, 192, 0, 2, 11, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    frame_of(BROADCAST, neighbour_mac(server(Family::V4)), EtherType::ARP, &request)
}

/// A neighbour solicitation (or, from afar, what looks like one).
fn solicitation(to: MacAddress, destination: &str, hops: u8) -> Vec<u8> {
    let (source, destination) = (server(Family::V6), address(destination));
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend([0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let pseudo = checksum::pseudo(source, destination, Protocol::ICMPV6, message.len() as u32);
    let sum = pseudo.bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame(to, neighbour_mac(source), &Inner::new(source, destination, Protocol::ICMPV6, message).ttl(hops).bytes())
}

fn ping() -> Vec<u8> {
    frame(MACS[1], neighbour_mac(server(Family::V4)), &Inner::ping(server(Family::V4), node_lan(Family::V4)).bytes())
}

#[test]
fn what_the_kernel_has_to_see_reaches_the_ports_twin_byte_for_byte() {
    let mut world = World::new(1, &[]);
    let mut tagged = frame_of(MACS[1], neighbour_mac(server(Family::V4)), EtherType(0x8100), &[0, 5, 8, 0]);
    tagged.extend([0x45; 60]);
    let segment = vec![0x10, 0xe1, 0xca, 0x6c, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0];
    let tcp = Inner::new(server(Family::V4), node_lan(Family::V4), Protocol::TCP, segment).bytes();
    let group = Inner::udp(server(Family::V4), address("224.0.0.251"), 60).bytes();
    let frames = [
        arp(),
        solicitation(MULTICAST_V6, "ff02::1:ff00:1", 255),
        solicitation(MACS[1], "2001:db8:2::1", 255),
        ping(),
        tagged,
        frame_of(MacAddress([1, 0x80, 0xc2, 0, 0, 0x0e]), MACS[0], EtherType(0x88cc), &[2, 7, 4, 0]),
        // TCP to the number of the tunnel's UDP port.
        frame(MACS[1], neighbour_mac(server(Family::V4)), &tcp),
        frame(MacAddress([1, 0, 0x5e, 0, 0, 0xfb]), neighbour_mac(server(Family::V4)), &group),
    ];
    world.receive(0, LAN, frames.clone());
    world.settle();
    assert_eq!(std::mem::take(&mut world.punted), frames.map(|frame| (Twin::Port(LAN), frame)));
    assert_eq!(world.losses(), []);
}

#[test]
fn a_flood_of_pings_is_metered_and_does_not_keep_neighbour_discovery_out() {
    let mut world = World::new(1, &[]);
    world.receive(0, LAN, vec![ping(); 5000]);
    world.settle();
    assert_eq!(std::mem::take(&mut world.punted).len(), PUNT_BURST as usize);
    assert_eq!(world.losses(), [("punt_rate_limited", 5000 - u64::from(PUNT_BURST))]);
    let discovery = [arp(), solicitation(MULTICAST_V6, "ff02::1:ff00:1", 255)];
    world.receive(0, LAN, discovery.clone());
    world.settle();
    assert_eq!(std::mem::take(&mut world.punted), discovery.map(|frame| (Twin::Port(LAN), frame)));
    // A second later the meter has filled again.
    world.now += Duration::from_secs(1);
    world.receive(0, LAN, [ping()]);
    world.settle();
    assert_eq!(world.punted.len(), 1);
}

#[test]
fn a_flood_of_arp_is_metered_and_does_not_keep_pings_out() {
    let mut world = World::new(1, &[]);
    world.receive(0, LAN, vec![arp(); 5000]);
    world.settle();
    assert_eq!(std::mem::take(&mut world.punted).len(), 200);
    world.receive(0, LAN, [ping()]);
    world.settle();
    assert_eq!(world.punted.len(), 1);
}

#[test]
fn what_looks_like_neighbour_discovery_but_came_from_afar_cannot_use_up_its_share() {
    let mut world = World::new(1, &[]);
    // RFC 4861 section 7.1.1: only a hop limit of 255 shows that no router forwarded it.
    world.receive(0, LAN, vec![solicitation(MACS[1], "2001:db8:2::1", 254); 5000]);
    world.settle();
    assert_eq!(std::mem::take(&mut world.punted).len(), PUNT_BURST as usize);
    world.receive(0, LAN, vec![arp(); 200]);
    world.settle();
    assert_eq!(world.punted.len(), 200);
}

#[test]
fn the_tunnels_pings_share_the_meter() {
    let mut world = World::connected(1, &[Family::V4]);
    let packet = Inner::ping(world.inner(0, Family::V4), node_inner(Family::V4)).bytes();
    for _ in 0..PUNT_BURST + 10 {
        world.client_sends(0, &packet);
    }
    assert_eq!((world.punted.len(), world.drops(DropReason::PuntRateLimited)), (PUNT_BURST as usize, 10));
    assert!(world.punted.iter().all(|(twin, punted)| *twin == Twin::Tunnel(TUNNEL) && *punted == packet));
}

#[test]
fn fragments_of_tunnel_datagrams_are_dropped() {
    let mut world = World::connected(1, &[Family::V4]);
    let packet = Inner::udp(world.inner(0, Family::V4), server(Family::V4), 800).bytes();
    let message = world.clients[0].seal(&packet);
    let mut frame = world.client_frame(0, &message);
    set_fragment(&mut frame[14..], 0, true);
    world.receive(0, WAN, [frame]);
    world.exchange();
    assert_eq!(world.losses(), [("outer_fragment", 1)]);
    assert!(world.punted.is_empty() && world.take_sent(LAN).is_empty());
}

#[test]
fn a_change_of_the_meter_takes_effect_with_the_tables() {
    let mut world = World::new(1, &[]);
    world.tables.punt_limit.burst = 7;
    world.receive(0, LAN, vec![ping(); 20]);
    world.settle();
    assert_eq!(world.punted.len(), 7);
}
