//! An allocator that counts how much memory a thread holds, for tests that bound it.
// An allocator is unsafe by its nature.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator, counting.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    // It is constant and has no destructor, so that reaching it allocates nothing.
    static HELD: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
}

/// Counts bytes that are allocated, or freed if negative.
fn note(bytes: i64) {
    HELD.with(|held| {
        let (now, peak) = held.get();
        held.set((now + bytes, peak.max(now + bytes)));
    });
}

// SAFETY: every call goes to the system's allocator unchanged. Counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-(layout.size() as i64));
        // SAFETY: as above. The memory came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `f`. Returns its result, and by how many bytes this thread's memory rose meanwhile at most.
pub fn peak_of<T>(f: impl FnOnce() -> T) -> (T, u64) {
    let (before, _) = HELD.get();
    HELD.set((before, before));
    let given = f();
    let (_, peak) = HELD.get();
    (given, (peak - before) as u64)
}
