//! A black hole in front of PostgreSQL: data is discarded, nothing comes back, and no connection is reset.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Daemon, data_dir,
    proxy::{Deed, From, Point, Rig, Since},
    rows, wait_until,
};
use forebay_cluster::TestCluster;
use std::time::{Duration, Instant};

/// The sides whose data the black hole discards.
const HOLES: [&[From]; 3] = [&[From::Client], &[From::Server], &[From::Client, From::Server]];

/// The point at which the hole opens: before the transaction, during its COPY, at its COMMIT, and at the reply to that.
const PLACES: [Option<(From, Point)>; 4] = [
    None,
    Some((From::Client, Point::Tag(b'c'))),
    Some((From::Client, Point::Commit)),
    Some((From::Server, Point::Commit)),
];

/// PostgreSQL's statement timeout. The daemon's own deadline for an operation is half as much again.
const SHORT: [&str; 4] = ["--postgres-timeout-ms", "1000", "--commit-wait-ms", "300"];

#[test]
fn case_57_a_black_hole_at_any_place_holds_up_no_answer_and_once_it_is_gone_all_goes_on() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    std::thread::scope(|scope| {
        for (hole, lost) in HOLES.into_iter().enumerate() {
            for (place, at) in PLACES.into_iter().enumerate() {
                let cluster = &cluster;
                scope.spawn(move || fall_into(cluster, &format!("hole{hole}at{place}"), lost, at));
            }
        }
    });
}

fn fall_into(cluster: &TestCluster, name: &str, lost: &[From], place: Option<(From, Point)>) {
    let mut rig = Rig::start(cluster, name, &SHORT);
    rig.push("p", 1);
    rig.wait_until_drained();
    if let Some((from, point)) = place {
        rig.proxy.arm_one(from, point, Since::Transaction, Deed::Hold);
        rig.push_buffered("p", 20);
        rig.proxy.wait_until_holding();
    }
    rig.proxy.fall_silent(lost);
    rig.proxy.release();
    for _ in 0..5 {
        assert_eq!(rig.push("p", 1)[0]["status"], "buffered", "{name}");
        rig.push_buffered("p", 10);
    }
    assert_eq!(rig.daemon.connect().get("/ready").unwrap().status, 200);
    wait_until("it is told", || !rig.is_healthy());
    wait_until("why is told", || rig.daemon.log().contains("postgres_away"));
    rig.push("p", 1);
    // New connections get no reply either, so the black hole persists.
    rig.proxy.wait_for_silent_connection();
    rig.push("p", 1);
    rig.proxy.give_up_lost();
    rig.proxy.open();
    rig.push_buffered("p", 3);
    rig.check(cluster);
}

#[test]
fn case_57_in_a_black_hole_only_the_first_plain_pushes_wait_for_a_commit_that_does_not_come() {
    const WAIT: Duration = Duration::from_millis(500);
    const PUSHES: u32 = 10;
    let cluster = TestCluster::start_without_fsync().unwrap();
    // The daemon's own deadline is long after the end of the test.
    let wait_ms = WAIT.as_millis().to_string();
    let mut rig = Rig::start(&cluster, "waits", &["--postgres-timeout-ms", "600000", "--commit-wait-ms", &wait_ms]);
    rig.push("p", 1);
    rig.wait_until_drained();
    rig.proxy.fall_silent(&[From::Client, From::Server]);
    assert_eq!(rig.push("p", 1)[0]["status"], "buffered");
    let started = Instant::now();
    for _ in 0..PUSHES {
        assert_eq!(rig.push("p", 1)[0]["status"], "buffered");
    }
    assert!(started.elapsed() < WAIT * PUSHES / 2, "not each of them waits: {:?}", started.elapsed());
    rig.proxy.reset_all();
    rig.proxy.open();
    rig.check(&cluster);
    assert_eq!(rig.push("p", 1)[0]["status"], "queued", "once it is there, it is waited for again");
}

#[test]
fn case_57_a_session_lost_in_the_midst_of_a_transaction_of_which_the_server_never_hears_does_not_keep_its_locks() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    std::thread::scope(|scope| {
        for (hole, lost) in HOLES.into_iter().enumerate() {
            for (index, (from, point)) in PLACES.into_iter().flatten().enumerate() {
                let cluster = &cluster;
                scope.spawn(move || {
                    let mut rig = Rig::start(cluster, &format!("locks{hole}at{index}"), &SHORT);
                    rig.push("p", 1);
                    rig.wait_until_drained();
                    rig.proxy.arm_one(from, point, Since::Transaction, Deed::Hold);
                    rig.push_buffered("p", 20);
                    rig.proxy.wait_until_holding();
                    rig.proxy.fall_silent(lost);
                    rig.proxy.release();
                    wait_until("it is told", || !rig.is_healthy());
                    rig.proxy.open();
                    rig.push_buffered("p", 3);
                    rig.check(cluster);
                });
            }
        }
    });
}

#[test]
fn a_backend_that_is_not_shown_or_may_not_be_ended_or_only_has_the_process_id_is_left_alone() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.psql("CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE forebay TO plain").unwrap();
    let dir = data_dir();
    let url = cluster.url().replace("forebay@", "plain@");
    let args = ["--cores", "1", "--log", "info,forebay::postgres=debug"];
    let daemon = Daemon::start(dir.path(), &url, &args);
    daemon.wait_until_drained();
    std::thread::scope(|scope| {
        // The test ends this query below, and then psql fails.
        scope.spawn(|| cluster.psql("SELECT pg_sleep(600)").unwrap_err());
        let sleeper = "FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
        let sleepers = || rows(&cluster, &format!("SELECT pid {sleeper}")).len();
        wait_until("somebody else is there", || sleepers() == 1);
        let reconnect = |start: &str, grant: &str| {
            cluster
                .psql(&format!(
                    "{grant}; UPDATE forebay.drain_checkpoints \
                     SET (backend_pid, backend_start) = (SELECT pid, {start} {sleeper})"
                ))
                .unwrap();
            let before = daemon.log().matches("connected to PostgreSQL").count();
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'forebay'";
            cluster.psql(end).unwrap();
            wait_until("it is connected again", || daemon.log().matches("connected to PostgreSQL").count() > before);
            assert_eq!(daemon.connect().post("/push/left?wait=postgres", b"1").unwrap().status, 201);
            daemon.wait_until_drained();
            assert_eq!(sleepers(), 1, "{}", daemon.log());
        };
        reconnect("backend_start", "SELECT 1");
        assert!(daemon.log().contains("it is not shown whether"));
        reconnect("backend_start - interval '1 s'", "GRANT pg_read_all_stats TO plain");
        assert!(!daemon.log().contains("cannot be ended"));
        reconnect("backend_start", "SELECT 1");
        assert!(daemon.log().contains("cannot be ended"));
        cluster.psql(&format!("SELECT pg_terminate_backend(pid) {sleeper} AND pid <> pg_backend_pid()")).unwrap();
    });
}
