//! Small blocks of whole cache lines: laid side by side on huge pages.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{HUGE_PAGE, advise};

/// What a cache line has on every processor that we know of.
const LINE: usize = 64;
/// The largest block.
const LARGEST: usize = 2048;
/// Sizes of blocks: each multiple of a line.
const SIZES: usize = LARGEST / LINE;
/// Memory that is taken from the system at once. Huge pages of it that were never used are none.
const CHUNK: usize = 16 << 20;

/// Whether a block of this layout is one of these: it asks for lines of its own, which is what objects do that workers look at
/// at random.
pub(super) const fn fits(layout: Layout) -> bool {
    layout.align() == LINE && layout.size() <= LARGEST && layout.size() > 0 && layout.size().is_multiple_of(LINE)
}

/// Where all blocks come from.
pub(super) static LINES: Lines = Lines(Mutex::new(State::EMPTY));

/// Blocks of whole lines. What was freed is kept for blocks of the same size.
///
/// Control and the handshake thread make and free them, workers never do: the lock is held for a few instructions.
pub(super) struct Lines(Mutex<State>);

struct State {
    /// The first free block of each size; it holds the address of the next.
    free: [*mut u8; SIZES],
    /// Memory that was never given out.
    fresh: *mut u8,
    left: usize,
}

// SAFETY: the pointers lead to memory that belongs to this state alone, whichever thread has it.
unsafe impl Send for State {}

impl State {
    const EMPTY: Self = Self { free: [ptr::null_mut(); SIZES], fresh: ptr::null_mut(), left: 0 };

    /// Keeps a block.
    ///
    /// # Safety
    /// `block` is aligned to a line, has `lines` lines, 1 to [`SIZES`], and nobody else has it.
    unsafe fn keep(&mut self, block: *mut u8, lines: usize) {
        // SAFETY: a line has room for an address and is aligned for one; the block is ours.
        unsafe { block.cast::<*mut u8>().write(self.free[lines - 1]) };
        self.free[lines - 1] = block;
    }

    /// A block of so many lines, 1 to [`SIZES`]; null if there is no memory.
    fn take(&mut self, lines: usize) -> *mut u8 {
        let kept = self.free[lines - 1];
        if !kept.is_null() {
            // SAFETY: `keep` put the next one's address there.
            self.free[lines - 1] = unsafe { kept.cast::<*mut u8>().read() };
            return kept;
        }
        if self.left < lines * LINE && !self.refill() {
            return ptr::null_mut();
        }
        let block = self.fresh;
        // SAFETY: so many bytes are left behind `fresh`.
        self.fresh = unsafe { block.add(lines * LINE) };
        self.left -= lines * LINE;
        block
    }

    /// Begins a new chunk. Returns whether there was memory for it.
    fn refill(&mut self) -> bool {
        let Ok(layout) = Layout::from_size_align(CHUNK, HUGE_PAGE) else { return false };
        // SAFETY: the size is not zero.
        let chunk = unsafe { System.alloc(layout) };
        if chunk.is_null() {
            return false;
        }
        advise(chunk, layout);
        if self.left > 0 {
            // SAFETY: what is left is fewer lines than the largest block has, and nobody has it.
            unsafe { self.keep(self.fresh, self.left / LINE) };
        }
        (self.fresh, self.left) = (chunk, CHUNK);
        true
    }
}

impl Lines {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics; if it did, every step leaves the lists whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block for a layout that [`fits`]; null if there is no memory.
    pub(super) fn take(&self, layout: Layout) -> *mut u8 {
        self.state().take(layout.size() / LINE)
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// It came from [`Lines::take`] with the same layout, and nobody uses it any more.
    pub(super) unsafe fn put_back(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; every block given out is aligned to a line.
        unsafe { self.state().keep(block, layout.size() / LINE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(lines: usize) -> Layout {
        Layout::from_size_align(lines * LINE, LINE).expect("a layout")
    }

    #[test]
    fn blocks_are_whole_lines_of_their_own_and_are_given_out_again_once_freed() {
        let lines = Lines(Mutex::new(State::EMPTY));
        // More than a chunk, in sizes that do not fill it.
        let sizes: Vec<_> = (0..40_000).map(|number| number % 13 + 1).collect();
        let blocks: Vec<_> = sizes.iter().map(|size| lines.take(layout(*size))).collect();
        let mut ranges: Vec<_> = blocks.iter().zip(&sizes).map(|(block, size)| (block.addr(), size * LINE)).collect();
        ranges.sort_unstable();
        assert!(ranges.iter().all(|(start, _)| *start != 0 && start.is_multiple_of(LINE)));
        assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        for (block, size) in blocks.iter().zip(&sizes) {
            // SAFETY: the block has so many bytes and comes from these lines with this layout.
            unsafe {
                block.write_bytes(0xa5, size * LINE);
                lines.put_back(*block, layout(*size));
            }
        }
        let mut again: Vec<_> = sizes.iter().map(|size| (lines.take(layout(*size)).addr(), size * LINE)).collect();
        again.sort_unstable();
        assert_eq!(again, ranges);
    }

    #[test]
    fn what_is_left_of_a_chunk_is_not_lost() {
        let lines = Lines(Mutex::new(State::EMPTY));
        let most = CHUNK / LARGEST - 1;
        for _ in 0..most {
            assert!(!lines.take(layout(SIZES)).is_null());
        }
        let last = lines.take(layout(1));
        assert!(!lines.take(layout(SIZES)).is_null(), "of the next chunk");
        // SAFETY: only the address is looked at.
        let left = unsafe { last.add(LINE) };
        assert_eq!(lines.take(layout(SIZES - 1)), left);
    }

    #[test]
    fn only_layouts_of_whole_lines_fit() {
        let fits = |size, align| fits(Layout::from_size_align(size, align).expect("a layout"));
        assert!(fits(64, 64) && fits(LARGEST, 64));
        assert!(!fits(0, 64) && !fits(100, 64) && !fits(LARGEST + 64, 64) && !fits(64, 32) && !fits(128, 128));
    }
}
