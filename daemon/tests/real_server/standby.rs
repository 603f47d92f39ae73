//! A read-only standby that is promoted to primary.

use crate::{
    common::{Daemon, data_dir, wait_until},
    numbers, numbers_sql, push,
    replica::Standby,
};
use forebay_cluster::{StopMode, TestCluster, TestOptions};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const ARGS: [&str; 4] = ["--cores", "1", "--commit-wait-ms", "200"];

fn standby_numbers(standby: &Standby) -> Vec<u64> {
    standby.psql(&numbers_sql("q")).lines().map(|line| line.parse().unwrap()).collect()
}

/// One URL with the hosts of two.
fn both(first: &str, second: &str) -> String {
    let (_, second_host) = second.split_once("host=").unwrap();
    format!("{first},{second_host}")
}

#[test]
fn case_56_of_two_hosts_the_one_that_may_be_written_to_is_taken_and_a_standby_once_it_is_promoted() {
    // With this setting, every commit is also on the standby.
    let settings = vec![("synchronous_standby_names".to_owned(), "*".to_owned())];
    let primary = TestCluster::start_with(TestOptions { fsync: false, settings, ..TestOptions::default() }).unwrap();
    let standby = Standby::of(&primary);
    let dir = data_dir();
    // The standby is first in the URL and no session attribute is required: the drain itself has to find the server
    // that it can write to.
    let daemon = Daemon::start(dir.path(), &both(&standby.url(), &primary.url()), &ARGS);
    daemon.wait_until_drained();
    let (pushed, ends) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = daemon.connect();
            while !ends.load(Ordering::SeqCst) {
                push(&mut client, "q", pushed.load(Ordering::SeqCst), 100);
                pushed.fetch_add(1, Ordering::SeqCst);
            }
        });
        let more = |count: u64| {
            let before = pushed.load(Ordering::SeqCst);
            // A producer that fails panics and so ends the test itself.
            wait_until("pushes go on", || pushed.load(Ordering::SeqCst) >= before + count);
        };
        more(50);
        assert!(!numbers(&primary, "q").is_empty());
        primary.stop(StopMode::Immediate, STOP_TIMEOUT).unwrap();
        wait_until("it is told", || daemon.log().contains("code=\"postgres_away\""));
        more(50);
        assert_eq!(daemon.buffers()["dbHealthy"], false, "a standby is no place for the drain");
        standby.promote();
        daemon.wait_until_draining();
        more(10);
        ends.store(true, Ordering::SeqCst);
    });
    daemon.wait_until_drained();
    let found = standby_numbers(&standby);
    assert!(found.iter().copied().eq(0..pushed.load(Ordering::SeqCst)), "each once and in order: {found:?}");
    assert_eq!((daemon.figure("failed"), daemon.figure("duplicateMessages")), (0, 0));
    assert_eq!(push(&mut daemon.connect(), "q", 0, 0), "queued");
    assert!(!daemon.log().contains("postgres_refuses"), "{}", daemon.log());
}

#[test]
fn case_56_before_a_standby_alone_pushes_are_kept_until_it_is_promoted() {
    let primary = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &primary.url(), &ARGS);
    (0..20).for_each(|n| drop(push(&mut daemon.connect(), "q", n, 100)));
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
    let standby = Standby::of(&primary);
    wait_until("it follows", || standby_numbers(&standby).len() == 20);
    primary.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
    let daemon = Daemon::start(dir.path(), &standby.url(), &ARGS);
    wait_until("it is told", || daemon.log().contains("code=\"postgres_away\""));
    assert!(daemon.log().contains("25006"), "{}", daemon.log());
    let mut client = daemon.connect();
    (20..60).for_each(|n| assert_eq!(push(&mut client, "q", n, 100), "buffered"));
    assert_eq!(daemon.connect().get("/ready").unwrap().status, 200);
    assert_eq!((daemon.figure("pending"), daemon.figure("failed")), (40, 0));
    assert_eq!(standby_numbers(&standby).len(), 20);
    standby.promote();
    daemon.wait_until_drained();
    assert_eq!(push(&mut client, "q", 60, 100), "queued");
    assert!(standby_numbers(&standby).into_iter().eq(0..61), "each once and in order");
    assert_eq!(daemon.figure("failed"), 0);
}
