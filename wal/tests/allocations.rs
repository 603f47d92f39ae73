//! In the steady state, appending allocates nothing: not a record, not a group.
#![allow(unsafe_code)]
// Test helpers may panic.
#![allow(clippy::unwrap_used)]

mod support;

use forebay_wal::{
    frame::KIND_MESSAGE,
    group::{Completion, GroupCommit, LaneStart, Record, SyncMethod},
    lane::AppendError,
    limits::CHUNK_BYTES,
    log,
    position::segment_start,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::{Duration, Instant},
};
use support::{SEGMENT_BYTES, dir, options, start, wait_for_event};

/// The system's allocator. It counts the allocations of each thread.
struct Counting;

thread_local! {
    /// It is constant and has no destructor, so that reading it allocates nothing.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() -> u64 {
    COUNT.with(Cell::get)
}

fn note() {
    COUNT.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged. The default `alloc_zeroed` calls `alloc`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above. The memory came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn record(body: &[u8]) -> Record<'_> {
    Record { kind: KIND_MESSAGE, head: b"head:", body }
}

#[test]
fn what_is_allocated_is_counted() {
    let before = count();
    let bytes = std::hint::black_box(vec![0_u8; 100]);
    assert_eq!(count(), before + 1);
    drop(bytes);
}

/// Appends groups of 1 to 64 records while the group before is being written, and completes them.
fn commit_groups(commit: &mut GroupCommit, number: &mut u64, groups: usize, body: &[u8]) {
    let mut in_flight = None;
    for group in 0..groups {
        if let Some(header) = commit.take_segment_request(*number) {
            commit.add_ready_segment(header.segment);
        }
        for _ in 0..=group % 64 {
            let take = |count| {
                *number += count;
                *number - count
            };
            commit.append(&[record(body)], take).unwrap();
        }
        if let Some(group) = in_flight.take() {
            complete(commit, group);
        }
        in_flight = commit.take_next_group();
    }
    while let Some(group) = in_flight.take().or_else(|| commit.take_next_group()) {
        complete(commit, group);
    }
}

fn complete(commit: &mut GroupCommit, mut group: forebay_wal::group::Group) {
    loop {
        let bytes = group.unwritten().map(<[u8]>::len).sum();
        match commit.complete(group, Ok(bytes)).unwrap() {
            Completion::ShortWrite(again) => group = again,
            Completion::NoRoom(error) => panic!("{error}"),
            Completion::Durable => return,
        }
    }
}

#[test]
fn group_commit_allocates_nothing_in_the_steady_state() {
    // Groups of large records take several chunks.
    for body_bytes in [100, 1000, CHUNK_BYTES / 16] {
        let body = vec![b'x'; body_bytes];
        let tail = segment_start(1);
        let start = LaneStart {
            log_id: [7; 16],
            lane: 0,
            segment_bytes: 4 << 20,
            tail,
            next_ordinal: 0,
            is_sealed: false,
            pending_tail: None,
        };
        let (mut commit, mut number) = (GroupCommit::new(start), 0);
        // Until segments have ended within groups of every size: then most chunks are in use at once.
        commit_groups(&mut commit, &mut number, 2000, &body);
        assert!(commit.durable_end().segment > 1);
        let before = count();
        commit_groups(&mut commit, &mut number, 1000, &body);
        assert_eq!(count() - before, 0, "records of {body_bytes} bytes");
        assert!(number > 90_000);
    }
}

#[test]
fn a_lane_on_a_disk_allocates_nothing_on_its_thread_in_the_steady_state() {
    const GROUPS: usize = 400;
    const WARM_UP_GROUPS: usize = 100;
    let dir = dir();
    // All groups fit in one segment, for a request for the next one allocates a message.
    let segment_bytes = 64 * SEGMENT_BYTES;
    let options =
        log::LogOptions { segment_bytes, quota_bytes: 4 * segment_bytes, ..options(dir.path(), SyncMethod::None) };
    let mut log = log::open(&options).unwrap();
    let mut lane = start(&mut log);
    let body = [b'x'; 1000];
    let mut before = 0;
    for group in 0..GROUPS {
        if group == WARM_UP_GROUPS {
            // The next segment was requested at the start. The lane allocates room for it when it arrives.
            let give_up = Instant::now() + Duration::from_secs(60);
            while log.keeper().total_bytes() < 2 * segment_bytes {
                assert!(Instant::now() < give_up, "the keeper makes a segment within a minute");
                std::thread::sleep(Duration::from_millis(1));
            }
            lane.on_event().unwrap();
            before = count();
        }
        let mut end_ordinal = 0;
        for _ in 0..32 {
            match lane.append(&[record(&body)]) {
                Ok(appended) => end_ordinal = appended.end_ordinal,
                Err(AppendError::Busy) => wait_for_event(&mut lane),
                Err(error) => panic!("{error:?}"),
            }
        }
        lane.submit().unwrap();
        while lane.durable_ordinal() < end_ordinal {
            wait_for_event(&mut lane);
        }
    }
    assert_eq!(count() - before, 0);
    assert_eq!(lane.durable_ordinal(), 32 * GROUPS as u64);
}
