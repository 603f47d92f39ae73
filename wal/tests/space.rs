//! A log without room for a segment: it opens, refuses appends, is drained, and then continues.

// Test helpers may panic.
#![allow(clippy::unwrap_used)]

mod support;

use forebay_wal::{
    finding::Finding,
    frame::KIND_MESSAGE,
    group::{AppendRefusal, GroupCommit, LaneStart, Record, SyncMethod},
    lane::{AppendError, Lane},
    layout::Layout,
    limits::BLOCK_BYTES,
    log::{self, Log, LogOptions},
    position::segment_start,
    segment::SegmentHeader,
    segments::{PrepareError, Segments},
    storage::{Disk, Storage},
};
use std::{fs::OpenOptions, os::unix::fs::FileExt, path::Path};
use support::{SEGMENT_BYTES, append, dir, options, read_all, start, wait_for_event};

fn header(segment: u64) -> SegmentHeader {
    SegmentHeader {
        log_id: [1; 16],
        lane: 0,
        segment,
        segment_bytes: SEGMENT_BYTES,
        base_number: 0,
        base_ordinal: 40,
        previous_unfinished_block: 7,
        zeroed: false,
    }
}

#[test]
fn a_lane_without_a_segment_asks_for_that_one_first_and_takes_nothing_before_it_is_there() {
    let start = LaneStart {
        log_id: [1; 16],
        lane: 0,
        segment_bytes: SEGMENT_BYTES,
        tail: segment_start(5),
        next_ordinal: 40,
        pending_tail: Some(header(5)),
        is_sealed: true,
    };
    let mut lane = GroupCommit::new(start);
    let record = [Record { kind: KIND_MESSAGE, head: b"", body: b"body" }];
    let refused = |lane: &mut GroupCommit| lane.append(&record, |_| panic!("no number is taken")).unwrap_err();
    assert_eq!(refused(&mut lane), AppendRefusal::Busy);
    assert_eq!(lane.take_segment_request(99), Some(SegmentHeader { base_number: 99, ..header(5) }));
    let next = lane.take_segment_request(99).unwrap();
    assert_eq!((next.segment, next.previous_unfinished_block), (6, 0));
    assert_eq!(lane.take_segment_request(99), None, "each is asked for once");
    assert_eq!((refused(&mut lane), lane.ready_segments()), (AppendRefusal::Busy, 0));
    assert!(lane.is_idle() && lane.take_next_group().is_none() && !lane.seal(99));
    lane.add_ready_segment(5);
    assert_eq!(lane.ready_segments(), 0, "it is the current one, not one behind it");
    assert_eq!(lane.append(&record, |_| 7).unwrap().end_ordinal, 41);
    lane.add_ready_segment(6);
    assert_eq!(lane.ready_segments(), 1);
}

/// The segments of a log with one lane and no segment.
fn segments(dir: &Path, quota_segments: u64) -> Segments<Disk> {
    let (layout, disk) = (Layout::new(dir), Disk::at(dir).unwrap());
    disk.create_dir(&layout.lane(0)).unwrap();
    Segments::new(disk, layout, SEGMENT_BYTES, quota_segments * SEGMENT_BYTES, &[]).unwrap()
}

#[test]
fn a_lane_s_last_segment_stays_until_there_is_a_newer_one() {
    let dir = dir();
    let mut segments = segments(dir.path(), 4);
    for segment in 1..=3 {
        segments.prepare(header(segment)).unwrap();
    }
    assert_eq!(segments.release(0, 9).unwrap(), 2, "all were drained, the last one stays");
    assert!(Layout::new(dir.path()).segment(0, 3).exists());
    assert_eq!(segments.release(0, 0).unwrap(), 0);
    segments.prepare(header(4)).unwrap();
    assert_eq!(segments.release(0, 0).unwrap(), 1, "what was drained before is remembered");
    assert_eq!(segments.release(0, 4).unwrap(), 0, "below four there is nothing left");
    assert!(Layout::new(dir.path()).segment(0, 4).exists());
}

#[test]
fn a_drained_last_segment_makes_room_for_its_successor_within_the_quota() {
    let dir = dir();
    let mut segments = segments(dir.path(), 1);
    segments.prepare(header(1)).unwrap();
    assert!(matches!(segments.prepare(header(2)), Err(PrepareError::Quota)));
    segments.release(0, 2).unwrap();
    segments.prepare(header(2)).unwrap();
    segments.release(0, 0).unwrap();
    assert_eq!(segments.total_bytes(), SEGMENT_BYTES, "it is beyond the quota no longer than it must");
    assert_eq!(std::fs::read_dir(Layout::new(dir.path()).free()).unwrap().count(), 0);
}

/// Fills the lane with batches of two records, one batch a segment, until it is full. Returns the number of batches.
fn fill(lane: &mut Lane) -> u64 {
    let big = vec![b'x'; SEGMENT_BYTES as usize / 3];
    let batch = [Record { kind: KIND_MESSAGE, head: b"", body: &big }; 2];
    let mut taken = 0;
    loop {
        match lane.append(&batch) {
            Ok(_) => taken += 1,
            Err(AppendError::Busy) => wait_for_event(lane),
            Err(AppendError::Full) => break,
            Err(error) => panic!("{error:?}"),
        }
        lane.submit().unwrap();
    }
    while !lane.is_idle() {
        wait_for_event(lane);
    }
    taken
}

/// Fills a log up to its quota of three segments, then damages the last write like one that never finished.
fn full_and_torn(dir: &Path) -> LogOptions {
    let options = LogOptions { quota_bytes: 3 * SEGMENT_BYTES, ..options(dir, SyncMethod::None) };
    let mut log = log::open(&options).unwrap();
    let mut lane = start(&mut log);
    assert_eq!(fill(&mut lane), 3);
    drop(lane);
    log.keeper.stop();
    let file = OpenOptions::new().write(true).open(Layout::new(dir).segment(0, 3)).unwrap();
    // Within the second record of the batch, so that the first one verifies.
    file.write_all_at(&[0; BLOCK_BYTES], SEGMENT_BYTES / 2).unwrap();
    options
}

fn is_torn_only(log: &Log) -> bool {
    matches!(log.findings[..], [(0, Finding::UnfinishedWrite { .. })])
}

/// Appends until the lane is full.
fn wait_until_full(lane: &mut Lane) {
    let record = [Record { kind: KIND_MESSAGE, head: b"", body: b"small" }];
    loop {
        match lane.append(&record) {
            Err(AppendError::Full) => return,
            Err(AppendError::Busy) => wait_for_event(lane),
            outcome => panic!("{outcome:?}"),
        }
    }
}

#[test]
fn case_38_a_full_log_opens_after_a_write_that_never_finished_and_goes_on_once_it_was_drained() {
    let dir = dir();
    let options = full_and_torn(dir.path());
    for _ in 0..2 {
        let mut log = log::open(&options).unwrap();
        assert!(is_torn_only(&log), "{:?}", log.findings);
        assert_eq!(log.all_lanes[0].pending_tail.unwrap().segment, 4);
        assert_eq!(log.keeper().total_bytes(), 3 * SEGMENT_BYTES, "a crash does not carry the log beyond its quota");
        let numbers: Vec<u64> = read_all(&log).into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [0, 1, 2, 3], "of the torn batch nothing");
        let mut lane = start(&mut log);
        wait_until_full(&mut lane);
        assert!(lane.is_full() && lane.is_idle());
        drop(lane);
        log.keeper.stop();
    }
    let mut log = log::open(&options).unwrap();
    let durable = log.all_lanes[0].shared.durable_end();
    assert_eq!(durable, segment_start(4));
    let mut lane = start(&mut log);
    wait_until_full(&mut lane);
    // Everything is drained: the reader is at the start of the segment that does not exist.
    log.keeper().release(0, durable.segment);
    while lane.is_full() {
        wait_for_event(&mut lane);
    }
    append(&mut lane, &[b"after"]);
    assert_eq!(fill(&mut lane), 3, "all of the quota is there again");
    drop(lane);
    log.keeper.stop();
    let log = log::open(&options).unwrap();
    assert_eq!(log.findings, []);
    assert_eq!((log.all_lanes[0].first_segment, log.all_lanes[0].first_ordinal), (4, 4), "ordinals go on");
    let records = read_all(&log);
    assert_eq!((records.len(), &records[0].1[..]), (7, &b"h:after"[..]));
    assert!(records[0].0 >= 4, "numbers go on: {}", records[0].0);
    log.keeper.stop();
}

#[test]
fn drained_and_killed_before_it_had_a_segment_again_a_lane_still_knows_where_it_was() {
    let dir = dir();
    let torn = full_and_torn(dir.path());
    // Segments that are too large for the remaining room: none can be made, whatever is drained.
    let options = LogOptions { segment_bytes: 4 * SEGMENT_BYTES, ..torn.clone() };
    for _ in 0..2 {
        let mut log = log::open(&options).unwrap();
        assert!(log.all_lanes[0].pending_tail.is_some());
        let mut lane = start(&mut log);
        wait_until_full(&mut lane);
        log.keeper().release(0, 4);
        drop(lane);
        log.keeper.stop();
        let layout = Layout::new(dir.path());
        let files = [1, 2, 3].map(|segment| layout.segment(0, segment).exists());
        assert_eq!(files, [false, true, true], "the last one stays, and the last one with a record");
    }
    let mut log = log::open(&torn).unwrap();
    assert_eq!(
        (log.all_lanes[0].shared.durable_end(), log.all_lanes[0].shared.durable_ordinal()),
        (segment_start(4), 4)
    );
    let mut lane = start(&mut log);
    assert!(append(&mut lane, &[b"after"]) >= 4);
    drop(lane);
    log.keeper.stop();
}

#[test]
fn a_lane_that_refused_refuses_smaller_batches_too_until_a_segment_was_made() {
    let dir = dir();
    let options = LogOptions { quota_bytes: 3 * SEGMENT_BYTES, ..options(dir.path(), SyncMethod::None) };
    let mut log = log::open(&options).unwrap();
    let mut lane = start(&mut log);
    fill(&mut lane);
    assert!(lane.shared().is_refusing());
    let small = [Record { kind: KIND_MESSAGE, head: b"", body: b"small" }];
    for _ in 0..3 {
        assert_eq!(lane.append(&small), Err(AppendError::Full));
    }
    log.keeper().release(0, 2);
    while lane.is_full() {
        wait_for_event(&mut lane);
    }
    assert!(!lane.shared().is_refusing());
    append(&mut lane, &[b"small"]);
    drop(lane);
    log.keeper.stop();
}
