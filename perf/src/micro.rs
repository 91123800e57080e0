//! The parts of a packet's way, each alone.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use jetway_pipelines::ids::{PortId, SlotIndex, WorkerId};
use jetway_pipelines::lpm::Lpm;
use jetway_pipelines::packet::{Frame, Parsed, checksum};
use jetway_pipelines::path::slots::{Page, Slots};
use jetway_pipelines::tables::Route;
use jetway_pipelines::wireguard::Receiver;
use jetway_pipelines::wireguard::constants::INITIATION_SIZE;
use jetway_pipelines::wireguard::cookie::{CookieChecker, CookieJar};
use jetway_pipelines::wireguard::message::Initiation;
use jetway_pipelines::wireguard::replay::{ReplayWindow, SpareWindows};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::aead;
use crate::interleave::Interleaved;
use crate::result::Row;
use crate::sample::Contestant;
use crate::traffic::{self, SERVER};
use crate::world;

/// Operations in one piece of work.
const PIECE: usize = 1024;
/// Sizes of tables: a small one, and those that leave the caches one after the other.
const TABLES: [usize; 4] = [1, 1_000, 100_000, 1_000_000];

/// Prepares all of them.
pub fn prepare(run: &mut Interleaved) {
    let mut bench = Bench { run };
    bench.packets();
    bench.wireguard();
    bench.tables();
    aead::prepare(run);
}

struct Bench<'a> {
    run: &'a mut Interleaved,
}

impl Bench<'_> {
    /// `operation` alone, told the number of its call.
    fn one<R: 'static>(&mut self, name: &'static str, flows: usize, mut operation: impl FnMut(usize) -> R + 'static) {
        let contestant = Contestant::new("jetway", PIECE, move || {
            let start = Instant::now();
            for number in 0..PIECE {
                black_box(operation(black_box(number)));
            }
            start.elapsed()
        });
        self.run.compare(vec![contestant], move |outcomes, part| {
            let rows = outcomes
                .iter()
                .map(|outcome| Row::new(name, outcome.name, outcome.nanoseconds, outcome.spread).flows(flows, None));
            part.rows.extend(rows);
        });
    }

    fn packets(&mut self) {
        let packet = traffic::packet(SERVER, traffic::client(0), 1420, 0);
        let frame = traffic::frame(1, &packet);
        self.one("parse frame and IPv4", 1, move |_| {
            let frame_of = Frame::parse(black_box(&frame)).expect("a frame");
            Parsed::from_payload(frame_of.ethertype, frame_of.payload(&frame))
        });
        let inner = packet.clone();
        self.one("parse inner IPv4", 1, move |_| Parsed::from_ip(black_box(&inner)));
        let (parsed, inner) = (Parsed::from_ip(&packet).expect("a packet"), packet.clone());
        self.one("verify header checksum", 1, move |_| parsed.verify_header_checksum(black_box(&inner)));
        self.one("checksum 1420 bytes", 1, move |_| checksum::checksum(black_box(&packet)));
    }

    fn wireguard(&mut self) {
        let layout = world::layout(2);
        let indices: Vec<_> = (0..PIECE).map(|n| layout.encode(WorkerId(n as u16 % 2), SlotIndex(n as u32))).collect();
        self.one("index decode", PIECE, move |number| layout.decode(indices[number]));
        let (mut window, mut spare, mut counter) = (ReplayWindow::default(), SpareWindows::new(1), 0);
        self.one("replay check", 1, move |_| {
            counter += 1;
            window.accept(counter, &mut spare)
        });
        let peer = world::peer(0);
        world::give_session(0, &peer, aead::chosen());
        let same = Arc::clone(&peer);
        self.one("peer's session", 1, move |_| same.sending_session().is_some());
        self.one("peer's endpoint", 1, move |_| peer.endpoint.load());
    }

    /// What a flood of handshake messages costs: most are refused by their mac1, and the rest is asked for cookies.
    fn flood(&mut self) {
        let gateways = world::peer(0).public_key;
        let from = traffic::endpoint(0);
        let checker = CookieChecker::new(&gateways, world::cookie_secrets());
        let body = Initiation::body(7, &[1; 32], &[2; 48], &[3; 28]);
        let initiation = CookieJar::default().complete(&gateways, &body, world::NOW);
        let mut garbage = initiation.clone();
        garbage[8] ^= 1;
        let own = checker.clone();
        self.one("handshake message refused by its mac1", 1, move |_| own.has_valid_mac1(black_box(&garbage)));
        let (own, mut forged) = (checker.clone(), initiation.clone());
        forged[INITIATION_SIZE - 1] = 1;
        self.one("cookie checked and refused", 1, move |_| own.has_valid_mac2(black_box(&forged), from));
        self.one("cookie reply", 1, move |number| {
            let mut nonce = [0; 24];
            nonce[..8].copy_from_slice(&number.to_be_bytes());
            checker.reply(black_box(&initiation), from, &nonce).expect("an initiation is answered")
        });
    }

    fn tables(&mut self) {
        self.flood();
        for entries in TABLES {
            let order = order(entries);
            self.allowed_ips(entries, &order);
            self.routes(entries, &order);
            // A receiver has more than a kilobyte: a million of them is the scale measurement's matter.
            if entries <= 100_000 {
                self.sessions(entries, &order);
            }
        }
    }

    fn allowed_ips(&mut self, entries: usize, order: &[usize]) {
        // All prefixes lead to one of a few peers, so that the memory of peers is not measured along.
        let peers: Vec<_> = (0..entries.min(64)).map(world::peer).collect();
        let net = |number| IpNet::from(IpAddr::V4(traffic::client(number)));
        let net_v6 = |number| IpNet::from(IpAddr::V6(traffic::client_v6(number)));
        let of_both = |number| [net(number), net_v6(number)].map(|net| (net, Arc::clone(&peers[number % peers.len()])));
        let table: Rc<Lpm<_>> = Rc::new((0..entries).flat_map(of_both).collect());
        let addresses: Vec<_> = order.iter().map(|number| IpAddr::V4(traffic::client(*number))).collect();
        let same = Rc::clone(&table);
        self.one("allowed IPs lookup, IPv4", entries, move |number| same.lookup(addresses[number]).map(Arc::as_ptr));
        let addresses: Vec<_> = order.iter().map(|number| IpAddr::V6(traffic::client_v6(*number))).collect();
        self.one("allowed IPs lookup, IPv6", entries, move |number| table.lookup(addresses[number]).map(Arc::as_ptr));
    }

    fn routes(&mut self, entries: usize, order: &[usize]) {
        let route = Route::Port { port: PortId(0), gateway: None, source: None, mtu: None };
        let address = |number: usize| Ipv4Addr::from_bits((number as u32) << 8 | 1);
        let net = |number: usize| IpNet::new(IpAddr::V4(address(number)), 24).expect("24 bits of 32").trunc();
        let table: Lpm<_> = (0..entries).map(|number| (net(number), route)).collect();
        let addresses: Vec<_> = order.iter().map(|number| IpAddr::V4(address(*number))).collect();
        self.one("route lookup, /24s", entries, move |number| table.lookup(addresses[number]).is_some());
    }

    fn sessions(&mut self, entries: usize, order: &[usize]) {
        let (aead, layout) = (aead::chosen(), world::layout(1));
        let mut slots = Slots::with_capacity(layout.slots_per_worker() as usize);
        for number in 0..entries {
            let (slot, peer) = (SlotIndex(number as u32), world::peer(number));
            let _ = slots.add_page(Page::of(slot), Page::new());
            let session = world::give_session(number, &peer, aead);
            let index = layout.encode(WorkerId(0), slot);
            let receiver = Receiver::new(aead.key(&[1; 32]), index, peer, session, world::NOW);
            assert!(slots.install(slot, Box::new(receiver)).is_none(), "its page is there");
        }
        // As a worker does before it decrypts: the session, whose it is, and whether it is still good.
        let order = order.to_vec();
        self.one("session lookup", entries, move |number| {
            let receiver = slots.get(SlotIndex(order[number] as u32))?;
            (!receiver.peer.is_removed() && !receiver.is_expired(world::NOW)).then_some(receiver.peer.tunnel)
        });
    }
}

/// A piece's worth of random entries, the same in each run.
fn order(entries: usize) -> Vec<usize> {
    let mut random = StdRng::seed_from_u64(11);
    (0..PIECE).map(|_| random.random_range(0..entries)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Effort;

    #[test]
    fn every_lookup_finds_what_it_looks_for() {
        let mut run = Interleaved::default();
        let mut bench = Bench { run: &mut run };
        bench.packets();
        bench.wireguard();
        bench.flood();
        bench.allowed_ips(100, &order(100));
        bench.sessions(100, &order(100));
        let part = run.measure_all(Effort { rounds: 1, pieces: 1, settling: std::time::Duration::ZERO });
        assert!(part.rows.len() > 10 && part.rows.iter().all(|row| row.ns_per_packet > 0.0), "{:#?}", part.rows);
    }
}
