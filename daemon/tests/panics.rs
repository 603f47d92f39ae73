//! Fault 52: a panic in any thread ends the process with 6, never a part of it. Pushes are refused at once, what is durable is
//! drained, and nothing that was answered is lost.
//!
//! The panics are planted: builds with debug assertions panic where the file says that `FOREBAY_PANIC_FILE` names.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, Daemon, data_dir, rows};
use forebay_cluster::TestCluster;
use rustix::process::Signal;
use std::{
    io,
    time::{Duration, Instant},
};

/// Exit code of a process in which a thread panicked.
const PANICKED: i32 = 6;

/// Plants a panic at `place` under load and has `provoke` lead the daemon there.
fn plant(place: &str, provoke: impl Fn(&Daemon)) {
    let (dir, outside) = (data_dir(), data_dir());
    let file = outside.path().join("panic");
    let cluster = TestCluster::start_without_fsync().unwrap();
    let variable = format!("FOREBAY_PANIC_FILE={}", file.display());
    let start = |launcher: &[&str]| Daemon::start_by(launcher, dir.path(), &cluster.url(), &["--cores", "2"]);
    let mut daemon = start(&["env", &variable]);
    daemon.wait_until_drained();

    let mut clients = [daemon.connect_to_lane(0), daemon.connect_to_lane(1)];
    let (mut answered, mut sent) = (Vec::new(), 0_u64);
    let mut push = |client: &mut Client| {
        sent += 1;
        (sent, client.post("/push/panics", format!("{sent}").as_bytes()))
    };
    for _ in 0..100 {
        for client in &mut clients {
            let (number, response) = push(client);
            assert_eq!(response.unwrap().status, 201);
            answered.push(number);
        }
    }
    std::fs::write(&file, place).unwrap();
    provoke(&daemon);
    let give_up = Instant::now() + Duration::from_secs(20);
    let mut are_refused = [false; 2];
    while are_refused != [true; 2] {
        assert!(Instant::now() < give_up, "pushes are refused: {are_refused:?}\n{}", daemon.log());
        for (client, is_refused) in clients.iter_mut().zip(&mut are_refused) {
            let (number, response) = push(client);
            match response {
                Ok(response) if response.status == 201 => {
                    assert!(!*is_refused, "a push is taken after one was refused");
                    answered.push(number);
                }
                Ok(response) => {
                    assert_eq!((response.status, response.code().as_str()), (503, "shutting_down"));
                    *is_refused = true;
                }
                // Its core is gone, and with it the connection.
                Err(error) if is_cut(&error) => *is_refused = true,
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert_eq!(daemon.wait().code(), Some(PANICKED), "{}", daemon.log());
    let log = daemon.log();
    assert!(log.contains("thread_panicked") && log.contains("panic=\"planted\""), "{log}");

    std::fs::remove_file(&file).unwrap();
    let next = start(&[]);
    next.wait_until_drained();
    let table = rows(&cluster, "SELECT payload::text FROM forebay.message_log WHERE queue = 'panics'");
    let mut delivered: Vec<u64> = table.iter().map(|row| row[0].parse().unwrap()).collect();
    delivered.sort_unstable();
    // Of a push whose connection was cut nobody knows whether it was kept.
    let once = delivered.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(once && delivered.iter().all(|number| (1..=sent).contains(number)), "{delivered:?}");
    let lost: Vec<_> = answered.iter().filter(|number| !delivered.contains(number)).collect();
    assert!(lost.is_empty(), "answered and lost: {lost:?}");
    assert!(next.terminate().success());
}

fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

#[test]
fn case_52_a_panic_in_a_connection_s_task_ends_the_process() {
    plant("connection", |_| {});
}

#[test]
fn case_52_a_panic_in_a_core_ends_the_process() {
    plant("core", |_| {});
}

#[test]
fn case_52_a_panic_in_the_drain_ends_the_process() {
    plant("drain", |_| {});
}

#[test]
fn case_52_a_panic_in_the_thread_that_asks_postgres_for_the_cores_ends_the_process() {
    plant("postgres", |daemon| {
        // Whether it is still answered does not matter.
        drop(daemon.connect().get("/api/v1/dead-letters"));
    });
}

#[test]
fn case_52_a_panic_in_the_thread_of_the_queue_ends_the_process() {
    plant("queue", |daemon| {
        // Whether it is still answered does not matter.
        drop(daemon.connect().get("/api/v1/pop/queue/q"));
    });
}

#[test]
fn case_52_a_panic_in_the_watchdog_ends_the_process() {
    plant("watchdog", |_| {});
}

#[test]
fn case_52_a_panic_in_the_thread_of_signals_ends_the_process() {
    plant("signals", |daemon| daemon.signal(Signal::HUP));
}
