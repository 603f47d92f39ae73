//! The life cycle of a daemon: clean shutdown, kill, restart, a second daemon, another number of cores, its own
//! PostgreSQL.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Client, Daemon, NOWHERE, PATIENCE, data_dir, forebay,
    load::{self, Load, Spec},
    random::Random,
    stage::payload_texts,
    test_seed, wait_until,
};
use forebay_cluster::{StopMode, TestCluster};
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process, test_kill_process},
};
use serde_json::json;
use std::{net::TcpListener, path::Path, time::Duration};

const SPEC: Spec = Spec { queue: "load", label: "a", producers: 6, partitions: 3, fill_bytes: 500 };
const CORES: [&str; 2] = ["--cores", "2"];

#[test]
fn sigterm_under_load_ends_with_0_and_everything_answered_is_in_postgresql_already() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let mut daemon = Daemon::start(dir.path(), &cluster.url(), &CORES);
    let load = Load::start(&SPEC, daemon.address);
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        load.wait_for(200);
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0));
        assert!(daemon.log().contains("the log is empty"));
        daemon = Daemon::start(dir.path(), &cluster.url(), &CORES);
        load.move_to(daemon.address);
    }
    load.wait_for(50);
    let sent = load.stop();
    assert!(daemon.terminate().success());
    // Checked without another start: the shutdown has drained everything.
    assert!(load::check(&cluster, &sent) >= 650);
}

#[test]
fn a_request_in_flight_at_sigterm_is_answered_and_its_connection_closed() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let mut daemon = Daemon::start(dir.path(), &cluster.url(), &CORES);
    daemon.wait_until_drained();
    let body = json!({"items": [{"queue": "flight", "payload": 1}]}).to_string();
    let head = format!("POST /api/v1/push HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
    let bytes = format!("{head}{body}");
    let (first, second) = bytes.split_at(bytes.len() - 5);
    let mut client = daemon.connect();
    client.send(first.as_bytes()).unwrap();
    // Long enough for the request to arrive. If it does not, the connection is closed as an idle one, and the test
    // fails.
    std::thread::sleep(Duration::from_millis(200));
    daemon.signal(Signal::TERM);
    wait_until("nobody is let in any more", || Client::connect(daemon.address).is_err());
    client.send(second.as_bytes()).unwrap();
    let response = client.receive(false).unwrap();
    assert_eq!((response.status, response.header("Connection")), (201, Some("close")));
    assert!(client.is_closed());
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(common::rows(&cluster, "SELECT payload FROM forebay.message_log"), [["1"]]);
}

#[test]
fn sigterm_while_postgresql_is_away_ends_at_once_and_the_log_keeps_what_it_has() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    let dir = data_dir();
    // If the daemon waited for the grace period, the test would not end in time.
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2", "--shutdown-grace", "1h"]);
    for n in 0..50 {
        assert_eq!(daemon.connect().post("/push/kept", n.to_string().as_bytes()).unwrap().status, 201);
    }
    assert_eq!(daemon.terminate().code(), Some(0));
    let daemon = Daemon::start(dir.path(), &cluster.url(), &CORES);
    assert_eq!(daemon.figure("pending"), 50);
    cluster.start().unwrap();
    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(payload_texts(&daemon, &cluster, "kept", 50), expected);
}

#[test]
fn case_47_killed_with_9_in_the_midst_of_the_graceful_stop() {
    let mut random = Random::new(test_seed());
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let mut daemon = Daemon::start(dir.path(), &cluster.url(), &CORES);
    let load = Load::start(&SPEC, daemon.address);
    for _ in 0..8 {
        load.wait_for(60);
        daemon.signal(Signal::TERM);
        std::thread::sleep(Duration::from_micros(random.below(30_000)));
        daemon.kill9();
        daemon = Daemon::start(dir.path(), &cluster.url(), &CORES);
        load.move_to(daemon.address);
    }
    load.wait_for(60);
    let sent = load.stop();
    daemon.wait_until_drained();
    assert!(load::check(&cluster, &sent) >= 540);
    assert_eq!(daemon.figure("lostRecords"), 0);
}

#[test]
fn case_49_a_second_daemon_on_the_same_directory_ends_with_4_and_one_line() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
    let path = dir.path().to_str().unwrap();
    let second = forebay(&["serve", "--listen", "127.0.0.1:0", "--data-dir", path, "--postgres", NOWHERE]);
    let error = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(4), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains(path) && error.contains("in use"), "{error}");
    // The first daemon is unaffected and keeps its address.
    assert_eq!(daemon.connect().post("/push/q", b"1").unwrap().status, 201);
    // After SIGKILL, an immediate restart finds the directory free, even while the kernel still cleans up the dead
    // process.
    let mut daemon = daemon;
    for _ in 0..5 {
        let mut client = daemon.connect();
        client.send(b"POST /push/q HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n1").unwrap();
        daemon.kill9();
        daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
    }
    assert!(daemon.figure("pending") >= 1);
}

#[test]
fn an_address_in_use_ends_with_2_and_says_which() {
    let (dir, other_dir) = (data_dir(), data_dir());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
    for address in [listener.local_addr().unwrap(), daemon.address] {
        let address = address.to_string();
        let path = other_dir.path().to_str().unwrap();
        let output = forebay(&["serve", "--listen", &address, "--data-dir", path, "--postgres", NOWHERE]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(&address), "{error}");
    }
}

#[test]
fn case_51_another_number_of_cores_after_each_restart_drains_every_lane_in_order() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let start = |cores: &str| {
        let args = ["--cores", cores, "--wal-segment-bytes", "1MiB", "--wal-max-bytes", "128MiB"];
        Daemon::start(dir.path(), &cluster.url(), &args)
    };
    let mut daemon = start("2");
    let load = Load::start(&SPEC, daemon.address);
    load.wait_for(200);
    cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    for (cores, killed) in [("1", true), ("3", false), ("1", false), ("2", true)] {
        load.wait_for(300);
        if killed {
            daemon.kill9();
        } else {
            assert!(daemon.terminate().success());
        }
        daemon = start(cores);
        load.move_to(daemon.address);
    }
    load.wait_for(100);
    assert_eq!(daemon.buffers()["lanes"].as_array().unwrap().len(), 3, "every lane that was ever written");
    assert!(daemon.figure("pending") >= 1300);
    cluster.start().unwrap();
    load.wait_for(100);
    let sent = load.stop();
    daemon.wait_until_drained();
    assert!(load::check(&cluster, &sent) >= 1700);
    assert_eq!(daemon.figure("lostRecords"), 0);
    // Once more with an empty log, before new pushes.
    assert!(daemon.terminate().success());
    let daemon = start("3");
    let fresh = daemon.connect().push(&json!({"items": [{"queue": "fresh", "payload": 1}]})).unwrap();
    assert_eq!(fresh.status, 201);
    payload_texts(&daemon, &cluster, "fresh", 1);
}

/// The process id of the postmaster in the daemon's data directory.
fn postmaster(data_dir: &Path) -> Pid {
    let file = std::fs::read_to_string(data_dir.join("postgres/pgdata/postmaster.pid")).unwrap();
    Pid::from_raw(file.lines().next().unwrap().parse().unwrap()).unwrap()
}

/// Stops a postmaster that a failed test would leave behind.
struct Postmaster(Pid);

impl Drop for Postmaster {
    fn drop(&mut self) {
        match kill_process(self.0, Signal::QUIT) {
            // After a successful test it is already gone.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => eprintln!("the postmaster is left running: {error}"),
        }
    }
}

#[test]
fn the_private_postgresql_outlives_kill_9_is_adopted_again_and_ends_with_sigterm() {
    let dir = data_dir();
    let args = ["--cores", "1"];
    let daemon = Daemon::start(dir.path(), "embedded", &args);
    let first = Postmaster(postmaster(dir.path()));
    daemon.wait_until_drained();
    let push = |daemon: &Daemon, n: u64| {
        let item = json!({"queue": "own", "payload": n, "transactionId": n.to_string()});
        let response = daemon.connect().push(&json!({"items": [item]})).unwrap();
        assert_eq!(response.status, 201);
        response.json()[0].take()
    };
    let answer = push(&daemon, 1);
    assert_eq!(answer["status"], "queued");
    daemon.kill9();
    assert!(test_kill_process(first.0).is_ok(), "the server lives on");
    let daemon = Daemon::start(dir.path(), "embedded", &args);
    assert_eq!(postmaster(dir.path()), first.0, "adopted, not started");
    daemon.wait_until_drained();
    // The stored messages are still there: the same id is a duplicate of the first message.
    let again = push(&daemon, 1);
    assert_eq!((&again["status"], &again["message_id"]), (&json!("duplicate"), &answer["message_id"]));
    // The daemon restarts a killed server.
    kill_process(first.0, Signal::KILL).unwrap();
    wait_until("another server runs", || {
        let pid_file = dir.path().join("postgres/pgdata/postmaster.pid");
        // Between the two servers the file is missing.
        let Ok(text) = std::fs::read_to_string(pid_file) else { return false };
        let pid = text.lines().next().and_then(|line| line.parse().ok()).and_then(Pid::from_raw);
        pid.is_some_and(|pid| pid != first.0)
    });
    let second = Postmaster(postmaster(dir.path()));
    push(&daemon, 2);
    wait_until("the new server has it", || push(&daemon, 2)["status"] == "duplicate");
    assert_eq!(daemon.terminate().code(), Some(0));
    wait_until("the server ends with the daemon", || test_kill_process(second.0).is_err());
    // An ordinary restart does not lose the message either.
    let daemon = Daemon::start(dir.path(), "embedded", &args);
    let _third = Postmaster(postmaster(dir.path()));
    daemon.wait_until_drained();
    assert_eq!(push(&daemon, 2)["status"], "duplicate");
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[test]
fn idle_connections_are_closed_at_sigterm_before_those_in_flight_have_ended() {
    let dir = data_dir();
    let mut daemon = Daemon::start(dir.path(), NOWHERE, &CORES);
    // Enough connections that each core has an idle one.
    let mut idle: Vec<Client> = (0..32).map(|_| daemon.connect()).collect();
    for client in &mut idle {
        assert_eq!(client.get("/health").unwrap().status, 200);
    }
    let mut busy = daemon.connect();
    busy.send(b"POST /push/q HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n12").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    daemon.signal(Signal::TERM);
    assert!(idle.iter_mut().all(Client::is_closed));
    // Sent within the grace period, so the request in flight gets its reply.
    busy.send(b"345").unwrap();
    assert_eq!(busy.receive(false).unwrap().status, 201);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_client_that_does_not_read_its_answer_does_not_hold_up_the_end() {
    let dir = data_dir();
    let mut daemon = Daemon::start(dir.path(), NOWHERE, &CORES);
    let item = r#"{"queue":"q","payload":1}"#;
    let body = format!(r#"{{"items":[{}],"bufferMs":1}}"#, vec![item; 60_000].join(","));
    let mut deaf = daemon.connect();
    deaf.send(format!("POST /api/v1/push HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
        .unwrap();
    deaf.send(body.as_bytes()).unwrap();
    wait_until("the push is in the log", || daemon.figure("pending") == 60_000);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
}
