//! PostgreSQL away for long, repeatedly, or silent; and two daemons that are killed in turn.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Daemon, PATIENCE, data_dir,
    load::{self, Load, Spec},
    proxy::Proxy,
    random::Random,
    rows, test_seed, wait_until,
};
use forebay_cluster::{StopMode, TestCluster};
use std::time::Duration;

const SPEC: Spec = Spec { queue: "load", label: "s", producers: 4, partitions: 2, fill_bytes: 300 };

/// The number of messages in the long outage, and the number in each request.
const AWAY_MESSAGES: u64 = 100_000;
const AWAY_MESSAGES_AT_ONCE: u64 = 1000;

/// The maximum growth of the daemon's memory during such an outage and the drain after it, in KiB. The messages have
/// 100 MiB.
const GROWTH_AWAY_KIB: u64 = 24 << 10;
const GROWTH_DRAINING_KIB: u64 = 96 << 10;

#[test]
fn case_53_away_for_hours_the_backlog_is_on_the_disk_and_not_in_memory_and_arrives_in_order() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    let dir = data_dir();
    let args = ["--cores", "2", "--wal-max-bytes", "1GiB", "--wal-segment-bytes", "8MiB"];
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    let mut client = daemon.connect();
    let mut push = |first: u64| {
        let line = |n: u64| format!("{{\"n\":{n},\"fill\":\"{}\"}}\n", "f".repeat(1000));
        let body: String = (first..first + AWAY_MESSAGES_AT_ONCE).map(line).collect();
        assert_eq!(client.post_ndjson("/push/away", body.as_bytes()).unwrap().status, 201);
    };
    let requests = (0..AWAY_MESSAGES).step_by(AWAY_MESSAGES_AT_ONCE as usize);
    let mut before = 0;
    for (request, first) in requests.enumerate() {
        if request == 10 {
            // By then the daemon has allocated what it needs to accept pushes.
            before = daemon.peak_memory_bytes() >> 10;
        }
        push(first);
    }
    let away = daemon.peak_memory_bytes() >> 10;
    assert_eq!(daemon.figure("pending"), AWAY_MESSAGES);
    assert!(daemon.figure("pendingBytes") > AWAY_MESSAGES * 1000);
    cluster.start().unwrap();
    daemon.wait_until_drained();
    let drained = daemon.peak_memory_bytes() >> 10;
    println!("{before} KiB before, {away} KiB away, {drained} KiB drained");
    let sql = "SELECT count(*), bool_and((payload->>'n')::bigint = seq - 1), max(seq) FROM forebay.message_log";
    let all = AWAY_MESSAGES.to_string();
    assert_eq!(rows(&cluster, sql), [[all.as_str(), "t", all.as_str()]]);
    assert!(away.saturating_sub(before) < GROWTH_AWAY_KIB, "away it grew by {} KiB", away.saturating_sub(before));
    assert!(
        drained.saturating_sub(before) < GROWTH_DRAINING_KIB,
        "draining it grew by {} KiB",
        drained.saturating_sub(before)
    );
    assert_eq!((daemon.figure("failed"), daemon.figure("lostRecords")), (0, 0));
}

#[test]
fn case_53_a_way_to_the_server_that_flaps_at_any_moment_loses_and_doubles_nothing() {
    let seed = test_seed();
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let proxy = Proxy::start(&cluster);
    let daemon = Daemon::start(dir.path(), &proxy.url(), &["--cores", "2"]);
    let load = Load::start(&SPEC, daemon.address);
    let mut random = Random::new(seed);
    for flap in 0..40 {
        if flap % 4 == 0 {
            let before = proxy.transactions();
            wait_until("in between it drains", || proxy.transactions() > before);
        }
        std::thread::sleep(Duration::from_millis(random.below(60)));
        proxy.close();
        std::thread::sleep(Duration::from_millis(random.below(30)));
        proxy.open();
    }
    load.wait_for(20);
    assert_eq!(load.refusals(), [""; 0]);
    let sent = load.stop();
    daemon.wait_until_drained();
    load::check(&cluster, &sent);
    for figure in ["failed", "duplicateMessages", "pending", "pendingBytes"] {
        assert_eq!(daemon.figure(figure), 0, "{figure}");
    }
}

#[test]
fn case_57_a_server_that_takes_connections_and_says_nothing_is_given_up_and_tried_again() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let proxy = Proxy::start(&cluster);
    // The replies do not wait for this limit, because PostgreSQL is known to be away.
    let args = ["--cores", "1", "--commit-wait-ms", "3600000"];
    let daemon = Daemon::start(dir.path(), &format!("{}&connect_timeout=1", proxy.url()), &args);
    let push = |n: u64| {
        let response = daemon.connect().post("/push/silent?wait=postgres", n.to_string().as_bytes()).unwrap();
        assert_eq!(response.status, 201);
        response.json()[0]["status"].as_str().map(str::to_owned)
    };
    daemon.wait_until_drained();
    assert_eq!(push(0).as_deref(), Some("queued"));
    proxy.fall_silent(&[]);
    proxy.reset_all();
    proxy.wait_for_silent_connection();
    (1..20).for_each(|n| assert_eq!(push(n).as_deref(), Some("buffered"), "push {n}"));
    assert_eq!(daemon.connect().get("/ready").unwrap().status, 200);
    // The connection that waits gets no reply; the next one does.
    proxy.open();
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(common::stage::payload_texts(&daemon, &cluster, "silent", 20), expected);
    assert_eq!(push(20).as_deref(), Some("queued"));
}

#[test]
fn case_63_two_daemons_with_the_same_transaction_ids_killed_in_turn_deliver_each_once_and_in_order() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dirs = [data_dir(), data_dir()];
    let start = |index: usize| Daemon::start(dirs[index].path(), &cluster.url(), &["--cores", "1"]);
    let mut daemons = [Some(start(0)), Some(start(1))];
    // Each message is pushed to both daemons with one transaction id. The first to arrive is kept.
    let loads = [0, 1].map(|index| Load::start(&SPEC, daemons[index].as_ref().unwrap().address));
    for kill in 0..8 {
        loads.iter().for_each(|load| load.wait_for(60));
        let index = kill % 2;
        daemons[index].take().unwrap().kill9();
        // The locks of the killed daemon do not block the other one.
        loads[1 - index].wait_for(30);
        let daemon = start(index);
        loads[index].move_to(daemon.address);
        daemons[index] = Some(daemon);
    }
    loads.iter().for_each(|load| assert_eq!(load.refusals(), [""; 0]));
    let [one, other] = loads.map(Load::stop);
    let daemons = daemons.map(Option::unwrap);
    daemons.iter().for_each(Daemon::wait_until_drained);
    assert!(load::check(&cluster, &load::merged(one, other)) >= 400);
    assert!(daemons.iter().map(|daemon| daemon.figure("duplicateMessages")).sum::<u64>() > 0);
}
