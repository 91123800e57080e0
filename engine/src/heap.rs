//! What the process does with heap memory that was freed.

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
