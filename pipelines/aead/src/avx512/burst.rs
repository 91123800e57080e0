//! A burst on its way through the kernel: sorted by length, so that packets that are authenticated together are alike, and cut into
//! pieces that stay in the first-level cache from one algorithm to the other.

use std::slice;

use arrayvec::ArrayVec;

use super::poly1305::{self, LANES};
use super::stream::{self, Part};
use super::{Block, Packet};
use crate::{OpenJob, SealJob, TAG_LENGTH, aws_lc};

/// Packets that are sorted together.
const WINDOW: usize = 64;

/// A packet with a longer text gains nothing here: it fills the vectors of aws-lc by itself.
const LONGEST: usize = 16 * 1024;

/// With fewer packets most lanes would run empty, and aws-lc is faster.
const FEWEST: usize = 2;

/// Text that goes through both algorithms before the next piece does.
const PIECE_BYTES: usize = 24 * 1024;

/// Something for each packet of a window.
type Window<T> = ArrayVec<T, WINDOW>;

/// Encrypts a burst of any length.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
pub(crate) fn seal_burst(jobs: &mut [SealJob<'_>]) {
    for window in jobs.chunks_mut(WINDOW) {
        seal_window(window);
    }
}

/// Decrypts a burst of any length.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
pub(crate) fn open_burst(jobs: &mut [OpenJob<'_>]) {
    for window in jobs.chunks_mut(WINDOW) {
        open_window(window);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
fn seal_window(jobs: &mut [SealJob<'_>]) {
    if jobs.len() < FEWEST {
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
    let packets: Window<Packet<'_>> = order
        .iter()
        .map(|place| {
            // In bounds: the place was made from this index.
            let job = &mut jobs[place.index()];
            Packet { key: job.key, counter: job.counter, text: job.buffer.as_mut_ptr(), length: place.length() }
        })
        .collect();
    for piece in pieces(&packets) {
        let mut mac_keys: Window<Block> = piece.iter().map(|_| Block::ZERO).collect();
        // SAFETY: each packet's text and tag are its job's buffer: borrowed for longer than this, and apart from the others.
        unsafe {
            stream::apply(piece, &mut mac_keys, Part::All);
            authenticate(piece, &mac_keys, |packet, tag| piece[packet].set_tag(tag));
        }
        mac_keys.iter_mut().for_each(Block::wipe);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
fn open_window(jobs: &mut [OpenJob<'_>]) {
    if jobs.len() < FEWEST {
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
    let packets: Window<Packet<'_>> = order
        .iter()
        .map(|place| {
            // In bounds: the place was made from this index.
            let job = &mut jobs[place.index()];
            Packet { key: job.key, counter: job.counter, text: job.buffer.as_mut_ptr(), length: place.length() }
        })
        .collect();
    let mut mac_keys: Window<Block> = packets.iter().map(|_| Block::ZERO).collect();
    // SAFETY: makes the one-time keys and touches no text.
    unsafe { stream::apply(&packets, &mut mac_keys, Part::MacKey) };

    let mut done = 0;
    for piece in pieces(&packets) {
        let mut authentic = Window::<Packet<'_>>::new();
        let range = done..done + piece.len();
        done = range.end;
        // SAFETY: each packet's text and tag are its job's buffer: borrowed for longer than this, and apart from the others.
        unsafe {
            authenticate(piece, &mac_keys[range.clone()], |packet, tag| {
                // All bits are compared, at whatever place they differ; the outcome is no secret.
                let is_authentic = piece[packet].tag() ^ tag == 0;
                jobs[order[range.start + packet].index()].authentic = is_authentic;
                if is_authentic {
                    authentic.push(piece[packet]);
                }
            });
            stream::apply(&authentic, &mut [], Part::Text);
        }
    }
    mac_keys.iter_mut().for_each(Block::wipe);
}

/// Hands the tag of each packet of the piece to `each`, with the packet's position.
///
/// # Safety
/// The packets' texts must be valid for reads of their lengths.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
unsafe fn authenticate(piece: &[Packet<'_>], mac_keys: &[Block], mut each: impl FnMut(usize, u128)) {
    for (group, (packets, mac_keys)) in piece.chunks(LANES).zip(mac_keys.chunks(LANES)).enumerate() {
        // SAFETY: the caller's promise.
        let tags = unsafe { poly1305::tags(packets, mac_keys) };
        for lane in 0..packets.len() {
            each(group * LANES + lane, tags.of(lane));
        }
    }
}

/// Cuts sorted packets into pieces of whole groups of [`LANES`], each (but for one group at least) within [`PIECE_BYTES`].
fn pieces<'p, 'k>(packets: &'p [Packet<'k>]) -> impl Iterator<Item = &'p [Packet<'k>]> {
    let mut rest = packets;
    std::iter::from_fn(move || {
        let longest = rest.first()?.length;
        let groups = (PIECE_BYTES / (longest.max(1) * LANES)).max(1);
        let (piece, behind) = rest.split_at(rest.len().min(groups * LANES));
        rest = behind;
        Some(piece)
    })
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
