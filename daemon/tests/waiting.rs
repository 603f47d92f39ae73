//! Requests that wait: for a commit, while PostgreSQL stands still. What each takes, and what happens when its client leaves.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, Daemon, data_dir, rows, wait_until};
use forebay_cluster::TestCluster;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

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
    _cluster: TestCluster,
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
        Self { daemon, backend, _cluster: cluster, _dir: dir }
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
