//! A burst on its way through the kernel: which packets are authenticated how and when, so that the vector and the scalar pipes are
//! busy all the time.
//!
//! Packets are sorted by length. All their text goes through ChaCha20 as one stream of blocks, 32 at a time, so that no lane is
//! empty but at the end. The longest packets are authenticated by scalar code during the rounds ([`Queue`]), as far as that has the
//! time; the others eight at a time by vectors ([`poly1305`]), right after their encryption or before their decryption, when their
//! text is in the first-level cache.

use std::slice;

use arrayvec::ArrayVec;

use super::Packet;
use super::chacha20::{GROUP, Nothing};
use super::group::{BLOCK, Cursor, Group};
use super::horner::Queue;
use super::one_time_key::OneTimeKeys;
use super::poly1305::{self, BATCH, LANES};
use crate::{OpenJob, SealJob, TAG_LENGTH, aws_lc};

/// Packets that are sorted together.
pub(super) const WINDOW: usize = 64;

/// A packet with a longer text gains nothing here: it fills the vectors of aws-lc by itself.
const LONGEST: usize = 16 * 1024;

/// With fewer packets most lanes run empty, and aws-lc is faster, however long they are.
const FEWEST: usize = 4;

/// With so many packets the kernel is always as fast as aws-lc. In between, [`is_worthwhile`] estimates.
const ENOUGH: usize = 16;

/// A packet with a shorter text is not worth a place in the scalar queue.
const QUEUE_SHORTEST: usize = 256;

/// Of all text, the percentage that can be authenticated by scalar code while ChaCha20 has the vector pipes: 80 blocks of 16 bytes to
/// 32 blocks of 64.
const QUEUE_SHARE: usize = 66;

/// Something for each packet of a window.
type Window<T> = ArrayVec<T, WINDOW>;

/// Encrypts a burst of any length.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
pub(crate) fn seal_burst(jobs: &mut [SealJob<'_>]) {
    for window in jobs.chunks_mut(WINDOW) {
        seal_window(window);
    }
}

/// Decrypts a burst of any length.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
pub(crate) fn open_burst(jobs: &mut [OpenJob<'_>]) {
    for window in jobs.chunks_mut(WINDOW) {
        open_window(window);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn seal_window(jobs: &mut [SealJob<'_>]) {
    if !is_worthwhile(jobs.len(), jobs.iter().map(|job| job.buffer.len())) {
        return aws_lc::seal_burst(jobs);
    }
    let mut order = Window::new();
    for (index, job) in jobs.iter_mut().enumerate() {
        match Place::of(index, job.buffer) {
            Some(place) => order.push(place),
            None => aws_lc::seal_burst(slice::from_mut(job)),
        }
    }
    order.sort_unstable();
    let mut packets = Window::new();
    for place in &order {
        // In bounds: the place was made from this index.
        let SealJob { key, counter, buffer } = &mut jobs[place.index()];
        packets.push(Packet { key, counter: *counter, text: buffer.as_mut_ptr(), length: place.length() });
    }
    // SAFETY: each packet's text and tag are its job's buffer: borrowed for longer than this, and apart from the others.
    unsafe { seal(&packets) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
fn open_window(jobs: &mut [OpenJob<'_>]) {
    if !is_worthwhile(jobs.len(), jobs.iter().map(|job| job.buffer.len())) {
        return aws_lc::open_burst(jobs);
    }
    let mut order = Window::new();
    for (index, job) in jobs.iter_mut().enumerate() {
        match Place::of(index, job.buffer) {
            Some(place) => order.push(place),
            None => aws_lc::open_burst(slice::from_mut(job)),
        }
    }
    order.sort_unstable();
    let mut packets = Window::new();
    for place in &order {
        // In bounds: the place was made from this index.
        let OpenJob { key, counter, buffer, .. } = &mut jobs[place.index()];
        packets.push(Packet { key, counter: *counter, text: buffer.as_mut_ptr(), length: place.length() });
    }
    // SAFETY: each packet's text and tag are its job's buffer: borrowed for longer than this, and apart from the others.
    let authentic = unsafe { open(&packets) };
    for (place, authentic) in order.iter().zip(authentic) {
        jobs[place.index()].authentic = authentic;
    }
}

/// Encrypts and authenticates packets that are sorted by length.
///
/// # Safety
/// Each text, with the tag behind it, must be valid for reads and writes, and apart from the others.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
unsafe fn seal(packets: &[Packet<'_>]) {
    let mut groups = [Group::new(), Group::new()];
    let mut keys = OneTimeKeys::derive(packets, &mut groups);
    let queued = queue_length(packets);
    // SAFETY: the texts outlive the queue. None is available before it is encrypted.
    let mut queue = unsafe { Queue::new(&packets[..queued], &keys, 0) };
    let mut batches = packets[queued..].chunks(BATCH).zip(keys[queued / LANES..].chunks(BATCH / LANES));
    let mut authenticated = queued;

    // Those that have a text come first.
    let texts = &packets[..packets.partition_point(|packet| packet.length > 0)];
    let mut cursor = Cursor::default();
    loop {
        // SAFETY: the caller's promise.
        unsafe { apply_keystream(texts, &mut cursor, &mut groups, &mut queue) };
        let is_more = cursor.packet < texts.len();
        queue.release(cursor.packet);
        while let Some((packet, tag)) = queue.pop() {
            // SAFETY: the caller's promise.
            unsafe { packets[packet].set_tag(tag) };
        }
        while authenticated < packets.len() && (cursor.packet >= authenticated + BATCH || !is_more) {
            let Some((batch, keys)) = batches.next() else { break };
            authenticated += batch.len();
            // SAFETY: the caller's promise.
            unsafe {
                let tags = poly1305::tags(batch, keys);
                for (lane, packet) in batch.iter().enumerate() {
                    packet.set_tag(tags.of(lane));
                }
            }
        }
        if !is_more {
            break;
        }
    }
    while !queue.is_done() {
        queue.run();
        while let Some((packet, tag)) = queue.pop() {
            // SAFETY: the caller's promise.
            unsafe { packets[packet].set_tag(tag) };
        }
    }
    keys.iter_mut().for_each(|keys| keys.wipe());
    groups.iter_mut().for_each(|group| group.wipe());
    queue.wipe();
}

/// Authenticates packets that are sorted by length, and decrypts those that are authentic. Says which are.
///
/// # Safety
/// Each text, with the tag behind it, must be valid for reads and writes, and apart from the others.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
unsafe fn open(packets: &[Packet<'_>]) -> [bool; WINDOW] {
    let mut groups = [Group::new(), Group::new()];
    let mut keys = OneTimeKeys::derive(packets, &mut groups);
    let queued = queue_length(packets);
    // SAFETY: the texts outlive the queue.
    let mut queue = unsafe { Queue::new(&packets[..queued], &keys, queued) };
    let mut batches = packets[queued..].chunks(BATCH).zip(keys[queued / LANES..].chunks(BATCH / LANES));
    let mut first_of_batch = queued;

    let mut verified = Verified::new();
    let mut cursor = Cursor::default();
    loop {
        if verified.blocks < 2 * GROUP {
            if let Some((batch, keys)) = batches.next() {
                // SAFETY: the caller's promise.
                unsafe {
                    let tags = poly1305::tags(batch, keys);
                    for (lane, packet) in batch.iter().enumerate() {
                        verified.compare(first_of_batch + lane, packet, tags.of(lane));
                    }
                }
                first_of_batch += batch.len();
                continue;
            }
            if !queue.is_done() {
                queue.run();
            } else if verified.blocks == 0 {
                break;
            }
        }
        if verified.blocks >= 2 * GROUP || queue.is_done() {
            // SAFETY: the caller's promise. A packet is among the verified only once nobody reads its ciphertext any more.
            verified.blocks -= unsafe { apply_keystream(&verified.packets, &mut cursor, &mut groups, &mut queue) };
        }
        while let Some((packet, tag)) = queue.pop() {
            // SAFETY: the caller's promise.
            unsafe { verified.compare(packet, &packets[packet], tag) };
        }
    }
    keys.iter_mut().for_each(|keys| keys.wipe());
    groups.iter_mut().for_each(|group| group.wipe());
    queue.wipe();
    verified.authentic
}

/// The packets that were found authentic.
struct Verified<'a> {
    packets: Window<Packet<'a>>,
    /// Blocks of theirs that are not decrypted yet.
    blocks: usize,
    /// By the place of every packet: whether it is one of them.
    authentic: [bool; WINDOW],
}

impl<'a> Verified<'a> {
    fn new() -> Self {
        Self { packets: Window::new(), blocks: 0, authentic: [false; WINDOW] }
    }

    /// Takes the packet in if this is its tag.
    ///
    /// # Safety
    /// The tag behind the packet's text must be valid for reads.
    #[inline]
    unsafe fn compare(&mut self, place: usize, packet: &Packet<'a>, tag: u128) {
        // SAFETY: the caller's promise. All bits count alike; which way the branch goes is no secret.
        if unsafe { packet.tag() } ^ tag == 0 {
            self.authentic[place] = true;
            if packet.length > 0 {
                self.packets.push(*packet);
                self.blocks += packet.blocks();
            }
        }
    }
}

/// Takes the next blocks of the packets through ChaCha20, and returns how many. The queue advances meanwhile.
///
/// # Safety
/// The packets' texts must not be empty, must be valid for reads and writes, and nobody else may use what is left of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,bmi2")]
pub(super) unsafe fn apply_keystream(
    packets: &[Packet<'_>],
    cursor: &mut Cursor,
    groups: &mut [Group; 2],
    queue: &mut Queue,
) -> usize {
    let [first, second] = groups;
    let lanes = first.take_text(packets, cursor);
    let more_lanes = if lanes == GROUP { second.take_text(packets, cursor) } else { 0 };
    // SAFETY: the caller's promise.
    unsafe {
        if more_lanes == 0 {
            first.apply();
        } else if queue.has_work() {
            first.apply_two(second, queue);
        } else {
            first.apply_two(second, &mut Nothing);
        }
    }
    lanes + more_lanes
}

/// Whether the kernel is faster than aws-lc on so many packets of these lengths. Measured in core cycles on Zen 4: aws-lc takes a time
/// for each packet and byte; the kernel one for a start, one for each 16 blocks, and one for the longest packet, as the other lanes
/// of Poly1305 wait for it. On a CPU where the numbers differ, the worst is that a short burst takes the slower way.
fn is_worthwhile(count: usize, lengths: impl Iterator<Item = usize>) -> bool {
    if !(FEWEST..ENOUGH).contains(&count) {
        return count >= ENOUGH;
    }
    let (mut singly, mut blocks, mut longest) = (0, 0, 0);
    for length in lengths {
        singly += 540 + length * 3 / 2;
        blocks += length.div_ceil(BLOCK);
        longest = longest.max(length);
    }
    let together = 1650 + blocks.div_ceil(GROUP) * 760 + 250 + longest * 7 / 4;
    together < singly
}

/// How many of the packets, which are sorted by length, go through the scalar queue: whole batches.
fn queue_length(packets: &[Packet<'_>]) -> usize {
    let total: usize = packets.iter().map(|packet| packet.length).sum();
    let (mut queued, mut bytes) = (0, 0);
    for batch in packets.chunks_exact(LANES) {
        bytes += batch.iter().map(|packet| packet.length).sum::<usize>();
        if bytes * 100 > total * QUEUE_SHARE || batch[LANES - 1].length < QUEUE_SHORTEST {
            break;
        }
        queued += LANES;
    }
    queued
}

/// A packet's length and its index in the window, in one word that sorts the longest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place(u32);

impl Place {
    /// `None` for a buffer that is not for the kernel: without room for a tag, or too long.
    fn of(index: usize, buffer: &[u8]) -> Option<Self> {
        const { assert!(WINDOW <= 1 << 8 && LONGEST <= 1 << 24) };
        let length = buffer.len().checked_sub(TAG_LENGTH).filter(|&length| length <= LONGEST)?;
        Some(Self(((LONGEST - length) as u32) << 8 | index as u32))
    }

    fn index(self) -> usize {
        (self.0 & 0xff) as usize
    }

    fn length(self) -> usize {
        LONGEST - (self.0 >> 8) as usize
    }
}
