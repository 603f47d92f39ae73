//! The log's files are removed or replaced under the daemon (field report N1): that is a storage failure within a second, never an
//! answer for what is gone with the process. File systems that are no home for a log are named (field reports 18 and 19).

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, data_dir, wait_until};
use std::{
    fs, io,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const NOWHERE: &str = "postgres://nobody@127.0.0.1:1/nowhere";

/// The contract says a second. A machine that is busy with other tests gets more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts a daemon that has messages in its log, has `meddle` change its data directory, and sees that pushes are refused and
/// the daemon ends with 3.
fn meddle(what: &str, meddle: impl FnOnce(&Path)) {
    let outside = data_dir();
    let dir = outside.path().join("data");
    let mut daemon = Daemon::start(&dir, NOWHERE, &["--cores", "1", "--shutdown-grace", "1s"]);
    let mut client = daemon.connect();
    for _ in 0..10 {
        assert_eq!(client.post("/push/q", b"1").unwrap().status, 201);
    }
    meddle(&dir);
    let give_up = Instant::now() + PATIENCE;
    loop {
        match client.post("/push/q", b"2") {
            Ok(response) if response.status == 201 => assert!(Instant::now() < give_up, "{what}: pushes are refused"),
            Ok(response) => {
                assert_eq!((response.status, response.code().as_str()), (503, "storage_failed"), "{what}");
                break;
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{what}");
                break;
            }
        }
    }
    assert_eq!(daemon.wait().code(), Some(3), "{what}: {}", daemon.log());
    assert!(daemon.log().contains("log_removed"), "{what}: {}", daemon.log());
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn a_data_directory_that_is_removed_is_a_storage_failure() {
    meddle("removed", |dir| fs::remove_dir_all(dir).unwrap());
}

#[test]
fn a_data_directory_that_is_renamed_or_replaced_by_a_copy_is_a_storage_failure() {
    meddle("renamed", |dir| fs::rename(dir, dir.with_extension("old")).unwrap());
    meddle("replaced", |dir| {
        let old = dir.with_extension("old");
        fs::rename(dir, &old).unwrap();
        copy(&old, dir);
    });
}

#[test]
fn a_lane_s_directory_or_open_segment_that_is_removed_or_replaced_is_a_storage_failure() {
    let lane = |dir: &Path| {
        fs::read_dir(dir.join("wal"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .find(|p| p.is_dir() && { fs::read_dir(p).unwrap().next().is_some() })
    };
    meddle("lane removed", |dir| fs::remove_dir_all(lane(dir).unwrap()).unwrap());
    let open_segment = |dir: &Path| {
        let mut segments: Vec<_> = fs::read_dir(lane(dir).unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
        segments.sort_unstable();
        segments.swap_remove(0)
    };
    meddle("segment removed", |dir| fs::remove_file(open_segment(dir)).unwrap());
    meddle("segment replaced", |dir| {
        let segment = open_segment(dir);
        let old = segment.with_extension("old");
        copy(&segment, &old);
        fs::rename(&old, &segment).unwrap();
    });
}

/// Cuts all segments below `dir` to nothing.
fn truncate_segments(dir: &Path) {
    for lane in fs::read_dir(dir.join("wal")).unwrap().map(|e| e.unwrap().path()).filter(|path| path.is_dir()) {
        for file in fs::read_dir(lane).unwrap().map(|e| e.unwrap().path()).filter(|path| path.is_file()) {
            fs::File::options().write(true).open(file).unwrap().set_len(0).unwrap();
        }
    }
}

#[test]
fn segments_that_are_truncated_are_a_storage_failure() {
    meddle("truncated", truncate_segments);
}

#[test]
fn a_list_of_incarnations_that_is_removed_is_written_again_and_the_directory_goes_on_as_itself() {
    let cluster = forebay_cluster::TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]);
    daemon.connect().post("/push/q?wait=postgres", b"1").unwrap();
    daemon.wait_until_drained();
    for name in ["incarnations", "incarnations.spare"] {
        fs::remove_file(dir.path().join("wal").join(name)).unwrap();
    }
    wait_until("it is told", || daemon.log().contains("wal/incarnations was removed"));
    daemon.kill9();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]);
    assert_eq!(daemon.connect().post("/push/q?wait=postgres", b"2").unwrap().status, 201);
    daemon.wait_until_drained();
    assert!(!daemon.log().contains("log_copied"), "{}", daemon.log());
}

#[test]
fn segments_that_are_filled_drained_and_released_are_no_failure() {
    let cluster = forebay_cluster::TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let arguments = ["--cores", "2", "--wal-segment-bytes", "1MiB", "--wal-max-bytes", "64MiB"];
    let daemon = Daemon::start(dir.path(), &cluster.url(), &arguments);
    let mut client = daemon.connect();
    let body = format!("\"{}\"", "x".repeat(100_000));
    let until = Instant::now() + Duration::from_secs(5);
    let mut pushed = 0;
    while Instant::now() < until {
        let status = client.post("/push/q", body.as_bytes()).unwrap().status;
        assert!(status == 201 || status == 503, "{status}");
        pushed += u64::from(status == 201);
    }
    assert!(pushed > 100, "ten segments are filled: {pushed}");
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
}

#[test]
fn on_a_file_system_unsuitable_answers_say_memory_and_a_warning_names_it() {
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let daemon = Daemon::start(&memory.path().join("data"), NOWHERE, &["--cores", "1"]);
    let response = daemon.connect().post("/push/q", b"1").unwrap();
    assert_eq!((response.status, response.header("forebay-durability")), (201, Some("memory")));
    wait_until("it is said", || daemon.log().contains("file_system_unsuitable"));
    assert!(daemon.log().contains("tmpfs"));
    let disk = data_dir();
    let daemon = Daemon::start(disk.path(), NOWHERE, &["--cores", "1"]);
    let response = daemon.connect().post("/push/q", b"1").unwrap();
    assert_eq!((response.status, response.header("forebay-durability")), (201, Some("disk")));
    assert!(!daemon.log().contains("file_system"), "{}", daemon.log());
}
