//! Requests that wait: for a commit, while PostgreSQL stands still. What each takes, and what happens when its client leaves.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, Daemon, data_dir, rows, stage::Stage, wait_until};
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
    cluster: TestCluster,
    _dir: tempfile::TempDir,
}

impl Stalled {
    fn start() -> Self {
        let cluster = TestCluster::start_without_fsync().unwrap();
        let dir = data_dir();
        let waits = ["--commit-wait-ms", "600000", "--postgres-timeout-ms", "600000", "--shutdown-grace", "1s"];
        let args = [&["--cores", "1"], &waits[..]].concat();
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

/// The daemon's open connections, as one of them is told.
fn connections(client: &mut Client) -> u64 {
    client.get("/api/v1/status/buffers").unwrap().json()["connections"].as_u64().unwrap()
}

#[test]
fn a_client_that_hangs_up_while_its_push_waits_is_gone_soon_and_its_message_is_delivered() {
    const CLIENTS: u64 = 50;
    let stalled = Stalled::start();
    let mut figures = stalled.daemon.connect();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| stalled.daemon.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&plain_push()).unwrap());
    wait_until("all of them are in the log", || stalled.daemon.figure("pending") == CLIENTS);
    wait_until("only they are connected", || connections(&mut figures) == CLIENTS + 1);
    let left = std::time::Instant::now();
    drop(clients);
    wait_until("they are gone", || connections(&mut figures) == 1);
    println!("they were gone after {:?}", left.elapsed());
    assert_eq!(stalled.daemon.figure("pending"), CLIENTS, "nothing was committed meanwhile");
    stalled.go_on();
    stalled.daemon.wait_until_drained();
    let count = rows(&stalled.cluster, "SELECT count(*) FROM forebay.message_log WHERE queue = 'waiting'");
    assert_eq!(count, [[CLIENTS.to_string()]]);
}

#[test]
fn a_client_that_only_stops_sending_is_told_what_is_known_of_all_its_requests() {
    let stalled = Stalled::start();
    let mut client = stalled.daemon.connect();
    let health = b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n";
    client.send(&[&plain_push()[..], health, &plain_push()].concat()).unwrap();
    wait_until("both are in the log", || stalled.daemon.figure("pending") == 2);
    assert!(!client.has_received(), "they wait for their commits");
    client.finish_sending();
    for is_push in [true, false, true] {
        let response = client.receive(false).unwrap();
        if is_push {
            assert_eq!((response.status, response.header("Forebay-Durability")), (201, Some("disk")));
            assert_eq!(response.json()[0]["status"], "buffered");
        } else {
            assert_eq!(response.json()["status"], "healthy");
        }
    }
    assert!(client.is_closed());
}

#[test]
fn what_follows_a_push_that_waits_is_kept_and_answered_behind_it() {
    let stalled = Stalled::start();
    let mut client = stalled.daemon.connect();
    let push = plain_push();
    let (begun, rest) = push.split_at(30);
    client.send(&[&push[..], begun].concat()).unwrap();
    wait_until("the first one is in the log", || stalled.daemon.figure("pending") == 1);
    client.send(rest).unwrap();
    assert_eq!(stalled.daemon.connect().get("/health").unwrap().status, 200);
    stalled.go_on();
    for _ in 0..2 {
        let response = client.receive(false).unwrap();
        assert_eq!((response.status, response.json()[0]["status"].as_str()), (201, Some("queued")));
    }
}

#[test]
fn a_push_that_waits_while_the_daemon_shuts_down_is_told_that_it_is_durable() {
    let stalled = Stalled::start();
    let mut client = stalled.daemon.connect();
    client.send(&plain_push()).unwrap();
    wait_until("it is in the log", || stalled.daemon.figure("pending") == 1);
    stalled.daemon.signal(Signal::TERM);
    let response = client.receive(false).unwrap();
    assert_eq!((response.status, response.json()[0]["status"].as_str()), (201, Some("buffered")));
    assert_eq!(response.header("Connection"), Some("close"));
}

#[test]
fn a_request_for_postgresql_is_given_up_when_its_client_hangs_up() {
    const PATH: &str = "/api/v1/dead-letters";
    let stage = Stage::start(&[]);
    let waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    std::thread::scope(|scope| {
        let lock = "BEGIN; LOCK TABLE forebay.dead_letters; SELECT pg_sleep(600)";
        // Ended below: then psql fails.
        scope.spawn(|| stage.cluster.psql(lock).unwrap_err());
        let holder = "FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";
        let holders = || stage.rows(&format!("SELECT pid {holder} AND wait_event = 'PgSleep'")).len();
        wait_until("the table is locked", || holders() == 1);
        let mut figures = stage.daemon.connect();
        let (mut leaves, mut stops) = (stage.daemon.connect(), stage.daemon.connect());
        for client in [&mut leaves, &mut stops] {
            client.send(format!("GET {PATH} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes()).unwrap();
        }
        wait_until("PostgreSQL was asked", || !stage.rows(waiting).is_empty());
        wait_until("only they are connected", || connections(&mut figures) == 3);
        drop(leaves);
        stops.finish_sending();
        assert!(stops.is_closed(), "there is nothing to be told");
        wait_until("they are gone", || connections(&mut figures) == 1);
        assert!(!stage.rows(waiting).is_empty(), "PostgreSQL is still at it");
        stage.cluster.psql(&format!("SELECT pg_terminate_backend(pid) {holder}")).unwrap();
    });
    assert_eq!(stage.daemon.connect().get(PATH).unwrap().status, 200);
}
