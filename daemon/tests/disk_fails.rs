//! The disk of one lane fails. The messages of the other lanes reach PostgreSQL, and no acknowledged message is lost.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Client, Daemon, NOWHERE, PATIENCE, data_dir, forebay, small_disk::say_not_run, stage::payload_texts, wait_until,
};
use forebay_cluster::{StopMode, TestCluster};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const ARGS: [&str; 8] =
    ["--cores", "2", "--wal-segment-bytes", "1MiB", "--wal-max-bytes", "256MiB", "--sync", "fdatasync"];

/// Pushes these numbers to a partition as messages that wait in the log for a count that is never reached.
fn push_waiting(client: &mut Client, partition: &str, numbers: std::ops::Range<u64>) {
    let payload = |n| json!({"n": n, "fill": "x".repeat(500)});
    let item = |n| json!({"queue": "fails", "partition": partition, "payload": payload(n)});
    let items: Vec<Value> = numbers.map(item).collect();
    let response = client.push(&json!({"items": items, "bufferMs": 60_000, "bufferMax": 1_000_000})).unwrap();
    assert_eq!(response.status, 201);
}

/// The numbers of a partition in PostgreSQL, ordered by `seq`.
fn numbers(cluster: &TestCluster, partition: &str) -> Vec<u64> {
    let sql = format!(
        "SELECT payload->>'n' FROM forebay.message_log WHERE queue = 'fails' AND partition = '{partition}' ORDER BY seq"
    );
    common::rows(cluster, &sql).iter().map(|row| row[0].parse().unwrap()).collect()
}

/// Segment and offset of a lane's durable end.
fn durable(daemon: &Daemon, lane: usize) -> (u64, u64) {
    let text = daemon.buffers()["lanes"][lane]["durable"].as_str().unwrap().to_owned();
    let words: Vec<&str> = text.split(' ').collect();
    let ["segment", segment, "offset", offset] = words[..] else { panic!("{text}") };
    (segment.parse().unwrap(), offset.parse().unwrap())
}

/// A file that the kernel lets nobody write to, whoever has opened it: a stand-in for a disk that fails.
struct Immutable(PathBuf);

impl Immutable {
    /// `None` where the file system or the account cannot do so.
    fn set(path: PathBuf) -> Option<Self> {
        let status = Command::new("chattr").arg("+i").arg(&path).status();
        status.is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        assert!(Command::new("chattr").arg("-i").arg(&self.0).status().unwrap().success());
    }
}

#[test]
fn case_33_a_lane_whose_disk_fails_refuses_all_pushes_and_ends_with_3_after_all_that_was_durable_is_drained() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let lane_dir = dir.path().join("wal/lane-01");
    let mut daemon = Daemon::start(dir.path(), &cluster.url(), &ARGS);
    daemon.wait_until_drained();
    let mut clients = [daemon.connect_to_lane(0), daemon.connect_to_lane(1)];
    daemon.wait_until_drained();
    for first in (0..200).step_by(20) {
        push_waiting(&mut clients[0], "healthy", first..first + 20);
        push_waiting(&mut clients[1], "failing", first..first + 20);
    }
    assert!(daemon.figure("pending") >= 400);
    // The disk refuses the lane's next write.
    let (segment, _) = durable(&daemon, 1);
    let file = format!("{segment:010}.seg");
    let Some(immutable) = Immutable::set(lane_dir.join(&file)) else {
        return say_not_run("case_33 with a segment that nobody may write to", &"chattr +i is not possible here");
    };

    let refused = clients[1].post("/push/refused", b"1").unwrap();
    assert_eq!((refused.status, refused.code()), (503, "storage_failed".to_owned()));
    assert!(refused.header("Retry-After").is_some());
    // If the daemon still replies, it refuses, on the other lane too.
    if let Ok(response) = clients[0].post("/push/refused", b"1") {
        assert_eq!((response.status, response.code()), (503, "storage_failed".to_owned()));
    }
    assert_eq!(daemon.wait().code(), Some(3));
    let log = daemon.log();
    let last = log.lines().last().unwrap();
    assert!(last.contains(&format!("wal/lane-01/{file}")) && last.contains("Operation not permitted"), "{last}");
    assert!(log.contains("log_write_failed"));
    for partition in ["healthy", "failing"] {
        assert!(numbers(&cluster, partition).into_iter().eq(0..200), "{partition}: drained before the end");
    }

    // On a working disk the daemon continues without loss or duplicates.
    drop(immutable);
    let daemon = Daemon::start(dir.path(), &cluster.url(), &ARGS);
    daemon.wait_until_drained();
    for lane in 0..2 {
        push_waiting(&mut daemon.connect_to_lane(lane), "after", lane * 10..lane * 10 + 10);
    }
    assert!(daemon.terminate().success());
    for partition in ["healthy", "failing"] {
        assert!(numbers(&cluster, partition).into_iter().eq(0..200), "{partition}: once each");
    }
    assert!(numbers(&cluster, "after").into_iter().eq(0..20));
    let refused = common::rows(&cluster, "SELECT count(*) FROM forebay.message_log WHERE queue = 'refused'");
    assert!(refused[0][0] == "0" || refused[0][0] == "1", "one that was refused may be there, not more: {refused:?}");
}

/// Replaces a segment with a directory, which can be opened but not read. Returns the segment's new path.
fn make_unreadable(segment: &Path) -> PathBuf {
    let kept = segment.with_extension("kept");
    // Outside the lanes' directories, where an unknown name would be reported.
    let kept = kept.parent().unwrap().parent().unwrap().join(kept.file_name().unwrap());
    fs::rename(segment, &kept).unwrap();
    fs::create_dir(segment).unwrap();
    kept
}

fn make_readable(segment: &Path, kept: &Path) {
    fs::remove_dir(segment).unwrap();
    fs::rename(kept, segment).unwrap();
}

/// Fills several segments of both lanes while PostgreSQL is away. Returns the count of numbers in partitions `zero` and
/// `one`.
fn fill_both_lanes(daemon: &Daemon) -> u64 {
    let mut clients = [daemon.connect_to_lane(0), daemon.connect_to_lane(1)];
    let count = 9_000;
    for first in (0..count).step_by(300) {
        push_waiting(&mut clients[0], "zero", first..first + 300);
        push_waiting(&mut clients[1], "one", first..first + 300);
    }
    assert!(durable(daemon, 1).0 >= 5, "the lanes have several segments");
    count
}

#[test]
fn case_24_and_33_a_lane_that_cannot_be_read_is_left_out_after_a_while_and_delivered_once_it_can_be_read_again() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &ARGS);
    let count = fill_both_lanes(&daemon);
    // A lane's most recent records are in memory and need no disk. The next daemon has none of them in memory.
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(dir.path(), &cluster.url(), &ARGS);
    let segment = dir.path().join("wal/lane-01/0000000003.seg");
    let kept = make_unreadable(&segment);
    cluster.start().unwrap();

    wait_until("the healthy lane is drained", || {
        let buffers = daemon.buffers();
        let lane = &buffers["lanes"][0];
        lane["drainedOrdinal"] == lane["durableOrdinal"] && buffers["dbHealthy"] == true
    });
    assert!(daemon.log().contains("lane_unreadable"));
    assert!(numbers(&cluster, "zero").into_iter().eq(0..count));
    let one = numbers(&cluster, "one");
    assert!(!one.is_empty() && (one.len() as u64) < count, "what stands before the segment: {}", one.len());
    let buffers = daemon.buffers();
    assert_eq!((&buffers["lanes"][0]["leftOut"], &buffers["lanes"][1]["leftOut"]), (&json!(false), &json!(true)));
    assert!(buffers["pending"].as_u64().unwrap() >= count - one.len() as u64);
    // Pushes continue on both lanes, and the messages of the healthy lane are drained.
    let response = daemon.connect_to_lane(0).push(&json!({"items": [{"queue": "meanwhile", "payload": 1}]})).unwrap();
    assert_eq!(response.json()[0]["status"], "queued");
    push_waiting(&mut daemon.connect_to_lane(1), "one", count..count + 1);

    make_readable(&segment, &kept);
    daemon.wait_until_drained();
    assert!(numbers(&cluster, "one").into_iter().eq(0..=count), "once each, in order");
    assert!(numbers(&cluster, "zero").into_iter().eq(0..count));
    assert_eq!(daemon.figure("lostRecords"), 0);
    assert_eq!(daemon.buffers()["lanes"][1]["leftOut"], false);
    assert!(daemon.terminate().success());
}

#[test]
fn case_33_a_lane_that_cannot_be_read_at_the_end_does_not_take_the_others_grace() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    let dir = data_dir();
    // If the daemon waited for the lane, the test would not end in time.
    let args = [&ARGS[..], &["--shutdown-grace", "1h"]].concat();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    let count = fill_both_lanes(&daemon);
    // A lane's most recent records are in memory and need no disk. The next daemon has none of them in memory.
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    let segment = dir.path().join("wal/lane-01/0000000003.seg");
    let kept = make_unreadable(&segment);
    cluster.start().unwrap();
    wait_until("the drain has begun", || daemon.figure("drainTransactions") > 0);
    assert_eq!(daemon.terminate().code(), Some(0));
    assert!(numbers(&cluster, "zero").into_iter().eq(0..count), "the healthy lane is drained");

    // Nothing is concluded from an unreadable segment: startup names it and changes nothing.
    let path = dir.path().to_str().unwrap();
    let fixed = ["serve", "--listen", "127.0.0.1:0", "--data-dir", path, "--postgres", &cluster.url()];
    let output = forebay(&[&fixed[..], &ARGS].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.lines().last().unwrap().contains("wal/lane-01/0000000003.seg"), "{error}");
    make_readable(&segment, &kept);
    let daemon = Daemon::start(dir.path(), &cluster.url(), &ARGS);
    daemon.wait_until_drained();
    assert!(numbers(&cluster, "one").into_iter().eq(0..count), "once each, in order");
    assert_eq!(daemon.figure("lostRecords"), 0);
    payload_texts(&daemon, &cluster, "fails", 2 * count as usize);
}

#[test]
fn a_write_that_fails_while_the_daemon_ends_in_order_ends_it_with_3() {
    let dir = data_dir();
    let mut daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
    let mut client = daemon.connect();
    client.send(b"POST /push/fails HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n12").unwrap();
    // Long enough for the request to arrive. If it does not, the connection is closed as an idle one, and the test
    // fails.
    std::thread::sleep(Duration::from_millis(200));
    let Some(immutable) = Immutable::set(dir.path().join("wal/lane-00/0000000001.seg")) else {
        return say_not_run("a write that fails at the end", &"chattr +i is not possible here");
    };
    daemon.signal(rustix::process::Signal::TERM);
    wait_until("nobody is let in any more", || Client::connect(daemon.address).is_err());
    client.send(b"345").unwrap();
    let response = client.receive(false).unwrap();
    assert_eq!((response.status, response.code()), (503, "storage_failed".to_owned()));
    assert_eq!(daemon.wait().code(), Some(3));
    assert!(daemon.log().lines().last().unwrap().contains("wal/lane-00/0000000001.seg"), "{}", daemon.log());
    drop(immutable);
}
