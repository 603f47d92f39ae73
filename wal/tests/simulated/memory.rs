//! How much memory a thread holds: an allocator that counts, for tests that bound it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator, counting.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    // Without a destructor and made at compile time, so that reaching it allocates nothing.
    static HELD: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
}

/// Takes note of bytes taken, or given back.
fn note(bytes: i64) {
    HELD.with(|held| {
        let (now, peak) = held.get();
        held.set((now + bytes, peak.max(now + bytes)));
    });
}

// SAFETY: every call is passed on to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-(layout.size() as i64));
        // SAFETY: as above; what was allocated here came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What `f` gives, and how many bytes this thread held at most while it ran, beyond what it held before.
pub fn peak_of<T>(f: impl FnOnce() -> T) -> (T, u64) {
    let (before, _) = HELD.get();
    HELD.set((before, before));
    let given = f();
    let (_, peak) = HELD.get();
    (given, (peak - before) as u64)
}
