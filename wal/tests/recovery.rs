//! Recovery after damage and after writes that never finished, on real files.

// Test helpers may panic.
#![allow(clippy::unwrap_used)]

mod support;

use forebay_wal::{
    finding::Finding,
    group::SyncMethod,
    layout::Layout,
    limits::BLOCK_BYTES,
    log,
    position::segment_start,
    reader::{Event, LaneReader},
    recovery::{RecoverOptions, recover_lane},
    segment::file_name,
    storage::{Disk, DiskFile, Storage},
};
use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};
use support::{append, dir, expected, flip, options, read_all, start, write_log};

#[test]
fn case_13_to_15_a_flipped_bit_costs_one_record_and_is_reported_with_its_number() {
    let dir = dir();
    write_log(dir.path(), SyncMethod::None, 100);
    let segment = Layout::new(dir.path()).segment(0, 1);
    // Record 0 is short and has the first block to itself. Record 1 starts the second.
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
    // A crash zeroed these blocks of the last group.
    for lost_blocks in [vec![0], vec![4], vec![9], vec![0, 1, 2, 3], vec![2, 3, 7], (0..10).collect()] {
        let dir = dir();
        let mut log = log::open(&options(dir.path(), SyncMethod::Direct)).unwrap();
        let mut lane = start(&mut log);
        append(&mut lane, &[b"answered"]);
        let group_at = u64::from(log.all_lanes[0].shared.durable_end().offset);
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
    assert!(log.findings.contains(&(0, Finding::ForeignFile { name: "notes.txt".into() })));
    assert!(log.findings.iter().any(|(_, finding)| matches!(finding, Finding::Lost { .. })));
    assert_eq!(std::fs::read_to_string(lane_dir.join("notes.txt")).unwrap(), "mine");
    let records = read_all(&log);
    assert!(records.len() < 1500, "what stood in the missing segment is gone");
    assert_eq!(records.last(), expected(1500).last(), "what stands behind it is read");
}

/// A log of `groups`, each a batch, and of `torn` as its last group. Returns the position of the last group.
fn write_groups(dir: &Path, groups: &[&[&[u8]]], torn: &[&[u8]]) -> u64 {
    let mut log = log::open(&options(dir, SyncMethod::Direct)).unwrap();
    let mut lane = start(&mut log);
    for group in groups {
        append(&mut lane, group);
    }
    let group_at = u64::from(log.all_lanes[0].shared.durable_end().offset);
    append(&mut lane, torn);
    drop(lane);
    log.keeper.stop();
    group_at
}

fn zero_block(dir: &Path, at: u64) {
    let file = OpenOptions::new().write(true).open(Layout::new(dir).segment(0, 1)).unwrap();
    file.write_all_at(&[0; 4096], at).unwrap();
}

/// Opens the log, reads it, and closes it again.
fn reopen(dir: &Path) -> (Vec<Vec<u8>>, Vec<Finding>) {
    let log = log::open(&options(dir, SyncMethod::Direct)).unwrap();
    let payloads = read_all(&log).into_iter().map(|(_, payload)| payload).collect();
    let findings = log.findings.into_iter().map(|(_, finding)| finding).collect();
    log.keeper.stop();
    (payloads, findings)
}

fn append_one(dir: &Path, body: &[u8]) {
    let mut log = log::open(&options(dir, SyncMethod::Direct)).unwrap();
    let mut lane = start(&mut log);
    append(&mut lane, &[body]);
    drop(lane);
    log.keeper.stop();
}

#[test]
fn case_5_a_long_record_whose_last_block_was_lost_is_an_unfinished_write_and_no_damage() {
    let dir = dir();
    let group_at = write_groups(dir.path(), &[&[b"answered"]], &[&[b'x'; 10_000]]);
    zero_block(dir.path(), group_at + 8192);
    for _ in 0..3 {
        let (payloads, findings) = reopen(dir.path());
        assert_eq!(payloads, [b"h:answered"]);
        assert!(matches!(findings[..], [Finding::UnfinishedWrite { .. }]), "{findings:?}");
    }
    append_one(dir.path(), b"later");
    let (payloads, findings) = reopen(dir.path());
    assert_eq!(payloads, [&b"h:answered"[..], b"h:later"]);
    assert!(!findings.iter().any(Finding::is_damage), "{findings:?}");
}

#[test]
fn records_lost_before_a_cut_tail_are_reported_and_not_excused_by_it() {
    let dir = dir();
    let (one, two) = (vec![b'1'; 100], vec![b'2'; 100]);
    let groups: [&[&[u8]]; 4] = [&[&one], &[&two], &[&one], &[&two]];
    let group_at = write_groups(dir.path(), &groups, &[&[b'x'; 10_000]]);
    zero_block(dir.path(), group_at + 4096);
    append_one(dir.path(), b"later");
    // The third and the fourth group were durable, and are removed.
    zero_block(dir.path(), group_at - 4096);
    zero_block(dir.path(), group_at - 8192);
    let (payloads, findings) = reopen(dir.path());
    assert_eq!(payloads.len(), 3);
    assert!(
        findings.iter().any(|finding| matches!(finding, Finding::Lost { records: 2, first_ordinal: 2, .. })),
        "{findings:?}"
    );
}

#[test]
fn damage_in_the_last_whole_group_before_a_cut_tail_leaves_its_neighbours_and_is_reported() {
    let dir = dir();
    let batch: [&[u8]; 3] = [b"one", b"two", b"three"];
    let group_at = write_groups(dir.path(), &[&batch], &[&[b'x'; 10_000]]);
    // Only the second block of the last group is left.
    zero_block(dir.path(), group_at);
    append_one(dir.path(), b"later");
    let segment = Layout::new(dir.path()).segment(0, 1);
    flip(&segment, group_at - 4096 + 41);
    let (payloads, findings) = reopen(dir.path());
    assert_eq!(payloads, [&b"h:two"[..], b"h:three", b"h:later"]);
    assert!(findings.iter().any(Finding::is_damage), "{findings:?}");
}

#[test]
fn damage_at_the_end_of_a_segment_that_others_follow_is_damage() {
    let dir = dir();
    write_log(dir.path(), SyncMethod::Direct, 700);
    let log = log::open(&options(dir.path(), SyncMethod::Direct)).unwrap();
    let mut last = 0;
    let mut reader = LaneReader::new(log.disk.clone(), log.layout.clone(), log.id, 0, segment_start(1));
    while let Some(Event::Record(_)) = reader.next_event(log.all_lanes[0].shared.durable_end()).unwrap() {
        if reader.position().segment == 1 {
            last = u64::from(reader.position().offset);
        }
    }
    log.keeper.stop();
    flip(&Layout::new(dir.path()).segment(0, 1), last - 9);
    let (payloads, findings) = reopen(dir.path());
    assert_eq!(payloads.len(), 699);
    assert!(findings.iter().any(|finding| matches!(finding, Finding::BadPayload { .. })), "{findings:?}");
    assert!(findings.iter().any(|finding| matches!(finding, Finding::Lost { records: 1, .. })), "{findings:?}");
}

/// A disk that removes the lane's segments up to one of them when recovery opens that one for the second time, to scan it.
/// Recovery writes nothing.
struct Releasing {
    disk: Disk,
    up_to_segment: u64,
    opened: AtomicUsize,
}

impl Storage for Releasing {
    type File = DiskFile;

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<(DiskFile, u64)> {
        if path.ends_with(file_name(self.up_to_segment)) && self.opened.fetch_add(1, Ordering::Relaxed) == 1 {
            (1..=self.up_to_segment)
                .try_for_each(|segment| self.disk.remove(&path.with_file_name(file_name(segment))))?;
        }
        self.disk.open(path)
    }
    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        self.disk.sync(file)
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        unreachable!("recovery makes nothing")
    }
    fn create_segment(&self, _: &Path, _: &[u8; BLOCK_BYTES], _: u64) -> io::Result<()> {
        unreachable!("recovery makes nothing")
    }
    fn write_first_block(&self, _: &Path, _: &[u8; BLOCK_BYTES]) -> io::Result<()> {
        unreachable!("recovery writes nothing")
    }
    fn write_small(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        unreachable!("recovery writes nothing")
    }
    fn create_sparse(&self, _: &Path, _: u64) -> io::Result<()> {
        unreachable!("recovery makes nothing")
    }
    fn read_small(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read_small(path)
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unreachable!("recovery renames nothing")
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        unreachable!("recovery removes nothing")
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        unreachable!("recovery makes nothing")
    }
}

#[test]
fn a_look_leaves_out_what_is_released_meanwhile_and_who_goes_on_with_the_log_fails() {
    for sync in [false, true] {
        let dir = dir();
        write_log(dir.path(), SyncMethod::None, 1500);
        let (layout, disk) = (Layout::new(dir.path()), Disk::at(dir.path()).unwrap());
        let log_id = layout.read_log_id(&disk).unwrap();
        let recover_options =
            RecoverOptions { log_id, segment_bytes: options(dir.path(), SyncMethod::None).segment_bytes, sync };
        let whole = recover_lane(&disk, &layout, 0, RecoverOptions { sync: false, ..recover_options }).unwrap();
        let storage = Releasing { disk: disk.clone(), up_to_segment: 2, opened: AtomicUsize::new(0) };
        let outcome = recover_lane(&storage, &layout, 0, recover_options);
        if sync {
            assert!(outcome.is_err_and(|error| error.is_not_found()));
            continue;
        }
        let left = outcome.unwrap();
        assert_eq!(left.findings, []);
        assert_eq!(left.segments, whole.segments[2..]);
        assert_eq!(Some(left.first_ordinal), whole.segments[2].range.map(|(first, _)| first.ordinal));
        assert_eq!(
            (left.next_ordinal, left.next_number, left.tail),
            (whole.next_ordinal, whole.next_number, whole.tail)
        );
    }
}
