//! Two data directories with the same log on one database: of two copies one is refused by name, and once it has an id of its own
//! all that was answered is in PostgreSQL, once.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod lists;
mod live;
mod starts;

use common::{Daemon, data_dir, forebay, rows, wait_until};
use forebay_cluster::{StopMode, TestCluster};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const SMALL: [&str; 4] = ["--cores", "1", "--wal-segment-bytes", "1MiB"];

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Two directories in one place.
fn dirs(parent: &tempfile::TempDir) -> (PathBuf, PathBuf) {
    (parent.path().join("a"), parent.path().join("b"))
}

fn start(dir: &Path, cluster: &TestCluster) -> Daemon {
    Daemon::start(dir, &cluster.url(), &SMALL)
}

/// Pushes messages `<name>-0`, `<name>-1`, …, each filled to `bytes`; all are answered.
fn push(daemon: &Daemon, name: &str, count: usize, bytes: usize) -> Vec<String> {
    let mut client = daemon.connect();
    let keys: Vec<String> = (0..count).map(|n| format!("{name}-{n}")).collect();
    for key in &keys {
        let body = format!("{{\"key\":\"{key}\",\"fill\":\"{}\"}}", "x".repeat(bytes));
        assert_eq!(client.post("/push/q", body.as_bytes()).unwrap().status, 201);
    }
    keys
}

/// The keys in the table, in order.
fn keys(cluster: &TestCluster) -> Vec<String> {
    let found = rows(cluster, "SELECT payload->>'key' FROM forebay.message_log WHERE queue = 'q' ORDER BY 1");
    found.into_iter().map(|mut row| row.remove(0)).collect()
}

/// Every one of `answered` is in the table exactly once, and nothing else is.
#[track_caller]
fn check_once(cluster: &TestCluster, answered: impl IntoIterator<Item = String>) {
    let mut answered: Vec<String> = answered.into_iter().collect();
    answered.sort();
    assert_eq!(keys(cluster), answered);
}

/// Runs the daemon of `dir` until it has nothing more to deliver.
fn drain(dir: &Path, cluster: &TestCluster) {
    let daemon = start(dir, cluster);
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
}

/// Delivery of `daemon` is refused because `other` has the checkpoint. Pushes are taken all the same.
fn check_refused(daemon: &Daemon, other: &Path) {
    wait_until("the copy is refused", || is_refused(daemon));
    let log = daemon.log();
    assert!(log.contains(&format!("{} on ", other.display())) && log.contains("wal fork"), "{log}");
    let ready = daemon.connect().get("/ready").unwrap();
    assert_eq!((ready.status, ready.json()["delivery"].as_str()), (200, Some("paused")));
}

fn is_refused(daemon: &Daemon) -> bool {
    daemon.log().contains("log_copied")
}

fn is_drained(daemon: &Daemon) -> bool {
    let buffers = daemon.buffers();
    buffers["pending"] == 0 && buffers["dbHealthy"] == true
}

fn command(words: &[&str], dir: &Path, cluster: &TestCluster) -> Output {
    let at = ["--data-dir", dir.to_str().unwrap(), "--postgres", &cluster.url()];
    forebay(&[words, &at].concat())
}

fn fork(dir: &Path, cluster: &TestCluster) {
    let output = command(&["wal", "fork"], dir, cluster);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn of_two_copies_that_took_pushes_without_postgresql_the_second_one_is_refused_and_forked_delivers_all_that_it_answered()
 {
    for (of_a, of_b, fill) in [(3, 3, 1), (3, 5, 1), (3, 8, 200), (8, 3, 200)] {
        let cluster = TestCluster::start_without_fsync().unwrap();
        let parent = data_dir();
        let (a, b) = dirs(&parent);
        let daemon = start(&a, &cluster);
        let mut answered = push(&daemon, "common", 1, 1);
        daemon.wait_until_drained();
        assert!(daemon.terminate().success());
        copy(&a, &b);
        cluster.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
        let [first, second] = [start(&a, &cluster), start(&b, &cluster)];
        answered.extend(push(&first, "a", of_a, 1));
        answered.extend(push(&second, "b", of_b, fill));
        assert!(first.terminate().success() && second.terminate().success());
        cluster.start().unwrap();
        drain(&a, &cluster);
        let second = start(&b, &cluster);
        check_refused(&second, &a);
        check_once(&cluster, answered.iter().filter(|key| !key.starts_with('b')).cloned());
        let shown = String::from_utf8(command(&["checkpoint", "show"], &b, &cluster).stdout).unwrap();
        assert!(shown.contains("wal fork") && shown.contains(a.to_str().unwrap()), "{shown}");
        for place in ["database", "log-end"] {
            let decided = command(&["checkpoint", "set", "--to", place, "--yes"], &b, &cluster);
            assert_eq!(decided.status.code(), Some(2), "that is the other one's to decide");
        }
        // The daemon runs, or is stopped.
        let is_running = of_b == 5;
        let second = if is_running {
            Some(second)
        } else {
            assert!(second.terminate().success());
            None
        };
        fork(&b, &cluster);
        let second = second.unwrap_or_else(|| start(&b, &cluster));
        second.wait_until_drained();
        check_once(&cluster, answered.clone());
        assert!(second.terminate().success());
        assert_eq!(command(&["checkpoint", "show"], &b, &cluster).status.code(), Some(0));
        assert_eq!(command(&["wal", "fork"], &a, &cluster).status.code(), Some(2), "it is no copy");
        // Both go on, each with a checkpoint of its own.
        let [first, second] = [start(&a, &cluster), start(&b, &cluster)];
        answered.extend(push(&first, "more-a", 3, 1));
        answered.extend(push(&second, "more-b", 3, 1));
        [&first, &second].iter().for_each(|daemon| daemon.wait_until_drained());
        check_once(&cluster, answered);
    }
}

#[test]
fn a_directory_that_was_moved_goes_on() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let parent = data_dir();
    let (a, b) = dirs(&parent);
    let daemon = start(&a, &cluster);
    let mut answered = push(&daemon, "a", 3, 1);
    daemon.wait_until_drained();
    daemon.kill9();
    std::fs::rename(&a, &b).unwrap();
    let daemon = start(&b, &cluster);
    answered.extend(push(&daemon, "b", 3, 1));
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
    // Onto another disk, as far as the daemon can see: the original is deleted.
    copy(&b, &a);
    std::fs::remove_dir_all(&b).unwrap();
    let daemon = start(&a, &cluster);
    answered.extend(push(&daemon, "c", 3, 1));
    daemon.wait_until_drained();
    check_once(&cluster, answered);
}

/// Makes directory and database as a release without incarnations left them.
fn strip(dir: &Path, cluster: &TestCluster) {
    for name in ["incarnations", "incarnations.spare"] {
        std::fs::remove_file(dir.join("wal").join(name)).unwrap();
    }
    cluster
        .psql(
            "UPDATE forebay.drain_checkpoints SET incarnation = NULL, round_id = NULL; DELETE FROM forebay.log_owners",
        )
        .unwrap();
}

#[test]
fn a_directory_of_an_earlier_release_is_taken_over_and_of_two_copies_of_it_one_is_refused() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let parent = data_dir();
    let (a, b) = dirs(&parent);
    drain(&a, &cluster);
    cluster.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
    let daemon = start(&a, &cluster);
    let mut answered = push(&daemon, "common", 3, 1);
    daemon.kill9();
    cluster.start().unwrap();
    strip(&a, &cluster);
    copy(&a, &b);
    cluster.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
    let [first, second] = [start(&a, &cluster), start(&b, &cluster)];
    answered.extend(push(&first, "a", 3, 1));
    answered.extend(push(&second, "b", 3, 1));
    assert!(first.terminate().success() && second.terminate().success());
    cluster.start().unwrap();
    drain(&a, &cluster);
    let second = start(&b, &cluster);
    check_refused(&second, &a);
    fork(&b, &cluster);
    second.wait_until_drained();
    check_once(&cluster, answered);
}

#[test]
fn records_that_both_have_are_left_to_the_other_directory_or_delivered_here_as_a_person_says() {
    for (choice, is_common_delivered) in [("leave", false), ("deliver", true)] {
        let cluster = TestCluster::start_without_fsync().unwrap();
        let parent = data_dir();
        let (a, b) = dirs(&parent);
        drain(&a, &cluster);
        cluster.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
        let daemon = start(&a, &cluster);
        let common = push(&daemon, "common", 3, 1);
        assert!(daemon.terminate().success());
        copy(&a, &b);
        let daemon = start(&b, &cluster);
        let own = push(&daemon, "b", 3, 1);
        assert!(daemon.terminate().success());
        cluster.start().unwrap();
        // The original takes the checkpoint, and is gone before PostgreSQL takes anything.
        cluster
            .psql(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                 $$BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END$$; \
                 CREATE TRIGGER refuse BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION refuse()",
            )
            .unwrap();
        let daemon = start(&a, &cluster);
        let owned = "SELECT count(*) FROM forebay.log_owners WHERE directory LIKE '%/a'";
        let incarnations = "SELECT jsonb_array_length(incarnations) FROM forebay.log_owners";
        wait_until("it has the checkpoint", || {
            rows(&cluster, owned) == [["1"]] && rows(&cluster, incarnations) != [["1"]]
        });
        daemon.kill9();
        cluster.psql("DROP TRIGGER refuse ON forebay.messages").unwrap();
        let daemon = start(&b, &cluster);
        check_refused(&daemon, &a);
        let undecided = command(&["wal", "fork"], &b, &cluster);
        assert_eq!(undecided.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&undecided.stderr).contains("3 records from before the copy"), "{undecided:?}");
        let decided = command(&["wal", "fork", "--common", choice], &b, &cluster);
        assert_eq!(decided.status.code(), Some(0), "{decided:?}");
        daemon.wait_until_drained();
        check_once(&cluster, own.iter().cloned().chain(common.iter().filter(|_| is_common_delivered).cloned()));
    }
}

#[test]
fn the_oldest_record_of_a_forked_log_is_where_it_was_forked() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let parent = data_dir();
    let (a, b) = dirs(&parent);
    let daemon = start(&a, &cluster);
    let common = push(&daemon, "common", 3, 1);
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
    copy(&a, &b);
    drain(&a, &cluster);
    let daemon = start(&b, &cluster);
    check_refused(&daemon, &a);
    let own = push(&daemon, "b", 2, 1);
    fork(&b, &cluster);
    daemon.wait_until_drained();
    let begin_again = || {
        let output = command(&["checkpoint", "set", "--to", "log-oldest", "--yes"], &b, &cluster);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    };
    begin_again();
    wait_until("its own records come again", || keys(&cluster).len() == 7);
    assert!(daemon.terminate().success());
    begin_again();
    drain(&b, &cluster);
    check_once(&cluster, common.into_iter().chain([own.clone(), own.clone(), own].concat()));
}

#[test]
fn a_checkpoint_between_no_two_records_pauses_delivery() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let parent = data_dir();
    let dir = parent.path().join("data");
    let daemon = start(&dir, &cluster);
    let mut answered = push(&daemon, "before", 1, 1);
    daemon.wait_until_drained();
    cluster.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
    answered.extend(push(&daemon, "after", 5, 200));
    assert!(daemon.terminate().success());
    cluster.start().unwrap();
    let place = rows(&cluster, "SELECT positions[1], ordinals[1] FROM forebay.drain_checkpoints").remove(0);
    let block = "(positions[1] + 4095) / 4096 * 4096";
    for change in [
        // Into the first frame of the next block.
        format!("positions[1] = {block} + 8"),
        // To the start of a record, with the ordinal of another one.
        format!("positions[1] = {block} + 3 * 4096"),
        "ordinals[1] = ordinals[1] + 1".to_owned(),
        "ordinals[1] = ordinals[1] - 1".to_owned(),
    ] {
        cluster.psql(&format!("UPDATE forebay.drain_checkpoints SET {change}")).unwrap();
        let shown = command(&["checkpoint", "show"], &dir, &cluster);
        assert_eq!(shown.status.code(), Some(1), "{change}: {shown:?}");
        let daemon = start(&dir, &cluster);
        wait_until(&change, || daemon.log().contains("is not between two records of the log"));
        assert!(daemon.log().contains("checkpoint_mismatch"));
        let [position, ordinal] = [&place[0], &place[1]];
        let back = format!("UPDATE forebay.drain_checkpoints SET positions[1] = {position}, ordinals[1] = {ordinal}");
        daemon.kill9();
        cluster.psql(&back).unwrap();
    }
    drain(&dir, &cluster);
    check_once(&cluster, answered);
}
