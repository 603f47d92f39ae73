//! Traps of a peer during and after an outage of PostgreSQL that this daemon avoids.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Daemon, PATIENCE, data_dir,
    proxy::{Deed, From, Point, Proxy, Rig, Since, Style},
    rows,
    stage::{Stage, payload_texts},
    wait_until,
};
use forebay_cluster::{StopMode, TestCluster};
use serde_json::json;
use std::time::Duration;

#[test]
fn trap_10_a_push_while_the_backlog_is_delivered_does_not_overtake_it() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut rig = Rig::start(&cluster, "backlog", &["--commit-wait-ms", "5"]);
    rig.push("p", 1);
    rig.wait_until_drained();
    rig.proxy.close();
    wait_until("the outage is known", || !rig.is_healthy());
    for _ in 0..25 {
        rig.push_buffered("p", 1000);
    }
    // There is more than one round, and each is slow: the first commits while thousands of messages remain.
    rig.proxy.set_style(Style { delay: Some(Duration::from_millis(20)), single_bytes: false });
    rig.proxy.open();
    let mut pushes_between = 0;
    let before = rig.proxy.transactions();
    while rig.daemon.figure("pending") > 0 {
        // Plain pushes, which the daemon would send to PostgreSQL at once if there were a path around the log; and
        // others.
        rig.push("p", 1);
        rig.push_buffered("p", 1);
        pushes_between += u64::from(rig.proxy.transactions() > before);
        if rig.proxy.transactions() > before + 2 {
            rig.proxy.set_style(Style::default());
        }
    }
    assert!(pushes_between > 0, "some were pushed between two rounds of the backlog");
    assert!(rig.check(&cluster) > 25_000);
}

#[test]
fn trap_17_the_figures_are_those_of_the_log_and_the_tables_also_after_kill_9() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let proxy = Proxy::start(&cluster);
    let start = || Daemon::start(dir.path(), &proxy.url(), &["--cores", "1", "--commit-wait-ms", "50"]);
    let push = |daemon: &Daemon, numbers: std::ops::Range<u64>| {
        let items: Vec<_> = numbers.map(|n| json!({"queue": "figures", "payload": n})).collect();
        assert_eq!(daemon.connect().push(&json!({"items": items})).unwrap().status, 201);
    };
    let daemon = start();
    daemon.wait_until_drained();
    let rule = "ALTER TABLE forebay.messages ADD CONSTRAINT odd CHECK (payload NOT IN ('3', '5', '7'))";
    cluster.psql(rule).unwrap();
    push(&daemon, 0..10);
    daemon.wait_until_drained();
    assert_eq!(daemon.figure("failed"), 3);
    let drained = dir.path().join("wal/drained");
    let remembers = || std::fs::read_to_string(&drained).is_ok_and(|text| text.contains("\"ordinal\":10}"));
    wait_until("the data directory remembers how far that is", remembers);
    proxy.close();
    for n in 1..50 {
        push(&daemon, n * 10..n * 10 + 10);
    }
    assert_eq!(daemon.figure("pending"), 490);
    daemon.kill9();
    // Messages accepted by an earlier process count as well, but not those it had delivered before it became idle.
    let daemon = start();
    assert_eq!(daemon.figure("pending"), 490);
    proxy.set_style(Style { delay: Some(Duration::from_millis(1)), single_bytes: false });
    proxy.open();
    let mut last = 490;
    wait_until("it is drained", || {
        let buffers = daemon.buffers();
        let pending = buffers["pending"].as_u64().unwrap();
        assert!(pending <= last, "{pending} after {last}");
        last = pending;
        pending == 0
    });
    proxy.set_style(Style::default());
    daemon.wait_until_drained();
    assert_eq!((daemon.figure("failed"), daemon.figure("pendingBytes")), (3, 0));
    assert_eq!(rows(&cluster, "SELECT count(*) FROM forebay.messages"), [["497"]]);
    // Dead letters that an operator deleted are no longer counted, even if nothing else happens.
    cluster.psql("DELETE FROM forebay.dead_letters").unwrap();
    wait_until("they are counted anew", || daemon.figure("failed") == 0);
}

#[test]
fn trap_18_in_an_outage_every_core_takes_pushes() {
    let stage = Stage::start(&[]);
    let mut clients = [0, 1].map(|lane| stage.daemon.connect_to_lane(lane));
    stage.daemon.wait_until_drained();
    stage.cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    for n in 0..100 {
        let client = &mut clients[n % 2];
        let mut body = json!({"items": [{"queue": "cores", "payload": n}]});
        if n % 4 < 2 {
            body["qos0"] = json!(true);
        }
        let response = client.push(&body).unwrap();
        assert_eq!((response.status, response.header("Forebay-Durability")), (201, Some("disk")), "push {n}");
    }
    assert_eq!(stage.daemon.figure("pending"), 100);
    stage.cluster.start().unwrap();
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(stage.payload_texts("cores", 100), expected);
}

#[test]
fn trap_20_a_push_whose_connection_to_postgresql_is_lost_is_answered_and_does_not_hang() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    // The replies do not wait for this limit, because PostgreSQL is known to be away.
    let mut rig = Rig::start(&cluster, "hang", &["--commit-wait-ms", "3600000"]);
    rig.push("p", 1);
    rig.wait_until_drained();
    for from in [From::Client, From::Server] {
        rig.proxy.arm_one(from, Point::Commit, Since::Transaction, Deed::Hold);
        let body = json!({"items": [{"queue": "others", "payload": 1}]});
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| rig.daemon.connect().push(&body).unwrap());
            rig.proxy.wait_until_holding();
            rig.proxy.close();
            let response = waiting.join().unwrap();
            assert_eq!((response.status, response.json()[0]["status"].as_str()), (201, Some("buffered")));
        });
        rig.proxy.release();
        for _ in 0..10 {
            assert_eq!(rig.push("p", 1)[0]["status"], "buffered");
        }
        rig.proxy.open();
        rig.wait_until_drained();
    }
    assert_eq!(payload_texts(&rig.daemon, &cluster, "others", 2), ["1", "1"]);
}

#[test]
fn trap_25_a_partition_that_an_outage_brought_is_seen_like_any_other() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut rig = Rig::start(&cluster, "brought", &[]);
    rig.wait_until_drained();
    rig.proxy.close();
    wait_until("the outage is known", || !rig.is_healthy());
    rig.push_buffered("fresh", 3);
    rig.proxy.open();
    rig.wait_until_drained();
    let sql = "SELECT partition, max(seq) FROM forebay.message_log WHERE queue = 'brought' GROUP BY 1";
    assert_eq!(rows(&cluster, sql), [["fresh", "3"]]);
    rig.push("fresh", 1);
    rig.check(&cluster);
}
