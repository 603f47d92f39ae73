//! A directory whose daemon is killed while it starts is not taken for a copy.

use super::{SMALL, check_once, drain, is_drained, is_refused, push, start};
use crate::common::{
    Daemon, data_dir,
    proxy::{Deed, From, Outcome, Point, Proxy, Since},
    random::Random,
    test_seed, wait_until,
};
use forebay_cluster::TestCluster;
use std::{
    process::{Command, Stdio},
    time::Duration,
};

/// Of the sides of a connection: how many messages of a start the test has to meet at least, or it has not found the start.
const START_MESSAGES_MIN: u64 = 10;

#[test]
fn killed_between_any_two_messages_of_its_start_a_directory_goes_on_as_itself() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let proxy = Proxy::start(&cluster);
    let parent = data_dir();
    let dir = parent.path().join("data");
    drain(&dir, &cluster);
    let mut answered = Vec::new();
    for from in [From::Client, From::Server] {
        for message in 0.. {
            proxy.arm_one(from, Point::Message(message), Since::Armed, Deed::Hold);
            let daemon = Daemon::start(&dir, &proxy.url(), &SMALL);
            answered.extend(push(&daemon, &format!("{from:?}-{message}"), 1, 1));
            let has_struck = || proxy.outcome() == Outcome::Struck;
            wait_until("it is held, or delivers all", || has_struck() || is_drained(&daemon));
            let has_struck = has_struck();
            assert!(!is_refused(&daemon), "{}", daemon.log());
            daemon.kill9();
            // What was on its way arrives, perhaps while the next one starts.
            proxy.release();
            if !has_struck {
                assert!(message > START_MESSAGES_MIN, "{from:?}: {message}");
                break;
            }
        }
    }
    drain(&dir, &cluster);
    check_once(&cluster, answered);
}

#[test]
fn killed_at_any_moment_before_it_listens_a_directory_goes_on_as_itself() {
    const KILLS: u64 = 40;
    const START_US: u64 = 60_000;
    let mut random = Random::new(test_seed());
    let cluster = TestCluster::start_without_fsync().unwrap();
    let parent = data_dir();
    let dir = parent.path().join("data");
    let mut answered = Vec::new();
    for kill in 0..KILLS {
        let daemon = start(&dir, &cluster);
        answered.extend(push(&daemon, &format!("{kill}"), 1, 1));
        daemon.kill9();
        let serve =
            ["serve", "--listen", "127.0.0.1:0", "--data-dir", dir.to_str().unwrap(), "--postgres", &cluster.url()];
        let mut child = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(serve)
            .args(SMALL)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(random.below(START_US)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let daemon = start(&dir, &cluster);
    daemon.wait_until_drained();
    assert!(!is_refused(&daemon), "{}", daemon.log());
    check_once(&cluster, answered);
}
