//! The log on a real file system with a real ring: what was appended is read back, after any kind of end.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

use forebay_wal::{
    frame::KIND_MESSAGE,
    group::{Record, SyncMethod},
    lane::{AppendError, Lane},
    layout::Layout,
    limits::SEGMENT_BYTES_MIN,
    log::{self, Log, LogOptions},
    position::{Position, segment_start},
    reader::{Event, LaneReader},
    recovery::Finding,
    segment::file_name,
    storage::Disk,
};
use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

fn options(dir: &Path, sync: SyncMethod) -> LogOptions {
    LogOptions {
        dir: dir.to_path_buf(),
        lanes: 1,
        sync,
        segment_bytes: SEGMENT_BYTES_MIN,
        quota_bytes: 64 * SEGMENT_BYTES_MIN,
    }
}

/// A directory on the disk that holds the build, for `/tmp` may be without `O_DIRECT`.
fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn start(log: &mut Log) -> Lane {
    log.lanes.remove(0).start().unwrap()
}

fn wait_for_event(lane: &mut Lane) {
    use rustix::event::{PollFd, PollFlags, poll};
    let timeout = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(lane.event(), PollFlags::IN)], Some(&timeout)).unwrap();
    assert_eq!(ready, 1, "the lane signals within ten seconds");
    rustix::io::read(lane.event(), &mut [0; 8]).unwrap();
    lane.on_event().unwrap();
}

/// Appends one batch, waiting for room, and waits until it is durable. Returns the first number.
fn append(lane: &mut Lane, bodies: &[&[u8]]) -> u64 {
    let records: Vec<_> = bodies.iter().map(|body| Record { kind: KIND_MESSAGE, head: b"h:", body }).collect();
    let appended = loop {
        match lane.append(&records) {
            Ok(appended) => break appended,
            Err(AppendError::Busy) => wait_for_event(lane),
            Err(error) => panic!("{error:?}"),
        }
    };
    lane.submit().unwrap();
    while lane.durable_ordinal() < appended.end_ordinal {
        wait_for_event(lane);
    }
    appended.first_number
}

/// Numbers and payloads from `from` to the durable end.
fn read_from(log: &Log, from: Position) -> Vec<(u64, Vec<u8>)> {
    let found = &log.found[0];
    let mut reader = LaneReader::new(Disk, log.layout.clone(), log.id, found.lane, from);
    let mut records = Vec::new();
    while let Some(event) = reader.next_event(found.shared.durable()).unwrap() {
        if let Event::Record(header) = event {
            records.push((header.number, reader.payload().to_vec()));
        }
    }
    records
}

fn read_all(log: &Log) -> Vec<(u64, Vec<u8>)> {
    read_from(log, segment_start(log.found[0].first_segment))
}

fn body(index: usize) -> Vec<u8> {
    format!("{index}:{}", "x".repeat(index * 37 % 5000)).into_bytes()
}

/// A log of `count` records, one group each, closed again.
fn write_log(dir: &Path, sync: SyncMethod, count: usize) {
    let mut log = log::open(&options(dir, sync)).unwrap();
    let mut lane = start(&mut log);
    for index in 0..count {
        assert_eq!(append(&mut lane, &[&body(index)]), index as u64);
    }
    drop(lane);
    log.keeper.stop();
}

fn expected(count: usize) -> Vec<(u64, Vec<u8>)> {
    (0..count).map(|index| (index as u64, [b"h:".to_vec(), body(index)].concat())).collect()
}

#[test]
fn what_was_appended_is_read_back_across_segments_and_restarts_by_every_method() {
    for sync in [SyncMethod::Direct, SyncMethod::Fdatasync, SyncMethod::None] {
        let dir = dir();
        let first = 700;
        write_log(dir.path(), sync, first);
        let mut log = log::open(&options(dir.path(), sync)).unwrap();
        assert_eq!(log.findings, [], "{sync:?}");
        assert!(log.found[0].shared.durable().segment > 1, "several segments were filled");
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
    let found = log.found[0].clone();
    let mut reader = LaneReader::new(Disk, log.layout.clone(), log.id, 0, segment_start(1));
    let mut next = 0;
    for index in 0..700 {
        append(&mut lane, &[&body(index)]);
        if index % 3 == 0 {
            while let Some(Event::Record(header)) = reader.next_event(found.shared.durable()).unwrap() {
                assert_eq!(header.number, next);
                assert_eq!(reader.payload(), [b"h:".to_vec(), body(next as usize)].concat());
                next += 1;
            }
            assert_eq!(next, index as u64 + 1);
        }
    }
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
        let durable = log.found[0].shared.durable();
        if durable.segment > last_start.segment {
            keeper.release(0, durable.segment);
            last_start = durable;
        }
    }
    assert!(last_start.segment > 6, "segments were used several times over");
    assert!(keeper.total_bytes() <= 8 * SEGMENT_BYTES_MIN, "so few files served: {}", keeper.total_bytes());
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
    let options = LogOptions { quota_bytes: 3 * SEGMENT_BYTES_MIN, ..options(dir.path(), SyncMethod::None) };
    let mut log = log::open(&options).unwrap();
    let mut lane = start(&mut log);
    let big = vec![b'x'; SEGMENT_BYTES_MIN as usize / 2];
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

/// Overwrites one byte, as `dd conv=notrunc` would.
fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn case_13_to_15_a_flipped_bit_costs_one_record_and_is_reported_with_its_number() {
    let dir = dir();
    write_log(dir.path(), SyncMethod::None, 100);
    let segment = Layout::new(dir.path()).segment(0, 1);
    // Record 0 is short and fills the first block alone; record 1 starts the second.
    for (offset, lost) in [(4096 + 41, 0), (8192 + 9, 1), (8192 + 20, 1), (8192 + 3, 1)] {
        flip(&segment, offset);
        let log = log::open(&options(dir.path(), SyncMethod::None)).unwrap();
        let mut records = expected(100);
        records.remove(lost);
        assert_eq!(read_all(&log), records, "offset {offset}");
        assert!(log.findings.iter().any(|(_, finding)| finding.is_damage()), "offset {offset}: {:?}", log.findings);
        if lost == 1 {
            let lost = log.findings.iter().any(|(_, finding)| {
                matches!(finding, Finding::Lost { records: 1, first_ordinal: 1, after_number: Some(0), .. })
            });
            assert!(lost, "offset {offset}: {:?}", log.findings);
        }
        log.keeper.stop();
        flip(&segment, offset);
    }
}

#[test]
fn case_4_to_7_a_group_torn_at_the_tail_is_cut_whole_batches_are_kept_and_recovering_twice_is_recovering_once() {
    let batch: Vec<Vec<u8>> = (0..40).map(|index| format!("{index:1000}").into_bytes()).collect();
    let batch: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
    // Blocks of the last group that a crash zeroed.
    for lost_blocks in [vec![0], vec![4], vec![9], vec![0, 1, 2, 3], vec![2, 3, 7], (0..10).collect()] {
        let dir = dir();
        let mut log = log::open(&options(dir.path(), SyncMethod::Direct)).unwrap();
        let mut lane = start(&mut log);
        append(&mut lane, &[b"answered"]);
        let group_at = u64::from(log.found[0].shared.durable().offset);
        append(&mut lane, &batch);
        drop(lane);
        log.keeper.stop();
        let file = OpenOptions::new().write(true).open(Layout::new(dir.path()).segment(0, 1)).unwrap();
        for block in &lost_blocks {
            file.write_all_at(&[0; 4096], group_at + block * 4096).unwrap();
        }
        for round in 0..2 {
            let mut log = log::open(&options(dir.path(), SyncMethod::Direct)).unwrap();
            let records = read_all(&log);
            assert_eq!(records[0].1, b"h:answered", "{lost_blocks:?}");
            let rest = &records[1..];
            let rounds_before = round;
            assert_eq!(rest.len(), rounds_before, "no part of the batch, {lost_blocks:?}: {:?}", log.findings);
            assert!(
                !log.findings.iter().any(|(_, finding)| finding.is_damage()),
                "{lost_blocks:?}: {:?}",
                log.findings
            );
            let mut lane = start(&mut log);
            append(&mut lane, &[b"later"]);
            drop(lane);
            log.keeper.stop();
        }
    }
}

#[test]
fn case_19_and_22_missing_segments_are_reported_and_strangers_are_left_alone() {
    let dir = dir();
    write_log(dir.path(), SyncMethod::None, 1500);
    let lane_dir = Layout::new(dir.path()).lane(0);
    std::fs::remove_file(lane_dir.join(file_name(2))).unwrap();
    std::fs::write(lane_dir.join("notes.txt"), "mine").unwrap();
    let log = log::open(&options(dir.path(), SyncMethod::None)).unwrap();
    assert!(log.findings.contains(&(0, Finding::SegmentMissing { segment: 2 })), "{:?}", log.findings);
    assert!(log.findings.contains(&(0, Finding::Stranger { name: "notes.txt".into() })));
    assert!(log.findings.iter().any(|(_, finding)| matches!(finding, Finding::Lost { .. })));
    assert_eq!(std::fs::read_to_string(lane_dir.join("notes.txt")).unwrap(), "mine");
    let records = read_all(&log);
    assert!(records.len() < 1500, "what stood in the missing segment is gone");
    assert_eq!(records.last(), expected(1500).last(), "what stands behind it is read");
}
