//! Requests that wait for a commit while PostgreSQL is stopped: their memory, and what happens when a client leaves.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, Daemon, data_dir, rows, wait_until};
use forebay_cluster::TestCluster;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::io::{Read, Write};

/// Connections that wait at once, unless `FOREBAY_TEST_WAITING` says otherwise: `make bench-waiting` takes 10,000.
const CONNECTIONS: usize = 2_000;

/// Memory of the daemon for each of them, in bytes, beyond the records.
const BYTES_PER_CONNECTION_MAX: u64 = 1536;

/// Records that are in the log before, so that the drain and the log hold as much of it in memory as they ever do: two rounds,
/// and the bytes that were written last.
const RECORDS_BEFORE: usize = 40_000;
const RECORD_BYTES: usize = 1000;

/// A daemon whose plain pushes wait for as long as the test takes, and whose drain waits for a backend that has been stopped.
struct Stalled {
    daemon: Daemon,
    backend: Pid,
    cluster: TestCluster,
    _dir: tempfile::TempDir,
}

impl Stalled {
    fn start() -> Self {
        let cluster = TestCluster::start_without_fsync().unwrap();
        let dir = data_dir();
        let args = ["--cores", "1", "--commit-wait-ms", "600000", "--postgres-timeout-ms", "600000"];
        let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
        daemon.connect().push(&serde_json::json!({"items": [{"queue": "first", "payload": 1}]})).unwrap();
        daemon.wait_until_drained();
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'forebay'";
        let backend = Pid::from_raw(rows(&cluster, sql)[0][0].parse().unwrap()).unwrap();
        kill_process(backend, Signal::STOP).unwrap();
        Self { daemon, backend, cluster, _dir: dir }
    }

    fn go_on(&self) {
        kill_process(self.backend, Signal::CONT).unwrap();
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.go_on();
    }
}

/// A plain push of one message.
fn plain_push() -> Vec<u8> {
    let body = r#"{"items":[{"queue":"waiting","payload":{"n":1}}]}"#;
    format!("POST /api/v1/push HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn rss_bytes(daemon: &Daemon) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", daemon.pid())).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_push_that_waits_for_its_commit_takes_little_memory_and_is_answered_when_postgresql_goes_on() {
    let count = std::env::var("FOREBAY_TEST_WAITING").map_or(CONNECTIONS, |count| count.parse().unwrap());
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let stalled = Stalled::start();
    let daemon = &stalled.daemon;
    let lines: String = (0..RECORDS_BEFORE).map(|n| format!("\"{n:RECORD_BYTES$}\"\n")).collect();
    assert_eq!(daemon.connect().post_ndjson("/push/before", lines.as_bytes()).unwrap().status, 201);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let before = rss_bytes(daemon);
    let request = plain_push();
    let mut clients: Vec<Client> = (0..count)
        .map(|_| {
            let mut client = daemon.connect();
            client.send(&request).unwrap();
            client
        })
        .collect();
    wait_until("all of them are in the log", || daemon.figure("pending") >= (RECORDS_BEFORE + count) as u64);
    let mut least = u64::MAX;
    let wait = std::time::Instant::now();
    while wait.elapsed().as_secs() < 4 {
        least = least.min(rss_bytes(daemon).saturating_sub(before));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let each = least / count as u64;
    println!("{each} bytes for each of {count} connections that wait; {before} bytes before");
    assert!(each <= BYTES_PER_CONNECTION_MAX, "{each} bytes for each of {count}");
    stalled.go_on();
    for client in &mut clients {
        let response = client.receive(false).unwrap();
        assert_eq!((response.status, response.json()[0]["status"].as_str()), (201, Some("queued")));
    }
}

#[test]
fn a_client_that_hangs_up_while_it_waits_is_gone_from_the_figures_and_one_that_only_stops_sending_is_answered() {
    let stalled = Stalled::start();
    let daemon = &stalled.daemon;
    let connect = || {
        let mut stream = std::net::TcpStream::connect(daemon.address).unwrap();
        stream.write_all(&plain_push()).unwrap();
        stream
    };
    // The connection that asks is one of them.
    let asking = daemon.figure("connections");
    let leaving: Vec<_> = (0..50).map(|_| connect()).collect();
    let mut half_closed = connect();
    wait_until("all of them are in the log", || daemon.figure("pending") >= 51);
    assert_eq!(daemon.figure("connections"), asking + 51);
    drop(leaving);
    wait_until("those that left are gone", || daemon.figure("connections") == asking + 1);
    half_closed.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    half_closed.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 201 ") && reply.contains(r#""status":"buffered""#), "{reply}");
    drop(half_closed);
    wait_until("it is gone too", || daemon.figure("connections") == asking);
    stalled.go_on();
    daemon.wait_until_drained();
    let count = rows(&stalled.cluster, "SELECT count(*) FROM forebay.message_log WHERE queue = 'waiting'");
    assert_eq!(count[0][0], "51", "what was in the log is delivered");
}
