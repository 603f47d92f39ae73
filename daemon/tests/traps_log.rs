//! Traps of a peer's file buffer that this log avoids: an acknowledged message is in the log, complete and for good.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Daemon, PATIENCE, data_dir, rows,
    stage::{Stage, payload_texts},
    wait_until,
};
use forebay_cluster::{StopMode, TestCluster};
use serde_json::{Value, json};

/// A cluster that exists but does not run.
fn stopped_cluster() -> TestCluster {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    cluster
}

#[test]
fn trap_5_the_largest_body_that_is_taken_is_also_read_back_and_takes_nothing_behind_it_along() {
    const BODY_BYTES_MAX: usize = 1 << 20;
    let cluster = stopped_cluster();
    let dir = data_dir();
    let limit = BODY_BYTES_MAX.to_string();
    let args = ["--cores", "1", "--max-body-bytes", &limit, "--wal-segment-bytes", "2MiB", "--wal-max-bytes", "64MiB"];
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    let mut client = daemon.connect();
    // The largest body is a string: two quotes and its filling.
    let body_of = |bytes: usize| format!("\"{}\"", "z".repeat(bytes - 2));
    for n in 0..3 {
        assert_eq!(client.post("/push/large", n.to_string().as_bytes()).unwrap().status, 201);
        assert_eq!(client.post("/push/large", body_of(BODY_BYTES_MAX - n).as_bytes()).unwrap().status, 201);
    }
    // Refused by its head: the daemon does not read the body.
    let head = format!("POST /push/large HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
    let mut too_large = daemon.connect();
    too_large.send(head.as_bytes()).unwrap();
    assert_eq!(too_large.receive(false).unwrap().status, 413);
    daemon.kill9();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    assert_eq!(daemon.connect().post("/push/large", b"3").unwrap().status, 201);
    cluster.start().unwrap();
    let texts = payload_texts(&daemon, &cluster, "large", 7);
    let expected = (0..3).flat_map(|n| [n.to_string(), body_of(BODY_BYTES_MAX - n)]).chain(["3".to_owned()]);
    // Not `assert_eq!`, which would print the whole texts on failure.
    assert!(texts.into_iter().eq(expected));
    assert_eq!(daemon.figure("lostRecords"), 0);
}

#[test]
fn trap_6_one_to_five_small_messages_killed_right_after_their_answers_are_all_there() {
    let cluster = stopped_cluster();
    let dir = data_dir();
    let mut next = 0;
    for count in 1..=5 {
        let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]);
        assert_eq!(daemon.figure("pending"), next, "those of before");
        let mut client = daemon.connect();
        for n in next..next + count {
            assert_eq!(client.post("/push/small", n.to_string().as_bytes()).unwrap().status, 201);
        }
        daemon.kill9();
        next += count;
    }
    cluster.start().unwrap();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]);
    let expected: Vec<String> = (0..next).map(|n| n.to_string()).collect();
    assert_eq!(payload_texts(&daemon, &cluster, "small", next as usize), expected);
}

#[test]
fn trap_7_a_steady_trickle_keeps_nobody_s_message_from_postgresql() {
    let stage = Stage::start(&[]);
    let mut client = stage.daemon.connect();
    let mut push = |n: u64| {
        let body = json!({"items": [{"queue": "trickle", "payload": n}], "bufferMs": 200, "bufferMax": 1_000_000});
        assert_eq!(client.push(&body).unwrap().status, 201);
    };
    let mut n = 0;
    // There is never a pause of 200 ms, and never a million waiting messages.
    wait_until("the first arrives while others come", || {
        push(n);
        n += 1;
        stage.rows("SELECT count(*) > 0 FROM forebay.message_log") == [["t"]]
    });
    for _ in 0..50 {
        push(n);
        n += 1;
    }
    stage.payload_texts("trickle", n as usize);
}

#[test]
fn trap_8_a_request_of_many_items_is_kept_whole_or_refused_whole_also_when_the_log_is_full() {
    const ITEMS: usize = 50;
    let cluster = stopped_cluster();
    let dir = data_dir();
    let args = ["--cores", "1", "--wal-max-bytes", "16MiB", "--wal-segment-bytes", "1MiB"];
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    let mut client = daemon.connect();
    let fill = "f".repeat(8000);
    let mut statuses = Vec::new();
    let mut push = |client: &mut common::Client, request: usize| {
        let item = |n: usize| json!({"queue": "whole", "payload": {"request": request, "n": n, "fill": fill}});
        let mut body = json!({"items": (0..ITEMS).map(item).collect::<Vec<Value>>()});
        if request.is_multiple_of(2) {
            body["qos0"] = json!(true);
        }
        let response = client.push(&body).unwrap();
        assert!(response.status == 201 || response.status == 503, "{}", response.status);
        statuses.push(response.status);
        response.status
    };
    let mut request = 0;
    while push(&mut client, request) == 201 {
        request += 1;
        assert!(request < 1000, "the log is full at some time");
    }
    // A few more requests find the log full.
    for request in request + 1..request + 5 {
        push(&mut client, request);
    }
    cluster.start().unwrap();
    daemon.wait_until_drained();
    let sql =
        "SELECT payload->>'request', count(*) FROM forebay.message_log GROUP BY 1 ORDER BY (payload->>'request')::int";
    let kept = statuses.iter().enumerate().filter(|(_, status)| **status == 201);
    let expected: Vec<Vec<String>> = kept.map(|(request, _)| vec![request.to_string(), ITEMS.to_string()]).collect();
    assert_eq!(rows(&cluster, sql), expected);
    assert!(expected.len() >= 5 && statuses.contains(&503), "{statuses:?}");
}

#[test]
fn trap_11_a_message_has_the_time_at_which_it_was_taken_and_not_that_of_its_delivery() {
    let cluster = stopped_cluster();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]);
    let now_us = || std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64;
    let mut bounds = Vec::new();
    for n in 0..5 {
        let before = now_us();
        assert_eq!(daemon.connect().post("/push/times", n.to_string().as_bytes()).unwrap().status, 201);
        bounds.push((before, now_us()));
    }
    daemon.kill9();
    cluster.start().unwrap();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]);
    daemon.wait_until_drained();
    let sql = "SELECT (extract(epoch FROM created_at) * 1000000)::bigint FROM forebay.message_log ORDER BY seq";
    let times: Vec<i64> = rows(&cluster, sql).iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(times.len(), bounds.len());
    // The daemon's clock advances with the kernel's ticks, every few milliseconds.
    const TICK_US: i64 = 10_000;
    for (time, (before, after)) in times.iter().zip(&bounds) {
        assert!((before - TICK_US..=*after).contains(time), "{before} {time} {after}");
    }
}
