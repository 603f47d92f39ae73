//! Out of space on small real file systems: the quota, the disk, its inodes, the file size limit. Acknowledged messages
//! are delivered, the daemon still stops and starts, and pushes continue once there is room.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Client, Daemon, NOWHERE, PATIENCE, Response, data_dir, forebay_by,
    random::Random,
    small_disk::{DISK_BYTES, MountError, SmallDisk, say_not_run},
    stage::payload_texts,
    test_seed, wait_until,
};
use forebay_cluster::{StopMode, TestCluster};
use serde_json::{Value, json};
use std::{
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Padding in each payload of the pushes that fill the log.
const FILL_BYTES: usize = 100_000;

/// A place with limited space for a daemon.
struct Place {
    disk: Option<SmallDisk>,
    dir: tempfile::TempDir,
    args: Vec<&'static str>,
}

impl Place {
    /// Uses a small disk. If none can be mounted, uses a quota of the same size and says so on standard error.
    fn on(disk: Result<SmallDisk, MountError>, case: &str, args: &[&'static str]) -> Self {
        let dir = data_dir();
        let mut args = args.to_vec();
        match disk {
            Ok(disk) => Self { disk: Some(disk), dir, args },
            Err(error) => {
                say_not_run(&format!("{case} on a small file system (a quota was used up in its place)"), &error);
                let quota = args.iter().position(|arg| *arg == "--wal-max-bytes").unwrap() + 1;
                args[quota] = if args[quota] == "1GiB" { "64MiB" } else { args[quota] };
                Self { disk: None, dir, args }
            }
        }
    }

    /// The data directory as the daemon sees it.
    fn data_dir(&self) -> &Path {
        self.disk.as_ref().map_or(self.dir.path(), SmallDisk::path)
    }

    /// The data directory as the test sees it.
    fn outside(&self) -> PathBuf {
        self.disk.as_ref().map_or(self.dir.path().to_path_buf(), SmallDisk::outside)
    }

    fn start(&self, postgres: &str) -> Daemon {
        match &self.disk {
            Some(disk) => disk.start(self.data_dir(), postgres, &self.args),
            None => Daemon::start(self.data_dir(), postgres, &self.args),
        }
    }
}

/// Checks that a reply is the contract's refusal for lack of space.
fn check_full(response: &Response) {
    assert_eq!((response.status, response.code()), (503, "log_full".to_owned()));
    let seconds: u64 = response.header("Retry-After").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "seconds: {seconds}");
}

fn push(client: &mut Client, n: u64, fill_bytes: usize) -> Response {
    let payload = json!({"n": n, "fill": "x".repeat(fill_bytes)});
    client.push(&json!({"items": [{"queue": "full", "payload": payload}], "qos0": true})).unwrap()
}

/// Pushes until the log is full. Returns the number of the first refused message.
fn push_until_full(client: &mut Client, mut next: u64) -> u64 {
    loop {
        let response = push(client, next, FILL_BYTES);
        if response.status != 201 {
            check_full(&response);
            return next;
        }
        next += 1;
    }
}

/// Checks that nothing changes while the log is full: every push is refused, however small, and the daemon reports that
/// it is not ready.
fn check_refuses_steadily(daemon: &Daemon, client: &mut Client) {
    for n in 0..50 {
        check_full(&push(client, n, (n * 997 % 2000) as usize));
    }
    check_full(&client.post_ndjson("/push/full", "1\n".repeat(100).as_bytes()).unwrap());
    let ready = client.get("/ready").unwrap();
    assert_eq!((ready.status, ready.code()), (503, "log_full".to_owned()));
    assert_eq!(client.get("/health").unwrap().status, 200);
    assert!(daemon.figure("segmentBytesTotal") <= DISK_BYTES);
}

fn wait_until_taken(client: &mut Client, n: u64) {
    wait_until("pushes are taken again", || match push(client, n, 10) {
        response if response.status == 201 => true,
        response => {
            check_full(&response);
            false
        }
    });
}

fn numbers(daemon: &Daemon, cluster: &TestCluster, count: u64) -> Vec<u64> {
    let texts = payload_texts(daemon, cluster, "full", count as usize);
    let number = |text: &String| serde_json::from_str::<Value>(text).unwrap()["n"].as_u64().unwrap();
    texts.iter().map(number).collect()
}

/// Life cycle on a disk that fills up while PostgreSQL is away: refusal, kill, shutdown, restart and drain.
fn fill_kill_stop_drain(place: &Place) {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut daemon = place.start(&cluster.url());
    daemon.wait_until_drained();
    let mut next = 0;
    for _ in 0..2 {
        cluster.stop(StopMode::Fast, PATIENCE).unwrap();
        let mut client = daemon.connect();
        let first = next;
        next = push_until_full(&mut client, next);
        assert!(next - first > 20, "there was room for some: {first} to {next}");
        check_refuses_steadily(&daemon, &mut client);
        assert_eq!(daemon.figure("pending"), next - first);

        // Killed with the disk full; the next daemon is stopped cleanly.
        daemon.kill9();
        daemon = place.start(&cluster.url());
        // Before the daemon reaches PostgreSQL, messages that are already there may still count.
        assert!((next - first..=next).contains(&daemon.figure("pending")));
        // The refused message may be smaller than the rest of a segment.
        next = push_until_full(&mut daemon.connect(), next);
        assert_eq!(daemon.terminate().code(), Some(0));
        daemon = place.start(&cluster.url());
        next = push_until_full(&mut daemon.connect(), next);
        assert!((next - first..=next).contains(&daemon.figure("pending")));

        let mut client = daemon.connect();
        cluster.start().unwrap();
        wait_until_taken(&mut client, next);
        next += 1;
        daemon.wait_until_drained();
        assert_eq!(client.get("/ready").unwrap().status, 200);
        assert!(numbers(&daemon, &cluster, next).into_iter().eq(0..next), "all that were answered, once and in order");
    }
    assert_eq!(daemon.figure("lostRecords"), 0);
    assert_eq!(daemon.terminate().code(), Some(0));
}

const SEGMENTS: [&str; 4] = ["--cores", "1", "--wal-segment-bytes", "4MiB"];

#[test]
fn case_38_at_a_quota_within_the_disk_pushes_are_refused_without_a_break_until_the_drain_has_released_something() {
    let place = Place::on(SmallDisk::tmpfs(""), "case_38", &[&SEGMENTS[..], &["--wal-max-bytes", "32MiB"]].concat());
    fill_kill_stop_drain(&place);
}

#[test]
fn case_39_on_a_full_tmpfs_nothing_answered_is_lost_and_it_is_stopped_started_and_drained() {
    let place = Place::on(SmallDisk::tmpfs(""), "case_39", &[&SEGMENTS[..], &["--wal-max-bytes", "1GiB"]].concat());
    fill_kill_stop_drain(&place);
}

#[test]
fn case_39_on_a_full_ext4_nothing_answered_is_lost_and_it_is_stopped_started_and_drained() {
    // The daemon chooses the segment size. The disk is smaller than the quota.
    let place = Place::on(SmallDisk::ext4(), "case_39", &["--cores", "1", "--wal-max-bytes", "1GiB"]);
    fill_kill_stop_drain(&place);
}

#[test]
fn case_40_without_inodes_nothing_answered_is_lost_and_it_is_stopped_started_and_drained() {
    // The inodes suffice for the directories, the lock, the log's id and some segments.
    let disk = SmallDisk::tmpfs(",nr_inodes=16");
    let args = ["--cores", "1", "--wal-segment-bytes", "1MiB", "--wal-max-bytes", "1GiB"];
    fill_kill_stop_drain(&Place::on(disk, "case_40", &args));
}

/// Zeroes the log's last record from its last block on, like a write that a crash interrupted.
fn tear_last_write(data_dir: &Path, segment_bytes: u64) {
    let lane = data_dir.join("wal/lane-00");
    let mut segments: Vec<PathBuf> = std::fs::read_dir(lane).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let content = std::fs::read(segments.last().unwrap()).unwrap();
    assert_eq!(content.len() as u64, segment_bytes);
    let last = content[4096..].rchunks(4096).position(|block| block.contains(&b'x')).unwrap() as u64 + 1;
    let file = std::fs::File::options().write(true).open(segments.last().unwrap()).unwrap();
    // Also zeroes everything behind it: an unfinished write is the last one.
    file.write_all_at(&vec![0; last as usize * 4096], segment_bytes - last * 4096).unwrap();
}

/// Life cycle on a full disk whose last write was unfinished when the daemon was killed.
fn fill_tear_drain(place: &Place, segment_bytes: u64) {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    let daemon = place.start(&cluster.url());
    let mut client = daemon.connect();
    let mut answered = 0;
    loop {
        // Two messages a request: after an unfinished write, the first may verify, but must not be delivered.
        let item = |n: u64| json!({"queue": "full", "payload": {"n": n, "fill": "x".repeat(FILL_BYTES / 2)}});
        let body = json!({"items": [item(answered), item(answered + 1)], "qos0": true});
        let response = client.push(&body).unwrap();
        if response.status != 201 {
            check_full(&response);
            break;
        }
        answered += 2;
    }
    daemon.kill9();
    tear_last_write(&place.outside(), segment_bytes);
    // From here on the last request does not count as acknowledged, because its write was unfinished.
    let kept = answered - 2;
    for _ in 0..2 {
        let daemon = place.start(&cluster.url());
        assert_eq!(daemon.figure("pending"), kept);
        // There is no segment to write to, so not one byte is accepted.
        let mut client = daemon.connect();
        check_full(&push(&mut client, 0, 0));
        check_refuses_steadily(&daemon, &mut client);
        daemon.kill9();
    }
    let daemon = place.start(&cluster.url());
    assert_eq!(daemon.terminate().code(), Some(0));
    let daemon = place.start(&cluster.url());
    cluster.start().unwrap();
    let mut client = daemon.connect();
    wait_until_taken(&mut client, kept);
    assert!(numbers(&daemon, &cluster, kept + 1).into_iter().eq(0..=kept), "in order, and each once");
    assert_eq!(daemon.figure("lostRecords"), 0);
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[test]
fn case_39_a_write_that_never_finished_on_a_full_disk_keeps_it_from_pushes_and_not_from_the_drain() {
    let args = [&SEGMENTS[..], &["--wal-max-bytes", "1GiB"]].concat();
    for disk in [SmallDisk::tmpfs(""), SmallDisk::ext4()] {
        fill_tear_drain(&Place::on(disk, "case_39", &args), 4 << 20);
    }
}

#[test]
fn case_38_a_write_that_never_finished_at_the_quota_keeps_it_from_pushes_and_not_from_the_drain() {
    // One round takes all records, before a segment exists whose header records the unfinished write.
    let args = vec!["--cores", "1", "--wal-segment-bytes", "1MiB", "--wal-max-bytes", "3MiB"];
    fill_tear_drain(&Place { disk: None, dir: data_dir(), args }, 1 << 20);
}

#[test]
fn case_39_a_disk_that_somebody_else_filled_is_looked_at_again_each_second() {
    let disk = match SmallDisk::tmpfs("") {
        Ok(disk) => disk,
        Err(error) => {
            return say_not_run("case_39 with a disk that somebody else filled", &error);
        }
    };
    let args = ["--cores", "1", "--wal-segment-bytes", "1MiB", "--wal-max-bytes", "1GiB"];
    let mut daemon = disk.start(disk.path(), NOWHERE, &args);
    let mut next = 0;
    for _ in 0..2 {
        let filler = disk.fill();
        let mut client = daemon.connect();
        next = push_until_full(&mut client, next);
        check_refuses_steadily(&daemon, &mut client);
        assert!(daemon.log().contains("segment_not_made"), "the operator is told");
        daemon.kill9();
        daemon = disk.start(disk.path(), NOWHERE, &args);
        next = push_until_full(&mut daemon.connect(), next);
        std::fs::remove_file(filler).unwrap();
        // PostgreSQL is away, so it is not the drain that makes room.
        wait_until_taken(&mut daemon.connect(), next);
        next += 1;
        assert_eq!(daemon.figure("pending"), next);
    }
    assert_eq!(daemon.terminate().code(), Some(0));
    // The default quota is a share of the free space, which is zero here.
    disk.fill();
    let daemon = disk.start(disk.path(), NOWHERE, &args[..4]);
    assert_eq!(daemon.figure("pending"), next);
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[test]
fn case_41_below_a_limit_of_file_sizes_segments_are_smaller_or_the_start_says_what_to_do() {
    let limited = |bytes: u64| format!("--fsize={bytes}");
    let dir = data_dir();
    let limit = limited(3 << 20);
    let daemon = Daemon::start_by(&["prlimit", &limit], dir.path(), NOWHERE, &["--cores", "1"]);
    let mut client = daemon.connect();
    for n in 0..80 {
        assert_eq!(push(&mut client, n, FILL_BYTES).status, 201);
    }
    let segments = std::fs::read_dir(dir.path().join("wal/lane-00")).unwrap();
    let sizes: Vec<u64> = segments.map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() > 2 && sizes.iter().all(|bytes| *bytes == 3 << 20), "{sizes:?}");
    // A push must fit into one segment.
    assert_eq!(push(&mut client, 0, 4 << 20).status, 413);
    assert_eq!(daemon.terminate().code(), Some(0));

    for (limit, args) in [(2 << 20, &["--wal-segment-bytes", "4MiB"][..]), ((1 << 20) - 1, &[])] {
        let dir = data_dir();
        let path = dir.path().to_str().unwrap();
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--data-dir", path, "--postgres", NOWHERE];
        let output = forebay_by(&["prlimit", &limited(limit)], &[&fixed[..], args].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains("ulimit -f") && error.contains(&limit.to_string()), "{error}");
    }
}

/// Pushes messages without padding. Returns the number behind the last.
fn push_small(client: &mut Client, numbers: std::ops::Range<u64>) -> u64 {
    for n in numbers.clone() {
        let response = push(client, n, 0);
        assert_eq!(response.status, 201, "{n}: {}", response.code());
    }
    numbers.end
}

/// Fills the disk and pushes lines until they are refused. Returns the number behind the last line that is kept.
fn fill_and_push_until_refused(disk: &SmallDisk, daemon: &Daemon, mut next: u64) -> u64 {
    loop {
        disk.fill();
        let lines: Vec<String> = (next..next + 2000).map(|n| json!({"n": n}).to_string()).collect();
        let response = daemon.connect().post_ndjson("/push/full", lines.join("\n").as_bytes()).unwrap();
        if response.status != 201 {
            check_full(&response);
            return next + response.json()["accepted"].as_u64().unwrap();
        }
        next += 2000;
    }
}

/// Life cycle on a disk that copies on write and that somebody else fills: a write to a segment that exists finds no room.
fn fill_under_existing_segments(sync: &str) {
    let disk = match SmallDisk::btrfs() {
        Ok(disk) => disk,
        Err(error) => return say_not_run("case_39 on a full btrfs", &error),
    };
    let cluster = TestCluster::start_without_fsync().unwrap();
    let args = ["--cores", "1", "--wal-segment-bytes", "4MiB", "--wal-max-bytes", "1GiB", "--sync", sync];
    let mut daemon = disk.start(disk.path(), &cluster.url(), &args);
    daemon.wait_until_drained();
    let mut next = push_small(&mut daemon.connect(), 0..1);
    for round in 0..2 {
        next = fill_and_push_until_refused(&disk, &daemon, next);
        assert!(daemon.log().contains("log_disk_full") && !daemon.log().contains("log_write_failed"));
        // Later a drained segment may make room.
        if round == 0 {
            let mut client = daemon.connect();
            for _ in 0..20 {
                check_full(&push(&mut client, u64::MAX, 100));
            }
            let ready = client.get("/ready").unwrap();
            assert_eq!((ready.status, ready.code()), (503, "log_full".to_owned()));
        }
        // The same after a kill, and after an orderly stop.
        daemon.kill9();
        daemon = disk.start(disk.path(), &cluster.url(), &args);
        daemon.wait_until_drained();
        next = fill_and_push_until_refused(&disk, &daemon, next);
        assert_eq!(daemon.terminate().code(), Some(0));
        daemon = disk.start(disk.path(), &cluster.url(), &args);
        next = fill_and_push_until_refused(&disk, &daemon, next);
        let filler = disk.fill();

        std::fs::remove_file(filler).unwrap();
        let mut client = daemon.connect();
        wait_until_taken(&mut client, next);
        next = push_small(&mut client, next + 1..next + 50);
        daemon.wait_until_drained();
        assert!(numbers(&daemon, &cluster, next).into_iter().eq(0..next), "what was answered, once and in order");
    }
    assert_eq!(daemon.figure("lostRecords"), 0);
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[test]
fn case_39_on_a_full_btrfs_a_write_to_a_segment_that_exists_is_refused_and_what_was_refused_is_not_kept() {
    fill_under_existing_segments("direct");
}

#[test]
fn case_39_the_same_with_writes_through_the_page_cache() {
    fill_under_existing_segments("fdatasync");
}

#[test]
fn case_41_a_write_beyond_a_limit_that_was_lowered_is_refused_and_goes_on_when_the_limit_is_raised() {
    let mut random = Random::new(test_seed());
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let mut next = 0;
    for postgres_is_there in [true, false, true] {
        let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]);
        daemon.wait_until_drained();
        let mut client = daemon.connect();
        // These wait in the log.
        let items: Vec<Value> =
            (next..next + 20 + random.below(50)).map(|n| json!({"queue": "full", "payload": {"n": n}})).collect();
        let body = json!({"items": items, "bufferMs": 60_000, "bufferMax": 100_000});
        assert_eq!(client.push(&body).unwrap().status, 201);
        next += items.len() as u64;
        if !postgres_is_there {
            cluster.stop(StopMode::Fast, PATIENCE).unwrap();
        }
        let limit = |fsize: &str| {
            let limited = Command::new("prlimit").args(["--pid", &daemon.pid().to_string(), fsize]).status();
            assert!(limited.unwrap().success());
        };
        limit("--fsize=8192:");
        check_full(&push(&mut client, u64::MAX, 20_000));
        let mut client = daemon.connect();
        check_full(&push(&mut client, u64::MAX, 0));
        assert!(daemon.log().contains("File too large") && !daemon.log().contains("log_write_failed"));
        limit("--fsize=unlimited:");
        wait_until_taken(&mut client, next);
        next += 1;
        assert_eq!(daemon.terminate().code(), Some(0));
        if !postgres_is_there {
            cluster.start().unwrap();
        }
    }
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]);
    assert!(numbers(&daemon, &cluster, next).into_iter().eq(0..next), "once each and in order");
    assert_eq!(daemon.figure("lostRecords"), 0);
}
