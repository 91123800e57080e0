//! The laws of a packet buffer, over the mbuf and its twin on plain memory.

use std::ffi::c_void;
use std::mem::{ManuallyDrop, zeroed};
use std::ptr::NonNull;

use dpdk_sys::rte_mbuf;
use jetway_pipelines::buffer::{ChecksumState, HEADROOM, HeapBuf, L4Offload, Network, NoRoom, PacketBuf, Transport};
use proptest::prelude::*;

use super::Mbuf;

const ROOM: usize = 300;

/// An mbuf on plain memory: its head and buffer, which no pool knows and which is therefore never dropped as an mbuf.
struct PlainMbuf {
    mbuf: ManuallyDrop<Mbuf>,
    memory: *mut [u8],
    head: *mut rte_mbuf,
}

impl PlainMbuf {
    fn with_room(room: usize) -> Self {
        let memory: *mut [u8] = Box::into_raw(vec![0; HEADROOM + room].into_boxed_slice());
        // SAFETY: an mbuf's head is plain numbers and pointers.
        let mut head: Box<rte_mbuf> = Box::new(unsafe { zeroed() });
        head.buf_addr = memory.cast::<c_void>();
        head.buf_len = (HEADROOM + room) as u16;
        head.data_off = HEADROOM as u16;
        head.nb_segs = 1;
        head.refcnt = 1;
        let head = Box::into_raw(head);
        // SAFETY: the head describes memory of ours.
        let mbuf = unsafe { Mbuf::from_driver(NonNull::new(head).expect("a box")) };
        Self { mbuf: ManuallyDrop::new(mbuf.expect("one piece")), memory, head }
    }

    fn head(&mut self) -> &mut rte_mbuf {
        self.mbuf.head_mut()
    }
}

impl Drop for PlainMbuf {
    fn drop(&mut self) {
        // SAFETY: both came out of boxes, and the mbuf that pointed to them is not used again.
        unsafe {
            drop(Box::from_raw(self.memory));
            drop(Box::from_raw(self.head));
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    GrowFront(usize),
    GrowBack(usize),
    TrimFront(usize),
    Truncate(usize),
    Fill(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let count = prop_oneof![9 => 0..400usize, 1 => 65_000..70_000usize, 1 => Just(usize::MAX)];
    (0..5, count, any::<u8>()).prop_map(|(kind, count, byte)| match kind {
        0 => Step::GrowFront(count),
        1 => Step::GrowBack(count),
        2 => Step::TrimFront(count),
        3 => Step::Truncate(count),
        _ => Step::Fill(byte),
    })
}

/// The reference: the packet's bytes, and the room on both sides. New bytes are unspecified, so they are filled.
struct Model {
    before: usize,
    packet: Vec<u8>,
    behind: usize,
}

fn apply<B: PacketBuf>(buffer: &mut B, model: &mut Model, step: Step) {
    match step {
        Step::GrowFront(count) if count <= model.before => {
            assert_eq!(buffer.grow_front(count), Ok(()));
            buffer.data_mut()[..count].fill(0xf0);
            model.before -= count;
            model.packet.splice(0..0, std::iter::repeat_n(0xf0, count));
        }
        Step::GrowBack(count) if count <= model.behind => {
            let old = model.packet.len();
            assert_eq!(buffer.grow_back(count), Ok(()));
            buffer.data_mut()[old..].fill(0xba);
            model.behind -= count;
            model.packet.resize(old + count, 0xba);
        }
        Step::GrowFront(count) => assert_eq!(buffer.grow_front(count), Err(NoRoom(count))),
        Step::GrowBack(count) => assert_eq!(buffer.grow_back(count), Err(NoRoom(count))),
        Step::TrimFront(count) => {
            buffer.trim_front(count);
            let count = count.min(model.packet.len());
            model.before += count;
            model.packet.drain(..count);
        }
        Step::Truncate(length) => {
            buffer.truncate(length);
            model.behind += model.packet.len().saturating_sub(length);
            model.packet.truncate(length);
        }
        Step::Fill(byte) => {
            buffer.data_mut().fill(byte);
            model.packet.fill(byte);
        }
    }
    assert_eq!(buffer.data(), model.packet.as_slice());
    assert_eq!((buffer.headroom(), buffer.tailroom()), (model.before, model.behind));
}

/// Runs `steps` on a fresh buffer with `HEADROOM` before and `room` behind, against the model.
fn obeys_the_laws<B: PacketBuf>(buffer: &mut B, room: usize, steps: &[Step]) {
    let mut model = Model { before: HEADROOM, packet: Vec::new(), behind: room };
    for step in steps {
        apply(buffer, &mut model, *step);
    }
}

proptest! {
    #[test]
    fn the_mbuf_and_its_twin_on_the_heap_obey_the_same_laws(steps in prop::collection::vec(step(), 1..60)) {
        obeys_the_laws(&mut HeapBuf::with_room(ROOM), ROOM, &steps);
        let mut plain = PlainMbuf::with_room(ROOM);
        obeys_the_laws(&mut *plain.mbuf, ROOM, &steps);
        let length = plain.mbuf.data().len();
        prop_assert_eq!((plain.head().pkt_len as usize, plain.head().nb_segs), (length, 1));
    }
}

#[test]
fn several_segments_and_lengths_beyond_the_buffer_are_not_taken_for_a_packet() {
    let spoil: [fn(&mut rte_mbuf); 3] =
        [|head| head.nb_segs = 2, |head| head.data_len = head.buf_len, |head| head.data_off = u16::MAX];
    for spoil in spoil {
        let mut plain = PlainMbuf::with_room(ROOM);
        spoil(plain.head());
        let head = NonNull::new(plain.head).expect("a box");
        // SAFETY: the head is of ours, and comes back as the error.
        let refused = unsafe { Mbuf::from_driver(head) };
        assert_eq!(refused.err(), Some(head));
    }
}

#[test]
fn what_the_nic_said_of_checksums_is_read_and_a_missing_one_counts_as_unchecked() {
    let mut plain = PlainMbuf::with_room(ROOM);
    let (ip_bad, ip_good, l4_bad, l4_good) = (1 << 4, 1 << 7, 1 << 3, 1 << 8);
    let cases = [
        (0, ChecksumState::Unknown, ChecksumState::Unknown),
        (ip_good | l4_bad, ChecksumState::Good, ChecksumState::Bad),
        (ip_bad | l4_good, ChecksumState::Bad, ChecksumState::Good),
        (ip_bad | ip_good | l4_bad | l4_good, ChecksumState::Unknown, ChecksumState::Unknown),
        (!(ip_bad | ip_good | l4_bad | l4_good), ChecksumState::Unknown, ChecksumState::Unknown),
    ];
    for (flags, ip, l4) in cases {
        plain.head().ol_flags = flags;
        assert_eq!((plain.mbuf.ip_checksum(), plain.mbuf.l4_checksum()), (ip, l4), "{flags:#x}");
    }
}

#[test]
fn an_offloaded_checksum_tells_the_nic_where_the_headers_lie() {
    let mut plain = PlainMbuf::with_room(ROOM);
    plain.head().ol_flags = 1 << 8;
    plain.mbuf.offload_l4_checksum(L4Offload {
        l2_length: 14,
        l3_length: 40,
        network: Network::V6,
        transport: Transport::Tcp,
    });
    assert_eq!(plain.head().ol_flags, 1 << 8 | 1 << 52 | 1 << 56, "RX flags stay; TCP over IPv6");
    assert_eq!(plain.head().tx_offload, 14 | 40 << 7 | 20 << 16);
    plain.mbuf.offload_l4_checksum(L4Offload {
        l2_length: 18,
        l3_length: 20,
        network: Network::V4,
        transport: Transport::Udp,
    });
    assert_eq!(plain.head().ol_flags, 1 << 8 | 3 << 52 | 1 << 55, "UDP over IPv4, and nothing of before");
    assert_eq!(plain.head().tx_offload, 18 | 20 << 7 | 8 << 16);
}
