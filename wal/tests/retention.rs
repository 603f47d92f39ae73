//! Retained segments: they go when their retention is over or their room is needed, and their release can be revoked.

// Test helpers may panic.
#![allow(clippy::unwrap_used)]

mod support;

use forebay_wal::{
    layout::Layout,
    log,
    position::segment_start,
    segment::SegmentHeader,
    segments::{PrepareError, Segments},
    storage::{Disk, Storage},
};
use std::{path::Path, time::Duration};
use support::{SEGMENT_BYTES, append, dir, options, read_all, read_from, start};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn header(lane: u16, segment: u64) -> SegmentHeader {
    SegmentHeader {
        log_id: [1; 16],
        lane,
        segment,
        segment_bytes: SEGMENT_BYTES,
        base_number: 0,
        base_ordinal: 0,
        previous_unfinished_block: 0,
        zeroed: false,
    }
}

fn segments(dir: &Path, quota_segments: u64) -> Segments<Disk> {
    let (layout, disk) = (Layout::new(dir), Disk::at(dir).unwrap());
    for lane in 0..2 {
        disk.create_dir(&layout.lane(lane)).unwrap();
    }
    Segments::new(disk, layout, SEGMENT_BYTES, quota_segments * SEGMENT_BYTES, &[]).unwrap()
}

fn names(dir: &Path, lane: u16) -> Vec<u64> {
    let names = Disk::at(dir).unwrap().list(&Layout::new(dir).lane(lane)).unwrap();
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| forebay_wal::segment::parse_file_name(name)).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn retained_segments_stay_until_their_time_is_over() {
    let dir = dir();
    let mut segments = segments(dir.path(), 8);
    segments.set_retention(Duration::from_millis(50));
    for segment in 1..=4 {
        segments.prepare(header(0, segment)).unwrap();
    }
    assert_eq!(segments.release(0, 4).unwrap(), 0, "drained a moment ago");
    assert_eq!((segments.retained_bytes(), names(dir.path(), 0)), (3 * SEGMENT_BYTES, vec![1, 2, 3, 4]));
    assert!(segments.next_release().is_some());
    std::thread::sleep(Duration::from_millis(60));
    segments.release_retained().unwrap();
    assert_eq!((segments.retained_bytes(), names(dir.path(), 0)), (0, vec![4]));
    assert_eq!((segments.next_release(), segments.early_releases()), (None, 0));
}

#[test]
fn retained_segments_make_room_within_the_quota_the_oldest_of_all_lanes_first() {
    let dir = dir();
    let mut segments = segments(dir.path(), 6);
    segments.set_retention(DAY);
    for (lane, segment) in [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)] {
        segments.prepare(header(lane, segment)).unwrap();
    }
    assert!(matches!(segments.prepare(header(0, 4)), Err(PrepareError::Quota)), "nothing is drained");
    segments.release(1, 2).unwrap();
    std::thread::sleep(Duration::from_millis(2));
    segments.release(0, 3).unwrap();
    segments.prepare(header(0, 4)).unwrap();
    assert_eq!((names(dir.path(), 0), names(dir.path(), 1)), (vec![1, 2, 3, 4], vec![2, 3]));
    segments.prepare(header(1, 4)).unwrap();
    segments.prepare(header(1, 5)).unwrap();
    assert_eq!((names(dir.path(), 0), names(dir.path(), 1)), (vec![3, 4], vec![2, 3, 4, 5]));
    assert_eq!((segments.early_releases(), segments.total_bytes()), (3, 6 * SEGMENT_BYTES), "never beyond the quota");
    assert!(matches!(segments.prepare(header(1, 6)), Err(PrepareError::Quota)));
}

#[test]
fn what_is_retained_can_be_taken_back_and_what_is_gone_cannot() {
    let dir = dir();
    let mut segments = segments(dir.path(), 8);
    segments.set_retention(DAY);
    for segment in 1..=5 {
        segments.prepare(header(0, segment)).unwrap();
    }
    segments.release(0, 5).unwrap();
    assert!(segments.revoke_release(0, 3));
    assert_eq!(segments.retained_bytes(), 2 * SEGMENT_BYTES);
    segments.set_retention(Duration::ZERO);
    segments.release(0, 0).unwrap();
    assert_eq!(names(dir.path(), 0), [3, 4, 5], "only what is drained again goes");
    assert!(!segments.revoke_release(0, 2) && segments.revoke_release(0, 3) && !segments.revoke_release(7, 1));
    segments.release(0, 5).unwrap();
    assert_eq!(names(dir.path(), 0), [5]);
}

#[test]
fn a_log_with_retained_segments_is_read_from_any_of_them_also_after_it_was_opened_again() {
    let dir = dir();
    let options = options(dir.path(), forebay_wal::group::SyncMethod::Direct);
    let mut log = log::open(&options).unwrap();
    let keeper = log.keeper();
    keeper.set_retention(DAY);
    let mut lane = start(&mut log);
    let body = vec![7; 200_000];
    for _ in 0..20 {
        append(&mut lane, &[&body]);
    }
    let durable = log.all_lanes[0].shared.durable_end();
    assert!(durable.segment >= 4);
    keeper.release(0, durable.segment);
    assert!(keeper.revoke_release(0, 2));
    assert!(read_from(&log, segment_start(2)).len() < 20);
    assert_eq!(read_all(&log).len(), 20);
    drop(lane);
    log.keeper.stop();
    let log = log::open(&options).unwrap();
    assert_eq!((log.all_lanes[0].first_segment, log.all_lanes[0].records), (1, 20));
    assert_eq!(read_all(&log).len(), 20);
    log.keeper.stop();
}
