//! The hot stages, each in a function that callgrind can see: run by `jetway-perf budgets`, of no use by itself.
//!
//! Encryption is RustCrypto's, since valgrind knows no AVX-512; what it costs is taken off by the turns' budgets.

use jetway_pipelines::dispatch::service::Services;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jetway_aead::{Aead, Backend, Key, OpenJob, SealJob};
use jetway_config::Forward;
use jetway_perf::budgets::{CALLS, ENTRIES};
use jetway_perf::dispatch::{self, services};
use jetway_perf::engine::{Direction, MESSAGE};
use jetway_perf::line::{Line, refill};
use jetway_perf::result::USUAL_BURST;
use jetway_perf::traffic::{self, SERVER};
use jetway_perf::world::{self, LAN, NOW, World};
use jetway_pipelines::buffer::{HeapBuf, PacketBuf};
use jetway_pipelines::ids::{SlotIndex, WorkerId};
use jetway_pipelines::lpm::Lpm;
use jetway_pipelines::packet::{Frame, Parsed};
use jetway_pipelines::wireguard::Peer;
use jetway_pipelines::wireguard::constants::DATA_HEADER_SIZE;
use jetway_pipelines::wireguard::index::IndexLayout;
use jetway_pipelines::wireguard::replay::{ReplayWindow, SpareWindows};

const LENGTH: usize = 64;

fn main() {
    let frame = traffic::frame(LAN.index(), &traffic::packet(SERVER, traffic::client(0), LENGTH, 0));
    let layout = world::layout(2);
    let table = allowed_ips();
    let (mut window, mut spare) = (ReplayWindow::default(), SpareWindows::new(1));
    for number in 0..CALLS {
        stage_parse(black_box(&frame));
        stage_verify_checksum(black_box(&frame));
        stage_index_decode(&layout, layout.encode(WorkerId(1), SlotIndex(number as u32)));
        stage_replay(&mut window, number as u64, &mut spare);
        // Neighbours in the order of addresses would find all of a path in the same nodes.
        let address = IpAddr::V4(traffic::client(number * 7919 % ENTRIES));
        stage_allowed_ips(&table, black_box(address));
    }
    turns();
    dispatch_turns();
}

fn allowed_ips() -> Lpm<Arc<Peer>> {
    let peer = world::peer(0);
    (0..ENTRIES).map(|number| (IpNet::from(IpAddr::V4(traffic::client(number))), Arc::clone(&peer))).collect()
}

#[inline(never)]
fn stage_parse(frame: &[u8]) {
    let parsed = Frame::parse(frame).map(|parsed| Parsed::from_payload(parsed.ethertype, parsed.payload(frame)));
    let packet = black_box(parsed).expect("a frame").expect("IPv4");
    assert!(packet.is_ok(), "it has a packet");
}

#[inline(never)]
fn stage_verify_checksum(frame: &[u8]) {
    let packet = &frame[jetway_pipelines::packet::ethernet::HEADER_LENGTH..];
    // Else the compiler leaves out what the check does not look at, or not, as it likes from build to build.
    let parsed = black_box(Parsed::from_ip(packet).expect("a packet"));
    black_box(parsed.verify_header_checksum(packet)).expect("its checksum");
}

#[inline(never)]
fn stage_index_decode(layout: &IndexLayout, index: u32) {
    black_box(layout.decode(black_box(index)));
}

#[inline(never)]
fn stage_replay(window: &mut ReplayWindow, counter: u64, spare: &mut SpareWindows) {
    black_box(window.accept(black_box(counter), spare)).expect("counters grow");
}

#[inline(never)]
fn stage_allowed_ips(table: &Lpm<Arc<Peer>>, address: IpAddr) {
    black_box(table.lookup(address)).expect("every address is in the table");
}

/// Bursts through a worker, and their encryption alone.
fn turns() {
    let aead = Aead::with_backend(Backend::RustCrypto).expect("it runs everywhere");
    let lines = [Line::default(), Line::default()];
    let queues = lines.each_ref().map(Line::queue);
    let mut world = World::on_ports(1, aead, (Services::default(), 0), queues, lines);
    let mut buffers: Vec<_> = (0..USUAL_BURST).map(|_| HeapBuf::with_room(2048)).collect();
    let elsewhere = traffic::frame(LAN.index(), &traffic::packet(SERVER, [203, 0, 113, 5].into(), LENGTH, 0));
    // The first turn of each kind fills what is kept from packet to packet.
    for call in 0..=CALLS / USUAL_BURST {
        let counts = call > 0;
        for direction in Direction::BOTH {
            let frames: Vec<_> = (0..USUAL_BURST)
                .map(|_| match direction {
                    Direction::Decrypt => world.sealed_frame(0, LENGTH),
                    Direction::Encrypt => world.plain_frame(0, LENGTH),
                })
                .collect();
            let mut messages: Vec<_> = frames.iter().map(|frame| frame[MESSAGE..].to_vec()).collect();
            lay(&mut world, direction, &mut buffers, &frames);
            let key = &world.clients[0].key;
            match (direction, counts) {
                (Direction::Decrypt, true) => {
                    stage_open(aead, key, &mut messages);
                    stage_decrypt_turn(&mut world);
                }
                (Direction::Encrypt, true) => {
                    // An inner packet of 64 bytes needs no padding.
                    let mut messages = vec![vec![0; LENGTH + jetway_aead::TAG_LENGTH]; USUAL_BURST];
                    stage_seal(aead, key, &mut messages);
                    stage_encrypt_turn(&mut world);
                }
                (_, false) => first_turn(&mut world),
            }
            take(&mut world, direction, &mut buffers);
        }
        lay(&mut world, Direction::Encrypt, &mut buffers, &vec![elsewhere.clone(); USUAL_BURST]);
        if counts {
            stage_forward_turn(&mut world)
        } else {
            first_turn(&mut world)
        }
        take(&mut world, Direction::Encrypt, &mut buffers);
    }
}

/// Bursts of known flows to a service by NAT.
fn dispatch_turns() {
    let mut world = World::with_services(0, services(Forward::Nat), USUAL_BURST);
    let mut buffers: Vec<_> = (0..USUAL_BURST).map(|_| HeapBuf::with_room(2048)).collect();
    let frames: Vec<_> = (0..USUAL_BURST as u32).map(dispatch::frame).collect();
    for call in 0..=CALLS / USUAL_BURST {
        lay(&mut world, Direction::Decrypt, &mut buffers, &frames);
        if call > 0 {
            stage_dispatch_turn(&mut world);
        } else {
            first_turn(&mut world);
        }
        take(&mut world, Direction::Decrypt, &mut buffers);
    }
}

fn lay(world: &mut World, direction: Direction, buffers: &mut Vec<HeapBuf>, frames: &[Vec<u8>]) {
    for (buffer, frame) in buffers.iter_mut().zip(frames) {
        refill(buffer, frame);
    }
    // Ports give the last frame first, and a peer's messages come in order.
    world.lines[direction.ports().0].lay(buffers.drain(..).rev());
}

fn take(world: &mut World, direction: Direction, buffers: &mut Vec<HeapBuf>) {
    world.lines[direction.ports().1].take_sent(buffers);
    assert_eq!(buffers.len(), USUAL_BURST, "the worker dropped packets");
    assert!(buffers.iter().all(|buffer| !buffer.data().is_empty()));
}

// The compiler makes one function of several with the same code: the stages of turns differ by a letter.

/// A turn that does not count.
fn first_turn(world: &mut World) {
    black_box(world.worker.turn(NOW));
}

#[inline(never)]
fn stage_decrypt_turn(world: &mut World) {
    black_box((world.worker.turn(NOW), 'd'));
}

#[inline(never)]
fn stage_encrypt_turn(world: &mut World) {
    black_box((world.worker.turn(NOW), 'e'));
}

#[inline(never)]
fn stage_forward_turn(world: &mut World) {
    black_box((world.worker.turn(NOW), 'f'));
}

#[inline(never)]
fn stage_dispatch_turn(world: &mut World) {
    black_box((world.worker.turn(NOW), 's'));
}

#[inline(never)]
fn stage_open(aead: Aead, key: &Key, messages: &mut [Vec<u8>]) {
    let mut jobs: arrayvec::ArrayVec<_, USUAL_BURST> = messages
        .iter_mut()
        .map(|message| {
            let (header, buffer) = message.split_at_mut(DATA_HEADER_SIZE);
            let counter = u64::from_le_bytes(header[8..].try_into().expect("a data header has 16 bytes"));
            OpenJob { key, counter, buffer, authentic: false }
        })
        .collect();
    aead.open_burst(&mut jobs);
    assert!(jobs.iter().all(|job| job.authentic), "the AEAD refuses its own packets");
}

#[inline(never)]
fn stage_seal(aead: Aead, key: &Key, messages: &mut [Vec<u8>]) {
    let jobs = messages.iter_mut().zip(0..).map(|(buffer, counter)| SealJob { key, counter, buffer });
    let mut jobs: arrayvec::ArrayVec<_, USUAL_BURST> = jobs.collect();
    aead.seal_burst(&mut jobs);
}
