//! What there is not enough of: room in the log, connections, bytes for a body.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Client, Daemon, PATIENCE, Response, data_dir,
    stage::{Stage, payload_texts},
    wait_until,
};
use forebay_cluster::{StopMode, TestCluster};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

/// A refusal for want of room, as the contract has it.
fn check_full(response: &Response) {
    assert_eq!((response.status, response.code()), (503, "log_full".to_owned()));
    let seconds: u64 = response.header("Retry-After").unwrap().parse().unwrap();
    assert!(seconds >= 1, "seconds: {seconds}");
}

/// Pushes until the log is full, in each of the ways in; returns how many were answered.
fn push_until_full(client: &mut Client, mut next: u64) -> u64 {
    let fill = "x".repeat(20_000);
    loop {
        let payload = json!({"n": next, "fill": fill});
        let response = match next % 3 {
            0 => client.push(&json!({"items": [{"queue": "full", "payload": payload}]})),
            1 => client.push(&json!({"items": [{"queue": "full", "payload": payload}], "qos0": true})),
            _ => client.post("/push/full", payload.to_string().as_bytes()),
        };
        let response = response.unwrap();
        if response.status != 201 {
            check_full(&response);
            return next;
        }
        next += 1;
    }
}

#[test]
fn case_38_at_the_quota_pushes_are_refused_with_503_until_the_drain_has_made_room() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let args = ["--cores", "1", "--wal-max-bytes", "8MiB", "--wal-segment-bytes", "1MiB", "--commit-wait-ms", "10"];
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    daemon.wait_until_drained();
    let mut client = daemon.connect();
    let mut answered = 0;
    for outage in 0..3 {
        cluster.stop(StopMode::Fast, PATIENCE).unwrap();
        let before = answered;
        answered = push_until_full(&mut client, answered);
        let bytes = (answered - before) * 20_000;
        assert!((4 << 20..8 << 20).contains(&bytes), "outage {outage}: {bytes} bytes of 8 MiB were taken");
        let ready = client.get("/ready").unwrap();
        assert_eq!((ready.status, ready.code()), (503, "log_full".to_owned()));
        assert!(ready.header("Retry-After").is_some());
        assert_eq!(client.get("/health").unwrap().status, 200);
        let buffers = daemon.buffers();
        assert_eq!(buffers["pending"], answered - before);
        assert!(buffers["usedBytes"].as_u64() <= buffers["quotaBytes"].as_u64(), "{buffers}");
        assert!(buffers["segmentBytesTotal"].as_u64() <= Some(8 << 20), "{buffers}");
        // Still refused, small ones and NDJSON too: what is refused is not kept.
        let small = client.push(&json!({"items": [{"queue": "refused", "payload": "x".repeat(10_000)}]})).unwrap();
        check_full(&small);
        // Lines are refused before all of them have come, and the connection with them.
        let mut lines = daemon.connect();
        check_full(&lines.post_ndjson("/push/refused", "1234567890\n".repeat(100_000).as_bytes()).unwrap());
        assert!(lines.is_closed());
        cluster.start().unwrap();
        wait_until("pushes are accepted again", || client.get("/ready").unwrap().status == 200);
        let response = client.push(&json!({"items": [{"queue": "after", "payload": outage}]})).unwrap();
        assert_eq!(response.status, 201);
        daemon.wait_until_drained();
    }
    let texts = payload_texts(&daemon, &cluster, "full", answered as usize);
    let numbers =
        texts.iter().map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap()["n"].as_u64().unwrap());
    assert!(numbers.eq(0..answered), "all that were answered, once and in order");
    let queues = common::rows(&cluster, "SELECT DISTINCT queue FROM forebay.message_log ORDER BY 1");
    assert_eq!(queues, [["after"], ["full"]]);
}

#[test]
fn case_38_a_full_log_is_full_after_kill_9_too_and_drains_then() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    let dir = data_dir();
    let args = ["--cores", "2", "--wal-max-bytes", "8MiB", "--wal-segment-bytes", "1MiB", "--commit-wait-ms", "10"];
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    let answered = push_until_full(&mut daemon.connect(), 0);
    daemon.kill9();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    assert_eq!(daemon.figure("pending"), answered);
    cluster.start().unwrap();
    // Each core's lane has room again in its own time.
    let mut client = daemon.connect();
    wait_until("pushes are accepted again", || client.post("/push/full", b"{}").unwrap().status == 201);
    assert_eq!(client.get("/ready").unwrap().status, 200);
    payload_texts(&daemon, &cluster, "full", answered as usize + 1);
}

#[test]
fn what_is_refused_for_want_of_room_does_not_count_against_the_token_s_rate() {
    const BURST: usize = 1000;
    let dir = data_dir();
    let tokens = dir.path().join("tokens.toml");
    let tokens = tokens.to_str().unwrap();
    let limit = ["--rate", "1/s", "--burst", &BURST.to_string()];
    let made = common::forebay(&[&["token", "new", "--tokens-file", tokens, "--scopes", "push"], &limit[..]].concat());
    let authorization = format!("Bearer {}", String::from_utf8(made.stdout).unwrap().trim_end());
    let quota = ["--cores", "1", "--wal-max-bytes", "8MiB", "--wal-segment-bytes", "1MiB", "--tokens-file", tokens];
    let daemon = Daemon::start(&dir.path().join("data"), common::NOWHERE, &quota);
    let mut client = daemon.connect();
    // All on one connection: a refusal of what was sent whole does not close it.
    let mut push = |content_type: &str, body: &str| {
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", content_type)];
        client.request("POST", "/push/q", &headers, Some(body.as_bytes())).unwrap()
    };
    let payload = json!("x".repeat(100_000)).to_string();
    let mut pushed = 0;
    let full = loop {
        match push("application/json", &payload) {
            response if response.status == 201 => pushed += 1,
            response => break response,
        }
    };
    check_full(&full);
    let lines = "1\n".repeat(500);
    for _ in 0..BURST / 50 {
        check_full(&push("application/json", &payload));
        let response = push("application/x-ndjson", &lines);
        check_full(&response);
        // Lines for which there still was room do count.
        pushed += response.json()["accepted"].as_u64().unwrap() as usize;
    }
    assert!(pushed < BURST, "{pushed} of {BURST} were kept, or this shows nothing");
}

#[test]
fn a_header_tells_how_full_the_log_is() {
    let dir = data_dir();
    let args = ["--cores", "1", "--wal-max-bytes", "8MiB", "--wal-segment-bytes", "1MiB"];
    let daemon = Daemon::start(dir.path(), common::NOWHERE, &args);
    let mut client = daemon.connect();
    let payload = json!("x".repeat(500_000)).to_string();
    let mut fill = || -> f64 {
        let response = client.post("/push/fill", payload.as_bytes()).unwrap();
        assert_eq!(response.status, 201);
        response.header("Forebay-Buffer-Fill").unwrap().parse().unwrap()
    };
    let fills: Vec<f64> = (0..8).map(|_| fill()).collect();
    assert!(fills.is_sorted_by(|a, b| a < b), "{fills:?}");
    let used = daemon.figure("usedBytes") as f64 / daemon.figure("quotaBytes") as f64;
    assert!((fills[7] - used).abs() < 0.011, "{fills:?}, {used}");
    assert!(fills[7] >= 8.0 * 500_000.0 / f64::from(8 << 20) - 0.01, "{fills:?}");
}

/// Lets this process, and the daemons it starts, have so many descriptors.
fn allow_descriptors(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if current < count {
        let raised = Rlimit { current: Some(count), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).unwrap();
    }
}

#[test]
fn case_71_a_thousand_idle_connections_come_and_go() {
    const CONNECTIONS: usize = 1000;
    allow_descriptors(4000);
    let stage = Stage::start(&[]);
    for round in 0..3 {
        let mut idle: Vec<Client> = (0..CONNECTIONS).map(|_| stage.daemon.connect()).collect();
        wait_until("all are accepted", || stage.daemon.sockets() >= CONNECTIONS);
        // Others are served meanwhile, and the idle ones as well.
        let response = stage.daemon.connect().push(&json!({"items": [{"queue": "crowd", "payload": round}]})).unwrap();
        assert_eq!(response.json()[0]["status"], "queued");
        for client in idle.iter_mut().step_by(97) {
            assert_eq!(client.get("/health").unwrap().status, 200);
        }
        drop(idle);
        wait_until("all are let go of", || stage.daemon.sockets() < CONNECTIONS / 10);
    }
    stage.payload_texts("crowd", 3);
}

#[test]
fn case_42_out_of_descriptors_those_that_are_connected_are_served_and_others_once_there_is_room() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), common::NOWHERE, &["--cores", "1"]);
    // A limit of the daemon alone, a little above what it has open.
    let pid = rustix::process::Pid::from_raw(daemon.pid() as i32).unwrap();
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count() as u64;
    let limit = Rlimit { current: Some(descriptors + 20), maximum: getrlimit(Resource::Nofile).maximum };
    rustix::process::prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    let mut first = daemon.connect();
    assert_eq!(first.get("/health").unwrap().status, 200);
    let crowd: Vec<Client> = (0..60).map(|_| daemon.connect()).collect();
    for n in 0..50 {
        let response = first.push(&json!({"items": [{"queue": "served", "payload": n}]})).unwrap();
        assert_eq!(response.status, 201);
    }
    drop(crowd);
    assert_eq!(daemon.connect().get("/health").unwrap().status, 200);
    assert_eq!(daemon.figure("pending"), 50);
}

#[test]
fn the_flag_for_the_largest_body_is_obeyed() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), common::NOWHERE, &["--cores", "1", "--max-body-bytes", "2048"]);
    let mut client = daemon.connect();
    let text = |length: usize| json!("x".repeat(length - 2)).to_string();
    assert_eq!(client.post("/push/q", text(2048).as_bytes()).unwrap().status, 201);
    let refused = client.post("/push/q", text(2049).as_bytes()).unwrap();
    assert_eq!((refused.status, refused.code()), (413, "body_too_large".to_owned()));
    assert!(refused.error().contains("2048"), "{}", refused.error());
}
