//! No reader of the log lines, and no full disk under them, can stop the daemon (field report 1): pushes, the drain, SIGTERM and
//! the exit code are as ever.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, data_dir, stage::payload_texts, wait_until};
use forebay_cluster::{StopMode, TestCluster};
use std::time::Duration;

const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Execs the daemon with standard error to a pipe that is full, and that nobody reads.
const INTO_A_FULL_PIPE: &str = "pipe=$(mktemp -u); mkfifo $pipe; exec 3<>$pipe; rm $pipe; head -c 65536 /dev/zero >&3
    exec \"$@\" 2>&3 >/dev/null";

/// Runs a daemon that the shell starts by `script`, through an outage of PostgreSQL, to its end in order.
/// Returns how many lines of the log it dropped.
fn run(script: &str) -> u64 {
    let dir = data_dir();
    let cluster = TestCluster::start_without_fsync().unwrap();
    let launcher = ["bash", "-c", script, "bash"];
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
    assert!(run(r#"exec "$@" 2>/dev/full >/dev/null"#) > 0);
}

#[test]
fn a_full_device_under_standard_output_loses_the_banner_and_nothing_else() {
    assert_eq!(run(r#"exec "$@" >/dev/full 2>/dev/null"#), 0);
}

#[test]
fn closed_streams_are_no_failure() {
    run(r#"exec "$@" >&- 2>&-"#);
}

#[test]
fn a_reader_that_leaves_after_a_few_lines_drops_lines_and_nothing_else() {
    assert!(run(r#"exec "$@" > >(head -n 3 >/dev/null) 2>&1"#) > 0);
}

#[test]
fn a_failure_ends_the_daemon_with_its_code_though_nobody_reads_the_reason() {
    let outside = data_dir();
    let dir = outside.path().join("data");
    let launcher = ["bash", "-c", INTO_A_FULL_PIPE, "bash"];
    let arguments = ["--cores", "1", "--shutdown-grace", "1s"];
    let mut daemon = Daemon::start_unheard(&launcher, &dir, "postgres://nobody@127.0.0.1:1/nowhere", &arguments);
    assert_eq!(daemon.connect().post("/push/q", b"1").unwrap().status, 201);
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(daemon.wait().code(), Some(3));
}

#[test]
fn a_reader_that_reads_nothing_drops_lines_and_holds_nobody_up() {
    run(INTO_A_FULL_PIPE);
}
