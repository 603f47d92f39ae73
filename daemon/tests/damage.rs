//! One flipped bit anywhere in the log of a daemon that stopped cleanly. `wal verify` reports its position. The next
//! daemon delivers every record that still verifies, reports the lost ones, and deletes nothing.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, NOWHERE, data_dir, forebay, random::Random, test_seed, wait_until};
use forebay_cluster::TestCluster;
use forebay_wal::{
    layout::Layout,
    position::{Position, segment_start},
    reader::{Event, LaneReader},
    recovery::{RecoverOptions, recover_lane},
    storage::Disk,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

const RECORDS: u64 = 1000;
const ARGS: [&str; 4] = ["--cores", "1", "--wal-max-bytes", "64MiB"];

/// The number of offsets spread over the written part …
const SPREAD_WRITTEN: u64 = 40;
/// … and over the whole file.
const SPREAD: u64 = 20;

/// A log of 1,000 records that never reached PostgreSQL, from a daemon that stopped cleanly.
struct Written {
    dir: tempfile::TempDir,
    /// The size of the one segment that holds the whole log.
    segment_mib: u64,
    /// The end of each record's frame, by sequence number.
    ends: Vec<u64>,
    /// The end of the last group, which is the seal.
    durable_end: u64,
}

impl Written {
    /// Writes the records in this many requests of equal size.
    fn in_requests(requests: u64) -> Self {
        let dir = data_dir();
        // Each request takes at least one block.
        let segment_mib = if requests > 100 { 6 } else { 1 };
        let daemon = Daemon::start(dir.path(), NOWHERE, &args(segment_mib));
        let mut client = daemon.connect();
        let items = RECORDS / requests;
        for request in 0..requests {
            let numbers = request * items..(request + 1) * items;
            let payload = |n: u64| json!({"n": n, "fill": "x".repeat((n * 37 % 150) as usize)});
            let items: Vec<Value> = numbers.map(|n| json!({"queue": "damage", "payload": payload(n)})).collect();
            assert_eq!(client.push(&json!({"items": items, "qos0": true})).unwrap().status, 201);
        }
        assert!(daemon.terminate().success());
        let mut written = Self { dir, segment_mib, ends: Vec::new(), durable_end: 0 };
        written.find_ends();
        written
    }

    fn segment(&self) -> PathBuf {
        segment(self.dir.path())
    }

    fn segment_bytes(&self) -> u64 {
        self.segment_mib << 20
    }

    fn find_ends(&mut self) {
        let wal = self.dir.path().join("wal");
        let (layout, disk) = (Layout::new(&wal), Disk::at(&wal).unwrap());
        let log_id = layout.read_or_create_log_id(&disk).unwrap();
        let options = RecoverOptions { log_id, segment_bytes: self.segment_bytes(), sync: false };
        let lane = recover_lane(&disk, &layout, 0, options).unwrap();
        assert_eq!((lane.tail.segment, lane.is_sealed, lane.findings.len()), (1, true, 0));
        let mut reader = LaneReader::new(disk, layout, log_id, 0, segment_start(1));
        while let Some(event) = reader.next_event(lane.tail).unwrap() {
            let Position { offset, .. } = reader.position();
            match event {
                Event::Record(_) => self.ends.push(offset.into()),
                Event::Seal { ordinal } => assert_eq!(ordinal, self.ends.len() as u64),
                Event::Damaged { .. } => panic!("{event:?}"),
            }
        }
        self.durable_end = lane.tail.offset.into();
        assert_eq!(self.ends.len() as u64, RECORDS);
    }

    /// Offsets in every region: the header and the rest of its block; headers, payloads and padding of frames; padding
    /// of blocks; the first and the last group; the seal; the part that was never written. Random offsets are added.
    fn offsets(&self, random: &mut Random) -> BTreeSet<u64> {
        let mut offsets: BTreeSet<u64> = [0, 7, 9, 13, 20, 40, 63, 72, 79, 80, 2000, 4095].into();
        for record in [0, 1, 2, RECORDS as usize / 2, RECORDS as usize - 2, RECORDS as usize - 1] {
            let start = if record == 0 { 4096 } else { self.ends[record - 1] };
            // The first bytes of a frame's header or before it, and the last bytes of a payload or its padding.
            let end = self.ends[record];
            offsets.extend([start, start + 1, start + 8, start + 20, start + 39, start + 41]);
            offsets.extend([end - 41, end - 9, end - 5, end - 1, end]);
        }
        offsets.extend((0..SPREAD_WRITTEN).map(|step| step * self.durable_end / SPREAD_WRITTEN + step % 13));
        offsets.extend((0..SPREAD).map(|step| step * self.segment_bytes() / SPREAD + step % 13));
        offsets.extend([self.durable_end - 4096, self.durable_end - 1, self.durable_end, self.segment_bytes() - 1]);
        offsets.extend((0..20).map(|_| random.below(self.durable_end)));
        offsets.extend((0..5).map(|_| random.below(self.segment_bytes())));
        offsets
    }
}

fn args(segment_mib: u64) -> Vec<&'static str> {
    let size = if segment_mib == 1 { "1MiB" } else { "6MiB" };
    [&ARGS[..], &["--wal-segment-bytes", size]].concat()
}

fn segment(data_dir: &Path) -> PathBuf {
    data_dir.join("wal/lane-00/0000000001.seg")
}

/// Flips one bit of a file, with dd.
fn flip(path: &Path, offset: u64, bit: u64) {
    let mut byte = [0];
    fs::File::open(path).unwrap().read_exact_at(&mut byte, offset).unwrap();
    let (of, seek) = (format!("of={}", path.display()), format!("seek={offset}"));
    let mut dd = Command::new("dd");
    dd.args([&of, &seek, "bs=1", "count=1", "conv=notrunc", "status=none"]).stdin(Stdio::piped());
    let mut dd = dd.spawn().unwrap();
    dd.stdin.take().unwrap().write_all(&[byte[0] ^ (1 << bit)]).unwrap();
    assert!(dd.wait().unwrap().success());
}

fn wal(data_dir: &Path, command: &str, args: &[&str]) -> Output {
    forebay(&[&["wal", command, "--data-dir", data_dir.to_str().unwrap()], args].concat())
}

fn check_is_sound(data_dir: &Path) {
    let output = wal(data_dir, "verify", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

/// `wal verify` exits with 1 and reports the position as text and as JSON.
fn check_is_found(data_dir: &Path, offset: u64, bit: u64) {
    let output = wal(data_dir, "verify", &["--json"]);
    let what = format!("bit {bit} at {offset}: {}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{what}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["sound"], false, "{what}");
    let findings = report["lanes"][0]["findings"].as_array().unwrap();
    let is_there = |finding: &&Value| {
        let at = finding["offset"].as_u64().unwrap_or(u64::MAX);
        // The frame or block that starts there has at most this length.
        finding["segment"] == 1 && (at..at.saturating_add(4096)).contains(&offset)
    };
    let found = findings.iter().find(is_there).unwrap_or_else(|| panic!("{what}"));
    let missing = report["lanes"][0]["missingRecords"].as_u64().unwrap();
    assert!(missing <= 1, "one bit costs one record at most: {what}");
    let text = found["text"].as_str().unwrap();
    assert!(text.contains("segment 1"), "{what}");
    // One bit in eight is also checked in the text output, which comes from the same findings.
    if bit == 0 {
        let output = wal(data_dir, "verify", &[]);
        assert_eq!(output.status.code(), Some(1), "{what}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(text), "{what}");
    }
}

fn every_flipped_bit_is_found(requests: u64) {
    let mut random = Random::new(test_seed());
    let written = Written::in_requests(requests);
    check_is_sound(written.dir.path());
    let offsets = written.offsets(&mut random);
    assert!(offsets.len() > 100, "{}", offsets.len());
    for offset in offsets {
        let bit = random.below(8);
        flip(&written.segment(), offset, bit);
        check_is_found(written.dir.path(), offset, bit);
        flip(&written.segment(), offset, bit);
    }
    check_is_sound(written.dir.path());
}

#[test]
fn cases_13_to_16_any_flipped_bit_in_a_log_of_1000_pushes_is_found_and_its_place_is_told() {
    every_flipped_bit_is_found(RECORDS);
}

#[test]
fn cases_13_to_16_any_flipped_bit_in_a_log_of_one_push_of_1000_is_found_and_its_place_is_told() {
    every_flipped_bit_is_found(1);
}

#[test]
fn cases_13_to_16_any_flipped_bit_in_a_log_of_10_pushes_of_100_is_found_and_its_place_is_told() {
    every_flipped_bit_is_found(10);
}

#[test]
fn a_lane_that_was_quiet_for_a_moment_is_sealed_so_that_damage_to_its_last_record_is_told_from_an_unfinished_write() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &args(1));
    let durable = || daemon.buffers()["lanes"][0]["durable"].clone();
    let mut client = daemon.connect();
    let items = ["the first one", "the last one"].map(|payload| json!({"queue": "damage", "payload": payload}));
    assert_eq!(client.push(&json!({"items": items, "qos0": true})).unwrap().status, 201);
    // The only further group after that of the push is the seal.
    wait_until("the lane is sealed", || durable() == "segment 1 offset 12288");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(durable(), "segment 1 offset 12288");
    daemon.kill9();
    check_is_sound(dir.path());
    let content = fs::read(segment(dir.path())).unwrap();
    let last = content.windows(12).position(|bytes| bytes == b"the last one").unwrap();
    flip(&segment(dir.path()), last as u64, 2);
    let output = wal(dir.path(), "verify", &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lane = &report["lanes"][0];
    assert_eq!((&lane["records"], &lane["missingRecords"]), (&json!(1), &json!(1)), "{report}");
    let kinds: Vec<&str> = lane["findings"].as_array().unwrap().iter().map(|f| f["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["bad_payload", "lost"], "{report}");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The loss that a flipped bit causes, and how it is reported.
struct Loss {
    offset: u64,
    /// The lost record's number, which is also its ordinal.
    number: Option<u64>,
    /// Whether the header of its frame still has the number.
    is_named: bool,
}

/// Runs a daemon with PostgreSQL on a copy of the log that has this damage.
fn check_delivery(written: &Written, cluster: &TestCluster, schema: &str, loss: &Loss) {
    let dir = data_dir();
    copy_dir(written.dir.path(), dir.path());
    flip(&segment(dir.path()), loss.offset, 3);
    let damaged = fs::read(segment(dir.path())).unwrap();
    let dump = String::from_utf8(wal(dir.path(), "dump", &[]).stdout).unwrap();
    let numbers =
        dump.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["payload"]["n"].as_u64().unwrap());
    let expected: Vec<u64> = (0..RECORDS).filter(|n| Some(*n) != loss.number).collect();
    assert!(numbers.eq(expected.iter().copied()), "{schema}: all others verify");

    let daemon =
        Daemon::start(dir.path(), &cluster.url(), &[&args(written.segment_mib)[..], &["--schema", schema]].concat());
    daemon.wait_until_drained();
    let sql = format!("SELECT payload->>'n' FROM {schema}.message_log ORDER BY seq");
    let delivered: Vec<u64> = common::rows(cluster, &sql).iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(delivered, expected, "{schema}: every record that verifies, in order");
    assert_eq!(daemon.figure("lostRecords"), u64::from(loss.number.is_some()), "{schema}");

    let log = daemon.log();
    assert!(log.contains("log_damaged"), "{schema}");
    if let Some(number) = loss.number {
        let told = log.lines().find(|line| line.contains("records_missing")).unwrap();
        assert!(told.contains(&format!("first_ordinal={number} ")) && told.contains("records=1 "), "{schema}: {told}");
        assert_eq!(told.contains(&format!("numbers=[{number}]")), loss.is_named, "{schema}: {told}");
        let (after, before) =
            (format!("after_number={}", number.wrapping_sub(1)), format!("before_number={}", number + 1));
        assert!(number == 0 || told.contains(&after), "{schema}: {told}");
        assert!(number == RECORDS - 1 || told.contains(&before), "{schema}: {told}");
    } else {
        assert!(!log.contains("records_missing"), "{schema}");
    }

    // The daemon writes to another segment, and the damaged one stays as it is.
    let fresh = daemon.connect().push(&json!({"items": [{"queue": "after", "payload": 1}]})).unwrap();
    assert_eq!(fresh.json()[0]["status"], "queued", "{schema}");
    let set_aside = dir.path().join("wal/set-aside/lane-00-0000000001.seg");
    wait_until("the damaged segment is set aside", || set_aside.exists());
    assert!(fs::read(set_aside).unwrap() == damaged, "{schema}: with its bytes");
    assert!(daemon.terminate().success());
}

fn what_verifies_is_delivered(requests: u64) {
    let written = Written::in_requests(requests);
    let cluster = TestCluster::start_without_fsync().unwrap();
    let last = RECORDS as usize - 1;
    let middle = RECORDS / 2 + 3;
    let start = |record: u64| {
        let before = written.ends[record as usize - 1];
        // The first record of a request starts a group, which starts on a block.
        if record.is_multiple_of(RECORDS / requests) { before.next_multiple_of(4096) } else { before }
    };
    let lost = |offset, number, is_named| Loss { offset, number: Some(number), is_named };
    let losses = [
        ("header", Loss { offset: 33, number: None, is_named: false }),
        ("behind_header", Loss { offset: 3000, number: None, is_named: false }),
        ("padding", Loss { offset: written.durable_end - 4097, number: None, is_named: false }),
        ("first_frame", lost(4096 + 9, 0, false)),
        ("first_payload", lost(written.ends[0] - 20, 0, true)),
        ("frame", lost(start(middle) + 9, middle, false)),
        ("payload", lost(written.ends[middle as usize] - 20, middle, true)),
        ("last_frame", lost(start(RECORDS - 1) + 9, RECORDS - 1, false)),
        ("last_payload", lost(written.ends[last] - 20, RECORDS - 1, true)),
    ];
    for (schema, loss) in losses {
        check_delivery(&written, &cluster, schema, &loss);
    }
}

#[test]
fn cases_13_to_16_a_daemon_on_a_damaged_log_of_1000_pushes_delivers_what_verifies_and_tells_the_rest() {
    what_verifies_is_delivered(RECORDS);
}

#[test]
fn cases_13_to_16_a_daemon_on_a_damaged_log_of_one_push_of_1000_delivers_what_verifies_and_tells_the_rest() {
    what_verifies_is_delivered(1);
}

#[test]
fn cases_13_to_16_a_daemon_on_a_damaged_log_of_10_pushes_of_100_delivers_what_verifies_and_tells_the_rest() {
    what_verifies_is_delivered(10);
}
