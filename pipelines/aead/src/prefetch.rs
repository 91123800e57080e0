//! Hints to the CPU to fetch memory before it is needed, as safe functions.

/// Bytes of a cache line on every CPU that we know of; on one with longer lines a hint is given twice.
const CACHE_LINE: usize = 64;

/// Asks for the first cache line of `value` to be brought near. Changes nothing but time.
#[inline(always)]
pub fn prefetch_read<T: ?Sized>(value: &T) {
    prefetch_line(std::ptr::from_ref(value).cast());
}

/// Asks for every cache line of `bytes` to be brought near. Changes nothing but time. For short slices: one hint a line.
#[inline(always)]
pub fn prefetch_bytes(bytes: &[u8]) {
    for line in bytes.chunks(CACHE_LINE) {
        prefetch_line(line.as_ptr());
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch_line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: prefetching reads nothing and never faults, whatever the address; SSE is part of x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(crate) fn prefetch_line(address: *const u8) {
    // SAFETY: PRFM reads nothing and never faults, whatever the address.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline(always)]
pub(crate) fn prefetch_line(_address: *const u8) {}
