//! Several drain connections. Each partition is in order on one of them, and each message is delivered exactly once.
//! Their number changes only where that causes no duplicates.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Daemon, PATIENCE, data_dir, forebay,
    load::{self, Load, Spec},
    rows, wait_until,
};
use forebay_cluster::{StopMode, TestCluster};
use serde_json::json;

const SPEC: Spec = Spec { queue: "load", label: "a", producers: 6, partitions: 23, fill_bytes: 600 };

fn args(connections: &'static str) -> [&'static str; 6] {
    ["--cores", "2", "--wal-segment-bytes", "1MiB", "--drain-connections", connections]
}

/// The drainer and the position of each checkpoint.
fn checkpoints(cluster: &TestCluster) -> Vec<(String, String)> {
    let found = rows(cluster, "SELECT drainer, ordinals FROM forebay.drain_checkpoints ORDER BY drainer");
    found.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
}

fn are_level(cluster: &TestCluster, connections: usize) -> bool {
    let found = checkpoints(cluster);
    found.len() == connections && found.iter().all(|(_, ordinals)| *ordinals == found[0].1)
}

/// Pushes `n` to each of a hundred partitions, without transaction ids, which could hide a second delivery.
fn push_round(daemon: &Daemon, n: u32) {
    let items: Vec<_> =
        (0..100).map(|partition| json!({"queue": "q", "partition": partition.to_string(), "payload": n})).collect();
    assert_eq!(daemon.connect().push(&json!({ "items": items })).unwrap().status, 201);
}

fn check_rounds(cluster: &TestCluster, rounds: u32) {
    let sql = "SELECT DISTINCT string_agg(payload::text, ' ' ORDER BY seq) FROM forebay.message_log WHERE queue = 'q' \
               GROUP BY partition";
    let each: Vec<String> = (0..rounds).map(|n| n.to_string()).collect();
    assert_eq!(rows(cluster, sql), [[each.join(" ")]]);
}

#[test]
fn case_46_and_54_four_connections_through_kill_9_of_the_daemon_and_of_postgresql() {
    let cluster = TestCluster::start().unwrap();
    let dir = data_dir();
    let mut daemon = Daemon::start(dir.path(), &cluster.url(), &args("4"));
    let load = Load::start(&SPEC, daemon.address);
    for turn in 0..4 {
        load.wait_for(300);
        if turn % 2 == 0 {
            daemon.kill9();
            daemon = Daemon::start(dir.path(), &cluster.url(), &args("4"));
            load.move_to(daemon.address);
        } else {
            cluster.kill9().unwrap();
            load.wait_for(100);
            cluster.start().unwrap();
            daemon.wait_until_draining();
        }
    }
    assert!(load.count_of("queued") > 0);
    let sent = load.stop();
    daemon.wait_until_drained();
    assert!(load::check(&cluster, &sent) >= 1200);
    assert_eq!(checkpoints(&cluster).len(), 4);
    let busy = rows(&cluster, "SELECT count(*) FROM forebay.drain_checkpoints WHERE rounds > 1");
    assert_eq!(busy, [["4"]], "each one had its share");
    assert_eq!((daemon.figure("lostRecords"), daemon.figure("failed")), (0, 0));
}

#[test]
fn a_plain_push_is_answered_by_whichever_connection_its_partition_has() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    // With this wait, every reply comes with its commit.
    let daemon =
        Daemon::start(dir.path(), &cluster.url(), &[&args("4")[..], &["--commit-wait-ms", "3600000"]].concat());
    wait_until("PostgreSQL is there", || daemon.buffers()["dbHealthy"] == true);
    let mut client = daemon.connect();
    for partition in 0..20 {
        let item = json!({"queue": "q", "partition": partition.to_string(), "payload": 1, "transactionId": "t"});
        for status in ["queued", "duplicate"] {
            let answer = client.push(&json!({"items": [item]})).unwrap().json();
            assert_eq!(answer[0]["status"], status, "{answer}");
        }
    }
}

#[test]
fn what_is_others_is_passed_so_segments_go_and_nothing_is_pending() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args("3"));
    let mut client = daemon.connect();
    for _ in 0..100 {
        let item = json!({"queue": "q", "partition": "one", "payload": "x".repeat(100_000), "bufferMs": 1});
        let body = json!({"items": [item], "qos0": true});
        assert_eq!(client.push(&body).unwrap().status, 201);
    }
    daemon.wait_until_drained();
    // Two of the drainers have no partitions, and are as far as the third.
    wait_until("all are equally far", || are_level(&cluster, 3));
    let segment = |place: &serde_json::Value| place.as_str().unwrap().split(" offset").next().unwrap().to_owned();
    let buffers = daemon.buffers();
    for lane in buffers["lanes"].as_array().unwrap() {
        assert_eq!(segment(&lane["drained"]), segment(&lane["durable"]), "the ones before are let go of: {buffers}");
    }
    assert_eq!(daemon.figure("pendingBytes"), 0);
}

#[test]
fn their_number_changes_where_all_are_equally_far() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    for (n, connections) in ["1", "4", "2", "3", "1"].into_iter().enumerate() {
        let daemon = Daemon::start(dir.path(), &cluster.url(), &args(connections));
        push_round(&daemon, n as u32);
        assert!(daemon.terminate().success());
        assert!(are_level(&cluster, connections.parse().unwrap()), "{:?}", checkpoints(&cluster));
    }
    check_rounds(&cluster, 5);
}

#[test]
fn their_number_stays_where_they_are_not_equally_far_and_nothing_comes_twice() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args("3"));
    push_round(&daemon, 0);
    daemon.wait_until_drained();
    wait_until("all are equally far", || are_level(&cluster, 3));
    // One drainer is blocked by the lock on its checkpoint's row, while the others continue.
    let blocker = cluster.url();
    let held = std::thread::spawn(move || {
        let sql = "BEGIN; SELECT FROM forebay.drain_checkpoints WHERE drainer = 1 FOR UPDATE; SELECT pg_sleep(60)";
        std::process::Command::new("psql").args(["-qXc", sql, &blocker]).stderr(std::process::Stdio::null()).status()
    });
    let blocked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND wait_event = 'PgSleep'";
    wait_until("the row is locked", || rows(&cluster, blocked) == [["1"]]);
    push_round(&daemon, 1);
    wait_until("the others went on", || {
        let found = checkpoints(&cluster);
        found[0].1 == found[2].1 && found[0].1 != found[1].1
    });
    daemon.kill9();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()";
    rows(&cluster, end);
    held.join().unwrap().unwrap();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args("1"));
    daemon.wait_until_drained();
    assert!(daemon.log().contains("the number of drain connections stays what it was"), "{}", daemon.log());
    push_round(&daemon, 2);
    assert!(daemon.terminate().success());
    assert!(are_level(&cluster, 3));
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args("1"));
    push_round(&daemon, 3);
    assert!(daemon.terminate().success());
    assert!(are_level(&cluster, 1));
    check_rounds(&cluster, 4);
}

#[test]
fn a_checkpoint_of_some_that_is_gone_pauses_delivery_until_a_person_decides() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args("3"));
    push_round(&daemon, 0);
    assert!(daemon.terminate().success());
    rows(&cluster, "DELETE FROM forebay.drain_checkpoints WHERE drainer = 1 RETURNING 1");
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args("3"));
    daemon.wait_until_paused("checkpoint_mismatch", &["drainer 1", "checkpoint set --to mismatch --yes"]);
    push_round(&daemon, 1);
    let set = ["checkpoint", "set", "--to", "mismatch", "--yes", "--data-dir", dir.path().to_str().unwrap()];
    assert_eq!(forebay(&set).status.code(), Some(0));
    daemon.wait_until_drained();
    check_rounds(&cluster, 2);
    wait_until("all are equally far", || are_level(&cluster, 3));
}

#[test]
fn case_53_away_at_start_the_first_connection_calls_the_others_once_it_is_there() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args("4"));
    for n in 0..20 {
        push_round(&daemon, n);
    }
    cluster.start().unwrap();
    daemon.wait_until_drained();
    check_rounds(&cluster, 20);
    assert_eq!(checkpoints(&cluster).len(), 4);
}

#[test]
fn an_outage_and_its_end_are_told_by_each_connection_with_its_number() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args("3"));
    daemon.wait_until_drained();
    wait_until("all are there", || checkpoints(&cluster).len() == 3);
    let told = |words: &str, drainer: u32| {
        let field = format!("drainer={drainer} ");
        daemon.log().lines().filter(|line| line.contains(words) && line.contains(&field)).count()
    };
    cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    wait_until("each says that it is held up", || (0..3).all(|drainer| told("code=\"postgres_away\"", drainer) > 0));
    cluster.start().unwrap();
    // The first drainer also logged its connection at startup.
    wait_until("each says that it is connected", || {
        (0..3).all(|drainer| told("connected to PostgreSQL", drainer) == if drainer == 0 { 2 } else { 1 })
    });
}
