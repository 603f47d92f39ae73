//! When the allocator gives memory back to the kernel.

use crate::{ignore::ignore, limits::FREE_MEMORY_KEPT};

/// Number of the allocator's option that says for how many milliseconds it keeps free memory (mimalloc.h, `mi_option_t`).
const ALLOCATOR_PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Makes the allocator give memory back [`FREE_MEMORY_KEPT`] after its last use, unless the environment
/// (`MIMALLOC_PURGE_DELAY`) says otherwise. To be called before there is a second thread.
pub fn give_memory_back_soon() {
    let milliseconds = FREE_MEMORY_KEPT.as_millis() as std::ffi::c_long;
    // SAFETY: it writes one word of the allocator's own, which is initialized on first use, and checks the number. There is
    // no other thread that could read it meanwhile.
    unsafe { libmimalloc_sys::mi_option_set_default(ALLOCATOR_PURGE_DELAY, milliseconds) };
}

/// Keeps the kernel from filling memory by huge pages, which the allocator asks for: two megabytes would stay for the few
/// kilobytes in them that are used, twice the memory in all. The environment decides where it sets `MIMALLOC_ALLOW_THP`. A
/// private PostgreSQL inherits the setting; it asks for no huge pages.
pub fn take_small_pages() {
    if std::env::var_os("MIMALLOC_ALLOW_THP").is_none() {
        let refused = "huge pages stay allowed, so the daemon uses more memory";
        ignore(rustix::thread::disable_transparent_huge_pages(true), refused);
    }
}

/// Lets the allocator give back what this thread has freed. It does so by itself only while memory is asked for, and a thread
/// whose connections have become idle asks for none.
pub fn give_free_memory_back() {
    // SAFETY: it may be called at any time, and touches nothing but what is free.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocators_option_is_the_one_that_is_meant() {
        // SAFETY: it reads one word of the allocator's own, which no test writes.
        let milliseconds = unsafe { libmimalloc_sys::mi_option_get(ALLOCATOR_PURGE_DELAY) };
        let from_environment = std::env::var("MIMALLOC_PURGE_DELAY").ok().and_then(|text| text.parse().ok());
        assert_eq!(milliseconds, from_environment.unwrap_or(1000), "mimalloc's own default; no other option has it");
    }
}
