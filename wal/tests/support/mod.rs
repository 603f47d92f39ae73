//! Helpers of the log's tests.

// Each test binary uses a part of the helpers. They may panic.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use forebay_wal::{
    frame::KIND_MESSAGE,
    group::{Record, SyncMethod},
    lane::{AppendError, Lane},
    log::{self, Log, LogOptions},
    position::{Position, segment_start},
    reader::{Event, LaneReader},
};
use std::{fs::OpenOptions, os::unix::fs::FileExt, path::Path};

/// Size of the segments in bytes.
pub const SEGMENT_BYTES: u64 = 1 << 20;

pub fn options(dir: &Path, sync: SyncMethod) -> LogOptions {
    LogOptions { dir: dir.to_path_buf(), lanes: 1, sync, segment_bytes: SEGMENT_BYTES, quota_bytes: 64 * SEGMENT_BYTES }
}

/// A directory beside the build, for `/tmp` may not support `O_DIRECT`.
pub fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn start(log: &mut Log) -> Lane {
    log.lanes.remove(0).start().unwrap()
}

pub fn wait_for_event(lane: &mut Lane) {
    use rustix::event::{PollFd, PollFlags, poll};
    let timeout = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(lane.event(), PollFlags::IN)], Some(&timeout)).unwrap();
    assert_eq!(ready, 1, "the lane signals within ten seconds");
    rustix::io::read(lane.event(), &mut [0; 8]).unwrap();
    lane.on_event().unwrap();
    lane.submit().unwrap();
}

/// Appends one batch once there is room, and waits until it is durable. Returns its first number.
pub fn append(lane: &mut Lane, bodies: &[&[u8]]) -> u64 {
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

/// Numbers and payloads of the records from `from` to the durable end.
pub fn read_from(log: &Log, from: Position) -> Vec<(u64, Vec<u8>)> {
    let found = &log.all_lanes[0];
    let mut reader = LaneReader::new(log.disk.clone(), log.layout.clone(), log.id, found.lane, from)
        .with_pending_tail(found.pending_tail);
    let mut records = Vec::new();
    while let Some(event) = reader.next_event(found.shared.durable_end()).unwrap() {
        if let Event::Record(header) = event {
            records.push((header.number, reader.payload().to_vec()));
        }
    }
    records
}

pub fn read_all(log: &Log) -> Vec<(u64, Vec<u8>)> {
    read_from(log, segment_start(log.all_lanes[0].first_segment))
}

pub fn body(index: usize) -> Vec<u8> {
    format!("{index}:{}", "x".repeat(index * 37 % 5000)).into_bytes()
}

/// A log of `count` records, one group each, closed again.
pub fn write_log(dir: &Path, sync: SyncMethod, count: usize) {
    let mut log = log::open(&options(dir, sync)).unwrap();
    let mut lane = start(&mut log);
    for index in 0..count {
        assert_eq!(append(&mut lane, &[&body(index)]), index as u64);
    }
    drop(lane);
    log.keeper.stop();
}

pub fn expected(count: usize) -> Vec<(u64, Vec<u8>)> {
    (0..count).map(|index| (index as u64, [b"h:".to_vec(), body(index)].concat())).collect()
}

/// Overwrites one byte, as `dd conv=notrunc` would.
pub fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}
