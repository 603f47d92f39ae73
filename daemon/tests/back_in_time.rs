//! The database or the log went back in time, or the database is another one. The daemon reports it, restores what the
//! log retains, and otherwise waits for an operator's decision.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, data_dir, forebay, rows, wait_until};
use forebay_cluster::{StopMode, TestCluster};
use serde_json::{Value, json};
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const SMALL: [&str; 4] = ["--cores", "1", "--wal-segment-bytes", "1MiB"];
const RETAIN: [&str; 2] = ["--retain-drained", "1h"];

/// Pushes each number with 30 KB and without a transaction id, and waits until PostgreSQL has them.
fn push(daemon: &Daemon, numbers: std::ops::Range<u64>) {
    let mut client = daemon.connect();
    for n in numbers {
        let item = json!({"queue": "q", "payload": {"n": n, "fill": "x".repeat(30_000)}});
        assert_eq!(client.push(&json!({ "items": [item] })).unwrap().status, 201);
    }
    daemon.wait_until_drained();
}

fn numbers(cluster: &TestCluster) -> Vec<u64> {
    let sql = "SELECT payload->>'n' FROM forebay.message_log WHERE queue = 'q' ORDER BY seq";
    rows(cluster, sql).iter().map(|row| row[0].parse().unwrap()).collect()
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn pgdata(cluster: &TestCluster) -> PathBuf {
    cluster.dir().join("postgres/pgdata")
}

fn backup(cluster: &TestCluster) -> PathBuf {
    let to = cluster.dir().join("backup");
    cluster.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
    copy(&pgdata(cluster), &to);
    cluster.start().unwrap();
    to
}

fn restore(cluster: &TestCluster, backup: &Path) {
    cluster.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
    copy(backup, &pgdata(cluster));
    cluster.start().unwrap();
}

fn checkpoint(command: &[&str], data_dir: &Path, cluster: &TestCluster) -> Output {
    let at = ["--data-dir", data_dir.to_str().unwrap(), "--postgres", &cluster.url()];
    forebay(&[&["checkpoint"], command, &at].concat())
}

fn show(data_dir: &Path, cluster: &TestCluster) -> (Option<i32>, Value) {
    let output = checkpoint(&["show", "--json"], data_dir, cluster);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

fn set(to: &str, data_dir: &Path, cluster: &TestCluster) -> Option<i32> {
    let output = checkpoint(&["set", "--to", to, "--yes"], data_dir, cluster);
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output.status.code()
}

/// Starts a daemon that pauses delivery because log and database do not match.
fn start_paused(data_dir: &Path, cluster: &TestCluster, what: &str) -> Daemon {
    let daemon = Daemon::start(data_dir, &cluster.url(), &SMALL);
    daemon.wait_until_paused("checkpoint_mismatch", &[what, "checkpoint set --to", "checkpoint show"]);
    daemon
}

/// Pushes each number as [`push`] does, while delivery is paused.
fn push_while_paused(daemon: &Daemon, numbers: std::ops::Range<u64>) {
    let mut client = daemon.connect();
    for n in numbers {
        let response = client.push(&json!({ "items": [{"queue": "q", "payload": {"n": n}}] })).unwrap();
        assert_eq!((response.status, &response.json()[0]["status"]), (201, &json!("buffered")));
    }
}

#[test]
fn case_61_restored_to_yesterday_while_the_daemon_runs_what_was_lost_is_delivered_again_from_retained_segments() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &[&SMALL[..], &RETAIN].concat());
    push(&daemon, 0..100);
    let backup = backup(&cluster);
    push(&daemon, 100..300);
    assert!(daemon.figure("retainedBytes") >= 4 << 20, "{}", daemon.buffers());
    restore(&cluster, &backup);
    push(&daemon, 300..310);
    wait_until("all are there", || numbers(&cluster).len() >= 310);
    assert!(numbers(&cluster).into_iter().eq(0..310), "each once and in order");
    assert!(daemon.log().contains("the database went back in time; what it lost is delivered again"));
    // Once more across a restart, to a time before the messages were delivered again.
    assert!(daemon.terminate().success());
    restore(&cluster, &backup);
    let daemon = Daemon::start(dir.path(), &cluster.url(), &[&SMALL[..], &RETAIN].concat());
    daemon.wait_until_drained();
    push(&daemon, 310..320);
    assert!(numbers(&cluster).into_iter().eq(0..320));
    assert_eq!(show(dir.path(), &cluster).0, Some(0));
}

#[test]
fn case_61_restored_to_yesterday_without_retained_segments_it_is_refused_aloud_until_a_person_decides() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &SMALL);
    push(&daemon, 0..50);
    let backup = backup(&cluster);
    push(&daemon, 50..250);
    restore(&cluster, &backup);
    daemon.wait_until_paused("checkpoint_mismatch", &["behind", "checkpoint set --to log-oldest --yes"]);
    assert!(daemon.terminate().success());
    let daemon = start_paused(dir.path(), &cluster, "went back in time");
    let (code, shown) = show(dir.path(), &cluster);
    assert_eq!((code, &shown["fits"]), (Some(1), &json!(false)));
    let text = String::from_utf8(checkpoint(&["show"], dir.path(), &cluster).stdout).unwrap();
    assert!(text.contains("--to log-oldest --yes") && !text.contains("--to database"), "{text}");
    assert_eq!(
        checkpoint(&["set", "--to", "log-oldest"], dir.path(), &cluster).status.code(),
        Some(2),
        "not confirmed"
    );
    assert_eq!(set("database", dir.path(), &cluster), Some(2), "the log does not have what comes there");
    push_while_paused(&daemon, 250..255);
    assert_eq!(set("log-oldest", dir.path(), &cluster), Some(0));
    daemon.wait_until_drained();
    push(&daemon, 255..260);
    let found = numbers(&cluster);
    let oldest = found[50];
    assert!(oldest > 50 && oldest < 250, "what came between is lost: {oldest}");
    assert!(found.iter().copied().eq((0..50).chain(oldest..260)), "the rest is there once: {found:?}");
}

#[test]
fn case_61_another_database_is_refused_aloud_until_a_person_decides() {
    let (cluster, other) = (TestCluster::start_without_fsync().unwrap(), TestCluster::start_without_fsync().unwrap());
    // Test clusters are copies of one template and share its system identifier. Only a cluster from initdb has another.
    let identifiers = "SELECT system_identifier FROM pg_control_system()";
    assert_eq!(rows(&cluster, identifiers), rows(&other, identifiers));
    other.psql("CREATE DATABASE moved").unwrap();
    let moved_url = other.url().replace("/forebay?", "/moved?");
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &SMALL);
    push(&daemon, 0..100);
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(dir.path(), &moved_url, &SMALL);
    daemon.wait_until_paused("checkpoint_mismatch", &["another database", "checkpoint set --to mismatch --yes"]);
    // The dump moves the whole database, so the checkpoint moves with it.
    let dump = Command::new(cluster.binaries().path("pg_dump")).args(["-d", &cluster.url()]).output().unwrap();
    assert!(dump.status.success());
    let sql = other.dir().join("dump.sql");
    std::fs::write(&sql, dump.stdout).unwrap();
    let mut load = Command::new(other.binaries().path("psql"));
    load.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &moved_url, "-f"]).arg(&sql);
    assert!(load.output().unwrap().status.success());
    daemon.wait_until_paused("checkpoint_mismatch", &["another database", "checkpoint set --to database --yes"]);
    let at = ["--data-dir", dir.path().to_str().unwrap(), "--postgres", &moved_url];
    let text = String::from_utf8(forebay(&[&["checkpoint", "show"][..], &at].concat()).stdout).unwrap();
    assert!(text.contains("--to database --yes"), "{text}");
    let set = |to: &str| forebay(&[&["checkpoint", "set", "--to", to, "--yes"][..], &at].concat()).status.code();
    assert_eq!(set("database"), Some(0));
    push(&daemon, 100..110);
    let sql = "SELECT count(*), count(DISTINCT payload->>'n') FROM forebay.message_log";
    let count = Command::new(other.binaries().path("psql")).args(["-XAtd", &moved_url, "-c", sql]).output().unwrap();
    assert_eq!(String::from_utf8(count.stdout).unwrap().trim(), "110|110");
    assert!(daemon.terminate().success());
    // Back to the first cluster, which has only what it had before: only new messages are delivered.
    let daemon = start_paused(dir.path(), &cluster, "another database");
    let set = |to: &str| checkpoint(&["set", "--to", to, "--yes"], dir.path(), &cluster).status.code();
    assert_eq!(set("log-end"), Some(0));
    push(&daemon, 110..120);
    assert!(numbers(&cluster).into_iter().eq((0..100).chain(110..120)));
}

#[test]
fn case_62_a_data_directory_of_yesterday_is_refused_aloud_until_a_person_decides() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let parent = data_dir();
    let (dir, kept) = (parent.path().join("data"), parent.path().join("kept"));
    let daemon = Daemon::start(&dir, &cluster.url(), &SMALL);
    push(&daemon, 0..20);
    let remembered =
        || std::fs::read_to_string(dir.join("wal/drained")).is_ok_and(|text| text.contains("\"ordinal\":20"));
    wait_until("it is written down how far the log is drained", remembered);
    copy(&dir, &kept);
    push(&daemon, 20..100);
    assert!(daemon.terminate().success());
    copy(&kept, &dir);
    let daemon = start_paused(&dir, &cluster, "ahead of the log");
    let (code, shown) = show(&dir, &cluster);
    assert_eq!(code, Some(1));
    assert!(shown["mismatch"].as_str().unwrap().contains("ahead of the log"), "{shown}");
    assert_eq!(set("database", &dir, &cluster), Some(2), "the log has no such place");
    push_while_paused(&daemon, 100..110);
    assert_eq!(set("mismatch", &dir, &cluster), Some(0));
    push(&daemon, 110..120);
    assert!(numbers(&cluster).into_iter().eq(0..120));
}

#[test]
fn case_62_an_older_snapshot_goes_on_behind_what_the_checkpoint_proves_to_be_delivered() {
    for is_running in [true, false] {
        let cluster = TestCluster::start_without_fsync().unwrap();
        let parent = data_dir();
        let (dir, kept, drained) =
            (parent.path().join("data"), parent.path().join("kept"), parent.path().join("drained"));
        let daemon = Daemon::start(&dir, &cluster.url(), &SMALL);
        push(&daemon, 0..5);
        let remembered =
            || std::fs::read_to_string(dir.join("wal/drained")).is_ok_and(|text| text.contains("\"ordinal\":5"));
        wait_until("it is written down how far the log is drained", remembered);
        std::fs::copy(dir.join("wal/drained"), &drained).unwrap();
        push(&daemon, 5..20);
        copy(&dir, &kept);
        push(&daemon, 20..60);
        daemon.kill9();
        copy(&kept, &dir);
        // What it says lags behind.
        std::fs::copy(&drained, dir.join("wal/drained")).unwrap();
        let daemon = start_paused(&dir, &cluster, "ahead of the log");
        push_while_paused(&daemon, 60..70);
        let daemon = if is_running {
            assert_eq!(set("mismatch", &dir, &cluster), Some(0));
            daemon
        } else {
            assert!(daemon.terminate().success());
            assert_eq!(set("mismatch", &dir, &cluster), Some(0));
            Daemon::start(&dir, &cluster.url(), &SMALL)
        };
        push(&daemon, 70..75);
        assert!(numbers(&cluster).into_iter().eq(0..75), "each once and in order");
    }
}

#[test]
fn what_may_come_twice_is_told_where_only_the_data_directory_says_how_far_the_drain_was() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &SMALL);
    push(&daemon, 0..5);
    let file = dir.path().join("wal/drained");
    let remembered = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"ordinal\":5"));
    wait_until("it is written down how far the log is drained", remembered);
    let drained = std::fs::read(&file).unwrap();
    push(&daemon, 5..20);
    assert!(daemon.terminate().success());
    std::fs::write(&file, drained).unwrap();
    cluster.psql("DELETE FROM forebay.drain_checkpoints").unwrap();
    let _daemon = start_paused(dir.path(), &cluster, "row is gone");
    let output = checkpoint(&["set", "--to", "mismatch", "--yes"], dir.path(), &cluster);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("(record 5)") && told.contains("up to 15 records may come twice"), "{told}");
}

#[test]
fn case_62_a_data_directory_from_before_the_last_start_is_refused_as_a_copy_and_goes_on_with_an_id_of_its_own() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let parent = data_dir();
    let (dir, kept) = (parent.path().join("data"), parent.path().join("kept"));
    let daemon = Daemon::start(&dir, &cluster.url(), &SMALL);
    push(&daemon, 0..20);
    assert!(daemon.terminate().success());
    copy(&dir, &kept);
    let daemon = Daemon::start(&dir, &cluster.url(), &SMALL);
    push(&daemon, 20..100);
    assert!(daemon.terminate().success());
    copy(&kept, &dir);
    let daemon = Daemon::start(&dir, &cluster.url(), &SMALL);
    wait_until("it is refused", || daemon.log().contains("log_copied"));
    push_while_paused(&daemon, 100..110);
    assert_eq!(set("log-end", &dir, &cluster), Some(2), "the checkpoint is the other one's");
    let at = ["--data-dir", dir.to_str().unwrap(), "--postgres", &cluster.url()];
    assert_eq!(forebay(&[&["wal", "fork"][..], &at].concat()).status.code(), Some(0));
    push(&daemon, 110..120);
    assert!(numbers(&cluster).into_iter().eq(0..120));
}

#[test]
fn a_decision_that_meets_a_checkpoint_which_is_just_being_made_fails_and_does_not_pass_it_over() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &SMALL);
    push(&daemon, 0..3);
    assert!(daemon.terminate().success());
    cluster
        .psql("CREATE TABLE kept AS TABLE forebay.drain_checkpoints; DELETE FROM forebay.drain_checkpoints")
        .unwrap();
    let ordinals = "SELECT ordinals[1] FROM forebay.drain_checkpoints";
    let mut other = Command::new(cluster.binaries().path("psql"));
    let mut other = other.args(["-Xqd", &cluster.url()]).stdin(Stdio::piped()).spawn().unwrap();
    let mut statements = other.stdin.take().unwrap();
    statements.write_all(b"BEGIN; INSERT INTO forebay.drain_checkpoints TABLE kept;\n").unwrap();
    let made = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE 'INSERT%'";
    wait_until("another checkpoint is made", || rows(&cluster, made) == [["1"]]);
    let decided = std::thread::scope(|scope| {
        let decision = scope.spawn(|| set("log-oldest", dir.path(), &cluster));
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'forebay command' AND wait_event_type = 'Lock'";
        wait_until("the decision waits for it", || rows(&cluster, waits) == [["1"]]);
        statements.write_all(b"COMMIT;\n").unwrap();
        decision.join().unwrap()
    });
    drop(statements);
    assert!(other.wait().unwrap().success());
    assert_eq!((decided, rows(&cluster, ordinals)), (Some(5), vec![vec!["3".to_owned()]]));
    assert_eq!(set("log-oldest", dir.path(), &cluster), Some(0));
    assert_eq!(rows(&cluster, ordinals), [["0"]]);
}

#[test]
fn retained_segments_are_not_pending_make_room_at_the_quota_and_are_shown() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let args = [&SMALL[..], &RETAIN, &["--wal-max-bytes", "8MiB"]].concat();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    push(&daemon, 0..60);
    assert!(daemon.figure("retainedBytes") > 0);
    let daemon = {
        assert!(daemon.terminate().success());
        cluster.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
        Daemon::start(dir.path(), &cluster.url(), &args)
    };
    assert_eq!((daemon.figure("pending"), daemon.figure("usedBytes")), (0, 0), "also while PostgreSQL is away");
    let ls = forebay(&["wal", "ls", "--data-dir", dir.path().to_str().unwrap()]);
    let listed = String::from_utf8(ls.stdout).unwrap();
    assert!(listed.contains("drained") && listed.contains("data"), "{listed}");
    cluster.start().unwrap();
    // Far more than the quota: retained segments are deleted first, and no push is refused.
    push(&daemon, 60..500);
    let buffers = daemon.buffers();
    assert!(buffers["retainedSegmentsGivenUp"].as_u64().unwrap() > 0, "{buffers}");
    assert!(buffers["segmentBytesTotal"].as_u64().unwrap() <= 8 << 20, "{buffers}");
    assert!(numbers(&cluster).into_iter().eq(0..500));
}

#[test]
fn a_plain_role_may_ask_which_database_and_backend_it_has_and_where_it_may_not_the_daemon_goes_on() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.psql("CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE forebay TO plain").unwrap();
    let url = cluster.url().replace("forebay@", "plain@");
    let dirs = [data_dir(), data_dir()];
    let named = "SELECT count(*), count(system_identifier), count(database_oid), count(backend_start) \
                 FROM forebay.drain_checkpoints";
    push(&Daemon::start(dirs[0].path(), &url, &SMALL), 0..3);
    assert_eq!(rows(&cluster, named), [["1"; 4]]);
    cluster.psql("REVOKE EXECUTE ON FUNCTION pg_control_system(), pg_current_wal_insert_lsn() FROM PUBLIC").unwrap();
    cluster.psql("REVOKE SELECT ON pg_stat_activity FROM PUBLIC").unwrap();
    push(&Daemon::start(dirs[1].path(), &url, &SMALL), 3..6);
    assert_eq!(rows(&cluster, named), [["2", "1", "1", "1"]]);
    push(&Daemon::start(dirs[0].path(), &url, &SMALL), 6..9);
    assert_eq!(rows(&cluster, named), [["2", "1", "1", "0"]], "what is not known does not stay as it was");
    assert_eq!(numbers(&cluster).len(), 9);
}

#[test]
fn the_commands_reach_the_private_postgresql_of_a_running_and_of_a_stopped_daemon() {
    let dir = data_dir();
    let start = || {
        let daemon = Daemon::start(dir.path(), "embedded", &SMALL);
        daemon.wait_until_drained();
        daemon
    };
    let run = |args: &[&str]| {
        let output = forebay(&[args, &["--data-dir", dir.path().to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let daemon = start();
    push(&daemon, 0..3);
    assert!(run(&["checkpoint", "show"]).contains("they fit"));
    assert_eq!(run(&["dead-letters", "ls", "--json"]), "");
    push(&daemon, 3..6);
    assert!(daemon.terminate().success());
    let shown: Value = serde_json::from_str(&run(&["checkpoint", "show", "--json"])).unwrap();
    assert_eq!((&shown["fits"], shown["lanes"][0]["end"]["ordinal"].as_u64()), (&json!(true), Some(6)));
    assert_eq!(run(&["dead-letters", "ls", "--json"]), "");
    assert!(run(&["checkpoint", "set", "--to", "database", "--yes"]).contains("record 6"));
    let pid_file = dir.path().join("postgres/pgdata/postmaster.pid");
    assert!(!pid_file.exists(), "what a command starts it stops");
    let daemon = start();
    push(&daemon, 6..9);
    assert!(daemon.terminate().success());
}

#[test]
fn how_far_the_log_is_drained_is_written_down_again_after_an_attempt_that_failed_and_told_once() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &SMALL);
    push(&daemon, 0..3);
    let [file, blocked] = ["wal/drained", "wal/drained.tmp"].map(|name| dir.path().join(name));
    let written = || {
        // The file is missing until it is written for the first time.
        let text = std::fs::read_to_string(&file).ok()?;
        let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        line["lanes"][0]["ordinal"].as_u64()
    };
    wait_until("it is written down", || written() == Some(3));
    // A directory in place of the file makes every write to it fail, also for root.
    std::fs::create_dir(&blocked).unwrap();
    push(&daemon, 3..6);
    let told = || daemon.log().matches("could not be written down").count();
    wait_until("it is told", || told() > 0);
    // The pushes fill several segments; then the log is idle again.
    push(&daemon, 6..100);
    let before = daemon.figure("drainTransactions");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!((written(), told(), daemon.figure("drainTransactions")), (Some(3), 1, before));
    // Nothing is pushed from here on.
    std::fs::remove_dir(&blocked).unwrap();
    wait_until("it is written down", || written() == Some(100));
    // The failure is reported again.
    std::fs::create_dir(&blocked).unwrap();
    push(&daemon, 100..103);
    wait_until("it is told", || told() == 2);
}
