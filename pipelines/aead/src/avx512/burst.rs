//! A burst on its way through the kernel: what is done in which order.
//!
//! Packets are sorted by length, because lanes that work together take the time of the longest. Ciphertext is authenticated after it
//! is made and before it is undone; either way sixteen packets at once, which the nearest cache holds from the one to the other.

use std::mem::MaybeUninit;
use std::slice;

use super::packets::{Order, Row, WINDOW, text_length};
use super::sixteen::Sixteen;
use super::stream;
use super::tag;
use crate::{OpenJob, SealJob, aws_lc};

/// With fewer packets most lanes run empty, and aws-lc is faster, however long they are.
const FEWEST: usize = 2;

/// With so many packets the kernel is always as fast as aws-lc. In between, [`is_worthwhile`] estimates.
const ENOUGH: usize = 16;

/// Encrypts a burst of any length.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub(crate) fn seal_burst(jobs: &mut [SealJob<'_>]) {
    for window in jobs.chunks_mut(WINDOW) {
        seal_window(window);
    }
}

/// Decrypts a burst of any length.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
pub(crate) fn open_burst(jobs: &mut [OpenJob<'_>]) {
    for window in jobs.chunks_mut(WINDOW) {
        open_window(window);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn seal_window(jobs: &mut [SealJob<'_>]) {
    if !is_worthwhile(jobs.len(), jobs.iter().map(|job| job.buffer.len())) {
        return aws_lc::seal_burst(jobs);
    }
    let mut order = Order::new();
    order.read(jobs);
    let mut place = MaybeUninit::uninit();
    for row in 0..order.rows() {
        let row = Row::take(jobs, &order, row);
        // SAFETY: each packet's text and tag are its job's buffer: borrowed for longer than this, and apart from the others.
        unsafe { seal(&row, &mut place) };
    }
    Sixteen::wipe(&mut place);
    if order.count < jobs.len() {
        let others = jobs.iter_mut().filter(|job| text_length(job.buffer.len()).is_none());
        others.for_each(|job| aws_lc::seal_burst(slice::from_mut(job)));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
fn open_window(jobs: &mut [OpenJob<'_>]) {
    if !is_worthwhile(jobs.len(), jobs.iter().map(|job| job.buffer.len())) {
        return aws_lc::open_burst(jobs);
    }
    let mut order = Order::new();
    order.read(jobs);
    let mut place = MaybeUninit::uninit();
    for number in 0..order.rows() {
        let row = Row::take(jobs, &order, number);
        // SAFETY: each packet's text and tag are its job's buffer: borrowed for longer than this, and apart from the others.
        let authentic = unsafe { open(&row, &mut place) };
        if let (Some(jobs), u16::MAX) = (order.as_they_come(jobs, number), authentic) {
            jobs.iter_mut().for_each(|job| job.authentic = true);
            continue;
        }
        for (lane, &place) in order.places(number).iter().enumerate() {
            // In bounds: it is a place among these jobs.
            jobs[usize::from(place)].authentic = authentic >> lane & 1 == 1;
        }
    }
    Sixteen::wipe(&mut place);
    if order.count < jobs.len() {
        let others = jobs.iter_mut().filter(|job| text_length(job.buffer.len()).is_none());
        others.for_each(|job| aws_lc::open_burst(slice::from_mut(job)));
    }
}

/// Encrypts and authenticates packets.
///
/// # Safety
/// Each text, with the tag behind it, must be valid for reads and writes, and apart from the others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
unsafe fn seal(row: &Row<'_>, place: &mut MaybeUninit<Sixteen>) {
    // SAFETY: the caller's promise.
    unsafe {
        let sixteen = Sixteen::make_and_apply(place, row);
        let with_full_blocks = row.with_full_blocks();
        if with_full_blocks > 0 {
            stream::apply(row, sixteen, 0..with_full_blocks);
        }
        tag::write(row, sixteen);
    }
}

/// Authenticates packets, and decrypts those that are authentic. Returns which are: a bit for each.
///
/// # Safety
/// Each text, with the tag behind it, must be valid for reads and writes, and apart from the others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,avx512vpopcntdq,bmi2")]
unsafe fn open(row: &Row<'_>, place: &mut MaybeUninit<Sixteen>) -> u16 {
    let sixteen = Sixteen::make(place, row);
    // SAFETY: the caller's promise.
    let authentic = unsafe { tag::compare(row, sixteen) };
    // SAFETY: the caller's promise.
    unsafe { sixteen.apply_last_blocks(row, authentic) };
    let mut packet = 0;
    let end = row.with_full_blocks();
    while packet < end {
        // The next run of authentic packets, which in a burst without forged ones is the whole.
        packet += (authentic >> packet).trailing_zeros() as usize;
        let run = (!(authentic.checked_shr(packet as u32).unwrap_or(0))).trailing_zeros() as usize;
        let range = packet.min(end)..(packet + run).min(end);
        packet += run;
        // SAFETY: the caller's promise.
        unsafe { stream::apply(row, sixteen, range) };
    }
    authentic
}

/// Whether the kernel is faster than aws-lc on so many packets of these lengths. Measured in core cycles on Sapphire Rapids: aws-lc takes
/// a time for each packet and byte; the kernel one for a start, one for each 16 blocks, and one for the longest packet, as the other
/// lanes of Poly1305 wait for it. On a CPU where the numbers differ, the worst is that a short burst takes the slower way.
fn is_worthwhile(count: usize, lengths: impl Iterator<Item = usize>) -> bool {
    if !(FEWEST..ENOUGH).contains(&count) {
        return count >= ENOUGH;
    }
    let (mut singly, mut blocks, mut longest) = (0, 0, 0);
    for length in lengths {
        singly += 540 + length * 3 / 2;
        blocks += length / 64;
        longest = longest.max(length);
    }
    let together = 1000 + if count > 8 { 600 } else { 0 } + blocks.div_ceil(16) * 640 + longest * 5 / 4;
    together < singly
}
