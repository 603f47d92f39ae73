//! Two copies that run at the same time.

use super::{copy, dirs, drain, fork, is_drained, is_refused, keys, push, start};
use crate::{
    STOP_TIMEOUT,
    common::{Client, Daemon, data_dir, random::Random, test_seed, wait_until},
};
use forebay_cluster::{StopMode, TestCluster};
use std::{net::SocketAddr, path::Path, sync::Barrier, time::Duration};

/// Live trials in each run of the test; `FOREBAY_COPY_TRIALS` asks for another number.
const LIVE_TRIALS: u64 = 4;

/// Pushes that each side sends at most in a trial.
const LIVE_PUSHES: u64 = 40;

/// Pushes with `?wait=postgres`, with pauses, all of one length, until all are sent or the daemon is gone. Returns what was
/// answered.
fn push_live(address: SocketAddr, name: &str, mut random: Random) -> Vec<String> {
    let mut answered = Vec::new();
    let (count, pause_us) = (1 + random.below(LIVE_PUSHES), random.below(30_000));
    let Ok(mut client) = Client::connect(address) else { return answered };
    for n in 0..count {
        let key = format!("{name}-{n:02}");
        match client.post("/push/q?wait=postgres", format!("{{\"key\":\"{key}\"}}").as_bytes()) {
            Ok(response) if response.status == 201 => answered.push(key),
            Ok(_) => {}
            Err(_) => break,
        }
        std::thread::sleep(Duration::from_micros(random.below(pause_us + 1)));
    }
    answered
}

/// Starts the daemon of `dir` alone until it has delivered all. If it is refused, its log is forked first, while it runs or when it
/// is stopped. Returns whether it was.
fn settle(dir: &Path, cluster: &TestCluster, is_stopped: bool) -> bool {
    let daemon = start(dir, cluster);
    let is_drained = || is_drained(&daemon);
    // The log of before tells whether it was refused already.
    wait_until("it delivers all, or is refused", || is_refused(&daemon) || is_drained());
    let is_refused = is_refused(&daemon);
    if is_refused && is_stopped {
        assert!(daemon.terminate().success());
        fork(dir, cluster);
        drain(dir, cluster);
    } else {
        if is_refused {
            fork(dir, cluster);
        }
        wait_until("all is delivered", is_drained);
        assert!(daemon.terminate().success());
    }
    is_refused
}

#[test]
fn two_copies_that_run_at_the_same_time_lose_nothing_that_was_answered_and_one_of_them_is_refused() {
    let trials = std::env::var("FOREBAY_COPY_TRIALS").ok().map_or(LIVE_TRIALS, |trials| trials.parse().unwrap());
    let seed = test_seed();
    for trial in 0..trials {
        let mut random = Random::new(seed.wrapping_add(trial));
        let cluster = TestCluster::start_without_fsync().unwrap();
        let parent = data_dir();
        let (a, b) = dirs(&parent);
        let first = start(&a, &cluster);
        let mut answered = push(&first, "common", 1 + random.below(5) as usize, 1);
        if random.below(2) == 0 {
            first.wait_until_drained();
        }
        // Of a daemon that was stopped, killed, or still runs.
        let first = match random.below(3) {
            0 => {
                assert!(first.terminate().success());
                None
            }
            1 => {
                first.kill9();
                None
            }
            _ => Some(first),
        };
        copy(&a, &b);
        let is_copy_first = first.is_none() && random.below(2) == 0;
        let early = is_copy_first.then(|| start(&b, &cluster));
        std::thread::sleep(Duration::from_millis(random.below(200)));
        let first = first.unwrap_or_else(|| start(&a, &cluster));
        let second = early.unwrap_or_else(|| start(&b, &cluster));
        let barrier = Barrier::new(2);
        let of_both = std::thread::scope(|scope| {
            let side = |daemon: &Daemon, name: &'static str, seed: u64| {
                let (barrier, address) = (&barrier, daemon.address);
                scope.spawn(move || {
                    barrier.wait();
                    push_live(address, name, Random::new(seed))
                })
            };
            let sides = [side(&first, "a", random.next()), side(&second, "b", random.next())];
            if random.below(3) == 0 {
                std::thread::sleep(Duration::from_millis(random.below(300)));
                cluster.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
                cluster.start().unwrap();
            }
            sides.map(|side| side.join().unwrap())
        });
        answered.extend(of_both.into_iter().flatten());
        drop((first, second));
        let refused = [&a, &b].map(|dir| settle(dir, &cluster, random.below(2) == 0));
        println!("trial {trial}: refused {refused:?}, answered {}", answered.len());
        assert!(refused[0] != refused[1], "one of the two is refused: {refused:?}");
        let found = keys(&cluster);
        let mut unique = found.clone();
        unique.dedup();
        assert_eq!(found, unique, "nothing is there twice");
        let missing: Vec<_> = answered.iter().filter(|key| found.binary_search(key).is_err()).collect();
        assert!(missing.is_empty(), "answered and not there: {missing:?}");
    }
}
