//! The process's heap: what lies on huge pages, and what becomes of memory that was freed.

mod lines;

use std::alloc::{GlobalAlloc, Layout, System};

use lines::LINES;

/// Blocks of this size and more are laid on huge pages.
const LARGE: usize = 4 << 20;
/// A huge page of x86-64 and of aarch64 with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;

/// The system's allocator, which asks for huge pages under large blocks and under small ones of whole cache lines.
///
/// A table of a million flows lies on 20,000 ordinary pages, more than a processor can translate without a walk through
/// memory: each look at a random flow then waits twice. So do the peers and sessions of a node with many: types that are
/// aligned to 64 bytes lie side by side on huge pages, with nothing between them. Linux gives huge pages to whom it is asked for where
/// `/sys/kernel/mm/transparent_hugepage/enabled` says `madvise`, as Debian has it. Where it gives none, nothing changes.
#[derive(Debug)]
pub struct HugePageHeap;

/// The layout that a block of `layout` really has.
const fn widened(layout: Layout) -> Layout {
    if layout.size() < LARGE || layout.align() >= HUGE_PAGE {
        return layout;
    }
    match Layout::from_size_align(layout.size(), HUGE_PAGE) {
        Ok(widened) => widened,
        Err(_) => layout,
    }
}

/// Asks for huge pages under a block.
fn advise(block: *mut u8, layout: Layout) {
    #[cfg(target_os = "linux")]
    if layout.size() >= LARGE && !block.is_null() {
        let whole = layout.size() / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: the range lies within a block that was just allocated and that nobody else has, aligned to a huge page by
        // `widened`; the advice changes no byte of it. Refused advice is no advice.
        unsafe { libc::madvise(block.cast(), whole, libc::MADV_HUGEPAGE) };
    }
}

// SAFETY: every call goes to the lines or to the system's allocator, always to the same with the same layout for the same block:
// `lines::fits` and `widened` depend on the layout alone, and `realloc` never lets a block change between the kinds in place.
unsafe impl GlobalAlloc for HugePageHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if lines::fits(layout) {
            return LINES.take(layout);
        }
        let layout = widened(layout);
        // SAFETY: the caller's promise, and the size is the same.
        let block = unsafe { System.alloc(layout) };
        advise(block, layout);
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() < LARGE && !lines::fits(layout) {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's promise. The advice comes before the first touch, so that the zeros are written to huge pages.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block has so many bytes, and is ours alone.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if lines::fits(layout) {
            // SAFETY: so it was taken from there with this layout, and the caller no longer uses it.
            return unsafe { LINES.put_back(block, layout) };
        }
        // SAFETY: the block was allocated with this layout, widened as it was then.
        unsafe { System.dealloc(block, widened(layout)) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else { return std::ptr::null_mut() };
        if [layout, wanted].iter().all(|layout| layout.size() < LARGE && !lines::fits(*layout)) {
            // SAFETY: the caller's promise; both layouts are as the system's allocator knows them.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the caller promises a size that is not zero.
        let fresh = unsafe { self.alloc(wanted) };
        if !fresh.is_null() {
            // SAFETY: two blocks that lie apart, both of at least so many bytes; then the old one is given back as it came.
            unsafe {
                std::ptr::copy_nonoverlapping(block, fresh, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        fresh
    }
}

/// Gives freed heap memory back to the kernel.
///
/// The allocator keeps what was freed in between live blocks. After work that allocates much and frees most of it, such
/// as reading a large configuration, this is most of the process's memory. It walks the whole heap: not for workers,
/// and not for anything that happens often.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` has no preconditions and takes the allocator's own locks; no live block moves.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 64).expect("a layout")
    }

    #[test]
    fn blocks_keep_what_they_hold_over_every_change_of_size_and_large_ones_begin_at_a_huge_page() {
        let sizes = [100, 128, 192, 200, 2048, LARGE - 1, LARGE, 3 * LARGE + 5, LARGE - 1, 64, 10];
        let mut size = sizes[0];
        // SAFETY: each block is used within its size, and given back with the layout that it had last.
        unsafe {
            let mut block = HugePageHeap.alloc_zeroed(layout(size));
            for next in sizes {
                assert_eq!(block.read(), 0);
                block.add(size.min(next) - 1).write(7);
                block = HugePageHeap.realloc(block, layout(size), next);
                assert!(!block.is_null() && (next < LARGE || block.addr().is_multiple_of(HUGE_PAGE)));
                assert_eq!(block.add(size.min(next) - 1).read(), 7);
                size = next;
            }
            HugePageHeap.dealloc(block, layout(size));
        }
    }

    #[test]
    fn a_block_that_is_asked_for_with_zeros_has_them() {
        for size in [64, 192, 2048, LARGE + HUGE_PAGE] {
            // SAFETY: as above.
            unsafe {
                let dirty = HugePageHeap.alloc(layout(size));
                dirty.write_bytes(9, size);
                HugePageHeap.dealloc(dirty, layout(size));
                let block = HugePageHeap.alloc_zeroed(layout(size));
                assert!((0..size).step_by(8).all(|at| block.add(at).read() == 0));
                HugePageHeap.dealloc(block, layout(size));
            }
        }
    }
}
