//! What the allocator holds, which SQLite and the pages share with the program.
#![expect(unsafe_code, reason = "calls the C library's allocator")]

/// Has the allocator give the system what it holds free. Takes long where that is much, and whoever allocates
/// from the same arena waits; so not on a thread that others wait for.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn reclaim() {
    // SAFETY: takes a number and no pointer, may be called by any thread at any time, and locks what it looks at.
    let _something_was = unsafe { libc::malloc_trim(0) };
}

/// Other allocators give memory back by themselves, or have no call for it.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn reclaim() {}
