//! No reader of the log lines, and no full disk under them, can stop the daemon (field report 1): pushes, the drain, SIGTERM and
//! the exit code are as ever.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, data_dir, stage::payload_texts, wait_until};
use forebay_cluster::{StopMode, TestCluster};
use std::time::Duration;

const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a daemon whose streams the shell sets up by `redirection`, through an outage of PostgreSQL, to its end in order.
/// Returns how many lines of the log it dropped.
fn run(redirection: &str) -> u64 {
    let dir = data_dir();
    let cluster = TestCluster::start_without_fsync().unwrap();
    let script = format!("exec \"$@\" {redirection}");
    let launcher = ["bash", "-c", &script, "bash"];
    // At this level there are several lines for each push.
    let arguments = ["--cores", "2", "--log", "trace"];
    let mut daemon = Daemon::start_unheard(&launcher, dir.path(), &cluster.url(), &arguments);
    let mut count = 0;
    let mut push = |daemon: &Daemon| {
        let mut client = daemon.connect();
        for _ in 0..200 {
            let response = client.post("/push/streams", format!("{count}").as_bytes()).unwrap();
            assert_eq!(response.status, 201);
            count += 1;
        }
    };
    daemon.wait_until_drained();
    push(&daemon);
    cluster.cluster().stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
    push(&daemon);
    wait_until("PostgreSQL is away", || daemon.buffers()["dbHealthy"] == false);
    // Each makes its core log that the commit is not waited for any longer.
    for _ in 0..4 {
        assert_eq!(daemon.connect().post("/push/streams?wait=postgres", b"-1").unwrap().status, 201);
    }
    cluster.cluster().start().unwrap();
    push(&daemon);
    daemon.wait_until_drained();
    assert_eq!(payload_texts(&daemon, &cluster, "streams", count + 4).len(), count + 4);
    let dropped = daemon.figure("droppedLogLines");
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    dropped
}

#[test]
fn a_full_device_under_standard_error_drops_lines_and_nothing_else() {
    assert!(run("2>/dev/full >/dev/null") > 0);
}

#[test]
fn a_full_device_under_standard_output_loses_the_banner_and_nothing_else() {
    assert_eq!(run(">/dev/full 2>/dev/null"), 0);
}

#[test]
fn closed_streams_are_no_failure() {
    run(">&- 2>&-");
}

#[test]
fn a_reader_that_leaves_after_a_few_lines_drops_lines_and_nothing_else() {
    assert!(run("> >(head -n 3 >/dev/null) 2>&1") > 0);
}

#[test]
fn a_failure_ends_the_daemon_with_its_code_though_nobody_reads_the_reason() {
    let outside = data_dir();
    let dir = outside.path().join("data");
    let launcher = ["bash", "-c", "exec \"$@\" 2> >(exec sleep 120 >/dev/null 2>&1) >/dev/null", "bash"];
    let arguments = ["--log", "trace", "--cores", "1", "--sync", "none", "--shutdown-grace", "1s"];
    let mut daemon = Daemon::start_unheard(&launcher, &dir, "postgres://nobody@127.0.0.1:1/nowhere", &arguments);
    let mut client = daemon.connect();
    // Until the pipe is full, and lines are dropped behind it.
    for _ in 0..20_000 {
        assert_eq!(client.post("/push/q", b"1").unwrap().status, 201);
    }
    wait_until("lines are dropped", || daemon.figure("droppedLogLines") > 0);
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(daemon.wait().code(), Some(3));
}

#[test]
fn a_reader_that_reads_nothing_drops_lines_and_holds_nobody_up() {
    // The pipe takes 64 KiB.
    run("2> >(exec sleep 30 >/dev/null 2>&1) >/dev/null");
}
