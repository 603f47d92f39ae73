//! The log on a real file system with a real ring: appended records are read back after every kind of end.

// Test helpers may panic.
#![allow(clippy::unwrap_used)]

mod support;

use forebay_wal::{
    frame::KIND_MESSAGE,
    group::{Record, SyncMethod},
    lane::AppendError,
    limits::TAIL_CACHE_BYTES,
    log::{self, LogOptions},
    position::{Position, segment_start},
    reader::{Event, LaneReader},
};
use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};
use support::{SEGMENT_BYTES, append, body, dir, expected, options, read_all, start, wait_for_event, write_log};

#[test]
fn what_was_appended_is_read_back_across_segments_and_restarts_by_every_method() {
    for sync in [SyncMethod::Direct, SyncMethod::Fdatasync, SyncMethod::None] {
        let dir = dir();
        let first = 700;
        write_log(dir.path(), sync, first);
        let mut log = log::open(&options(dir.path(), sync)).unwrap();
        assert_eq!(log.findings, [], "{sync:?}");
        assert!(log.all_lanes[0].shared.durable_end().segment > 1, "several segments were filled");
        assert_eq!(read_all(&log), expected(first), "{sync:?}");
        let mut lane = start(&mut log);
        assert_eq!(append(&mut lane, &[b"after", b"the restart"]), first as u64, "numbers go on");
        assert_eq!(read_all(&log).len(), first + 2);
    }
}

#[test]
fn a_reader_that_follows_sees_each_record_once_as_it_becomes_durable() {
    let dir = dir();
    let mut log = log::open(&options(dir.path(), SyncMethod::Direct)).unwrap();
    let mut lane = start(&mut log);
    let found = log.all_lanes[0].clone();
    let mut reader = LaneReader::new(log.disk.clone(), log.layout.clone(), log.id, 0, segment_start(1));
    let mut next = 0;
    for index in 0..700 {
        append(&mut lane, &[&body(index)]);
        if index % 3 == 0 {
            while let Some(Event::Record(header)) = reader.next_event(found.shared.durable_end()).unwrap() {
                assert_eq!(header.number, next);
                assert_eq!(reader.payload(), [b"h:".to_vec(), body(next as usize)].concat());
                next += 1;
            }
            assert_eq!(next, index as u64 + 1);
        }
    }
}

#[test]
fn a_reader_of_a_segment_that_was_truncated_under_it_goes_on_with_the_next_one() {
    let dir = dir();
    let mut log = log::open(&options(dir.path(), SyncMethod::Direct)).unwrap();
    let mut lane = start(&mut log);
    let found = log.all_lanes[0].clone();
    append(&mut lane, &[&body(0)]);
    OpenOptions::new().write(true).open(log.layout.segment(0, 1)).unwrap().set_len(0).unwrap();
    let mut reader = LaneReader::new(log.disk.clone(), log.layout.clone(), log.id, 0, segment_start(1));
    assert!(!matches!(reader.next_event(found.shared.durable_end()), Ok(Some(Event::Record(_)))), "it is gone");
    let mut last = 0;
    while found.shared.durable_end().segment < 2 {
        last = append(&mut lane, &[&body(1)]);
    }
    let mut numbers = Vec::new();
    while let Some(event) = reader.next_event(found.shared.durable_end()).unwrap() {
        if let Event::Record(header) = event {
            numbers.push(header.number);
        }
    }
    assert_eq!(numbers.last(), Some(&last), "what came after that is read");
}

#[test]
fn what_was_written_last_is_read_from_memory_and_the_rest_from_the_disk() {
    let dir = dir();
    let mut log = log::open(&options(dir.path(), SyncMethod::Direct)).unwrap();
    let mut lane = start(&mut log);
    append(&mut lane, &[b"in memory"]);
    let found = log.all_lanes[0].clone();
    // Now only the lane's tail cache has it.
    let segment = OpenOptions::new().write(true).open(log.layout.segment(0, 1)).unwrap();
    segment.write_all_at(&[0; 4096], 4096).unwrap();
    let reader = || LaneReader::new(log.disk.clone(), log.layout.clone(), log.id, 0, segment_start(1));
    let mut from_memory = reader().with_tail_cache(Arc::clone(found.shared.tail_cache()));
    assert!(matches!(from_memory.next_event(found.shared.durable_end()), Ok(Some(Event::Record(_)))));
    assert_eq!(from_memory.payload(), b"h:in memory");
    assert!(!matches!(reader().next_event(found.shared.durable_end()), Ok(Some(Event::Record(_)))));
    // Far more than the cache holds: a reader starts on the disk and ends in memory.
    let from = found.shared.durable_end();
    let payload = vec![b'x'; 900 << 10];
    let count = TAIL_CACHE_BYTES / payload.len() + 2;
    for _ in 0..count {
        append(&mut lane, &[&payload]);
    }
    let mut reader = LaneReader::new(log.disk.clone(), log.layout.clone(), log.id, 0, from);
    reader = reader.with_tail_cache(Arc::clone(found.shared.tail_cache()));
    let mut read = 0;
    while let Some(event) = reader.next_event(found.shared.durable_end()).unwrap() {
        assert!(matches!(event, Event::Record(_)), "{event:?}");
        assert!(reader.payload().ends_with(&payload));
        read += 1;
    }
    assert_eq!(read, count);
}

#[test]
fn released_segments_are_recycled_and_their_old_records_never_come_back() {
    let dir = dir();
    let mut log = log::open(&options(dir.path(), SyncMethod::Direct)).unwrap();
    let mut lane = start(&mut log);
    let keeper = log.keeper();
    let mut last_start = Position { segment: 1, offset: 0 };
    for index in 0..3000 {
        append(&mut lane, &[&body(index)]);
        let durable = log.all_lanes[0].shared.durable_end();
        if durable.segment > last_start.segment {
            keeper.release(0, durable.segment);
            last_start = durable;
        }
    }
    assert!(last_start.segment > 6, "segments were used several times over");
    assert!(keeper.total_bytes() <= 8 * SEGMENT_BYTES, "so few files served: {}", keeper.total_bytes());
    drop(lane);
    log.keeper.stop();
    let log = log::open(&options(dir.path(), SyncMethod::Direct)).unwrap();
    assert_eq!(log.findings, []);
    let records = read_all(&log);
    assert_eq!(records.last(), expected(3000).last());
    assert!(records.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
}

#[test]
fn case_38_at_the_quota_a_lane_is_full_until_something_is_released() {
    let dir = dir();
    let options = LogOptions { quota_bytes: 3 * SEGMENT_BYTES, ..options(dir.path(), SyncMethod::None) };
    let mut log = log::open(&options).unwrap();
    let mut lane = start(&mut log);
    let big = vec![b'x'; SEGMENT_BYTES as usize / 2];
    let record = Record { kind: KIND_MESSAGE, head: b"", body: &big };
    let give_up = Instant::now() + Duration::from_secs(30);
    let mut taken = 0;
    loop {
        assert!(Instant::now() < give_up, "the quota is reached");
        match lane.append(&[record]) {
            Ok(_) => taken += 1,
            Err(AppendError::Busy) => wait_for_event(&mut lane),
            Err(AppendError::Full) => break,
            Err(error) => panic!("{error:?}"),
        }
        lane.submit().unwrap();
    }
    assert_eq!(taken, 3, "one record a segment, three segments");
    while !lane.is_idle() {
        wait_for_event(&mut lane);
    }
    log.keeper().release(0, 3);
    while lane.append(&[record]).is_err() {
        wait_for_event(&mut lane);
    }
}

#[test]
fn case_38_when_the_quota_is_reached_every_lane_is_told_not_only_the_first_to_ask() {
    let dir = dir();
    let quota_bytes = 6 * SEGMENT_BYTES;
    let options = LogOptions { quota_bytes, lanes: 2, ..options(dir.path(), SyncMethod::None) };
    let mut log = log::open(&options).unwrap();
    let mut lanes = [start(&mut log), start(&mut log)];
    let big = vec![b'x'; SEGMENT_BYTES as usize / 2];
    let record = Record { kind: KIND_MESSAGE, head: b"", body: &big };
    for lane in &mut lanes {
        loop {
            match lane.append(&[record]) {
                Ok(_) => {
                    lane.submit().unwrap();
                }
                Err(AppendError::Busy) => wait_for_event(lane),
                Err(AppendError::Full) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}
