//! PostgreSQL is away, stopped, killed or hanging. Pushes are acknowledged nevertheless, and all of them arrive exactly
//! once and in order.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Daemon, PATIENCE, data_dir,
    load::{self, Load, Spec},
    stage::{Stage, payload_texts},
    wait_until,
};
use forebay_cluster::{StopMode, TestCluster};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::time::Duration;

const SPEC: Spec = Spec { queue: "load", label: "a", producers: 4, partitions: 3, fill_bytes: 600 };

/// A cluster that exists but does not run.
fn stopped_cluster() -> TestCluster {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    cluster
}

fn wait_until_disconnected(daemon: &Daemon) {
    wait_until("the daemon knows that PostgreSQL is away", || {
        daemon.connect().get("/health").unwrap().json()["database"] == "disconnected"
    });
}

#[test]
fn case_53_away_at_start_pushes_are_answered_buffered_and_arrive_in_order_once_it_is_there() {
    let cluster = stopped_cluster();
    let dir = data_dir();
    // The replies do not wait for this limit, because PostgreSQL is known to be away.
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2", "--commit-wait-ms", "3600000"]);
    wait_until_disconnected(&daemon);
    let mut client = daemon.connect();
    assert_eq!(client.get("/ready").unwrap().status, 200);
    assert_eq!(client.get("/health").unwrap().json()["status"], "healthy");
    for n in 0..200 {
        let mut client = daemon.connect();
        let response = if n % 3 == 2 {
            client.post("/push/away?wait=postgres", n.to_string().as_bytes()).unwrap()
        } else {
            let mut body = json!({"items": [{"queue": "away", "payload": n}]});
            if n % 3 == 1 {
                body["qos0"] = json!(true);
            }
            client.push(&body).unwrap()
        };
        assert_eq!((response.status, response.header("Forebay-Durability")), (201, Some("disk")));
        let answer = response.json();
        match n % 3 {
            1 => assert_eq!(
                (&answer["dbHealthy"], &answer["messages"][0]["status"]),
                (&json!(false), &json!("buffered"))
            ),
            _ => {
                assert_eq!((&answer[0]["status"], &answer[0]["queueName"]), (&json!("buffered"), &json!("away")));
                assert_eq!(answer[0]["transaction_id"], answer[0]["message_id"]);
            }
        }
    }
    let buffers = daemon.buffers();
    assert_eq!((&buffers["pending"], &buffers["dbHealthy"]), (&json!(200), &json!(false)));
    assert!(buffers["pendingBytes"].as_u64() > Some(0) && buffers["usedBytes"].as_u64() > Some(0));
    wait_until("the oldest grows older", || daemon.figure("oldestPendingMs") > 0);
    cluster.start().unwrap();
    let expected: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(payload_texts(&daemon, &cluster, "away", 200), expected);
    let after = client.push(&json!({"items": [{"queue": "away", "payload": "after"}]})).unwrap();
    assert_eq!((&after.json()[0]["status"], after.header("Forebay-Durability")), (&json!("queued"), Some("postgres")));
    assert_eq!(daemon.figure("oldestPendingMs"), 0);
}

#[test]
fn case_53_a_backlog_of_many_segments_survives_kill_9_and_drains_in_order() {
    let cluster = stopped_cluster();
    let dir = data_dir();
    let args = ["--cores", "2", "--wal-segment-bytes", "1MiB", "--wal-max-bytes", "64MiB"];
    let mut daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    let load = Load::start(&Spec { fill_bytes: 16_000, ..SPEC }, daemon.address);
    for _ in 0..3 {
        load.wait_for(400);
        daemon.kill9();
        daemon = Daemon::start(dir.path(), &cluster.url(), &args);
        load.move_to(daemon.address);
    }
    load.wait_for(100);
    let sent = load.stop();
    assert!(daemon.figure("pendingBytes") > 8 << 20, "many segments: {}", daemon.buffers());
    cluster.start().unwrap();
    daemon.wait_until_drained();
    assert!(load::check(&cluster, &sent) >= 1300);
    assert_eq!((daemon.figure("lostRecords"), daemon.figure("failed")), (0, 0));
}

#[test]
fn case_53_stopped_and_started_again_under_load() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2"]);
    let load = Load::start(&SPEC, daemon.address);
    for mode in [StopMode::Fast, StopMode::Immediate, StopMode::Fast] {
        load.wait_for(200);
        cluster.stop(mode, PATIENCE).unwrap();
        wait_until_disconnected(&daemon);
        let buffered = load.count_of("buffered");
        load.wait_for(200);
        assert!(load.count_of("buffered") > buffered, "plain pushes are answered from the log");
        cluster.start().unwrap();
        daemon.wait_until_draining();
    }
    assert_eq!(load.refusals(), [""; 0]);
    let sent = load.stop();
    daemon.wait_until_drained();
    assert!(load::check(&cluster, &sent) >= 1200);
}

#[test]
fn case_54_the_postmaster_killed_while_plain_pushes_wait_for_their_commit() {
    // This cluster syncs, because the test crashes it.
    let cluster = TestCluster::start().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2"]);
    let load = Load::start(&SPEC, daemon.address);
    for _ in 0..4 {
        load.wait_for(100);
        // Each push is acknowledged or waits for the transaction in flight.
        cluster.kill9().unwrap();
        load.wait_for(50);
        cluster.start().unwrap();
        daemon.wait_until_draining();
    }
    assert_eq!(load.refusals(), [""; 0]);
    let sent = load.stop();
    daemon.wait_until_drained();
    assert!(load::check(&cluster, &sent) >= 600);
}

#[test]
fn case_56_the_drain_s_session_terminated_again_and_again_under_load() {
    let stage = Stage::start(&[]);
    let load = Load::start(&SPEC, stage.daemon.address);
    let mut terminated = 0;
    for _ in 0..30 {
        load.wait_for(20);
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'forebay'";
        terminated += stage.rows(sql).len();
    }
    assert!(terminated >= 5, "sessions were there to be terminated: {terminated}");
    assert_eq!(load.refusals(), [""; 0]);
    let sent = load.stop();
    stage.daemon.wait_until_drained();
    load::check(&stage.cluster, &sent);
    assert_eq!(stage.daemon.figure("failed"), 0, "never in dead letters");
}

#[test]
fn case_57_a_server_that_hangs_holds_up_no_answer_and_goes_on_where_it_was() {
    let stage = Stage::start(&["--commit-wait-ms", "50"]);
    let mut client = stage.daemon.connect();
    let mut push = |n: u64| {
        let response = client.push(&json!({"items": [{"queue": "hangs", "payload": n}]})).unwrap();
        assert_eq!((response.status, response.header("Forebay-Durability")), (201, Some("disk")), "push {n}");
        assert_eq!(response.json()[0]["status"], "buffered", "push {n}");
    };
    // The first push may take longer than this daemon waits.
    stage.daemon.connect().push(&json!({"items": [{"queue": "first", "payload": 1}]})).unwrap();
    stage.daemon.wait_until_drained();
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'forebay'";
    let pid: i32 = stage.rows(sql)[0][0].parse().unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    (0..20).for_each(&mut push);
    assert_eq!(stage.daemon.connect().get("/ready").unwrap().status, 200);
    assert_eq!(stage.daemon.figure("pending"), 20);
    kill_process(pid, Signal::CONT).unwrap();
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(stage.payload_texts("hangs", 20), expected);
}

#[test]
fn case_63_two_daemons_push_to_the_same_partitions_and_one_is_killed() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let (dir, other_dir) = (data_dir(), data_dir());
    let args = ["--cores", "1"];
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    let mut other = Daemon::start(other_dir.path(), &cluster.url(), &args);
    let load = Load::start(&SPEC, daemon.address);
    let other_load = Load::start(&Spec { label: "b", ..SPEC }, other.address);
    for _ in 0..5 {
        load.wait_for(100);
        other_load.wait_for(100);
        other.kill9();
        // The locks of the killed daemon do not block the other one.
        load.wait_for(50);
        other = Daemon::start(other_dir.path(), &cluster.url(), &args);
        other_load.move_to(other.address);
    }
    other_load.wait_for(50);
    assert_eq!(load.refusals(), [""; 0]);
    let sent: Vec<_> = load.stop().into_iter().chain(other_load.stop()).collect();
    daemon.wait_until_drained();
    other.wait_until_drained();
    assert!(load::check(&cluster, &sent) >= 1300);
}

#[test]
fn case_55_a_flapping_server_does_not_lose_or_double_what_is_under_way() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2", "--commit-wait-ms", "100"]);
    let load = Load::start(&Spec { producers: 8, ..SPEC }, daemon.address);
    for round in 0..6 {
        load.wait_for(30);
        std::thread::sleep(Duration::from_millis(round * 7 % 30));
        cluster.stop(StopMode::Immediate, PATIENCE).unwrap();
        cluster.start().unwrap();
    }
    assert_eq!(load.refusals(), [""; 0]);
    let sent = load.stop();
    daemon.wait_until_drained();
    load::check(&cluster, &sent);
}
